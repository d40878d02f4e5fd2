"""The databases that come with the package; each is imported when it is asked for (PEP 562)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asgi_auth.stores.sqlite import SQLiteStore

__all__ = ["SQLiteStore"]

_MODULES = {"SQLiteStore": "asgi_auth.stores.sqlite"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
