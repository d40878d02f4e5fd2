"""The parts of a failure that may be logged."""

from asgi_auth.errors import AuthError


def reason_of(exc: Exception) -> str:
    """One line for the log: the reason of an ``AuthError``; for any other exception only its type.

    The text of a foreign exception may hold a token, a password or an address.
    """
    return exc.reason if isinstance(exc, AuthError) else type(exc).__name__


def traceback_of(exc: Exception, *, local: bool) -> Exception | None:
    """For ``exc_info``: *exc* on a local instance. None elsewhere, and for an ``AuthError``, which has a reason.

    Args:
        exc: The exception, perhaps of the application's code. Its traceback may hold secrets.
        local: True for an instance for development: ``Services.local``.
    """
    return exc if local and not isinstance(exc, AuthError) else None
