"""Who imports whom: the contracts of pyproject.toml."""

import pytest
from importlinter.cli import lint_imports


def test_layers_every_contract_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data flows one way: a module imports only what is to its left in the design."""
    # It would disable every logger that there is, and the tests after this one would hear nothing.
    monkeypatch.setattr("importlinter.cli.logging_config.dictConfig", lambda config: None)

    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0
