"""PostgreSQL through asyncpg: many machines, one database; a pool of the store's own or the application's.

Every transaction, and every statement outside one, is READ COMMITTED. What two requests can race for is one statement,
or is settled by the stamp when a session or token is loaded. Nothing is used that distributed databases of this kind
lack: no advisory locks, and LISTEN/NOTIFY for cached look-ups alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from asgi_auth.errors import ConfigurationError
from asgi_auth.runtime.callables import refuse_async
from asgi_auth.runtime.loop import running_loop
from asgi_auth.store import ScopedStore
from asgi_auth.stores.columns import SESSION, Row
from asgi_auth.stores.postgres_cache import CHANNEL, NOTIFY, Fill, Key, SessionCache
from asgi_auth.stores.postgres_connections import Connections, Pool, Settings
from asgi_auth.stores.postgres_dsn import Address, read_dsn
from asgi_auth.stores.postgres_waits import fetch, transaction
from asgi_auth.stores.rows import Rows
from asgi_auth.stores.sql import SQLScopedStore
from asgi_auth.stores.sql_sessions import LOAD_SESSION, LOAD_SESSION_BY_ID, REVOKE_SESSIONS_BY_SECRET
from asgi_auth.stores.values import Codec, same
from asgi_auth.types import User


class PostgresStore:
    """Everything that there is to keep, in a PostgreSQL database, of version 12 or newer, in UTF-8.

    Args:
        dsn: ``postgresql://user:password@host/database``, with parameters as docs/postgres.md lists them. The store
            has a pool of its own for each event loop, made at the first use and closed, at the latest, with the loop.
        pool: The application's asyncpg pool instead, or what returns it whenever it is asked; the store never closes
            it.
        max_connections: How many connections the store's own pool has at most.
        timeout: How long to wait for a connection and the first answer together, and again for each further answer of
            a transaction. After a failure one second more, at most, for the database to undo what was begun.
        statement_cache_size: As asyncpg has it. 0 is for a pooler in transaction mode that knows no prepared
            statements; each statement is a transaction then, so that all of it reaches one server. A shared *pool*
            must have the same.
        session_cache: How long the look-up of a session may be answered from memory, 1 to 60 seconds: nothing is
            accepted any more so long after its revocation, whatever the network does, and usually at once. None: every
            request asks the database.
        listen_dsn: Where a cache hears of revocations, if not at *dsn*: an address that leads to the same server
            without a pooler. A cache beside a shared *pool* needs it.

    Raises:
        ConfigurationError: neither or both of *dsn* and *pool* are given; *dsn* or *listen_dsn* is no address, or has
            a parameter that is not supported; *session_cache* is out of bounds, or there is nowhere to listen.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        pool: "Pool | Callable[[], Pool] | None" = None,
        max_connections: int = 10,
        timeout: timedelta = timedelta(seconds=5),
        statement_cache_size: int = 100,
        session_cache: timedelta | None = None,
        listen_dsn: str | None = None,
    ) -> None:
        if (dsn is None) is (pool is None):
            raise ConfigurationError("PostgresStore: give either dsn or pool")
        refuse_async("PostgresStore: pool", pool)
        address = None if dsn is None else read_dsn("dsn", dsn)
        listen = address if listen_dsn is None else read_dsn("listen_dsn", listen_dsn)
        _check_cache(session_cache, listen)
        behind_pooler = address is not None and address.behind_pooler
        self._database = _Database(
            Settings(
                address=address,
                shared=pool if pool is None or callable(pool) else lambda: pool,
                max_connections=max_connections,
                seconds=timeout.total_seconds(),
                statement_cache_size=0 if behind_pooler else statement_cache_size,
                session_cache=session_cache,
                listen=listen,
            )
        )

    async def open(self) -> None:
        """Connect, and bring an empty database to the newest schema.

        Raises:
            ConfigurationError: the schema is older (run ``migrate``) or is not known; or *pool*, or a pooler, has
                connections whose ``default_transaction_isolation`` is not READ COMMITTED; or the server refuses a
                parameter of *dsn*, or a file that it names cannot be read.
            StoreUnavailableError: the database does not answer, or lets nobody in.
        """
        await self._database.connections().open()

    async def close(self) -> None:
        """Close the pool of this event loop, after the transactions that are under way; never the application's."""
        await self._database.connections().close()

    async def versions(self) -> tuple[int, int]:
        """The version of the schema, 0 if there is none, and the newest one. Makes and changes nothing.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        return await self._database.connections().versions()

    async def migrate(self) -> tuple[int, int]:
        """Bring any released schema to the newest; the versions before and after. Takes the time that it takes.

        Raises:
            ConfigurationError: the schema is not known to this version of the package.
            StoreUnavailableError: the database does not answer.
        """
        return await self._database.connections().migrate()

    def scope(self, subject_name: str) -> ScopedStore[User]:
        """The same store, for one kind of user."""
        return SQLScopedStore(self._database, subject_name)


def _check_cache(bound: object, address: Address | None) -> None:
    if bound is None:
        return
    if not isinstance(bound, timedelta) or not _SHORTEST <= bound <= _LONGEST:
        raise ConfigurationError("PostgresStore: session_cache must be a timedelta of 1 to 60 seconds")
    if address is None:
        raise ConfigurationError("PostgresStore: session_cache with pool needs listen_dsn")


_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(seconds=60)


# --- values ----------------------------------------------------------------------------------------------------------

_NOBODY = UUID(int=0)
_UUID_CHARACTERS = 36


def _uuid(text: str) -> UUID:
    """The id that is spelled exactly so; nobody's for anything else, also for another spelling."""
    return _parsed(text) if len(text) == _UUID_CHARACTERS else _NOBODY


@lru_cache(maxsize=1024)  # of texts of one length, so that nobody fills it with long ones
def _parsed(text: str) -> UUID:
    try:
        value = UUID(text)
    except ValueError:
        return _NOBODY
    return value if str(value) == text else _NOBODY


# Ids are read by `str`: an application's pool may have a codec of its own for them.
_ROWS = Rows(Codec(same, same, _uuid, str, _uuid, str))


# --- executors -------------------------------------------------------------------------------------------------------


class _Database:
    """``Executor`` outside a transaction, on whichever event loop it is called."""

    rows = _ROWS
    connection = None

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loops: dict[asyncio.AbstractEventLoop, Connections] = {}

    def connections(self) -> Connections:
        """Those of the running event loop; those of ended loops are forgotten."""
        try:
            return self._loops[asyncio.get_running_loop()]
        except (KeyError, RuntimeError):  # a new loop, or none of asyncio's
            return self._new_connections(running_loop())

    def _new_connections(self, loop: asyncio.AbstractEventLoop) -> Connections:
        for ended in [known for known in list(self._loops) if known.is_closed()]:
            del self._loops[ended]
        connections = self._loops[loop] = Connections(self._settings)
        return connections

    async def read(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        channel = self.connections().channel
        if channel is None or sql not in _LOOK_UPS:
            return await self._run(sql, values)
        subject_name, name, now = values
        cache, key = channel.cache, (subject_name, name)
        row = cache.find(key, now)
        if row is not None:
            return (row,)
        channel.open()
        fill = cache.begin(now)
        rows = await self._run(sql, values)
        if rows:  # that there is none is never kept
            _keep(cache, fill, key, tuple(rows[0]))
        return rows

    async def write(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        if self._settings.session_cache is None:
            return await self._run(sql, values)  # a statement outside a transaction is one by itself
        async with self.transaction() as bound:
            return await bound.write(sql, values)

    async def _run(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        async with (lent := self.connections().connection()) as connection:
            if self._settings.statement_cache_size:
                return await fetch(connection, sql, values, lent.seconds)
            async with transaction(connection, lent.seconds, isolation="read_committed"):
                return await fetch(connection, sql, values, lent.seconds)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["_Transaction"]:
        seconds = self._settings.seconds
        with self._forgetting() as changed:
            async with (
                (lent := self.connections().connection()) as connection,
                transaction(connection, lent.seconds, isolation="read_committed"),
            ):
                bound = _Transaction(connection, seconds, changed)
                try:
                    yield bound
                    await bound.finish()
                finally:
                    bound.over = True

    @contextmanager
    def _forgetting(self) -> Iterator["_Changed | None"]:
        """What is changed in the block is forgotten at once, and at its end: also if the commit got no answer."""
        channel = self.connections().channel
        if channel is None:
            yield None
            return
        changed = _Changed(channel.cache)
        try:
            yield changed
        finally:
            changed.forget()


class _Transaction:
    """``Executor`` inside a transaction."""

    rows = _ROWS
    over = False

    def __init__(self, connection: Any, seconds: float, changed: "_Changed | None") -> None:
        self.connection, self._seconds, self._changed = connection, seconds, changed

    async def read(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        if self.over:  # the connection may be in the hands of somebody else
            raise ConfigurationError("store: the transaction is over; use the store itself")
        return await fetch(self.connection, sql, values, self._seconds)

    async def write(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        rows = await self.read(sql, values)
        if self._changed is not None:
            self._changed.note(sql, values, rows)
        return rows

    async def finish(self) -> None:
        """Tell every cache what to forget once this is committed; or just ask for something.

        After an error that somebody has swallowed COMMIT would roll back and call it a success.
        """
        if self._changed is not None and self._changed.ids:
            self._changed.forget()
            await self.read(NOTIFY, (CHANNEL, sorted(self._changed.ids)))
        else:
            await self.read("SELECT 1", ())

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["_Transaction"]:
        """A savepoint, so that what is refused here leaves the rest of the transaction usable."""
        async with transaction(self.connection, self._seconds):
            yield self


# --- cached look-ups -------------------------------------------------------------------------------------------------

_LOOK_UPS = frozenset({LOAD_SESSION, LOAD_SESSION_BY_ID})
_LONGEST_TEXT = 4096
"""Characters; a row with more is not kept, so that there is a bound in bytes too."""


def _keep(cache: SessionCache, fill: Fill, key: Key, row: tuple[Any, ...]) -> None:
    """Keep a row that ``Rows.loaded`` reads, to be forgotten by the id of the session or of the user."""
    if sum(len(value) for value in row if isinstance(value, str)) <= _LONGEST_TEXT:
        session = _ROWS.of(SESSION).read(row)
        ends_at = min(session.idle_expires_at, session.expires_at)
        cache.keep(fill, key, row, ids=(session.id, session.user_id), ends_at=ends_at)


class _Changed:
    """The ids of sessions and users that a transaction has changed."""

    def __init__(self, cache: SessionCache) -> None:
        self.ids: set[str] = set()
        self._cache = cache

    def note(self, sql: str, values: Sequence[Any], rows: Sequence[Row]) -> None:
        """Note the ids that a statement was given: it may have changed these rows. Noting too many is safe.

        What was inserted is not noted: that there is no row is never kept. Nor is what was pruned, which had ended: by
        its clocks, which are judged each time, or by a revocation, which was told of.
        """
        if sql is REVOKE_SESSIONS_BY_SECRET:  # whose ids only the database knows
            self.ids.update(_ROWS.of(SESSION).read(row).id for row in rows)
        elif not sql.lstrip().startswith("INSERT"):
            self.ids.update(str(value) for value in values if isinstance(value, UUID))

    def forget(self) -> None:
        """Forget it in this process, without waiting to be told."""
        self._cache.forget(self.ids)
