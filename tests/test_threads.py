"""Threads of plain senders: apart from those of asyncio, limited, and harmless when a sender hangs."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth import mailing
from asgi_auth.errors import SenderError
from asgi_auth.events import DeliveryFailed
from asgi_auth.runtime.threads import SenderThreads
from tests.support import EMAIL, PATIENCE, Events, make_auth, until

pytestmark = pytest.mark.anyio


class Hanging:
    """A plain sender that returns only after the test releases it."""

    def __init__(self) -> None:
        self.entered: list[Any] = []
        self.released = threading.Event()

    def send(self, user: Any, token: str | None = None) -> None:
        """Wait for the release."""
        self.entered.append(user)
        assert self.released.wait(PATIENCE)


@contextmanager
def hanging() -> Iterator[Hanging]:
    """A sender that hangs within this block."""
    sender = Hanging()
    try:
        yield sender
    finally:
        sender.released.set()


async def _no_threads_left() -> None:
    await until(lambda: not [thread for thread in threading.enumerate() if thread.name == "asgi_auth-sender"])


async def test_hanging_senders_do_not_delay_name_look_ups(tmp_path: Path) -> None:
    """FT-2: asyncio looks up names in its own threads; twelve hanging senders do not occupy them."""
    auth = make_auth(tmp_path)
    loop = asyncio.get_running_loop()
    # By default it has a few more threads than cores, 32 at most. With one thread, a single sender would block it.
    loop.set_default_executor(ThreadPoolExecutor(1))
    with hanging() as plain:
        sender = auth.services.mailing.sender(plain.send, parameter="mailer")
        mails = [
            asyncio.ensure_future(auth.services.mailing.send(sender, None, purpose="notice", address=EMAIL))
            for _ in range(16)
        ]
        await until(lambda: len(plain.entered) == 12)
        async with asyncio.timeout(PATIENCE / 2):
            assert await loop.getaddrinfo("127.0.0.1", 25)
        assert len(plain.entered) == 12
        plain.released.set()
        assert await asyncio.gather(*mails) == [True] * 16
    assert len(plain.entered) == 16
    await _no_threads_left()


async def test_sender_behind_hanging_ones_times_out_and_is_not_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """FT-2: if every thread is occupied, the next sender times out, is logged, and is never called."""
    events = Events()
    auth = make_auth(tmp_path, add_ons=[events])
    async with auth.running():
        with hanging() as plain:
            threads = auth.services.mailing.threads
            occupying = [asyncio.ensure_future(threads.run(plain.send, number)) for number in range(12)]
            await until(lambda: len(plain.entered) == 12)
            monkeypatch.setattr(mailing, "SENDER_TIMEOUT", timedelta(milliseconds=50))
            sender = auth.services.mailing.sender(plain.send, parameter="mailer")
            assert not await auth.services.mailing.send(sender, None, purpose="notice", address=EMAIL)
            plain.released.set()
            await asyncio.gather(*occupying)
            assert await threads.run(len, "next") == 4
    assert "a notice message could not be sent: no end within 0.05 s" in caplog.messages
    assert [event.reason for event in events.seen if isinstance(event, DeliveryFailed)] == ["no end within 0.05 s"]
    assert sorted(plain.entered) == list(range(12))
    await _no_threads_left()


async def test_calls_run_in_order() -> None:
    """Waiting calls run in their order; a cancelled call does not run."""
    threads = SenderThreads(1)
    seen: list[int] = []
    with hanging() as plain:
        first = asyncio.ensure_future(threads.run(plain.send, 0))
        await until(lambda: plain.entered == [0])
        others = [asyncio.ensure_future(threads.run(seen.append, number)) for number in range(1, 5)]
        await asyncio.sleep(0)
        others[1].cancel()
        await asyncio.wait([others[1]])
        plain.released.set()
        await asyncio.gather(first, *others, return_exceptions=True)
    assert seen == [1, 3, 4]


async def test_cancelled_call_keeps_its_thread_until_it_returns() -> None:
    """A thread cannot be stopped: its result is discarded, and then it runs the next call."""
    threads = SenderThreads(1)
    with hanging() as plain:
        first = asyncio.ensure_future(threads.run(plain.send, 0))
        await until(lambda: plain.entered == [0])
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.ensure_future(threads.run(threading.current_thread))
        await asyncio.sleep(0)
        assert not second.done()
        plain.released.set()
        assert (await second).daemon


async def test_call_sees_the_context_of_its_caller() -> None:
    """Context variables, such as a request id, are visible in the thread, as in ``asyncio.to_thread``."""
    variable = ContextVar("variable", default="")
    variable.set("here")
    assert await SenderThreads().run(variable.get) == "here"


def _raiser(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (LookupError("no such mailbox"), LookupError, "no such mailbox"),
        (StopIteration(), RuntimeError, "StopIteration"),
        (SystemExit(1), SenderError, "the sender raised SystemExit"),
        (asyncio.CancelledError(), SenderError, "the sender raised CancelledError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_exception_of_a_call_reaches_its_caller(error: BaseException, kind: type[Exception], text: str) -> None:
    """SystemExit and CancelledError of a sender become a SenderError; the thread runs the next call."""
    threads = SenderThreads(1)
    with pytest.raises(kind, match=text):
        await threads.run(_raiser(error))
    assert await threads.run(len, "next") == 4


async def test_thread_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system cannot start a thread, that call fails, and the next one gets its place."""
    threads = SenderThreads(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: _raiser(RuntimeError("can't start new thread"))())
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await threads.run(len, "this")
    assert await threads.run(len, "next") == 4


def test_call_may_outlive_its_event_loop() -> None:
    """The result is discarded, and the thread serves the next loop."""
    threads = SenderThreads(1)

    async def abandon(plain: Hanging) -> None:
        call = asyncio.ensure_future(threads.run(plain.send, 0))
        await until(lambda: plain.entered == [0])
        call.cancel()

    with hanging() as plain:
        asyncio.run(abandon(plain))
    assert asyncio.run(threads.run(len, "next")) == 4


SCRIPT = """
import asyncio, sys, threading
from datetime import timedelta
from pathlib import Path
from asgi_auth import mailing
from tests.support import make_auth

mailing.SENDER_TIMEOUT = timedelta(milliseconds=50)
auth = make_auth(Path(sys.argv[1]))

def send(user, token):
    threading.Event().wait()

async def main():
    sender = auth.services.mailing.sender(send, parameter="mailer")
    print(await auth.services.mailing.send(sender, None, purpose="notice", address="alice@mail.example.org"))

asyncio.run(main())
"""


def test_script_whose_sender_hangs_ends(tmp_path: Path) -> None:
    """A script ends although a thread of a sender waits for ever."""
    command: Sequence[str] = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout) == (0, "False\n")
    assert "a notice message could not be sent: no end within 0.05 s" in ended.stderr
    assert "Exception" not in ended.stderr
