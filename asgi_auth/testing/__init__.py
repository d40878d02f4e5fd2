"""Helpers for tests of applications and of stores. Parts that require pytest are imported at their first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asgi_auth.testing.clock import FakeClock
    from asgi_auth.testing.stores import CounterSuite, InvitationSuite, StoreSuite

__all__ = ["CounterSuite", "FakeClock", "InvitationSuite", "StoreSuite"]

_MODULES = {
    "CounterSuite": "asgi_auth.testing.stores",
    "FakeClock": "asgi_auth.testing.clock",
    "InvitationSuite": "asgi_auth.testing.stores",
    "StoreSuite": "asgi_auth.testing.stores",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
