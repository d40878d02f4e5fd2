"""The senders of the package."""

from typing import TYPE_CHECKING, Any

from asgi_auth.errors import ConfigurationError
from asgi_auth.senders.console import ConsoleSender
from asgi_auth.senders.memory import MemorySender

if TYPE_CHECKING:
    from asgi_auth.senders.smtp import Mail, SMTPSender

__all__ = ["ConsoleSender", "Mail", "MemorySender", "SMTPSender"]


def __getattr__(name: str) -> Any:
    """Import a sender that requires an extra at its first use (PEP 562)."""
    if name not in ("Mail", "SMTPSender"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from asgi_auth.senders import smtp
    except ModuleNotFoundError as exc:
        raise ConfigurationError(f"{name} needs {exc.name}: pip install 'asgi-auth[smtp]'") from exc
    return getattr(smtp, name)
