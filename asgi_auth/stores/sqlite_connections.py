"""The connections of ``SQLiteStore``: how the file is opened, one writer and a few readers for each event loop."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

import aiosqlite

from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.stores import schema
from asgi_auth.stores.rows import Row
from asgi_auth.stores.sql import ConflictError

T = TypeVar("T")

_READERS = 2
_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables; RETURNING is older


def _unavailable(error: sqlite3.Error | OSError) -> StoreUnavailableError:
    """What SQLite says, without the text of anything."""
    if isinstance(error, sqlite3.IntegrityError):
        return ConflictError(f"sqlite: {error}")  # names tables and columns only
    where = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
    return StoreUnavailableError(f"sqlite: {getattr(error, 'sqlite_errorname', type(error).__name__)}{where}")


@contextmanager
def mapped() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        raise _unavailable(exc) from exc


def _busy(error: sqlite3.Error) -> bool:
    """Another connection is in the way: it may work on a second try."""
    code = getattr(error, "sqlite_errorcode", 0)  # absent where the driver itself complains
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _broken(error: BaseException) -> bool:
    """The file is no database, or not a whole one: connections would keep what they read of it once it is healed."""
    code = getattr(error.__cause__, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DatabaseFile:
    """The database file, and how it is opened; synchronous."""

    _creating = threading.Lock()

    def __init__(self, path: str, timeout: float) -> None:
        self.path, self.timeout = path, timeout

    def connect(self, *pragmas: str, timeout: float | None = None) -> sqlite3.Connection:
        """A connection in autocommit, with *pragmas* done."""
        connection = sqlite3.connect(
            self.path,
            timeout=self.timeout if timeout is None else timeout,
            isolation_level=None,
            check_same_thread=False,  # closed by whichever thread ends last
        )
        try:
            for pragma in ("foreign_keys = ON", "synchronous = FULL", *pragmas):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_writer(self) -> sqlite3.Connection:
        """The first connection: makes the file, the log and the schema."""
        connection = self._create()
        try:
            schema.ensure(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def migrate(self) -> tuple[int, int]:
        """As ``SQLiteStore.migrate``."""
        connection = self._create()
        try:
            return schema.upgrade(connection)
        finally:
            connection.close()

    def _create(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise ConfigurationError(f"SQLiteStore: SQLite {sqlite3.sqlite_version} is older than 3.37")
        # Closing a file descriptor drops every lock that this process holds on the file, so never open one that SQLite
        # may have open already; the lock keeps other threads from opening the new file before it is closed here.
        with self._creating, suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))
        connection = self.connect()
        try:
            self._log_ahead(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _log_ahead(self, connection: sqlite3.Connection) -> None:
        """Switch to the write-ahead log. Does not wait for other processes by itself, so try until the time is up."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as exc:
                if not _busy(exc) or time.monotonic() >= deadline:
                    raise
            time.sleep(0.01)


class _Connection(aiosqlite.Connection):
    """A connection whose thread ends with the interpreter, and which can be closed without an event loop."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._thread.daemon = True
        self._stopped: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._stopped.set_result(None)  # nothing to wait for yet
        self.waiting = 0
        """Queries that were handed to the thread and are not back yet."""

    async def settle(self) -> None:
        """Roll back what is open, and so wait for what is in flight: the thread works in order.

        A call goes on in the thread when its task is cancelled. The future is a bare one, so that nothing can cancel it
        in its turn: neither a second time nor the end of the event loop.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, self._conn.rollback))
        await _finish(future)

    def stop(self) -> asyncio.Future[Any] | None:
        """As aiosqlite does, which forgets the future where the database could not be opened."""
        stopped = super().stop()
        self._stopped = stopped or self._stopped
        return stopped

    async def end(self) -> None:
        """Close it, however far it got, and wait for its thread."""
        await self.close()
        await self._stopped

    def abandon(self) -> None:
        """Close it from whatever thread, event loop or not."""
        # In its own thread `stop` finds no event loop, and makes no future that somebody would have to await.
        self._tx.put_nowait((None, self.stop))
        self._thread.join(timeout=1)


async def _finish(future: asyncio.Future[T]) -> T:
    """Await *future* to its end, however often the task is cancelled meanwhile; only then be cancelled."""
    interrupted: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as exc:
            interrupted = exc
    if interrupted is not None:
        raise interrupted
    return future.result()


_WAITING = attrgetter("waiting")


class Pool:
    """The connections of one event loop: the writer first, then the readers."""

    def __init__(self, file: DatabaseFile, inline_reads: bool) -> None:
        self._file, self._inline_reads = file, inline_reads
        self._turn = asyncio.Lock()  # fair: first come, first served
        self._connections: list[_Connection] = []
        self._readers: Sequence[_Connection] | None = None
        self._inline: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open whatever is not open."""
        async with self._locked():
            await self._open()

    async def close(self) -> None:
        """Close whatever is open, after the transaction that is under way."""
        async with self._locked():
            await self._close()

    def abandon(self) -> None:
        """Close whatever is open; the event loop is gone."""
        if self._inline is not None:
            self._inline.close()
        while self._connections:
            self._connections.pop().abandon()

    async def read(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        """The rows of a query: one hop to a thread, or none."""
        while self._readers is None:
            await self.open()
        try:
            return await self._read(self._readers, sql, values)
        except StoreUnavailableError as exc:
            if _broken(exc):
                await self.close()
            raise

    async def _read(self, readers: Sequence[_Connection], sql: str, values: Sequence[Any]) -> Sequence[Row]:
        if self._inline is not None:
            try:
                return self._inline.execute(sql, values).fetchall()
            except sqlite3.Error as exc:
                if not _busy(exc):
                    raise _unavailable(exc) from exc
        # The same as the last time if it is idle: its thread, its cache and its statements are warm.
        reader = min(readers, key=_WAITING)
        reader.waiting += 1
        try:
            return await fetch(reader, sql, values)
        except asyncio.CancelledError:
            with suppress(sqlite3.Error, ValueError):  # closed meanwhile, so that nothing is in flight
                await reader.settle()
            raise
        finally:
            reader.waiting -= 1

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Connection]:
        """The writer, inside a transaction of its own."""
        deadline = time.monotonic() + self._file.timeout
        async with self._locked():
            await self._open()
            writer = self._connections[0]
            left = max(deadline - time.monotonic(), 0)
            try:
                with mapped():
                    await writer.executescript(f"PRAGMA busy_timeout = {left * 1000:.0f}; BEGIN IMMEDIATE")
                yield writer
                # Not `commit()`, which would pass over a transaction that SQLite has rolled back by itself.
                await fetch(writer, "COMMIT", ())
            except BaseException as exc:
                await self._roll_back(writer)
                if _broken(exc):
                    await self._close()
                raise

    async def _roll_back(self, writer: _Connection) -> None:
        try:
            await writer.settle()
        except sqlite3.Error:
            await self._close()  # the next use opens everything anew

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._file.timeout):
                await self._turn.acquire()
        except TimeoutError:
            raise StoreUnavailableError("sqlite: the writer is busy") from None
        try:
            yield
        finally:
            self._turn.release()

    async def _open(self) -> None:
        if self._readers is not None:
            return
        await self._close()  # if that was interrupted the last time
        try:
            with mapped():
                await self._connect(self._file.connect_writer)
                for _ in range(_READERS):
                    await self._connect(partial(self._file.connect, "query_only = ON"))
                if self._inline_reads:
                    self._inline = self._file.connect("query_only = ON", timeout=0)
        except BaseException:
            await self._close()
            raise
        self._readers = self._connections[1:]

    async def _connect(self, connector: Callable[[], sqlite3.Connection]) -> None:
        connection = _Connection(connector)
        self._connections.append(connection)
        await _finish(asyncio.ensure_future(connection))

    async def _close(self) -> None:
        self._readers = None
        if self._inline is not None:
            self._inline.close()
            self._inline = None
        await _finish(asyncio.ensure_future(self._end_connections()))

    async def _end_connections(self) -> None:
        while self._connections:  # the writer last: it empties the log
            await self._connections[-1].end()
            self._connections.pop()


class _Values(tuple[Any, ...]):
    """Parameters that do not show in aiosqlite's debug log."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<values>"


async def fetch(connection: aiosqlite.Connection, sql: str, values: Sequence[Any]) -> Sequence[Row]:
    """The rows of a statement; StoreUnavailableError or ConflictError for what SQLite says."""
    try:
        rows: Any = await connection.execute_fetchall(sql, _Values(values))
    except sqlite3.Error as exc:
        raise _unavailable(exc) from exc
    return rows  # type: ignore[no-any-return]  # a list; aiosqlite says Iterable
