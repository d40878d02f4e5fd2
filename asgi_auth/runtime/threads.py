"""A few daemon threads for blocking senders, separate from the threads of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from threading import Lock, Thread
from typing import Any, NamedTuple, TypeVar

from asgi_auth.errors import SenderError

T = TypeVar("T")


class SenderThreads:
    """Runs a limited number of blocking functions at once; others wait.

    asyncio's own threads also look up host names. A few hanging senders there would block every connection of the
    application. A thread starts when it is required and ends when no call waits, so that nothing must be closed. It is
    a daemon, because a hanging sender cannot be stopped and must not prevent the end of the interpreter.
    """

    def __init__(self, limit: int = 12) -> None:
        """Args: limit: The maximum of threads: the number of mails and notices that may run at once (``Desk``)."""
        self._limit, self._running = limit, 0
        self._waiting: deque[_Call] = deque()
        self._lock = Lock()  # several event loops may share this; it is held only briefly

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run *function* in a thread and return its result. It sees the caller's context variables.

        A waiting call that is cancelled is removed. A running call keeps its thread until it returns.

        Raises:
            SenderError: *function* tried to end the thread or the process.
        """
        call = _Call(partial(copy_context().run, function, *arguments), asyncio.get_running_loop().create_future())
        self._add(call)
        try:
            finished = await call.future
        except asyncio.CancelledError:
            with self._lock, suppress(ValueError):  # it runs or has ended
                self._waiting.remove(call)
            raise
        return finished.result()  # type: ignore[no-any-return]  # what function returned

    def _add(self, call: "_Call") -> None:
        with self._lock:
            if self._running >= self._limit:
                self._waiting.append(call)
                return
            self._running += 1
        try:
            Thread(target=self._work, args=[call], name="asgi_auth-sender", daemon=True).start()
        except BaseException:  # the system cannot start another thread
            with self._lock:
                self._running -= 1
            raise

    def _work(self, call: "_Call | None") -> None:
        """Run one call after another, in a thread."""
        while call is not None:
            call.run()
            with self._lock:
                call = self._waiting.popleft() if self._waiting else None
                if call is None:
                    self._running -= 1


class _Call(NamedTuple):
    function: Callable[[], Any]
    future: "asyncio.Future[Future[Any]]"
    """Gets a finished future, whose ``result()`` raises in the caller what the function raised."""

    def run(self) -> None:
        finished: Future[Any] = Future()
        try:
            finished.set_result(self.function())
        except Exception as exc:
            finished.set_exception(exc)
        except BaseException as exc:  # SystemExit would end the server
            finished.set_exception(SenderError(f"the sender raised {type(exc).__name__}"))
        with suppress(RuntimeError):  # the loop and its waiting callers are closed
            self.future.get_loop().call_soon_threadsafe(self._settle, finished)

    def _settle(self, finished: "Future[Any]") -> None:
        if not self.future.done():
            self.future.set_result(finished)
