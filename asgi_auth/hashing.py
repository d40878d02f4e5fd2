"""The bounded pool of threads for password hashing, fair by client."""

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
    """Runs slow functions in threads. The number of running and of waiting jobs is bounded; more are rejected at once.

    Hashing takes a core for a quarter of a second. Inline it would block the event loop. In an unbounded pool a flood
    of sign-ins would fill the memory and delay every client by minutes.
    """

    def __init__(self, *, threads: int | None = None, waiting: int = 32) -> None:
        """Make a pool. It starts no thread before there is work.

        Args:
            threads: The number of threads; None: the number of cores that this process may use.
            waiting: The maximum number of waiting jobs.

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
        # A future belongs to one event loop, so each loop has its own queue, which is deleted with the loop.
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    async def run(self, key: str | None, function: Callable[[], T]) -> T:
        """Run *function* in a thread and return its result. It sees the caller's context variables.

        A cancelled call is removed from the queue. If it already runs, it cannot be stopped and keeps its thread.

        Args:
            key: The source of the work (the client's address). Keys take turns. None is one key, too.
            function: The function to run.

        Raises:
            OverloadedError: too many jobs wait. Or this was the newest job of the key with the most waiting jobs, and a
                key with fewer jobs got its place.
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
        """Reserve a place for the first ``run`` in this block, so that a client is rejected before any work.

        A place counts as a waiting job. A key with fewer jobs may get it; then ``run`` raises. No thread waits for a
        reserved place, so the jobs behind it run meanwhile.

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
            # The place is also removed because a task that outlives the block shares these places.
            if places.pop(queue, None) is not None:
                queue.discard(job)

    def _queue(self) -> "_Queue":
        loop = running_loop()
        return self._queues.setdefault(loop, _Queue(self._threads, self._waiting, self._submit))

    def close(self) -> None:
        """End the threads after their work. A second call does nothing. The next ``run`` opens the pool again."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    def _submit(self, function: Callable[[], Any]) -> "Future[Any]":
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, "asgi_auth-hashing")
        return self._executor.submit(function)


def _unknown() -> None:
    """The function of a job that is only a reserved place."""


@dataclass(slots=True, eq=False)
class _Job:
    key: str | None
    future: "asyncio.Future[Future[Any]]"
    """Gets the thread's finished future, whose ``result()`` raises in the caller what the function raised."""
    function: Callable[[], Any] = _unknown


def _is_ready(job: _Job) -> bool:
    return job.function is not _unknown


class _Queue:
    """The jobs of one event loop. Only the thread of this loop uses it."""

    def __init__(self, slots: int, limit: int, submit: Callable[[Callable[[], Any]], "Future[Any]"]) -> None:
        self._free, self._limit, self._submit = slots, limit, submit
        self._waiting = Turns[str | None, _Job](limit)

    def reserve(self, key: str | None) -> _Job:
        """Reserve a place at the end of the key's line. Raises OverloadedError if there is no room for it."""
        self._waiting.limit = self._limit + self._free  # a job that waits although a thread is free is a reserved place
        if len(self._waiting) >= self._waiting.limit:
            self._forget_cancelled()
        job = _Job(key, asyncio.get_running_loop().create_future())
        left = self._waiting.put(key, job)
        if left is job:
            raise OverloadedError("too many jobs wait to be hashed")
        if left is not None:
            left.future.set_exception(OverloadedError("gave its place to a client with fewer jobs waiting"))
            left.future.exception()  # mark as retrieved: the caller of a reserved place may never await it
        return job

    def _forget_cancelled(self) -> None:
        """Remove cancelled jobs whose tasks have not run since."""
        for job in [job for job in self._waiting if job.future.done()]:
            self.discard(job)

    def fill(self, job: _Job, function: Callable[[], Any]) -> None:
        """Make the job ready to run. Nothing happens if it has lost its place."""
        job.function = function
        self._start_ready()

    def discard(self, job: _Job) -> None:
        """Remove a waiting job. Nothing happens if it does not wait."""
        self._waiting.remove(job.key, job)

    def _start(self, job: _Job) -> None:
        running = self._submit(job.function)
        self._free -= 1
        running.add_done_callback(partial(self._report, job))

    def _report(self, job: _Job, finished: "Future[Any]") -> None:
        """Called in the thread."""
        with suppress(RuntimeError):  # the loop and its waiting callers are closed
            job.future.get_loop().call_soon_threadsafe(self._finish, job, finished)

    def _finish(self, job: _Job, finished: "Future[Any]") -> None:
        self._free += 1
        if not job.future.done():
            job.future.set_result(finished)
        self._start_ready()

    def _start_ready(self) -> None:
        """Start ready jobs while threads are free. Reserved places are skipped."""
        while self._free and (job := self._waiting.take(_is_ready)) is not None:
            if not job.future.done():  # it may be cancelled although its task has not run since
                self._start(job)


def _usable_cores() -> int:
    """The number of cores that this process may use. Containers and ``taskset`` may reduce it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_places: ContextVar[dict[_Queue, _Job]] = ContextVar("asgi_auth_hashing_places")
"""The reserved places that are not used yet."""
