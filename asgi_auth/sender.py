"""The Sender protocol: how a message reaches a person."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from asgi_auth.checks import takes
from asgi_auth.errors import ConfigurationError
from asgi_auth.runtime.callables import is_async
from asgi_auth.runtime.threads import SenderThreads

SenderFunction = Callable[..., Awaitable[None] | None]
"""``(user, token)`` or ``(user, token, opts)``, plain (then it runs in a thread of the library's own) or async."""


@runtime_checkable
class Sender(Protocol):
    """Hands one message over. What it returns and what it raises never reaches the client."""

    async def send(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        """Send *token* to *user*.

        Args:
            user: The application's own user object; None where there is none yet.
            token: The secret to deliver; None for a notice.
            opts: At least ``purpose``, ``address`` (the mailbox, exactly as stored), ``app_name`` and, with a token,
                ``expires_at`` (aware UTC ``datetime``) and, unless the token is typed in, ``url`` (the link). Also
                ``locale`` (a language tag) and ``texts`` (a ``MailTexts`` in that language).

        Raises:
            SenderError: it was not handed over; the text is logged, so it must hold no address, token or password.
                Of any other exception only the type is logged, and on a local instance its traceback.
        """
        ...


def as_sender(sender: Sender | SenderFunction, *, parameter: str, threads: SenderThreads) -> Sender:
    """*sender* itself if it is a ``Sender``, else a ``Sender`` around it.

    A plain function, and a plain ``send`` method, runs in a thread, so that a blocking mail library does not stop
    the event loop.

    Args:
        sender: An object with ``send``, or a function; either takes ``(user, token, opts)`` or ``(user, token)``.
        parameter: What the application calls the option, for the error.
        threads: Where what is plain runs.

    Raises:
        ConfigurationError: it is neither, or it takes other arguments.
    """
    function: Any = getattr(sender, "send", sender)
    arity = None if inspect.isclass(sender) else next((count for count in (3, 2) if takes(function, count)), None)
    if arity is None:
        raise ConfigurationError(
            f"{parameter}: {sender!r} is no sender; give an object with send(user, token, opts) or a function of"
            " (user, token) or (user, token, opts)"
        )
    if arity == 3 and function is not sender and is_async(function) and isinstance(sender, Sender):
        return sender
    return _FunctionSender(function, arity, threads)


class _FunctionSender:
    """A function as a ``Sender``."""

    def __init__(self, function: SenderFunction, arity: int, threads: SenderThreads) -> None:
        self._function, self._arity, self._threads = function, arity, threads

    def __repr__(self) -> str:
        return f"as_sender({self._function!r})"

    async def send(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        arguments = (user, token, opts)[: self._arity]
        if is_async(self._function):
            result = self._function(*arguments)
        else:
            result = await self._threads.run(self._function, *arguments)
        if inspect.isawaitable(result):  # a lambda may return one without saying so
            await result
