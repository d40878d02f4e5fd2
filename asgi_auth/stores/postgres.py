"""PostgreSQL through asyncpg: many machines, one database; a pool of the store's own or the application's.

Every transaction is READ COMMITTED. What two requests can race for is one statement, or is settled by the stamp when a
session or token is loaded. Nothing is used that distributed databases of this kind lack: no advisory locks, no
LISTEN/NOTIFY.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from asgi_auth.errors import ConfigurationError
from asgi_auth.store import ScopedStore
from asgi_auth.stores.postgres_connections import Connections, Pool, Settings, fetch, transaction
from asgi_auth.stores.rows import Codec, Row, Rows
from asgi_auth.stores.sql import SQLScopedStore
from asgi_auth.types import User


class PostgresStore:
    """Users, accounts, sessions and tokens in a PostgreSQL database, of version 12 or newer, in UTF-8.

    Args:
        dsn: ``postgresql://user:password@host/database``, with the options that asyncpg knows. The store has a pool of
            its own for each event loop, made at the first use and closed, at the latest, with the loop.
        pool: The application's asyncpg pool instead, or what returns it whenever it is asked; the store never closes
            it.
        max_connections: How many connections the store's own pool has at most.
        timeout: How long to wait for a connection, and again for each answer of the database.
        statement_cache_size: As asyncpg has it. 0 is for a pooler in transaction mode that knows no prepared
            statements; each statement is a transaction then, so that all of it reaches one server. A shared *pool*
            must have the same.

    Raises:
        ConfigurationError: neither or both of *dsn* and *pool* are given, or *dsn* is none.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        pool: "Pool | Callable[[], Pool] | None" = None,
        max_connections: int = 10,
        timeout: timedelta = timedelta(seconds=5),
        statement_cache_size: int = 100,
    ) -> None:
        if (dsn is None) is (pool is None):
            raise ConfigurationError("PostgresStore: give either dsn or pool")
        if dsn is not None and not dsn.startswith(("postgresql://", "postgres://")):
            raise ConfigurationError("PostgresStore: dsn must begin with postgresql://")
        self._database = _Database(
            Settings(
                dsn=dsn,
                shared=pool if pool is None or callable(pool) else lambda: pool,
                max_connections=max_connections,
                seconds=timeout.total_seconds(),
                statement_cache_size=statement_cache_size,
            )
        )

    async def open(self) -> None:
        """Connect, and bring an empty database to the newest schema.

        Raises:
            ConfigurationError: the schema is older (run ``migrate``) or is not known.
            StoreUnavailableError: the database does not answer, or lets nobody in.
        """
        await self._database.connections().open()

    async def close(self) -> None:
        """Close the pool of this event loop, after the transactions that are under way; never the application's."""
        await self._database.connections().close()

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


# --- values ----------------------------------------------------------------------------------------------------------

_NOBODY = UUID(int=0)


def _uuid(text: str) -> UUID:
    """The id that is spelled exactly so; nobody's for anything else, also for another spelling."""
    try:
        value = UUID(text)
    except ValueError:
        return _NOBODY
    return value if str(value) == text else _NOBODY


def _same(at: datetime) -> datetime:
    return at


# Ids are read by `str`: an application's pool may have a codec of its own for them.
_ROWS = Rows(Codec(_same, _same, _uuid, str))


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
        loop = asyncio.get_running_loop()
        connections = self._loops.get(loop)
        if connections is None:
            for ended in [known for known in list(self._loops) if known.is_closed()]:
                del self._loops[ended]
            connections = self._loops[loop] = Connections(self._settings)
        return connections

    async def read(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        seconds = self._settings.seconds
        async with self.connections().connection() as connection:
            if self._settings.statement_cache_size:
                return await fetch(connection, sql, values, seconds)
            async with transaction(connection, seconds, isolation="read_committed"):
                return await fetch(connection, sql, values, seconds)

    write = read  # a statement outside a transaction is one by itself

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["_Transaction"]:
        seconds = self._settings.seconds
        async with (
            self.connections().connection() as connection,
            transaction(connection, seconds, isolation="read_committed"),
        ):
            bound = _Transaction(connection, seconds)
            try:
                yield bound
                # After an error that somebody has swallowed COMMIT would roll back and call it a success.
                await bound.read("SELECT 1", ())
            finally:
                bound.over = True


class _Transaction:
    """``Executor`` inside a transaction."""

    rows = _ROWS
    over = False

    def __init__(self, connection: Any, seconds: float) -> None:
        self.connection, self._seconds = connection, seconds

    async def read(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        if self.over:  # the connection may be in the hands of somebody else
            raise ConfigurationError("store: the transaction is over; use the store itself")
        return await fetch(self.connection, sql, values, self._seconds)

    write = read

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["_Transaction"]:
        """A savepoint, so that what is refused here leaves the rest of the transaction usable."""
        async with transaction(self.connection, self._seconds):
            yield self
