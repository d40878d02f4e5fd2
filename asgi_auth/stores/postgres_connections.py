"""The connections of ``PostgresStore``: a pool for each event loop, and every wait for the database bounded."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.stores import postgres_cache
from asgi_auth.stores.isolation import DEFAULT_ISOLATION, refuse_other_isolation
from asgi_auth.stores.postgres_cache import NOTIFY, Channel, Heard, SessionCache
from asgi_auth.stores.rows import Row
from asgi_auth.stores.sql import ConflictError

try:
    import asyncpg
except ModuleNotFoundError as exc:
    raise ConfigurationError("PostgresStore needs asyncpg: pip install 'asgi-auth[postgres]'") from exc

from asgi_auth.stores import postgres_schema as schema

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What the driver raises when the database does not do as it should; OSError has TimeoutError in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the database is reached."""

    dsn: str | None = field(repr=False)
    shared: Callable[[], Pool] | None
    max_connections: int
    seconds: float
    statement_cache_size: int
    session_cache: timedelta | None = None
    listen_dsn: str | None = field(default=None, repr=False)


def _unavailable(error: BaseException) -> StoreUnavailableError:
    """What the database says without its text, which quotes values."""
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return ConflictError(f"postgres: {type(error).__name__}: {error.constraint_name}")
    return StoreUnavailableError(f"postgres: {type(error).__name__}")


@asynccontextmanager
async def answered(seconds: float | None) -> AsyncIterator[None]:
    """StoreUnavailableError for a block that the database fails, or that takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except ValueError:  # which has parts of it
        raise ConfigurationError("PostgresStore: dsn cannot be read") from None
    except FAILURES as exc:
        raise _unavailable(exc) from None


async def fetch(connection: Any, sql: str, values: Sequence[Any], seconds: float) -> Sequence[Row]:
    """The rows of a statement; StoreUnavailableError or ConflictError for what the database says."""
    try:
        rows: Sequence[Row] = await connection.fetch(sql, *values, timeout=seconds)
    except FAILURES as exc:
        raise _unavailable(exc) from None
    return rows


_READ_COMMITTED = {"default_transaction_isolation": "read committed"}
_REFUSED = (asyncpg.ProtocolViolationError, asyncpg.FeatureNotSupportedError)
"""What PgBouncer, or Amazon's RDS Proxy, answers to a setting that it does not know."""


async def _connect(dsn: str | None = None, **options: Any) -> Any:
    """As ``asyncpg.connect``; statements outside a transaction are READ COMMITTED, whatever the database's default.

    It is asked for at the start of the connection, not by SET: in a pooler SET would change a connection that others
    use as well. A pooler that refuses the setting, or ignores it, leaves the database's default.
    """
    try:
        return await asyncpg.connect(dsn, **options, server_settings=_READ_COMMITTED)
    except _REFUSED:
        return await asyncpg.connect(dsn, **options)


async def _check_isolation(connection: Any) -> None:
    async with connection.transaction(isolation="read_committed"):  # a pooler hands it to one server as a whole
        refuse_other_isolation("PostgresStore", await connection.fetchval(DEFAULT_ISOLATION))


@asynccontextmanager
async def transaction(connection: Any, seconds: float, **options: Any) -> AsyncIterator[None]:
    """The block in a transaction, or inside one in a savepoint. What the block raises is passed on as it is."""
    begun = connection.transaction(**options)
    async with answered(seconds):
        await begun.__aenter__()
    try:
        yield
    except BaseException as exc:
        with suppress(*FAILURES):  # the connection is gone, and the transaction with it
            async with asyncio.timeout(seconds):
                await begun.__aexit__(type(exc), exc, exc.__traceback__)
        raise
    async with answered(seconds):
        await begun.__aexit__(None, None, None)


class Connections:
    """The connections of one event loop, on a database whose schema is seen to be the newest.

    Those of the store's own pool are kept from one use to the next: to hand one back to asyncpg's pool and to ask for
    it again would double the cost of a look-up. Nobody waits for the pool while one lies here.
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
            cache = SessionCache(settings.session_cache, clock=postgres_cache.elapsed)
            self.channel = Channel(cache, listen=self._listen, tell=self._tell)

    async def open(self) -> Pool:
        """The pool; where there is none, it is made, and in an empty database the schema."""
        shared = self._settings.shared
        while self._ready is None or (shared is not None and shared() is not self._ready):
            async with self._turn:
                await self._open()
        return self._ready

    async def close(self) -> None:
        """Close the store's own pool; leave the application's."""
        if self.channel is not None:
            await self.channel.close()
        async with self._turn:
            await self._close()

    async def migrate(self) -> tuple[int, int]:
        """As ``PostgresStore.migrate``."""
        async with self._alone() as connection, answered(None):
            return await schema.upgrade(connection)

    def connection(self) -> "_Lent":
        """A connection, for the block of an ``async with``."""
        return _Lent(self)

    async def take(self) -> tuple[Pool, Any]:
        """A connection and its pool."""
        while self._idle:
            pool, connection = self._idle.pop()
            if _is_open(connection):
                return pool, connection
            await self.give_back(pool, connection)
        pool = await self.open()
        self._waiting += 1
        try:
            async with answered(self._settings.seconds):
                return pool, await pool.acquire()
        finally:
            self._waiting -= 1

    def keep(self, pool: Pool, connection: Any) -> bool:
        """Keep a sound connection for the next use; False if it must go back to its pool."""
        kept = self._settings.shared is None and not self._waiting and pool is self._ready
        if kept:
            self._idle.append((pool, connection))
        return kept

    async def give_back(self, pool: Pool, connection: Any) -> None:
        """To the pool, which ends what is under way. That the connection is broken is no failure of what was done."""
        with suppress(*FAILURES):
            await pool.release(connection, timeout=self._settings.seconds)

    async def _open(self) -> None:
        if self._ready is not None and self._settings.shared is None:
            return  # somebody else has opened it meanwhile
        pool = await self._pool()
        try:
            async with answered(self._settings.seconds), pool.acquire() as connection:
                await _check_isolation(connection)
                await schema.ensure(connection)
        except BaseException:
            await self._close()
            raise
        self._ready = pool

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
        """As ``postgres_cache.Listen``, on a connection of its own: while a pool's is held, it cannot be closed."""
        ended = asyncio.Event()
        async with answered(self._settings.seconds):
            connection = await _connect(self._settings.listen_dsn)
        try:
            connection.add_termination_listener(lambda _: ended.set())
            async with answered(self._settings.seconds):
                for channel in channels:
                    await connection.add_listener(channel, hear)
            yield ended
        finally:
            connection.terminate()  # it may be that nobody answers any more

    async def _tell(self, channel: str, text: str) -> None:
        async with self.connection() as connection:
            await fetch(connection, NOTIFY, (channel, [text]), self._settings.seconds)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Any]:
        """A connection whose statements may take their time, where that is for us to say."""
        settings = self._settings
        connection: Any
        async with AsyncExitStack() as stack:
            async with answered(settings.seconds):
                if settings.shared is not None:
                    connection = await stack.enter_async_context(settings.shared().acquire())
                else:
                    connection = await _connect(settings.dsn, statement_cache_size=settings.statement_cache_size)
                    stack.push_async_callback(connection.close, timeout=settings.seconds)
            yield connection


class _Lent:
    """A connection for a block. Each look-up has one, and a generator's context manager costs several times as much."""

    __slots__ = ("_connection", "_connections", "_pool")

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

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


async def _pool_of_its_own(settings: Settings, idle: list[tuple[Pool, Any]]) -> AsyncGenerator[Pool, None]:
    """A pool that is closed with this generator; an event loop that ends closes the generators that are left."""
    pool = await asyncpg.create_pool(
        settings.dsn,
        connect=_connect,
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
            pool.terminate()  # whatever is left, also if this was cancelled


async def _leave(connection: Any) -> None:
    """Nothing that the store does leaves a trace in a connection; to reset it would be one more round trip."""
