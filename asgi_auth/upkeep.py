"""Opens and closes what an ``Authentication`` uses, and deletes what has expired while it runs."""

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
"""Between two batches: SQLite gives its lock to whoever asks at that moment, and other processes ask now and then."""
PRUNE_TIMEOUT = timedelta(minutes=1)
"""A batch that takes longer has failed: one that hangs must not end the pruning of the parts after it."""

LARGEST_STEP = timedelta(minutes=15)
"""What a clock may be set ahead without being suspected: more than a correction, less than any error of a time zone."""
SETTLED_AFTER = timedelta(days=1)
"""A clock that is still ahead by then is right: a machine that had no time at its start, or slept. Or nobody cares."""


class Prune(Protocol):
    """Deletes up to *limit* rows that are over at *now*; how many. Called again until it says 0."""

    def __call__(self, *, now: datetime, limit: int) -> Awaitable[int]: ...


async def makes_tables(store: Store[Any]) -> bool:
    """Whether opening *store* would make tables, or the database itself. Only a start may do that."""
    found, newest = await store.versions()
    # Where the application's models make the tables, `SQLAlchemyStore` makes all that are missing, or none.
    return found < newest and bool(getattr(store, "create_tables", found == 0))


class Upkeep(Generic[U]):
    """The life of one ``Authentication``. Several lifespans may share it: the first opens, the last closes."""

    def __init__(self, store: Store[U], services: Services[U], pool: HashingPool) -> None:
        self._store, self._services, self._pool = store, services, pool
        self.opened = self.closed = False
        self.started = False
        """Whether ``running`` or ``start`` has opened the store and prunes it."""
        self._lifespans = 0
        self._pruner: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Open the store. ConfigurationError and StoreUnavailableError as ``Store.open``; it must be asyncio."""
        running_loop()
        await self._store.open()
        await self._note_costs()
        self.opened, self.closed = True, False

    async def _open_existing(self) -> None:
        if await makes_tables(self._store):
            where = getattr(self._store, "path", "the database")
            raise ConfigurationError(f"store: {where} does not exist or lacks tables of the library; nothing was made")
        await self.open()

    async def _note_costs(self) -> None:
        cost = await self._services.store.accounts.highest_bcrypt_cost(MAX_COST)
        if cost is not None:
            self._services.passwords.note_cost(cost)

    async def close(self) -> None:
        """Wait for mail, within the bound; then close the store and the hashing threads. They come back when needed."""
        await self._stop_pruner()
        await self._services.commit.jobs.drain()
        self.opened, self.closed = False, True
        self.started = False
        self._pool.close()
        await self._store.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Opened, and pruned from time to time, within this block. May be entered several times at once."""
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
        """Do what ``running`` does, at the first request to a server that has sent no lifespan messages.

        Only ``close`` stops it, or the end of the event loop or of the process. ``running`` may come later.

        Raises:
            ConfigurationError, StoreUnavailableError: as ``open``.
        """
        await self.open()
        if not self.started:  # nor has another request done so meanwhile
            self.started = True
            # The first minute is a timer. A task would outlive scripts and tests that end without cancelling it, and
            # asyncio complains about that. The context is a new one: the request's own collects jobs.
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
        if pruner is not None and pruner.get_loop() is running_loop():  # else its event loop has ended, or will
            pruner.cancel()
            await asyncio.wait([pruner])  # raises nothing of its own: the store must be closed whatever became of it

    async def _prune_now_and_then(self, watch: "ClockWatch") -> None:
        # Not all workers at once, nor in the way of the first requests: within the first tenth, each at its own time.
        await asyncio.sleep(SystemRandom().uniform(0, PRUNE_INTERVAL.total_seconds() / 10))
        while True:
            try:
                await self._prune_unless_ahead(watch)
                await self._note_costs()
            except Exception as exc:  # the application's clock or a store; the next round may do better
                self._log("upkeep", exc)
            await asyncio.sleep(PRUNE_INTERVAL.total_seconds())

    async def _prune_unless_ahead(self, watch: "ClockWatch") -> None:
        if ahead := watch.ahead():
            logger.error(
                "nothing is pruned: the clock has jumped ahead by %s; if it is right, pruning goes on in a day",
                timedelta(seconds=round(ahead.total_seconds())),
            )
        else:
            await self._prune()

    async def prune(self) -> int:
        """Delete what has expired, in small batches; returns how many rows were deleted.

        Raises:
            ConfigurationError: there is no schema; none is made.
            Exception: the first that a part raised, once every other part has been pruned.
        """
        if not self.opened:
            await self._open_existing()
        total, failures = await self._prune()
        if failures:
            raise failures[0]
        return total

    async def _prune(self) -> tuple[int, list[Exception]]:
        """Prune part by part, independently of the others: how many rows were deleted, and what was raised."""
        now, total, failures = self._services.clock(), 0, list[Exception]()
        for name, prune in self._parts():
            try:
                while (count := await _in_time(prune(now=now, limit=PRUNE_BATCH))) > 0:
                    total += count
                    await asyncio.sleep(PRUNE_PAUSE.total_seconds())
            except Exception as exc:  # a store and a hook may be anybody's code
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
    """Compares a clock with the time that has passed: one that is set ahead would delete what is not over."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # What the clock said, or would have said, when no time had passed: the same for ever, unless it is set.
        self._trusted = self._last = self._origin()
        self._since = elapsed()

    def _origin(self) -> datetime:
        return self._clock() - timedelta(seconds=elapsed())

    def ahead(self) -> timedelta:
        """How far the clock was set ahead; nothing for a small step, and once it has kept time for a day since."""
        origin, now = self._origin(), elapsed()
        if abs(origin - self._last) > LARGEST_STEP:
            self._last, self._since = origin, now
        # A clock that was set back is believed at once: nothing is deleted too early by it.
        if origin < self._trusted or now - self._since >= SETTLED_AFTER.total_seconds():
            self._trusted = origin
        return origin - self._trusted if origin - self._trusted > LARGEST_STEP else timedelta(0)
