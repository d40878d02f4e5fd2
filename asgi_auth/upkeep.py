"""Opens and closes what an ``Authentication`` uses, and deletes what has expired while it runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from random import SystemRandom
from typing import Generic, TypeVar

from asgi_auth.errors import StoreUnavailableError
from asgi_auth.hashing import HashingPool
from asgi_auth.hooks import logger
from asgi_auth.protocol.password_hashes import MAX_COST
from asgi_auth.services import Services
from asgi_auth.store import Store

U = TypeVar("U")

PRUNE_INTERVAL = timedelta(minutes=10)
PRUNE_BATCH = 20
"""Rows per statement, so that pruning never holds the writer for long: a few ms in a file of five million sessions."""
PRUNE_PAUSE = timedelta(milliseconds=5)
"""Between two batches: SQLite gives its lock to whoever asks at that moment, and other processes ask now and then."""


class Upkeep(Generic[U]):
    """The life of one ``Authentication``. Several lifespans may share it: the first opens, the last closes."""

    def __init__(self, store: Store[U], services: Services[U], pool: HashingPool) -> None:
        self._store, self._services, self._pool = store, services, pool
        self.opened = False
        self._lifespans = 0
        self._pruner: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the store. ConfigurationError and StoreUnavailableError as ``Store.open``."""
        await self._store.open()
        await self._note_costs()
        self.opened = True

    async def _note_costs(self) -> None:
        cost = await self._services.store.accounts.highest_bcrypt_cost(MAX_COST)
        if cost is not None:
            self._services.passwords.note_cost(cost)

    async def close(self) -> None:
        """Close the store and the hashing threads; both come back by themselves when they are needed again."""
        self.opened = False
        self._pool.close()
        await self._store.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Opened, and pruned from time to time, within this block. May be entered several times at once."""
        self._lifespans += 1
        try:
            if self._lifespans == 1:
                await self.open()
                self._pruner = asyncio.create_task(self._prune_now_and_then())
            yield
        finally:
            self._lifespans -= 1
            if self._lifespans == 0:
                await self._stop_pruner()
                await self.close()

    async def _stop_pruner(self) -> None:
        pruner, self._pruner = self._pruner, None
        if pruner is not None:
            pruner.cancel()
            await asyncio.wait([pruner])  # raises nothing of its own: the store must be closed whatever became of it

    async def _prune_now_and_then(self) -> None:
        # Not all workers at once, nor in the way of the first requests: within the first tenth, each at its own time.
        await asyncio.sleep(SystemRandom().uniform(0, PRUNE_INTERVAL.total_seconds() / 10))
        while True:
            try:
                await self.prune()
                await self._note_costs()
            except StoreUnavailableError as exc:
                logger.warning("pruning was put off: %s", exc.reason)
            await asyncio.sleep(PRUNE_INTERVAL.total_seconds())

    async def prune(self) -> int:
        """Delete what has expired, in small batches; how many rows went."""
        now, total, store = self._services.clock(), 0, self._services.store
        counters = [store.counters.prune] if hasattr(store, "counters") else []
        hooks = [hook.prune for hook in self._services.hooks]
        for prune in (store.sessions.prune, store.tokens.prune, *counters, *hooks):
            while (count := await prune(now=now, limit=PRUNE_BATCH)) > 0:
                total += count
                await asyncio.sleep(PRUNE_PAUSE.total_seconds())
        return total
