"""The stores of the package. Each is imported at its first use (PEP 562).

Another SQL database needs RETURNING and ON CONFLICT. It consists of a store with an ``Executor``, a function in
``translation``, schema files in ``schema``, and an entry in ``_MODULES``. MySQL has no RETURNING.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asgi_auth.errors import ConfigurationError

if TYPE_CHECKING:
    from asgi_auth.stores.postgres import PostgresStore
    from asgi_auth.stores.sqlalchemy import SQLAlchemyStore
    from asgi_auth.stores.sqlite import SQLiteStore

__all__ = ["PostgresStore", "SQLAlchemyStore", "SQLiteStore"]

_MODULES = {
    "PostgresStore": "asgi_auth.stores.postgres",
    "SQLAlchemyStore": "asgi_auth.stores.sqlalchemy",
    "SQLiteStore": "asgi_auth.stores.sqlite",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(_MODULES[name])
    except ModuleNotFoundError as exc:
        extra = _MODULES[name].rpartition(".")[2]
        raise ConfigurationError(f"{name} needs {exc.name}: pip install 'asgi-auth[{extra}]'") from exc
    return getattr(module, name)
