"""Threads of plain senders: apart from asyncio's own, bounded, and in nobody's way when a sender hangs."""

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
    """A plain sender that returns when it is told to."""

    def __init__(self) -> None:
        self.entered: list[Any] = []
        self.released = threading.Event()

    def send(self, user: Any, token: str | None = None) -> None:
        """Not yet."""
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


async def test_senders_that_hang_hold_up_no_name_look_up(tmp_path: Path) -> None:
    """FT-2: asyncio looks up names in threads of its own, which twelve hanging senders must not fill."""
    auth = make_auth(tmp_path)
    loop = asyncio.get_running_loop()
    # It has a few more threads than the machine has cores, 32 at most; with one, a single sender in it would be enough.
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


async def test_sender_behind_hanging_ones_fails_in_time_and_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """FT-2: with every thread occupied the next one waits for the time limit, is logged, and is never called."""
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


async def test_calls_run_in_turn() -> None:
    """What waits is run in its order, and one that was cancelled not at all."""
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
    """Nobody can stop a thread: its result is thrown away, and it then takes the next call."""
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
    """As in ``asyncio.to_thread``: a request id in the log of a sender."""
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
async def test_failure_of_a_call_is_the_callers(error: BaseException, kind: type[Exception], text: str) -> None:
    """What would end the process, or look like a cancellation, is contained; the thread goes on."""
    threads = SenderThreads(1)
    with pytest.raises(kind, match=text):
        await threads.run(_raiser(error))
    assert await threads.run(len, "next") == 4


async def test_thread_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has none left: that mail fails, and the place is free again."""
    threads = SenderThreads(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: _raiser(RuntimeError("can't start new thread"))())
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await threads.run(len, "this")
    assert await threads.run(len, "next") == 4


def test_call_may_outlive_its_event_loop() -> None:
    """Its result goes nowhere, and the thread serves the next loop."""
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
    """No thread outlives the interpreter, not even one that waits for ever."""
    command: Sequence[str] = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout) == (0, "False\n")
    assert "a notice message could not be sent: no end within 0.05 s" in ended.stderr
    assert "Exception" not in ended.stderr
