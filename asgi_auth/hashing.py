"""The pool of threads that passwords are hashed in: bounded, and fair by client."""

import asyncio
import os
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from asgi_auth.errors import ConfigurationError, OverloadedError

T = TypeVar("T")


class HashingPool:
    """Runs slow functions in threads: so many at once, so many waiting, everybody else is refused at once.

    Hashing takes a core for a quarter of a second. Inline it would stop the event loop; in an unbounded pool a flood of
    sign-ins would fill the memory and delay everybody by minutes.
    """

    def __init__(self, *, threads: int | None = None, waiting: int = 32) -> None:
        """Make a pool; no thread is started before there is work.

        Args:
            threads: How many run at once; None: as many as there are cores that this process may use.
            waiting: How many may wait for a thread.

        Raises:
            ConfigurationError: *threads* is under 1 or *waiting* under 0.
        """
        self._threads = _usable_cores() if threads is None else threads
        self._waiting = waiting
        if self._threads < 1:
            raise ConfigurationError("threads: a hashing pool needs at least one thread")
        if waiting < 0:
            raise ConfigurationError("waiting: the number of waiting jobs cannot be negative")
        self._executor: ThreadPoolExecutor | None = None
        # Futures belong to one event loop, so each loop has a queue of its own, forgotten with the loop.
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    async def run(self, key: str | None, function: Callable[[], T]) -> T:
        """Return what *function* returns, or raise what it raises; it sees the caller's context variables.

        A cancelled call that waits is forgotten. One that runs cannot be stopped: it keeps its thread until it is done.

        Args:
            key: Whose work it is (the client's address); each key gets its turn. All None are one key.
            function: What to run in a thread.

        Raises:
            OverloadedError: too much is waiting, or this was the newest job of the key with most waiting, and gave its
                place to a key with less.
        """
        loop = asyncio.get_running_loop()
        queue = self._queues.setdefault(loop, _Queue(self._threads, self._waiting, self._submit))
        job = _Job(key, partial(copy_context().run, function), loop.create_future())
        queue.add(job)
        try:
            finished = await job.future
        except asyncio.CancelledError:
            queue.discard(job)
            raise
        return finished.result()  # type: ignore[no-any-return]  # what function returned

    def close(self) -> None:
        """Let the threads end once their work is done; closing twice is closing once. Using the pool opens it again."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    def _submit(self, function: Callable[[], Any]) -> "Future[Any]":
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, "asgi_auth-hashing")
        return self._executor.submit(function)


class _Job(NamedTuple):
    key: str | None
    function: Callable[[], Any]
    future: "asyncio.Future[Future[Any]]"
    """Gets the thread's finished future, whose ``result()`` raises in the caller what the function raised."""


class _Queue:
    """The jobs of one event loop; touched by that loop's thread only."""

    def __init__(self, slots: int, limit: int, submit: Callable[[Callable[[], Any]], "Future[Any]"]) -> None:
        self._free, self._limit, self._submit = slots, limit, submit
        # In the order of their turns. A key is here only while it has a job waiting.
        self._lines: OrderedDict[str | None, deque[_Job]] = OrderedDict()

    def add(self, job: _Job) -> None:
        """Start the job, or let it wait. OverloadedError if there is no room for it."""
        if self._free:
            self._start(job)
            return
        if sum(map(len, self._lines.values())) >= self._limit:
            self._make_room(job.key)
        self._lines.setdefault(job.key, deque()).append(job)

    def discard(self, job: _Job) -> None:
        """Forget a job that waits; nothing happens to one that does not."""
        line = self._lines.get(job.key, deque())
        with suppress(ValueError):
            line.remove(job)
            self._drop_if_empty(job.key)

    def _make_room(self, key: str | None) -> None:
        # Of several longest lines, the one whose turn is last: the next to be served has waited longest.
        longest = max(reversed(self._lines), key=lambda each: len(self._lines[each]), default=key)
        if len(self._lines.get(key, ())) >= len(self._lines.get(longest, ())):
            raise OverloadedError("too many jobs wait to be hashed")
        newest = self._lines[longest].pop()
        self._drop_if_empty(longest)
        if not newest.future.done():
            newest.future.set_exception(OverloadedError("gave its place to a client with fewer jobs waiting"))

    def _drop_if_empty(self, key: str | None) -> None:
        if not self._lines[key]:
            del self._lines[key]

    def _start(self, job: _Job) -> None:
        running = self._submit(job.function)
        self._free -= 1
        running.add_done_callback(partial(self._report, job))

    def _report(self, job: _Job, finished: "Future[Any]") -> None:
        """Called in the thread."""
        with suppress(RuntimeError):  # the loop was closed, and whoever waited is gone with it
            job.future.get_loop().call_soon_threadsafe(self._finish, job, finished)

    def _finish(self, job: _Job, finished: "Future[Any]") -> None:
        self._free += 1
        if not job.future.done():
            job.future.set_result(finished)
        while self._free and self._lines:
            self._start_next()

    def _start_next(self) -> None:
        key, line = next(iter(self._lines.items()))
        job = line.popleft()
        self._lines.move_to_end(key)
        self._drop_if_empty(key)
        if not job.future.done():  # cancelled, and its task has not run yet to say so
            self._start(job)


def _usable_cores() -> int:
    """The cores that this process may run on; containers and ``taskset`` leave less than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
