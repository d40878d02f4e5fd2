"""Bounded waits for PostgreSQL: for an answer, and for the cleanup after a failure."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from asgi_auth.errors import StoreUnavailableError
from asgi_auth.stores.columns import Row
from asgi_auth.stores.executor import ConflictError

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""The exceptions of the driver when the database fails. OSError includes TimeoutError."""

GRACE = 1.0
"""Seconds that the caller of a failed act still waits, while the server ends its statement and rolls back.

The result is already known, so this is shorter than a timeout for an answer. A slower connection is terminated.
"""


def _unavailable(error: BaseException) -> StoreUnavailableError:
    """The error of the database without its text, which quotes values."""
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return ConflictError(f"postgres: {type(error).__name__}: {error.constraint_name}")
    return StoreUnavailableError(f"postgres: {type(error).__name__}")


@asynccontextmanager
async def answered(seconds: float | None) -> AsyncIterator[None]:
    """Raises StoreUnavailableError if the database fails in the block, or if the block takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except FAILURES as exc:
        raise _unavailable(exc) from None


async def fetch(connection: Any, sql: str, values: Sequence[Any], seconds: float) -> Sequence[Row]:
    """The rows of a statement. Raises ConflictError or StoreUnavailableError for an error of the database."""
    try:
        rows: Sequence[Row] = await connection.fetch(sql, *values, timeout=seconds)
    except FAILURES as exc:
        raise _unavailable(exc) from None
    return rows


@asynccontextmanager
async def transaction(connection: Any, seconds: float | None, **options: Any) -> AsyncIterator[None]:
    """Run the block in a transaction, or in a savepoint of one. Exceptions of the block are raised unchanged.

    Args:
        connection: An asyncpg connection, or one of a pool.
        seconds: How long to wait for the answer to BEGIN, and to COMMIT. None: no timeout.
        options: The options of ``connection.transaction``.
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
    """End a connection without a message to the server. The server rolls back when it notices."""
    with suppress(asyncpg.InterfaceError):  # it has ended, and the pool has it again
        connection.terminate()
