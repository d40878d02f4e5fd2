"""Who imports whom: the contracts of pyproject.toml."""

from graphlib import TopologicalSorter

import grimp
import pytest
from importlinter.cli import lint_imports


def test_layers_every_contract_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data flows one way: a module imports only what is to its left in the design."""
    # It would disable every logger that there is, and the tests after this one would hear nothing.
    monkeypatch.setattr("importlinter.cli.logging_config.dictConfig", lambda config: None)

    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


def test_no_module_imports_itself_by_way_of_others() -> None:
    """No circle, within a package neither; imports for the type checker alone do not count."""
    graph = grimp.build_graph("asgi_auth", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle
    assert len(imports) > 150
