"""Cached session look-ups of ``PostgresStore``, in two parts: the cache, and the channel for revocations.

The cache alone gives the guarantee: a row is used for less than the bound, counted from the start of its query. The
channel only shortens this time, and switches the cache off while it does not work. The guarantee does not depend on it.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any, NamedTuple
from uuid import uuid4

from asgi_auth.errors import AuthError
from asgi_auth.stores.columns import Row

logger = logging.getLogger("asgi_auth")

# --- the cache -------------------------------------------------------------------------------------------------------

SIZE = 10_000
"""The most rows, and the most ids of forgotten rows: about 20 MB, or more if rows have extra fields."""

Key = tuple[Any, ...]
"""The key of a row: the kind of user, and the hash of a secret or an id."""


class Fill(NamedTuple):
    """The state of the cache before a query: its generation, and the time from which the bound of the row counts."""

    generation: int
    begun: float
    now: datetime


@dataclass(frozen=True, slots=True, repr=False)
class _Entry:
    row: Row
    ids: tuple[str, ...]
    fill: Fill
    ends_at: datetime


class SessionCache:
    """The rows of live sessions, each for less than *bound*, and only while it is trusted. It uses no database.

    A row is an immutable value. The caller makes its own records from it.
    """

    def __init__(self, bound: timedelta, *, clock: Callable[[], float], size: int = SIZE) -> None:
        self.bound, self.clock, self._size = bound.total_seconds(), clock, size
        self._until = bound
        self._trusted_since = float("-inf")
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()  # the last used is the last
        self._keys: dict[str, set[Key]] = {}
        self._generation = self._oldest = 0
        self._forgotten: dict[str, int] = {}

    @property
    def trusted(self) -> bool:
        """Whether notifications arrive: the last proof of that is younger than the bound."""
        return self.clock() - self._trusted_since < self.bound

    def find(self, key: Key, now: datetime) -> Row | None:
        """The row of *key* if it is valid at *now*: by both clocks, and by the ends of the session itself."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        at, fill = self.clock(), entry.fill
        if at - self._trusted_since >= self.bound or not 0 <= at - fill.begun < self.bound:
            return None
        if not fill.now <= now < entry.ends_at or now - fill.now >= self._until:
            return None
        self._entries.move_to_end(key)
        return entry.row

    def begin(self, now: datetime) -> Fill:
        """Return the state of the cache. Called before any step of the query."""
        return Fill(self._generation, self.clock(), now)

    def keep(self, fill: Fill, key: Key, row: Row, *, ids: tuple[str, ...], ends_at: datetime) -> None:
        """Cache the result of the query, unless any of *ids*, or everything, was forgotten since its start."""
        changed = max(self._oldest, *(self._forgotten.get(name, 0) for name in ids))
        if changed > fill.generation or not self.trusted:
            return
        self._drop(key)
        self._entries[key] = _Entry(row, ids, fill, ends_at)
        for name in ids:
            self._keys.setdefault(name, set()).add(key)
        if len(self._entries) > self._size:
            self._drop(next(iter(self._entries)))

    def forget(self, ids: Iterable[str]) -> None:
        """Forget the rows that have any of *ids*, also rows whose query is still running."""
        for name in ids:
            self._generation += 1
            self._forgotten.pop(name, None)  # moves it to the end, to the youngest
            self._forgotten[name] = self._generation
            if len(self._forgotten) > self._size:
                self._oldest = self._forgotten.pop(next(iter(self._forgotten)))
            for key in list(self._keys.get(name, ())):
                self._drop(key)

    def trust(self, since: float) -> None:
        """Trust the cache: changes that were committed after *since* have been notified, or will be."""
        if not self.trusted:  # notifications of earlier changes may be lost
            self._clear()
        self._trusted_since = since

    def distrust(self) -> None:
        """Forget everything, and cache nothing until ``trust`` is called again."""
        self._trusted_since = float("-inf")
        self._clear()

    def _clear(self) -> None:
        self._generation += 1
        self._oldest = self._generation
        for kept in (self._entries, self._keys, self._forgotten):
            kept.clear()

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        for name in entry.ids if entry is not None else ():
            self._keys[name].discard(key)
            if not self._keys[name]:
                del self._keys[name]


# --- the channel -----------------------------------------------------------------------------------------------------

CHANNEL = "asgi_auth"
"""The channel for changed ids, one in each notification. All schemas of the database share it: the ids of another
application are not in this cache."""
NOTIFY = "SELECT pg_notify($1, told) FROM unnest($2::text[]) AS told"

_LONGEST_REST = 30.0
"""The longest time between two tries to listen, in seconds: half the longest bound."""

Heard = Callable[[Any, int, str, Any], None]
Listen = Callable[[Sequence[str], Heard], AbstractAsyncContextManager[asyncio.Event]]
"""Pass the notifications on these channels to a function, for the block. The event is set when the connection ends."""


async def pause(seconds: float, ended: asyncio.Event) -> None:
    """Wait for *seconds*, or until *ended* is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ended.wait()


class Channel:
    """Receives the ids that the cache must forget. Every half bound it sends itself a beat, to prove that it receives.

    The beat is sent through another connection, as changes are. A connection receives notifications in the order of the
    commits. Once it has received a beat, it has received all changes that were committed before.
    """

    def __init__(self, cache: SessionCache, *, listen: Listen, tell: Callable[[str, str], Any]) -> None:
        self.cache = cache
        self._listen, self._tell = listen, tell
        self._own = f"{CHANNEL}_{uuid4().hex}"
        self._task: asyncio.Task[None] | None = None
        self._numbers = count()
        self._beat: str | None = None
        self._sent, self._heard = 0.0, False
        self._lost = False

    def open(self) -> None:
        """Start to listen, if no task does. The first look-up calls it: a script without look-ups has no listener."""
        if self._task is None or self._task.done():
            # Not in the context of the first request, because the task would keep that context alive.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def close(self) -> None:
        """Stop to listen, and distrust the cache."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._distrust()

    async def _run(self) -> None:
        every = rest = self.cache.bound / 2
        while True:
            reason = "a notification did not arrive"
            try:
                async with self._listen((CHANNEL, self._own), self._hear) as ended:
                    while await self._is_heard(ended, every):
                        rest = every
            except AuthError as exc:
                reason = exc.reason
            self._lose(reason)
            await pause(rest, asyncio.Event())
            rest = min(2 * rest, _LONGEST_REST)

    async def _is_heard(self, ended: asyncio.Event, seconds: float) -> bool:
        self._beat, self._sent, self._heard = str(next(self._numbers)), self.cache.clock(), False
        await self._tell(self._own, self._beat)
        await pause(seconds, ended)
        return self._heard and not ended.is_set()

    def _hear(self, _connection: Any, _pid: int, channel: str, told: Any) -> None:
        if channel == CHANNEL:
            self.cache.forget([told])
        elif told == self._beat:
            self.cache.trust(self._sent)
            self._heard = True
            if self._lost:
                logger.info("the session cache is on again")
            self._lost = False

    def _distrust(self) -> None:
        self._beat = None  # a late beat of the closed connection must not restore the trust
        self.cache.distrust()

    def _lose(self, reason: str) -> None:
        self._distrust()
        if not self._lost:  # once for each outage
            logger.warning("the session cache is off, every look-up asks the database: %s", reason)
        self._lost = True
