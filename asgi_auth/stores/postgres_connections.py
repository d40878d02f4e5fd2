"""The connections of ``PostgresStore``: a pool for each event loop. Every wait for the database is bounded."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias, cast

from asgi_auth.errors import ConfigurationError
from asgi_auth.runtime.elapsed import elapsed
from asgi_auth.stores.isolation import DEFAULT_ISOLATION, refuse_other_isolation
from asgi_auth.stores.postgres_cache import NOTIFY, Channel, Heard, SessionCache
from asgi_auth.stores.postgres_dsn import Address

try:
    import asyncpg
except ModuleNotFoundError as exc:
    raise ConfigurationError("PostgresStore needs asyncpg: pip install 'asgi-auth[postgres]'") from exc

from asgi_auth.stores import postgres_schema as schema
from asgi_auth.stores.postgres_waits import FAILURES, GRACE, answered, fetch, transaction

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to connect: by *address* or the pool *shared*. A cache listens at *listen*."""

    address: Address | None
    shared: Callable[[], Pool] | None
    max_connections: int
    seconds: float
    statement_cache_size: int
    session_cache: timedelta | None = None
    listen: Address | None = None


_READ_COMMITTED = {"default_transaction_isolation": "read committed"}
_REFUSED = (asyncpg.ProtocolViolationError, asyncpg.FeatureNotSupportedError)
"""The errors of PgBouncer and Amazon's RDS Proxy for an unknown setting."""
_SETTING_REFUSED = (
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.PostgresSyntaxError,
    *_REFUSED,
)
"""The errors of a server for an unknown setting, or for an invalid value."""


async def _connect(address: Address, _: None = None, **options: Any) -> Any:
    """As ``asyncpg.connect``, but statements outside a transaction are READ COMMITTED for any default of the database.

    The isolation is set at the start of the connection, not by SET: in a pooler SET would change a connection of other
    clients too. If a pooler refuses or ignores the setting, the database's default stays.

    Raises:
        ConfigurationError: the error is known to come from the address.
    """
    if address.system_roots:
        options["ssl"] = ssl.create_default_context()
    try:
        async with asyncio.timeout(address.connect_seconds):
            try:
                connection = await asyncpg.connect(address.dsn, **options, server_settings=_READ_COMMITTED)
            except _REFUSED:
                connection = await asyncpg.connect(address.dsn, **options)
    except (ValueError, OSError, *_SETTING_REFUSED) as exc:
        if (fault := _fault_of(address, exc)) is not None:
            raise ConfigurationError(f"PostgresStore: {address.option}{fault}") from None
        raise
    _set_options(connection, address)
    return connection


def _fault_of(address: Address, error: BaseException) -> str | None:
    """The problem of the address, without its values; None if no problem is known."""
    if isinstance(error, ValueError):
        return ": sslmode=verify-… needs sslrootcert" if address.needs_roots else " cannot be read"
    if isinstance(error, OSError):
        unreadable = [name for name, path in address.files.items() if not os.access(path, os.R_OK)]
        return f": the file of {unreadable[0]} cannot be read" if unreadable else None
    setting = address.refused_setting(str(error))
    return None if setting is None else f": the server refuses {setting} ({type(error).__name__})"


def _set_options(connection: Any, address: Address) -> None:
    sock = connection._transport.get_extra_info("socket")  # asyncpg has no other access to it
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        for option in address.socket_options:
            sock.setsockopt(*option)


async def _check_isolation(connection: Any) -> None:
    async with transaction(connection, None, isolation="read_committed"):  # a pooler gives a transaction one server
        refuse_other_isolation("PostgresStore", await connection.fetchval(DEFAULT_ISOLATION))


class Connections:
    """The connections of one event loop, on a database whose schema was checked.

    Connections of the store's own pool are kept between two uses: returning one to asyncpg's pool and taking it again
    would double the cost of a look-up. No caller waits for the pool while a connection is kept here.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()
        self._ready: Pool | None = None
        self._own: AsyncGenerator[Pool, None] | None = None
        self._idle: list[tuple[Pool, Any]] = []
        self._waiting = 0
        self.channel: Channel | None = None
        if settings.session_cache is not None:
            cache = SessionCache(settings.session_cache, clock=elapsed)
            self.channel = Channel(cache, listen=self._listen, tell=self._tell)

    async def open(self) -> None:
        """Make the pool if there is none. In an empty database, make the schema."""
        async with answered(self._settings.seconds):
            await self._opened()

    async def close(self) -> None:
        """Close the store's own pool. The application's pool stays open."""
        if self.channel is not None:
            await self.channel.close()
        async with self._turn:
            await self._close()

    async def versions(self) -> tuple[int, int]:
        """As ``PostgresStore.versions``."""
        async with self._alone() as connection, answered(self._settings.seconds):
            return await schema.versions(connection)

    async def migrate(self) -> tuple[int, int]:
        """As ``PostgresStore.migrate``."""
        async with self._alone() as connection, answered(None):
            return await schema.upgrade(connection)

    def connection(self) -> "_Lent":
        """A connection, for the block of an ``async with``."""
        return _Lent(self, self._settings.seconds)

    async def take(self) -> tuple[Pool, Any]:
        """A connection and its pool."""
        while self._idle:
            pool, connection = self._idle.pop()
            if _is_open(connection):
                return pool, connection
            await self.give_back(pool, connection)
        async with answered(self._settings.seconds):
            pool = await self._opened()
            self._waiting += 1
            try:
                return pool, await pool.acquire()
            finally:
                self._waiting -= 1

    def keep(self, pool: Pool, connection: Any) -> bool:
        """Keep a working connection for the next use. Returns False if it must be returned to its pool."""
        kept = self._settings.shared is None and not self._waiting and pool is self._ready
        if kept:
            self._idle.append((pool, connection))
        return kept

    async def give_back(self, pool: Pool, connection: Any) -> None:
        """Return a connection to the pool, which ends its work. A broken connection does not fail the finished act."""
        with suppress(*FAILURES):
            await pool.release(connection, timeout=GRACE)  # the pool closes it after this time

    async def _opened(self) -> Pool:
        """The pool. A caller that waits for another caller's try waits no longer than for its own try."""
        shared = self._settings.shared
        while self._ready is None or (shared is not None and shared() is not self._ready):
            async with self._turn:
                await self._open()
        return self._ready

    async def _open(self) -> None:
        if self._ready is not None and self._settings.shared is None:
            return  # another task has opened it meanwhile
        pool = await self._pool()
        try:
            async with self._borrowed(pool) as connection:
                await _check_isolation(connection)
                await schema.ensure(connection)
        except BaseException:
            await self._close()
            raise
        self._ready = pool

    @asynccontextmanager
    async def _borrowed(self, pool: Pool) -> AsyncIterator[Any]:
        """A connection that is not kept. The pool's own context manager has no timeout for the server."""
        connection = await pool.acquire()
        try:
            yield connection
        finally:
            await self.give_back(pool, connection)

    async def _pool(self) -> Pool:
        if self._settings.shared is not None:
            return self._settings.shared()
        self._own = _pool_of_its_own(self._settings, self._idle)
        return await anext(self._own)

    async def _close(self) -> None:
        self._ready = None
        if self._own is not None:
            await self._own.aclose()
            self._own = None

    @asynccontextmanager
    async def _listen(self, channels: Sequence[str], hear: Heard) -> AsyncIterator[asyncio.Event]:
        """As ``postgres_cache.Listen``, on its own connection: holding one of the pool would block closing the pool."""
        ended = asyncio.Event()
        async with answered(self._settings.seconds):
            connection = await _connect(cast("Address", self._settings.listen))
        try:
            connection.add_termination_listener(lambda _: ended.set())
            async with answered(self._settings.seconds):
                for channel in channels:
                    await connection.add_listener(channel, hear)
            yield ended
        finally:
            connection.terminate()  # the server may not answer any more

    async def _tell(self, channel: str, text: str) -> None:
        async with self.connection() as connection:
            await fetch(connection, NOTIFY, (channel, [text]), self._settings.seconds)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Any]:
        """A connection whose statements have no timeout, if it is the store's own."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            async with answered(settings.seconds):
                if settings.shared is not None:
                    connection = await stack.enter_async_context(self._borrowed(settings.shared()))
                else:
                    connection = await _connect(
                        cast("Address", settings.address), statement_cache_size=settings.statement_cache_size
                    )
                    stack.push_async_callback(_end, connection)
            yield connection


class _Lent:
    """A connection for a block. Each look-up uses one; a generator as context manager costs several times as much."""

    __slots__ = ("_connection", "_connections", "_pool", "_until")

    def __init__(self, connections: Connections, seconds: float) -> None:
        self._connections, self._until = connections, time.monotonic() + seconds

    @property
    def seconds(self) -> float:
        """The remaining time for the connection and the first answer together."""
        return self._until - time.monotonic()

    async def __aenter__(self) -> Any:
        self._pool, self._connection = await self._connections.take()
        return self._connection

    async def __aexit__(self, error: object, *_: object) -> None:
        if error is not None or not self._connections.keep(self._pool, self._connection):
            await self._connections.give_back(self._pool, self._connection)


def _is_open(connection: Any) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # it ended, and the pool has taken it back
        return False


async def _end(connection: Any) -> None:
    with suppress(*FAILURES):  # the connection is terminated instead
        await connection.close(timeout=GRACE)


async def _pool_of_its_own(settings: Settings, idle: list[tuple[Pool, Any]]) -> AsyncGenerator[Pool, None]:
    """A pool that is closed with this generator. An event loop closes its remaining generators when it ends."""
    address = cast("Address", settings.address)
    pool = await asyncpg.create_pool(
        connect=partial(_connect, address),
        min_size=0,
        max_size=settings.max_connections,
        timeout=settings.seconds,
        command_timeout=settings.seconds,
        statement_cache_size=settings.statement_cache_size,
        reset=_leave,
    )
    try:
        yield pool
    finally:
        try:
            with suppress(*FAILURES):
                async with asyncio.timeout(settings.seconds):
                    while idle:
                        await pool.release(idle.pop()[1])
                    await pool.close()
        finally:
            idle.clear()
            pool.terminate()  # the remaining connections, also after a cancellation


async def _leave(connection: Any) -> None:
    """Do nothing. The store leaves no state in a connection, and a reset would be one more round trip."""
