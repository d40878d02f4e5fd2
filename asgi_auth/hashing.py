"""The pool of threads that passwords are hashed in: bounded, and fair by client."""

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from asgi_auth.errors import ConfigurationError, OverloadedError
from asgi_auth.runtime.loop import running_loop
from asgi_auth.runtime.turns import Turns

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
                place to a key that has fewer even with it.
        """
        queue = self._queue()
        job = _places.get({}).pop(queue, None) or queue.reserve(key)
        queue.fill(job, partial(copy_context().run, function))
        try:
            finished = await job.future
        except asyncio.CancelledError:
            queue.discard(job)
            raise
        return finished.result()  # type: ignore[no-any-return]  # what function returned

    @contextmanager
    def place(self, key: str | None) -> Iterator[None]:
        """Hold a place for the first ``run`` within this block, so that a client is refused before any work.

        A place counts as a job that waits, and may be lost to a key with fewer; ``run`` tells. No thread waits for it:
        those behind it are served meanwhile.

        Args:
            key: As in ``run``.

        Raises:
            OverloadedError: as ``run``, at once.
        """
        queue = self._queue()
        job = queue.reserve(key)
        places = {queue: job}
        token = _places.set(places)
        try:
            yield
        finally:
            _places.reset(token)
            # Taken out also because tasks that were begun in the block, and outlive it, have the same places.
            if places.pop(queue, None) is not None:
                queue.discard(job)

    def _queue(self) -> "_Queue":
        loop = running_loop()
        return self._queues.setdefault(loop, _Queue(self._threads, self._waiting, self._submit))

    def close(self) -> None:
        """Let the threads end once their work is done; closing twice is closing once. Using the pool opens it again."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    def _submit(self, function: Callable[[], Any]) -> "Future[Any]":
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, "asgi_auth-hashing")
        return self._executor.submit(function)


def _unknown() -> None:
    """What a job is to run while only its place is held."""


@dataclass(slots=True, eq=False)
class _Job:
    key: str | None
    future: "asyncio.Future[Future[Any]]"
    """Gets the thread's finished future, whose ``result()`` raises in the caller what the function raised."""
    function: Callable[[], Any] = _unknown


def _is_ready(job: _Job) -> bool:
    return job.function is not _unknown


class _Queue:
    """The jobs of one event loop; touched by that loop's thread only."""

    def __init__(self, slots: int, limit: int, submit: Callable[[Callable[[], Any]], "Future[Any]"]) -> None:
        self._free, self._limit, self._submit = slots, limit, submit
        self._waiting = Turns[str | None, _Job](limit)

    def reserve(self, key: str | None) -> _Job:
        """A place at the end of the key's line. OverloadedError if there is no room for it."""
        self._waiting.limit = self._limit + self._free  # what waits for a free thread only holds a place
        if len(self._waiting) >= self._waiting.limit:
            self._forget_cancelled()
        job = _Job(key, asyncio.get_running_loop().create_future())
        left = self._waiting.put(key, job)
        if left is job:
            raise OverloadedError("too many jobs wait to be hashed")
        if left is not None:
            left.future.set_exception(OverloadedError("gave its place to a client with fewer jobs waiting"))
            left.future.exception()  # seen: nobody may ever ask for what had a place only
        return job

    def _forget_cancelled(self) -> None:
        """Those whose tasks have not run yet to say so."""
        for job in [job for job in self._waiting if job.future.done()]:
            self.discard(job)

    def fill(self, job: _Job, function: Callable[[], Any]) -> None:
        """Let the job have its turn; nothing happens to one that has lost its place."""
        job.function = function
        self._start_ready()

    def discard(self, job: _Job) -> None:
        """Forget a job that waits; nothing happens to one that does not."""
        self._waiting.remove(job.key, job)

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
        self._start_ready()

    def _start_ready(self) -> None:
        """Those that only hold a place are passed over."""
        while self._free and (job := self._waiting.take(_is_ready)) is not None:
            if not job.future.done():  # cancelled, and its task has not run yet to say so
                self._start(job)


def _usable_cores() -> int:
    """The cores that this process may run on; containers and ``taskset`` leave less than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_places: ContextVar[dict[_Queue, _Job]] = ContextVar("asgi_auth_hashing_places")
"""The places that are held and not used yet."""
