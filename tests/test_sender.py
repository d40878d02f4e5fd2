"""Senders: the accepted kinds, and how each is called."""

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from asgi_auth.errors import ConfigurationError
from asgi_auth.runtime.threads import SenderThreads
from asgi_auth.sender import Sender, as_sender
from asgi_auth.senders import MemorySender

THREADS = SenderThreads()
OPTS = {"purpose": "reset", "address": "alice@example.com"}


class Calls:
    """Several kinds of senders; each records its arguments and if it ran in a thread."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.in_thread: bool | None = None

    def three(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        """A plain function."""
        self.seen.append((user, token, opts))
        self.in_thread = threading.current_thread() is not threading.main_thread()

    def two(self, user: Any, token: str | None) -> None:
        """A plain function without options."""
        self.three(user, token, {})

    async def async_three(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        """An async function."""
        self.three(user, token, opts)

    async def async_two(self, user: Any, token: str | None) -> None:
        """An async function without options."""
        self.three(user, token, {})

    def any_number(self, *arguments: Any) -> None:
        """A function with any number of arguments."""
        self.three(*arguments)


class Plain(Calls):
    """An object whose ``send`` is not async."""

    def send(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        """Send as a blocking mail library does."""
        self.three(user, token, opts)


class Short(Calls):
    """An object whose ``send`` has no options."""

    async def send(self, user: Any, token: str | None) -> None:
        """Send with two arguments."""
        self.three(user, token, {})


class AsyncCallable(Calls):
    """An object with an async ``__call__``."""

    async def __call__(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        self.three(user, token, opts)


def test_sender_is_not_wrapped() -> None:
    """as_sender returns a sender unchanged."""
    sender = MemorySender()

    assert as_sender(sender, parameter="sender", threads=THREADS) is sender


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "opts", "in_thread"),
    [
        ("three", OPTS, True),
        ("two", {}, True),
        ("async_three", OPTS, False),
        ("async_two", {}, False),
        ("any_number", OPTS, True),
    ],
)
async def test_function_gets_the_arguments_that_it_accepts(name: str, opts: dict[str, str], in_thread: bool) -> None:
    """A function gets two or three arguments; a plain one runs in a thread, an async one on the loop."""
    calls = Calls()

    await as_sender(getattr(calls, name), parameter="sender", threads=THREADS).send("alice", "secret", OPTS)

    assert calls.seen == [("alice", "secret", opts)]
    assert calls.in_thread is in_thread


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("sender", "opts", "in_thread"), [(Plain(), OPTS, True), (Short(), {}, False), (AsyncCallable(), OPTS, False)]
)
async def test_object_gets_the_arguments_that_it_accepts(sender: Any, opts: dict[str, str], in_thread: bool) -> None:
    """An object may have a plain ``send``, a ``send`` with two arguments, or an async ``__call__``."""
    await as_sender(sender, parameter="sender", threads=THREADS).send("alice", None, OPTS)

    assert sender.seen == [("alice", None, opts)]
    assert sender.in_thread is in_thread


@pytest.mark.anyio
async def test_partial_and_lambda_are_functions() -> None:
    """A partial of an async function, and a lambda that returns its coroutine, are awaited."""
    calls = Calls()

    await as_sender(partial(calls.async_three, "bound"), parameter="sender", threads=THREADS).send(
        "alice", "secret", OPTS
    )
    await as_sender(lambda user, token: calls.async_two(user, token), parameter="sender", threads=THREADS).send(
        "alice", "secret", OPTS
    )

    assert calls.seen == [("bound", "alice", "secret"), ("alice", "secret", {})]


@pytest.mark.anyio
async def test_exception_of_a_function_propagates() -> None:
    """``send`` raises the exception that a function raises in its thread."""

    def fail(user: Any, token: str | None) -> None:
        raise LookupError("no such mailbox")

    with pytest.raises(LookupError, match="no such mailbox"):
        await as_sender(fail, parameter="sender", threads=THREADS).send(None, None, OPTS)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "alice@example.com",
        object(),
        MemorySender,
        lambda: None,
        lambda user: None,
        lambda a, b, c, d: None,
        dict.pop,
    ],
    ids=["none", "text", "object", "class", "no arguments", "one", "four", "built-in"],
)
def test_value_that_is_no_sender_is_refused(wrong: Any) -> None:
    """ConfigurationError names the option whose value is not a sender."""
    with pytest.raises(ConfigurationError, match=r"^resettable\.sender: .* is no sender"):
        as_sender(wrong, parameter="resettable.sender", threads=THREADS)


def test_repr_of_a_wrapped_function_names_it() -> None:
    """The repr contains the function, and the wrapper is a Sender."""
    sender = as_sender(print, parameter="sender", threads=THREADS)

    assert repr(sender) == "as_sender(<built-in function print>)"
    assert isinstance(sender, Sender)
