"""PostgreSQL through asyncpg: many machines, one database. The store has its own pool, or uses the application's.

Every transaction, and every statement outside one, is READ COMMITTED. If two requests can race, one statement decides,
or the stamp does when a session or token is loaded. The store uses only features that distributed databases of this
kind support: no advisory locks, and LISTEN/NOTIFY for cached look-ups only.
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
    """A store in a PostgreSQL database of version 12 or newer, in UTF-8.

    Args:
        dsn: ``postgresql://user:password@host/database``, with the parameters listed in docs/postgres.md. The store
            has its own pool for each event loop. It makes the pool at the first use and closes it with the loop at the
            latest.
        pool: The application's asyncpg pool, or a function that returns it at each call. The store never closes it.
        max_connections: The most connections of the store's own pool.
        timeout: How long to wait for a connection and the first answer together, and again for each further answer of
            a transaction. After a failure, the database has at most one more second to roll back.
        statement_cache_size: The option of asyncpg. 0 is for a pooler in transaction mode without support for prepared
            statements. Each statement is then a transaction, so that one server gets all of it. A shared *pool* must
            have the same value.
        session_cache: How long the look-up of a session may be answered from memory, 1 to 60 seconds. A revoked session
            is rejected after this time at the latest, whatever the network does, and usually at once. None: every
            request asks the database.
        listen_dsn: The address where a cache listens for revocations, if not *dsn*. It leads to the same server without
            a pooler. It is required for a cache with a shared *pool*.

    Raises:
        ConfigurationError: neither or both of *dsn* and *pool* are given; *dsn* or *listen_dsn* is invalid, or has a
            parameter that is not supported; *session_cache* is out of range, or has no address to listen at.
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
            ConfigurationError: the schema is older (run ``migrate``) or unknown; or *pool*, or a pooler, has
                connections whose ``default_transaction_isolation`` is not READ COMMITTED; or the server refuses a
                parameter of *dsn*; or a file in *dsn* cannot be read.
            StoreUnavailableError: the database does not answer, or refuses the login.
        """
        await self._database.connections().open()

    async def close(self) -> None:
        """Close the store's pool of this event loop after its running transactions. The application's stays open."""
        await self._database.connections().close()

    async def versions(self) -> tuple[int, int]:
        """The version of the schema, 0 if there is none, and the newest version. Changes nothing.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        return await self._database.connections().versions()

    async def migrate(self) -> tuple[int, int]:
        """Bring any released schema to the newest. Returns the versions before and after. There is no timeout.

        Raises:
            ConfigurationError: this version of the package does not know the schema.
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
    """The id with exactly this spelling; an id of no user for any other text."""
    return _parsed(text) if len(text) == _UUID_CHARACTERS else _NOBODY


@lru_cache(maxsize=1024)  # all texts have one length, so that a client cannot fill it with long ones
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
        """The connections of the running event loop. Those of ended loops are forgotten."""
        try:
            return self._loops[asyncio.get_running_loop()]
        except (KeyError, RuntimeError):  # a new loop, or no asyncio loop
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
        if rows:  # a missing row is never cached
            _keep(cache, fill, key, tuple(rows[0]))
        return rows

    async def write(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        if self._settings.session_cache is None:
            return await self._run(sql, values)  # a statement outside a transaction is its own transaction
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
        """Forget rows that the block changes, at once and again at its end, also if the commit got no answer."""
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
        if self.over:  # another task may already use the connection
            raise ConfigurationError("store: the transaction is over; use the store itself")
        return await fetch(self.connection, sql, values, self._seconds)

    async def write(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        rows = await self.read(sql, values)
        if self._changed is not None:
            self._changed.note(sql, values, rows)
        return rows

    async def finish(self) -> None:
        """Notify every cache of the changed ids, which takes effect at the commit; or run a query without effect.

        The statement fails if an earlier error was swallowed. Otherwise COMMIT would roll back and report success.
        """
        if self._changed is not None and self._changed.ids:
            self._changed.forget()
            await self.read(NOTIFY, (CHANNEL, sorted(self._changed.ids)))
        else:
            await self.read("SELECT 1", ())

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["_Transaction"]:
        """A savepoint: an error in it leaves the rest of the transaction usable."""
        async with transaction(self.connection, self._seconds):
            yield self


# --- cached look-ups -------------------------------------------------------------------------------------------------

_LOOK_UPS = frozenset({LOAD_SESSION, LOAD_SESSION_BY_ID})
_LONGEST_TEXT = 4096
"""The most characters of a cached row, so that the cache has a bound in bytes too."""


def _keep(cache: SessionCache, fill: Fill, key: Key, row: tuple[Any, ...]) -> None:
    """Cache a row for ``Rows.loaded``. It is forgotten by the id of the session or of the user."""
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
        """Note the ids in the values of a statement: it may have changed these rows. Noting too many is safe.

        Inserted rows are not noted, because a missing row is never cached. Pruned rows are not noted either: they had
        ended by their clocks, which are checked each time, or by a revocation, which was notified.
        """
        if sql is REVOKE_SESSIONS_BY_SECRET:  # only the database knows the ids
            self.ids.update(_ROWS.of(SESSION).read(row).id for row in rows)
        elif not sql.lstrip().startswith("INSERT"):
            self.ids.update(str(value) for value in values if isinstance(value, UUID))

    def forget(self) -> None:
        """Forget these rows in this process, without waiting for the notification."""
        self._cache.forget(self.ids)
