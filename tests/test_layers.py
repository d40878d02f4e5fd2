"""Imports between modules: the contracts in pyproject.toml."""

from graphlib import TopologicalSorter

import grimp
import pytest
from importlinter.cli import lint_imports


def test_layers_every_contract_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data flows in one direction: a module imports only modules to its left in the design."""
    # It would disable all existing loggers, and later tests could not read the log.
    monkeypatch.setattr("importlinter.cli.logging_config.dictConfig", lambda config: None)

    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


def test_no_import_cycle_exists() -> None:
    """No import cycle exists, even within a package; imports for type checkers are ignored."""
    graph = grimp.build_graph("asgi_auth", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the cycle
    assert len(imports) > 150
