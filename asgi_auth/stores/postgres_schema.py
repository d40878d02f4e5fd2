"""The schema in a PostgreSQL database. It is made and migrated once, even if many processes start at the same time."""

from typing import Any

import asyncpg

from asgi_auth.stores import schema
from asgi_auth.stores.postgres_waits import transaction

# The errors of a process that makes the schema while another one does. Its next try finds the other one's schema.
_RACED = (asyncpg.UniqueViolationError, asyncpg.DuplicateTableError, asyncpg.SerializationError)
_TRIES = 5


async def version(connection: Any) -> int:
    """The version of the schema; 0 if there is none, -1 if it cannot be read."""
    async with transaction(connection, None, isolation="read_committed"):
        return await _version(connection)


async def versions(connection: Any) -> tuple[int, int]:
    """The version of the schema, and the newest one."""
    return await version(connection), len(schema.steps("postgres"))


async def _version(connection: Any, *, lock: bool = False) -> int:
    if not await connection.fetchval("SELECT to_regclass('asgi_auth_schema') IS NOT NULL"):
        return 0
    rows = await connection.fetch("SELECT version FROM asgi_auth_schema" + " FOR UPDATE" * lock)  # noqa: S608  # literals
    return int(rows[0][0]) if len(rows) == 1 else -1


async def ensure(connection: Any) -> None:
    """Make the newest schema if there is none. Refuse any other version.

    Raises:
        ConfigurationError: the schema is older than this package, or unknown.
    """
    if await version(connection) == 0:
        await upgrade(connection)
    schema.refuse_older(await version(connection), len(schema.steps("postgres")))


async def upgrade(connection: Any) -> tuple[int, int]:
    """Bring any released schema to the newest in one transaction. Returns the versions before and after.

    Raises:
        ConfigurationError: this package does not know the schema.
    """
    for _ in range(_TRIES - 1):
        try:
            return await _upgrade(connection)
        except _RACED:
            continue
    return await _upgrade(connection)


async def _upgrade(connection: Any) -> tuple[int, int]:
    newest = len(schema.steps("postgres"))
    async with transaction(connection, None, isolation="read_committed"):
        # The row is locked while the tables change. If there is none yet, the first table can be made only once.
        before = await _version(connection, lock=True)
        schema.refuse_unknown(before, newest)
        for statement in (statement for step in schema.steps("postgres")[before:] for statement in step):
            await connection.execute(statement)
        if before == 0:
            await connection.execute("INSERT INTO asgi_auth_schema (version) VALUES ($1)", newest)
        else:  # never deleted and inserted again: a process that waits for the row would find none
            await connection.execute("UPDATE asgi_auth_schema SET version = $1", newest)
    return before, newest
