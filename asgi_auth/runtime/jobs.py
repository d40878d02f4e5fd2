"""Jobs to do after a response, mainly mail; and the shield for work that must not be cancelled."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from anyio import CancelScope

from asgi_auth.runtime.lanes import Desk, Outbox
from asgi_auth.runtime.telling import Telling
from asgi_auth.types import Job

T = TypeVar("T")

logger = logging.getLogger("asgi_auth")


# --- the shield ------------------------------------------------------------------------------------------------------


async def finished(future: "asyncio.Future[T]") -> T:
    """Wait until *future* is done, also if the caller is cancelled meanwhile. Raise the cancellation only then."""
    try:
        await asyncio.wait({future})
    except asyncio.CancelledError:
        # A cancelled scope of anyio would cancel every further wait at once. A task gets one cancellation for each
        # call of its `cancel`.
        with CancelScope(shield=True):
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({future})
        if not future.cancelled():
            future.exception()  # mark as retrieved, so that asyncio does not log it
        raise
    return future.result()


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Finish *work* even if the caller is cancelled, and raise the cancellation only then.

    A client that disconnects must not leave an unfinished act, nor a task that is not awaited.
    """
    return await finished(asyncio.ensure_future(work))


# --- jobs ------------------------------------------------------------------------------------------------------------


class Collector:
    """Jobs that wait for the end of a response or of a transaction."""

    def __init__(self, source: Callable[[], str | None]) -> None:
        """Args: source: Returns the source of the jobs when it is required; None: the application itself."""
        self.source = source
        self.jobs: list[Job] = []
        self.over = False

    def close(self) -> list[Job]:
        """Return and forget the collected jobs. Later jobs do not wait any more."""
        self.over = True
        jobs, self.jobs = self.jobs, []
        return jobs


_collecting: ContextVar[Collector | None] = ContextVar("asgi_auth_jobs", default=None)


def _nobody() -> None:
    """The source of the application's own jobs."""


@contextmanager
def collect_jobs(source: Callable[[], str | None] = _nobody) -> Iterator[Collector]:
    """Collect the jobs of this block. The caller passes them to ``Jobs.finish`` after the response."""
    collector = Collector(source)
    token = _collecting.set(collector)
    try:
        yield collector
    finally:
        collector.over = True
        _collecting.reset(token)


class Jobs:
    """Runs jobs after a response, or at once if there is no response."""

    patience = timedelta(seconds=2)
    """How long a request waits for its jobs, so that a test finds its mail. A server that ends waits no longer for the
    request; ``drain`` waits for the jobs."""

    def __init__(self, outbox: Outbox = Outbox(), *, local: bool = False) -> None:
        """Args: outbox: The limits of waiting jobs. local: True for an instance for development."""
        self._outbox, self._local = outbox, local
        self.telling = Telling()
        # A future belongs to one event loop, so each loop has its own desk, which is deleted with the loop.
        self._desks: WeakKeyDictionary[asyncio.AbstractEventLoop, Desk] = WeakKeyDictionary()
        self.on_drop: Callable[[int], Awaitable[None]] | None = None
        """Called with the number of dropped jobs, at most once a second."""

    def _desk(self) -> Desk:
        loop = asyncio.get_running_loop()
        if loop not in self._desks:
            self._desks[loop] = Desk(
                self._outbox,
                perform=self._perform,
                on_drop=self._tell_dropped,
                local=self._local,
                telling=self.telling,
            )
        return self._desks[loop]

    def schedule(self, job: Job) -> Awaitable[None]:
        """Run *job* after the current response or transaction; without one, as soon as it is its turn.

        Returns:
            An awaitable that ends when the job is done or dropped. If a response comes first, it ends at once. If the
            caller is cancelled, the job continues.
        """
        collector = _collecting.get()
        if collector is None or collector.over:
            return self._desk().add(job, None if collector is None else collector.source())
        collector.jobs.append(job)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def finish(self, collector: Collector) -> None:
        """Run the collected jobs and wait for them up to ``patience``. Longer jobs continue afterwards."""
        if jobs := collector.close():
            desk, source = self._desk(), collector.source()
            scheduled = [desk.add(job, source) for job in jobs]
            await asyncio.wait(scheduled, timeout=self.patience.total_seconds())

    async def shielded(self, work: Coroutine[Any, Any, T]) -> T:
        """Finish *work* even if the caller is cancelled. Its jobs run outside of the shield."""
        outer, context = _collecting.get(), copy_context()
        collector = Collector(_nobody if outer is None else outer.source)
        context.run(_collecting.set, collector)
        patient = True
        try:
            return await finished(asyncio.get_running_loop().create_task(work, context=context))
        except asyncio.CancelledError:
            patient = False
            raise
        finally:
            scheduled = [self.schedule(job) for job in collector.close()]
            for done in scheduled if patient else ():
                await done

    async def _perform(self, job: Job, source: str | None) -> list[Job]:
        """Run *job* and return the jobs that it scheduled, which get their own turns."""
        with collect_jobs(lambda: source) as collector:
            await job()
            return collector.close()

    async def _tell_dropped(self, count: int) -> None:
        if self.on_drop is not None:
            with collect_jobs():  # the jobs of this call are dropped, too
                await self.on_drop(count)

    async def drain(self) -> None:
        """Wait for all jobs, up to ``Outbox.drain``. The remaining jobs are dropped and logged."""
        if desk := self._desks.get(asyncio.get_running_loop()):
            await desk.drain()
