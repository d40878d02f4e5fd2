"""The Sender protocol: sends a message to a user."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from asgi_auth.checks import takes
from asgi_auth.errors import ConfigurationError
from asgi_auth.runtime.callables import is_async
from asgi_auth.runtime.threads import SenderThreads

SenderFunction = Callable[..., Awaitable[None] | None]
"""``(user, token)`` or ``(user, token, opts)``, async or plain. A plain one runs in a thread of the library."""


@runtime_checkable
class Sender(Protocol):
    """Sends one message. The client never sees its result or its exception."""

    async def send(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        """Send *token* to *user*.

        Args:
            user: The application's own user object; None if there is no user yet.
            token: The secret to deliver; None for a notice.
            opts: At least ``purpose``, ``address`` (the mailbox, exactly as stored), ``app_name`` and, with a token,
                ``expires_at`` (aware UTC ``datetime``) and, unless the token is typed in, ``url`` (the link). Also
                ``locale`` (a language tag) and ``texts`` (a ``MailTexts`` in that language).

        Raises:
            SenderError: the message was not sent. The text is logged, so it must not have an address, a token or a
                password. For any other exception only the type is logged, and on a local instance its traceback.
        """
        ...


def as_sender(sender: Sender | SenderFunction, *, parameter: str, threads: SenderThreads) -> Sender:
    """Return *sender* itself if it is a ``Sender``. Otherwise return a ``Sender`` that wraps it.

    A plain function or ``send`` method runs in a thread, so that a blocking mail library does not block the event
    loop.

    Args:
        sender: An object with ``send``, or a function; either takes ``(user, token, opts)`` or ``(user, token)``.
        parameter: The name of the option, for the error.
        threads: The threads for plain functions.

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
        if inspect.isawaitable(result):  # a lambda may return an awaitable
            await result
