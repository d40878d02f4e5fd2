"""The lanes of jobs on one event loop: mail, notices, notes of failures. No lane waits for another one."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

from asgi_auth.errors import ConfigurationError, UnavailableError
from asgi_auth.runtime.failures import reason_of, traceback_of
from asgi_auth.runtime.telling import Telling
from asgi_auth.runtime.turns import Turns
from asgi_auth.types import Job

T = TypeVar("T")

logger = logging.getLogger("asgi_auth")

TELL_EVERY = timedelta(seconds=1)
"""The shortest time between two reports of dropped jobs."""
LAST_MOMENT = timedelta(seconds=1)
"""How long the jobs that are cancelled at the end may take to clean up. A running statement is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """How much mail may wait in this process, and how long the application waits for it when it ends.

    Raises:
        ConfigurationError: *share* is under 1, or *drain* is negative.
    """

    share: int = 500
    """The maximum of waiting mails of one source: a client address, or its /64 for IPv6. Newer ones are dropped."""
    drain: timedelta = timedelta(seconds=5)
    """How long the application waits for waiting mail when it ends. The rest is dropped and logged."""

    def __post_init__(self) -> None:
        if self.share < 1:
            raise ConfigurationError("outbox: share must be at least 1")
        if self.drain < timedelta(0):
            raise ConfigurationError("outbox: drain must not be negative")


@dataclass(frozen=True, slots=True)
class Notice:
    """A job that tells a user about a change of their account. Other mail cannot delay or drop it."""

    job: Job
    user_id: str

    def __call__(self) -> Awaitable[None]:
        return self.job()


@dataclass(frozen=True, slots=True)
class Note:
    """A job that records a failure. Mail cannot delay it."""

    job: Job

    def __call__(self) -> Awaitable[None]:
        return self.job()


@dataclass(eq=False, slots=True)
class _Entry:
    lane: "_Lane"
    key: str | None
    job: Job
    context: Context
    done: "asyncio.Future[None]"


class _Lane:
    """The running and waiting jobs of one kind."""

    def __init__(self, name: str, *, running: int, waiting: int, share: int) -> None:
        self.name, self.free = name, running
        self.waiting = Turns[str | None, _Entry](waiting, share)


class Desk:
    """All jobs of one event loop.

    Each lane is bounded, as waiting jobs are in memory: some kilobytes a job (``tox -e soak`` has a storm of mail).

    Args:
        outbox: The limits of waiting mail.
        perform: Runs a job for a source, and returns the jobs that it scheduled.
        on_drop: Called with the number of dropped jobs.
        local: True for an instance for development. The log then has tracebacks of failed jobs.
        telling: Counts the log lines of an outage.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        perform: Callable[[Job, str | None], Awaitable[list[Job]]],
        on_drop: Callable[[int], Awaitable[None]],
        local: bool,
        telling: Telling,
    ) -> None:
        self._patience, self._perform, self._on_drop = outbox.drain, perform, on_drop
        self._local, self._telling = local, telling
        self._mail = _Lane("mails", running=8, waiting=10_000, share=outbox.share)
        self._notices = _Lane("notices", running=4, waiting=10_000, share=20)
        self._notes = _Lane("notes of failures", running=2, waiting=1_000, share=100)
        self._lanes = (self._mail, self._notices, self._notes)
        self._tasks = set[asyncio.Task[None]]()
        self._running = set[_Entry]()
        self._dropped = Counter[str]()
        self._teller: asyncio.Task[None] | None = None
        self._stopped = False

    # --- doing it

    def add(self, job: Job, source: str | None) -> "asyncio.Future[None]":
        """Run *job* when it is its turn.

        Returns:
            A future that is done when the job and its own jobs are done, or when it is dropped. Cancelling the future
            does not cancel the job.
        """
        lane, key = (self._notes if isinstance(job, Note) else self._mail), source
        if isinstance(job, Notice):
            lane, key = self._notices, job.user_id
        entry = _Entry(lane, key, job, copy_context(), asyncio.get_running_loop().create_future())
        if self._stopped:
            self._drop(entry)
        elif lane.free:
            self._start(entry)
        elif (left := lane.waiting.put(key, entry)) is not None:
            self._drop(left)
        return entry.done

    def _start(self, entry: _Entry) -> None:
        entry.lane.free -= 1
        self._running.add(entry)
        task = asyncio.get_running_loop().create_task(self._run(entry), context=entry.context)
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, entry))

    async def _run(self, entry: _Entry) -> None:
        try:
            more = await self._contain(self._perform(entry.job, entry.key))
        except asyncio.CancelledError:
            self._abandon()
            raise
        finally:
            # Otherwise all running jobs could wait for the turns of their own jobs, and none would ever end.
            self._end_turn(entry)
        for done in [self.add(job, entry.key) for job in more or ()]:
            await done

    def _end(self, entry: _Entry, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if task.cancelled():  # perhaps before it started
            self._abandon()
        self._end_turn(entry)
        _set_done(entry)

    def _end_turn(self, entry: _Entry) -> None:
        if entry in self._running:
            self._running.remove(entry)
            entry.lane.free += 1
            if (following := entry.lane.waiting.take()) is not None:
                self._start(following)

    async def _contain(self, work: Awaitable[T]) -> T | None:
        """Await *work* and contain its failure, as the response is already sent."""
        try:
            return await work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            logger.error("a job failed: CancelledError")  # the job raised this itself and was not cancelled
        except UnavailableError as exc:
            self._telling.tell(logging.ERROR, exc.code, "a job failed: %s", exc.reason)
        except Exception as exc:  # a job of the application may raise anything
            logger.error("a job failed: %s", reason_of(exc), exc_info=traceback_of(exc, local=self._local))
        return None

    # --- dropped jobs

    def _drop(self, entry: _Entry) -> None:
        _set_done(entry)
        self._dropped[entry.lane.name] += 1
        if self._teller is None and not self._stopped:
            self._teller = asyncio.get_running_loop().create_task(self._tell_now_and_then(), context=Context())

    async def _tell_now_and_then(self) -> None:
        while self._dropped:
            await asyncio.sleep(TELL_EVERY.total_seconds())
            await self._tell("too many wait already")
        self._teller = None

    async def _tell(self, why: str) -> None:
        dropped, self._dropped = self._dropped, Counter()
        for lane in self._lanes:
            if count := dropped[lane.name]:
                logger.error("%d %s were dropped: %s", count, lane.name, why)
        if dropped:
            await self._contain(self._on_drop(dropped.total()))

    # --- the end

    def _abandon(self) -> None:
        """Start no more jobs: the event loop ends and cancels the running ones."""
        left = [entry for lane in self._lanes for entry in lane.waiting.clear()]
        for entry in left:
            _set_done(entry)
        if left:
            logger.error("%d jobs were dropped: the event loop ends", len(left))

    async def drain(self) -> None:
        """Wait for all jobs for a limited time. The rest is dropped and logged. The desk can still be used."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience.total_seconds()):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        teller, self._teller = self._teller, None
        if teller is not None:
            teller.cancel()
            await asyncio.wait({teller})
            await self._tell("too many wait already")
        await self._stop()

    async def _stop(self) -> None:
        self._stopped = True
        for entry in self._running:
            self._dropped[entry.lane.name] += 1
        for lane in self._lanes:
            for entry in lane.waiting.clear():
                self._drop(entry)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_MOMENT.total_seconds())
        await self._tell("the application ends")
        self._stopped = False


def _set_done(entry: _Entry) -> None:
    if not entry.done.done():  # the caller may have cancelled it
        entry.done.set_result(None)
