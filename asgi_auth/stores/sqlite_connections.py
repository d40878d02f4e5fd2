"""The connections of ``SQLiteStore``: one writer and a few readers for each event loop."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

import aiosqlite

from asgi_auth.errors import StoreUnavailableError
from asgi_auth.runtime.jobs import finished
from asgi_auth.stores.columns import Row
from asgi_auth.stores.sqlite_file import DatabaseFile, LostFileError, broken, busy, read_only

T = TypeVar("T")

_READERS = 2


class Connection(aiosqlite.Connection):
    """A connection whose thread ends with the interpreter. It can be closed without an event loop."""

    def __init__(self, file: DatabaseFile, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self.file = file
        self._thread.daemon = True
        self._stopped: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._stopped.set_result(None)  # nothing to wait for yet
        self.waiting = 0
        """Queries in the thread that have not returned yet."""

    async def begin(self, seconds: float) -> None:
        """Begin a transaction, unless the file is lost. *seconds* is the time to wait for other processes."""
        await self._execute(self._begin, seconds)  # type: ignore[no-untyped-call]

    def _begin(self, seconds: float) -> None:
        self.file.check()  # here, because this already runs in the thread
        self._conn.executescript(f"PRAGMA busy_timeout = {seconds * 1000:.0f}; BEGIN IMMEDIATE")

    async def settle(self) -> None:
        """Roll back an open transaction. This also waits for running calls, because the thread works in order.

        A call continues in the thread when its task is cancelled. The future is a bare one, so that neither a second
        cancellation nor the end of the event loop can cancel it.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, self._conn.rollback))
        await finished(future)

    def stop(self) -> asyncio.Future[Any] | None:
        """As in aiosqlite, but keep the future: aiosqlite forgets it if the database could not be opened."""
        stopped = super().stop()
        self._stopped = stopped or self._stopped
        return stopped

    async def end(self) -> None:
        """Close the connection, also one that is only partly open, and wait for its thread."""
        await self.close()
        await self._stopped

    def abandon(self) -> None:
        """Close the connection from any thread, with or without an event loop."""
        # In its own thread `stop` finds no event loop, and makes no future that must be awaited.
        self._tx.put_nowait((None, self.stop))
        self._thread.join(timeout=1)


_WAITING = attrgetter("waiting")


class Pool:
    """The connections of one event loop: the writer first, then the readers."""

    def __init__(self, file: DatabaseFile, inline_reads: bool) -> None:
        self._file, self._inline_reads = file, inline_reads
        self._turn = asyncio.Lock()  # fair: first come, first served
        self._connections: list[Connection] = []
        self._readers: Sequence[Connection] | None = None
        self._inline: sqlite3.Connection | None = None
        self._read_only = False

    async def open(self) -> None:
        """Open the connections that are not open."""
        async with self._locked():
            await self._open()

    async def close(self) -> None:
        """Close the open connections, after the running transaction."""
        async with self._locked():
            await self._close()

    def abandon(self) -> None:
        """Close the open connections of an ended event loop."""
        if self._inline is not None:
            self._inline.close()
        while self._connections:
            self._connections.pop().abandon()

    async def read(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        """The rows of a query, read in a thread or on the event loop."""
        while self._readers is None:
            await self.open()
        readers = self._readers
        try:
            return await self._read(readers, sql, values)
        except StoreUnavailableError as exc:
            await self._give_up(readers, exc)
            raise

    async def _give_up(self, readers: Sequence[Connection], error: StoreUnavailableError) -> None:
        """Close the connections if *error* of *readers* made them unusable. Raises LostFileError for a lost file."""
        try:
            self._file.check()
        except LostFileError as exc:
            await self._close_if(readers)
            raise exc from error
        if broken(error):
            await self._close_if(readers)

    async def _close_if(self, readers: Sequence[Connection]) -> None:
        async with self._locked():
            if self._readers is readers:  # otherwise they were closed meanwhile, and others may be open
                await self._close()

    async def _read(self, readers: Sequence[Connection], sql: str, values: Sequence[Any]) -> Sequence[Row]:
        if self._inline is not None:
            try:
                return self._inline.execute(sql, values).fetchall()
            except sqlite3.Error as exc:
                if not busy(exc):
                    raise self._file.unavailable(exc) from exc
        # The same reader as the last time if it is idle: its thread, its cache and its statements are warm.
        reader = min(readers, key=_WAITING)
        reader.waiting += 1
        try:
            return await fetch(reader, sql, values)
        except asyncio.CancelledError:
            with suppress(sqlite3.Error, ValueError):  # closed meanwhile, so no query is running
                await reader.settle()
            raise
        finally:
            reader.waiting -= 1

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """The writer, in a new transaction."""
        deadline = time.monotonic() + self._file.timeout
        async with self._locked():
            if self._read_only and self._file.writable():
                await self._close()
            await self._open()
            writer = self._connections[0]
            try:
                with self._file.mapped():
                    await writer.begin(max(deadline - time.monotonic(), 0))
                yield writer
                # Not `commit()`: it would ignore that SQLite has already rolled the transaction back by itself.
                await fetch(writer, "COMMIT", ())
            except BaseException as exc:
                await self._roll_back(writer)
                if read_only(exc):
                    self._read_only = True  # the readers stay in use until the file can be written
                elif broken(exc):
                    await self._close()
                raise

    async def _roll_back(self, writer: Connection) -> None:
        try:
            await writer.settle()
        except sqlite3.Error:
            await self._close()  # the next use opens all connections again

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
        await self._close()  # the last closing may have been interrupted
        try:
            with self._file.mapped():
                await self._connect(self._file.connect_writer)
                for _ in range(_READERS):
                    await self._connect(partial(self._file.connect, "query_only = ON"))
                if self._inline_reads:
                    self._inline = self._file.connect("query_only = ON", timeout=0)
        except BaseException:
            await self._close()
            raise
        self._readers, self._read_only = self._connections[1:], not self._file.writable()

    async def _connect(self, connector: Callable[[], sqlite3.Connection]) -> None:
        connection = Connection(self._file, connector)
        self._connections.append(connection)
        await finished(asyncio.ensure_future(connection))

    async def _close(self) -> None:
        self._readers = None
        if self._inline is not None:
            self._inline.close()
            self._inline = None
        await finished(asyncio.ensure_future(self._end_connections()))

    async def _end_connections(self) -> None:
        while self._connections:  # the writer last: it empties the log
            await self._connections[-1].end()
            self._connections.pop()


class _Values(tuple[Any, ...]):
    """Parameters that aiosqlite's debug log does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<values>"


async def fetch(connection: Connection, sql: str, values: Sequence[Any]) -> Sequence[Row]:
    """The rows of a statement. Raises ConflictError or StoreUnavailableError for an error of SQLite."""
    try:
        rows: Any = await connection.execute_fetchall(sql, _Values(values))
    except sqlite3.Error as exc:
        raise connection.file.unavailable(exc) from exc
    return rows  # type: ignore[no-any-return]  # a list; aiosqlite says Iterable
