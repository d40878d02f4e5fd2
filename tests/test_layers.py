"""Who imports whom: the contracts of pyproject.toml."""

from importlinter.cli import lint_imports


def test_layers_every_contract_is_kept() -> None:
    """Data flows one way: a module imports only what is to its left in the design."""
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0
