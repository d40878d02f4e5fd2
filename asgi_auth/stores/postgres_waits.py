"""Waits for PostgreSQL, each of them bounded: for an answer, and for what is left to do after a failure."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from asgi_auth.errors import StoreUnavailableError
from asgi_auth.stores.columns import Row
from asgi_auth.stores.executor import ConflictError

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What the driver raises when the database fails; OSError includes TimeoutError."""

GRACE = 1.0
"""Seconds for what the caller of a failed act still waits for: that the server ends its statement and rolls back.

The answer is known by then, so this is not the time for an answer once more. A connection that takes longer is cut off.
"""


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
    except FAILURES as exc:
        raise _unavailable(exc) from None


async def fetch(connection: Any, sql: str, values: Sequence[Any], seconds: float) -> Sequence[Row]:
    """The rows of a statement; StoreUnavailableError or ConflictError for what the database says."""
    try:
        rows: Sequence[Row] = await connection.fetch(sql, *values, timeout=seconds)
    except FAILURES as exc:
        raise _unavailable(exc) from None
    return rows


@asynccontextmanager
async def transaction(connection: Any, seconds: float | None, **options: Any) -> AsyncIterator[None]:
    """The block in a transaction, or inside one in a savepoint. What the block raises is passed on as it is.

    Args:
        connection: An asyncpg connection, or one of a pool.
        seconds: How long to wait for the answer to BEGIN, and to COMMIT. None: as long as it takes.
        options: As ``connection.transaction`` takes them.
    """
    begun = connection.transaction(**options)
    async with answered(seconds):
        await begun.__aenter__()
    try:
        yield
    except BaseException as exc:
        try:
            async with asyncio.timeout(GRACE):
                await begun.__aexit__(type(exc), exc, exc.__traceback__)
        except FAILURES:
            cut_off(connection)
        raise
    async with answered(seconds):
        await begun.__aexit__(None, None, None)


def cut_off(connection: Any) -> None:
    """End a connection without a word to the server, which rolls back what is under way once it notices."""
    with suppress(asyncpg.InterfaceError):  # it has ended, and the pool has taken it back
        connection.terminate()
