"""SQLite in one file: write-ahead log, one writer, a few readers. It requires no server.

Each event loop has its own connections, opened at the first use. Connections are aiosqlite's, one thread each.
"""

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any

from asgi_auth.errors import ConfigurationError
from asgi_auth.runtime.loop import running_loop
from asgi_auth.store import ScopedStore
from asgi_auth.stores.columns import Row
from asgi_auth.stores.rows import TEXT_ROWS
from asgi_auth.stores.sql import SQLScopedStore
from asgi_auth.stores.sqlite_connections import Connection, Pool, fetch
from asgi_auth.stores.sqlite_file import DatabaseFile
from asgi_auth.stores.translation import for_sqlite, question_marks
from asgi_auth.types import User


class SQLiteStore:
    """A store in one SQLite file.

    The first opening makes the file, its ``-wal`` and its ``-shm`` with mode 0600. An existing file keeps its mode, and
    the other two inherit it. Later the store refuses an empty or replaced file: it is unavailable until the file is
    back, or the process is restarted. Every commit is on disk before the answer (``synchronous=FULL``).

    Args:
        path: The file; its directory must exist. ``:memory:`` is refused: every connection would see another database.
        inline_reads: Do the indexed look-ups on the event loop's thread. This is several times faster, but stalls the
            loop if the file is not in memory. If the database is busy, a thread does the look-up.
        busy_timeout: How long a write waits for its turn and for other processes, in total.

    Raises:
        ConfigurationError: the path does not name a file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        inline_reads: bool = False,
        busy_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        name = os.fspath(path)
        if not name or name.startswith((":memory:", "file:")):
            raise ConfigurationError(
                "SQLiteStore: path must name a file: the store has several connections, and each would see a database "
                "in memory of its own. For tests use a file in a temporary directory."
            )
        self._file = DatabaseFile(os.path.abspath(name), max(busy_timeout.total_seconds(), 0.0))
        self.path = self._file.path
        self._database = _Database(self._file, inline_reads)
        # A script that never closes the store still ends, and without a warning.
        weakref.finalize(self, _abandon, self._database.pools)

    async def open(self) -> None:
        """Open the file. The first opening makes a missing file, and brings an empty database to the newest schema.

        Raises:
            ConfigurationError: the schema is older (run ``migrate``) or unknown, or SQLite itself is too old.
            StoreUnavailableError: the file cannot be opened; or this store has opened it before, and it is missing,
                empty or replaced.
        """
        await self._database.pool().open()

    async def close(self) -> None:
        """Close the connections of this event loop, after the running transaction."""
        await self._database.pool().close()

    async def versions(self) -> tuple[int, int]:
        """The version of the schema, 0 if there is no file or no schema, and the newest version. Makes no file.

        Raises:
            StoreUnavailableError: the file cannot be opened.
        """
        with self._file.mapped():
            return await asyncio.to_thread(self._file.versions)

    async def migrate(self) -> tuple[int, int]:
        """Bring any released schema to the newest. Returns the versions before and after. A first use makes the file.

        Raises:
            ConfigurationError: this version of the package does not know the schema.
            StoreUnavailableError: the file cannot be opened, or is locked.
        """
        with self._file.mapped():
            return await asyncio.to_thread(self._file.migrate)

    def scope(self, subject_name: str) -> ScopedStore[User]:
        """The same store, for one kind of user."""
        return SQLScopedStore(self._database, subject_name)


# --- statements ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _prepared(sql: str) -> tuple[str, Callable[[Sequence[Any]], tuple[Any, ...]]]:
    """The native statement, and a function that puts its parameters in order."""
    text, order = question_marks(for_sqlite(sql))
    # Every statement has two or more parameters (the first is the subject name), so `itemgetter` returns a tuple.
    return text, itemgetter(*order)


def _bind(sql: str, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    text, in_order = _prepared(sql)
    return text, in_order(values)


# --- executors -------------------------------------------------------------------------------------------------------


class _Database:
    """``Executor`` outside a transaction, on whichever event loop it is called."""

    rows = TEXT_ROWS
    connection = None

    def __init__(self, file: DatabaseFile, inline_reads: bool) -> None:
        self._file, self._inline_reads = file, inline_reads
        self.pools: dict[asyncio.AbstractEventLoop, Pool] = {}

    def pool(self) -> Pool:
        """The connections of the running event loop. Those of ended loops are closed."""
        try:
            return self.pools[asyncio.get_running_loop()]
        except (KeyError, RuntimeError):  # a new loop, or no asyncio loop
            return self._new_pool(running_loop())

    def _new_pool(self, loop: asyncio.AbstractEventLoop) -> Pool:
        for ended in [known for known in list(self.pools) if known.is_closed()]:
            self.pools.pop(ended).abandon()
        pool = self.pools[loop] = Pool(self._file, self._inline_reads)
        return pool

    def read(self, sql: str, values: Sequence[Any]) -> Coroutine[Any, Any, Sequence[Row]]:
        return self.pool().read(*_bind(sql, values))

    async def write(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        async with self.transaction() as transaction:
            return await transaction.write(sql, values)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["_Transaction"]:
        async with self.pool().transaction() as connection:
            transaction = _Transaction(connection)
            try:
                yield transaction
            finally:
                transaction.over = True


class _Transaction:
    """``Executor`` inside a transaction."""

    rows = TEXT_ROWS
    over = False

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def read(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        if self.over:  # it would run in the transaction of another task
            raise ConfigurationError("store: the transaction is over; use the store itself")
        return await fetch(self.connection, *_bind(sql, values))

    write = read

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["_Transaction"]:
        yield self


def _abandon(pools: dict[asyncio.AbstractEventLoop, Pool]) -> None:
    for pool in pools.values():
        pool.abandon()
