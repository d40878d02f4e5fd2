"""Opens and closes the resources of an ``Authentication``, and deletes expired rows while it runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Any, Generic, Protocol, TypeVar

from asgi_auth.errors import ConfigurationError, UnavailableError
from asgi_auth.hashing import HashingPool
from asgi_auth.protocol.password_hashes import MAX_COST
from asgi_auth.runtime.elapsed import elapsed
from asgi_auth.runtime.failures import reason_of, traceback_of
from asgi_auth.runtime.jobs import logger
from asgi_auth.runtime.loop import running_loop
from asgi_auth.services import Services
from asgi_auth.store import Store
from asgi_auth.types import Clock

U = TypeVar("U")

PRUNE_INTERVAL = timedelta(minutes=10)
PRUNE_BATCH = 20
"""Rows per statement, so that pruning never holds the writer for long: a few ms in a file of five million sessions."""
PRUNE_PAUSE = timedelta(milliseconds=5)
"""The pause between two batches. SQLite has no queue for its lock, so other processes need time to get it."""
PRUNE_TIMEOUT = timedelta(minutes=1)
"""The longest time for a batch. One that hangs must not prevent the pruning of the later parts."""

LARGEST_STEP = timedelta(minutes=15)
"""The largest jump ahead of a trusted clock: more than a correction, less than any time zone error."""
SETTLED_AFTER = timedelta(days=1)
"""A clock that is still ahead after this time is trusted: the machine started with a wrong time, or slept."""


class Prune(Protocol):
    """Deletes up to *limit* rows that expired by *now*. Returns how many; it is called again until it returns 0."""

    def __call__(self, *, now: datetime, limit: int) -> Awaitable[int]: ...


async def makes_tables(store: Store[Any]) -> bool:
    """True if opening *store* would create tables or the database. Only a start of the application may do that."""
    found, newest = await store.versions()
    # If the application's models define the tables, `SQLAlchemyStore` creates all missing ones, or none.
    return found < newest and bool(getattr(store, "create_tables", found == 0))


class Upkeep(Generic[U]):
    """Opens and closes one ``Authentication``. Several lifespans may share it: the first opens, the last closes."""

    def __init__(self, store: Store[U], services: Services[U], pool: HashingPool) -> None:
        self._store, self._services, self._pool = store, services, pool
        self.opened = self.closed = False
        self.started = False
        """True if ``running`` or ``start`` has opened the store and prunes it."""
        self._lifespans = 0
        self._pruner: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Open the store, on asyncio. Raises ConfigurationError and StoreUnavailableError as ``Store.open``."""
        running_loop()
        await self._store.open()
        await self._note_costs()
        self.opened, self.closed = True, False

    async def _open_existing(self) -> None:
        if await makes_tables(self._store):
            where = getattr(self._store, "path", "the database")
            raise ConfigurationError(f"store: {where} does not exist or lacks tables of the library; none was created")
        await self.open()

    async def _note_costs(self) -> None:
        cost = await self._services.store.accounts.highest_bcrypt_cost(MAX_COST)
        if cost is not None:
            self._services.passwords.note_cost(cost)

    async def close(self) -> None:
        """Wait for mail for a limited time, then close the store and the hashing threads. They can open again."""
        await self._stop_pruner()
        await self._services.commit.jobs.drain()
        self.opened, self.closed = False, True
        self.started = False
        self._pool.close()
        await self._store.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the store open and prune it regularly within this block. Several blocks may be active at once."""
        running_loop()
        self._lifespans += 1
        try:
            if self._lifespans == 1:
                await self.open()
                self.started = True
                self._start_pruner()
            yield
        finally:
            self._lifespans -= 1
            if self._lifespans == 0:
                await self.close()

    async def start(self) -> None:
        """Do the same as ``running``, at the first request if the server sent no lifespan messages.

        It lasts until ``close``, or until the event loop or the process ends. ``running`` may follow later.

        Raises:
            ConfigurationError, StoreUnavailableError: as ``open``.
        """
        await self.open()
        if not self.started:  # another request may have done so meanwhile
            self.started = True
            # The first minute is a timer. Scripts and tests may end without cancelling a task, and asyncio warns about
            # that. The context is new, because the request's own context collects jobs.
            delay = PRUNE_INTERVAL.total_seconds() / 10
            self._timer = running_loop().call_later(delay, self._start_pruner, context=Context())

    def _start_pruner(self) -> None:
        self._stop_timer()
        if self._pruner is None or self._pruner.done():  # done: its event loop has ended
            self._pruner = asyncio.create_task(self._prune_now_and_then(ClockWatch(self._services.clock)))

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    async def _stop_pruner(self) -> None:
        self._stop_timer()
        pruner, self._pruner = self._pruner, None
        if pruner is not None and pruner.get_loop() is running_loop():  # else its event loop has ended or will end
            pruner.cancel()
            await asyncio.wait([pruner])  # this hides an error of the pruner, as the store must be closed anyway

    async def _prune_now_and_then(self, watch: "ClockWatch") -> None:
        # Each worker starts at a random time, so that they spread out and do not delay the first requests.
        await asyncio.sleep(SystemRandom().uniform(0, PRUNE_INTERVAL.total_seconds() / 10))
        while True:
            try:
                await self._prune_unless_ahead(watch)
                await self._note_costs()
            except Exception as exc:  # the clock or a store failed; the next round may succeed
                self._log("upkeep", exc)
            await asyncio.sleep(PRUNE_INTERVAL.total_seconds())

    async def _prune_unless_ahead(self, watch: "ClockWatch") -> None:
        if ahead := watch.ahead():
            logger.error(
                "nothing is pruned: the clock has jumped ahead by %s; if it is right, pruning resumes in a day",
                timedelta(seconds=round(ahead.total_seconds())),
            )
        else:
            await self._prune()

    async def prune(self) -> int:
        """Delete expired rows in small batches. Returns the number of deleted rows.

        Raises:
            ConfigurationError: there is no schema; this does not create one.
            Exception: the first exception of a part. It is raised after every other part has been pruned.
        """
        if not self.opened:
            await self._open_existing()
        total, failures = await self._prune()
        if failures:
            raise failures[0]
        return total

    async def _prune(self) -> tuple[int, list[Exception]]:
        """Prune every part, also after a failure. Returns the number of deleted rows, and the exceptions."""
        now, total, failures = self._services.clock(), 0, list[Exception]()
        for name, prune in self._parts():
            try:
                while (count := await _in_time(prune(now=now, limit=PRUNE_BATCH))) > 0:
                    total += count
                    await asyncio.sleep(PRUNE_PAUSE.total_seconds())
            except Exception as exc:  # a store or a hook of the application may raise anything
                self._log(f"pruning {name}", exc)
                failures.append(exc)
        return total, failures

    def _parts(self) -> Sequence[tuple[str, Prune]]:
        store = self._services.store
        counters = [("counters", store.counters.prune)] if hasattr(store, "counters") else []
        hooks = [(repr(hook.name), hook.prune) for hook in self._services.hooks]
        return [("sessions", store.sessions.prune), ("tokens", store.tokens.prune), *counters, *hooks]

    def _log(self, work: str, exc: Exception) -> None:
        traceback = traceback_of(exc, local=self._services.local)
        logger.error("%s failed: %s", work, reason_of(exc), exc_info=traceback)


async def _in_time(batch: Awaitable[int]) -> int:
    limit = asyncio.timeout(PRUNE_TIMEOUT.total_seconds())
    try:
        async with limit:
            return await batch
    except TimeoutError as exc:
        if limit.expired():
            raise UnavailableError(f"no end within {PRUNE_TIMEOUT.total_seconds():g} s") from exc
        raise


class ClockWatch:
    """Compares a clock with the elapsed time. With a clock that is set ahead, pruning would delete live rows."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # The time of the clock when `elapsed` was 0. It stays the same unless the clock is set.
        self._trusted = self._last = self._origin()
        self._since = elapsed()

    def _origin(self) -> datetime:
        return self._clock() - timedelta(seconds=elapsed())

    def ahead(self) -> timedelta:
        """How far the clock was set ahead; 0 for a small step, and after the clock was steady for a day."""
        origin, now = self._origin(), elapsed()
        if abs(origin - self._last) > LARGEST_STEP:
            self._last, self._since = origin, now
        # A clock that was set back is trusted at once, because it deletes nothing too early.
        if origin < self._trusted or now - self._since >= SETTLED_AFTER.total_seconds():
            self._trusted = origin
        return origin - self._trusted if origin - self._trusted > LARGEST_STEP else timedelta(0)
