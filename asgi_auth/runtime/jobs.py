"""What is left to do once a request is answered, mail above all; and the shield of what must not be cut short."""

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
    """Wait until *future* is done, however often the caller is cancelled meanwhile; only then be cancelled."""
    try:
        await asyncio.wait({future})
    except asyncio.CancelledError:
        # A scope of anyio's that is cancelled would cancel every further wait at once; a task that is cancelled is so
        # once for each time that somebody asks.
        with CancelScope(shield=True):
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({future})
        if not future.cancelled():
            future.exception()  # seen, so that nothing is logged about it
        raise
    return future.result()


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Finish *work* even if the caller is cancelled, and only then let the cancellation through.

    A client that hangs up must not leave half an act behind, nor a task that nobody waits for.
    """
    return await finished(asyncio.ensure_future(work))


# --- jobs ------------------------------------------------------------------------------------------------------------


class Collector:
    """Jobs that wait for the end of a response or of a transaction."""

    def __init__(self, source: Callable[[], str | None]) -> None:
        """Args: source: Tells who caused them, when it matters; None: the application itself."""
        self.source = source
        self.jobs: list[Job] = []
        self.over = False

    def close(self) -> list[Job]:
        """What was collected, which is kept here no longer; whatever comes later does not wait any more."""
        self.over = True
        jobs, self.jobs = self.jobs, []
        return jobs


_collecting: ContextVar[Collector | None] = ContextVar("asgi_auth_jobs", default=None)


def _nobody() -> None:
    """The source of what the application does by itself."""


@contextmanager
def collect_jobs(source: Callable[[], str | None] = _nobody) -> Iterator[Collector]:
    """Within this block jobs are collected. The caller gives them to ``Jobs.finish`` after the response."""
    collector = Collector(source)
    token = _collecting.set(collector)
    try:
        yield collector
    finally:
        collector.over = True
        _collecting.reset(token)


class Jobs:
    """What is to be done after a response, or at once where there is none."""

    patience = timedelta(seconds=2)
    """How long a request is kept until its jobs are done: a test finds its mail, and a server that ends waits no longer
    for the request. The jobs themselves are waited for by ``drain``."""

    def __init__(self, outbox: Outbox = Outbox(), *, local: bool = False) -> None:
        """Args: outbox: How much may wait. local: Whether this instance is one for development."""
        self._outbox, self._local = outbox, local
        self.telling = Telling()
        # Futures belong to one event loop, so each loop has a desk of its own, forgotten with the loop.
        self._desks: WeakKeyDictionary[asyncio.AbstractEventLoop, Desk] = WeakKeyDictionary()
        self.on_drop: Callable[[int], Awaitable[None]] | None = None
        """Told how many jobs were dropped, at most once a second."""

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
        """Have *job* done: after the response or the transaction that is under way, else as soon as it is its turn.

        Returns:
            What may be awaited: until it is done, or dropped; where a response comes first, it does not wait. If
            whoever awaits it is cancelled, the job goes on.
        """
        collector = _collecting.get()
        if collector is None or collector.over:
            return self._desk().add(job, None if collector is None else collector.source())
        collector.jobs.append(job)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def finish(self, collector: Collector) -> None:
        """Have done what was collected, and wait for it as long as ``patience``; what takes longer goes on."""
        if jobs := collector.close():
            desk, source = self._desk(), collector.source()
            scheduled = [desk.add(job, source) for job in jobs]
            await asyncio.wait(scheduled, timeout=self.patience.total_seconds())

    async def shielded(self, work: Coroutine[Any, Any, T]) -> T:
        """Finish *work* even if the caller is cancelled. What it leaves to do is done outside of the shield."""
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
        """Do *job*; what it leaves to do gets turns of its own."""
        with collect_jobs(lambda: source) as collector:
            await job()
            return collector.close()

    async def _tell_dropped(self, count: int) -> None:
        if self.on_drop is not None:
            with collect_jobs():  # what this leaves to do is dropped, too
                await self.on_drop(count)

    async def drain(self) -> None:
        """Wait until everything is done, for as long as ``Outbox.drain``; what is left then is dropped and logged."""
        if desk := self._desks.get(asyncio.get_running_loop()):
            await desk.drain()
