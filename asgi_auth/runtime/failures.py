"""What the log may say of a failure."""

from asgi_auth.errors import AuthError


def reason_of(exc: Exception) -> str:
    """One line for the log: the reason of an ``AuthError``; of any other exception only its type.

    The text of a foreign exception may hold what it failed with: a token, a password, an address.
    """
    return exc.reason if isinstance(exc, AuthError) else type(exc).__name__


def traceback_of(exc: Exception, *, local: bool) -> Exception | None:
    """For ``exc_info``: *exc* where a developer looks for a defect; None elsewhere, and for what tells its reason.

    Args:
        exc: What was raised, by anybody's code; its traceback may hold secrets.
        local: Whether this instance is one for development: ``Services.local``.
    """
    return exc if local and not isinstance(exc, AuthError) else None
