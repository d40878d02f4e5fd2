"""The schema on PostgreSQL: created once, upgraded from every released version, and never guessed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from asgi_auth.doctor import examine
from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.stores import PostgresStore, postgres_schema, schema
from tests.postgres import database
from tests.support import make_auth

pytestmark = pytest.mark.anyio

RELEASED = sorted((Path(__file__).parent / "schema").glob("postgres_*.sql"))
NEWEST = len(RELEASED)
SHAPE = """
SELECT table_name, column_name, data_type, is_nullable, generation_expression FROM information_schema.columns
WHERE table_schema = current_schema() ORDER BY 1, 2"""
INDEXES = "SELECT indexname, split_part(indexdef, ' USING ', 2) FROM pg_indexes WHERE schemaname = current_schema()"


@pytest.fixture
async def dsn() -> AsyncIterator[str]:
    """The address of an empty database."""
    async with database() as address:
        yield address


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[Any]:
    """A connection to the empty database."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def shape(connection: Any) -> list[Any]:
    """All columns and indexes."""
    return [*await connection.fetch(SHAPE), *sorted(await connection.fetch(INDEXES))]


def more_steps(monkeypatch: pytest.MonkeyPatch, *statements: str) -> None:
    """Add one version to the released versions."""
    released = schema.steps("postgres")
    monkeypatch.setattr(schema, "steps", lambda dialect: (*released, statements))


@pytest.mark.parametrize("version", range(1, NEWEST + 1))
async def test_postgres_schema_upgrade_from_each_released_version(connection: Any, version: int) -> None:
    """After an upgrade, a database of any released version equals a new one, and keeps its rows."""
    for path in RELEASED[:version]:
        await connection.execute(path.read_text("utf-8"))
    await connection.execute("INSERT INTO asgi_auth_schema (version) VALUES ($1)", version)
    await connection.execute(
        "INSERT INTO asgi_auth_users VALUES ('user', gen_random_uuid(), 'a', 'a', 'b', 'b', '{}', now())"
    )
    assert await postgres_schema.upgrade(connection) == (version, NEWEST)
    async with database() as other:
        fresh = await asyncpg.connect(other)
        await postgres_schema.ensure(fresh)
        assert await shape(connection) == await shape(fresh)
        await fresh.close()
    await postgres_schema.ensure(connection)
    assert await connection.fetchval("SELECT email FROM asgi_auth_users") == "a"


async def test_postgres_schema_older_version_names_the_command(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening does not change an older schema. The error names the command, and the command upgrades the schema."""
    await postgres_schema.ensure(connection)
    more_steps(monkeypatch, "ALTER TABLE asgi_auth_users ADD COLUMN nickname TEXT")
    with pytest.raises(ConfigurationError, match="python -m asgi_auth migrate"):
        await postgres_schema.ensure(connection)
    assert await postgres_schema.upgrade(connection) == (NEWEST, NEWEST + 1)
    await postgres_schema.ensure(connection)
    assert await connection.fetch("SELECT nickname FROM asgi_auth_users") == []


@pytest.mark.parametrize("versions", [[NEWEST + 1], [-1], [], [1, 1]], ids=str)
async def test_postgres_schema_unknown_version_is_rejected(dsn: str, connection: Any, versions: list[int]) -> None:
    """The store neither uses nor migrates a schema of an unknown version."""
    await postgres_schema.ensure(connection)
    await connection.execute("DELETE FROM asgi_auth_schema")
    await connection.executemany("INSERT INTO asgi_auth_schema VALUES ($1)", [(version,) for version in versions])
    store = PostgresStore(dsn)
    for act in (store.open, store.migrate):
        with pytest.raises(ConfigurationError, match="newer"):
            await act()
    await store.close()


async def test_postgres_schema_failed_upgrade_changes_nothing(
    dsn: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that fails half-way leaves the schema unchanged."""
    await postgres_schema.ensure(connection)
    before = await shape(connection)
    more_steps(monkeypatch, "CREATE TABLE asgi_auth_more (id TEXT)", "CREATE TABLE asgi_auth_users (id TEXT)")
    with pytest.raises(StoreUnavailableError, match="DuplicateTableError"):
        await PostgresStore(dsn).migrate()
    assert await shape(connection) == before


async def test_postgres_schema_is_created_once(dsn: str, connection: Any) -> None:
    """A store that starts while another connection creates the schema waits, and then uses that schema."""
    store = PostgresStore(dsn)
    async with connection.transaction(isolation="read_committed"):
        await postgres_schema.upgrade(connection)
        opening = asyncio.create_task(store.open())
        await asyncio.wait([opening], timeout=0.2)
        assert not opening.done()
    await opening
    assert await postgres_schema.version(connection) == NEWEST
    await store.close()


async def test_postgres_schema_is_not_created_by_reading(tmp_path: Path, dsn: str, connection: Any) -> None:
    """``versions``, pruning and the doctor create no tables, because the database may be the wrong one."""
    auth = make_auth(tmp_path, store=PostgresStore(dsn))
    assert await auth.store.versions() == (0, NEWEST)
    with pytest.raises(ConfigurationError, match="the database does not exist or lacks tables of the library"):
        await auth.prune()
    [told] = [finding for finding in await examine(auth) if finding.parameter == "store"]
    assert (told.unsafe, told.advice) == (
        False,
        "the database lacks tables of the library; the first start makes them",
    )
    assert await shape(connection) == []
    await auth.open()
    assert await auth.store.versions() == (NEWEST, NEWEST)
    await auth.close()
    assert await auth.prune() == 0
    await auth.close()
