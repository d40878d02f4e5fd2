"""Stores on a PostgreSQL database whose default isolation is above READ COMMITTED."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from asgi_auth.errors import ConfigurationError
from asgi_auth.store import Counted
from asgi_auth.stores import PostgresStore, SQLAlchemyStore
from asgi_auth.testing.stores.records import HOUR, NOW, add_token, add_user, together
from tests.postgres import another_database, database, execute
from tests.stores.caching import Relay
from tests.stores.engines import make
from tests.stores.models import IntUser
from tests.support import EMAIL, eventually, make_auth, register, until

pytestmark = pytest.mark.anyio

REMEDY = "ALTER ROLE … SET default_transaction_isolation = 'read committed'"
READ_COMMITTED = {"default_transaction_isolation": "read committed"}
END = NOW + HOUR


@pytest.fixture
async def dsn(serializable: str) -> AsyncIterator[str]:
    """The address of an empty database whose default isolation is SERIALIZABLE."""
    async with database(serializable) as address:
        yield address


@pytest.fixture(scope="module")
def repeatable_read() -> Iterator[str]:
    """The address of a database whose default isolation is REPEATABLE READ."""
    with another_database(default_transaction_isolation="repeatable read") as address:
        yield address


async def waits_for_a_lock(dsn: str) -> None:
    """Return when a statement in this database waits for another one."""

    async def waits() -> bool:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(await execute(dsn, waiting))

    await eventually(waits)


async def second_answer(dsn: str, scoped: Any, act: Callable[[Any], Awaitable[Any]]) -> Any:
    """The answer to *act* when it waits for a transaction that does the same and commits."""
    async with scoped.transaction() as work:
        await act(work)
        second = asyncio.create_task(together([act(scoped)]))
        await waits_for_a_lock(dsn)
    [answer] = await second
    return answer


async def check_races(dsn: str, scoped: Any) -> None:
    """Each statement that waits for another one sees the other's committed changes."""
    found = await add_user(scoped)
    record = await add_token(scoped, found)
    user_id = found.account.user_id

    async def count(stores: Any) -> Any:
        return await stores.counters.count("mail", b"k", now=NOW, expires_at=END)

    async def consume(stores: Any) -> Any:
        return await stores.tokens.consume("reset", record.token_hash, now=NOW)

    async def retire(stores: Any) -> Any:
        return await stores.tokens.retire("confirm", user_id)

    async def set_password(stores: Any) -> Any:
        return await stores.accounts.update(user_id, {"password_hash": "b"}, expected={"password_hash": None})

    await add_token(scoped, found, purpose="confirm")
    assert await second_answer(dsn, scoped, count) == Counted(2, END)
    assert await second_answer(dsn, scoped, count) == Counted(4, END)
    assert await second_answer(dsn, scoped, consume) is None
    assert await second_answer(dsn, scoped, retire) == 0
    assert await second_answer(dsn, scoped, set_password) is None


# --- PostgresStore ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement_cache_size", [100, 0])
async def test_postgres_store_resolves_races_on_serializable(dsn: str, statement_cache_size: int) -> None:
    """FT-5: if the database's default is SERIALIZABLE, a statement that waits for another one does not fail."""
    store = PostgresStore(dsn, statement_cache_size=statement_cache_size)
    await check_races(dsn, store.scope("user"))
    await store.close()


async def test_postgres_store_resolves_races_on_repeatable_read(repeatable_read: str) -> None:
    """FT-5: if the database's default is REPEATABLE READ, a statement that waits for another one does not fail."""
    async with database(repeatable_read) as dsn:
        store = PostgresStore(dsn)
        await check_races(dsn, store.scope("user"))
        await store.close()


async def test_reset_request_that_waits_for_another_sends_its_mail(dsn: str, tmp_path: Path) -> None:
    """FT-5: two simultaneous reset requests for one address both send their mail."""
    auth = make_auth(tmp_path, store=PostgresStore(dsn))
    async with auth.running():
        await register(auth)
        password = auth.strategy("password")
        await password.reset_request({"email": EMAIL})
        connection = await asyncpg.connect(dsn)
        async with connection.transaction(isolation="read_committed"):
            await connection.execute("UPDATE asgi_auth_counters SET count = count + 1")  # as another request does
            second = asyncio.create_task(password.reset_request({"email": EMAIL}))
            await waits_for_a_lock(dsn)
        await second
        await connection.close()
    assert len(auth.sender.messages) == 2


async def test_postgres_store_listens_and_migrates_at_read_committed(dsn: str) -> None:
    """The connections that the store opens outside its pool use READ COMMITTED too."""
    store = PostgresStore(dsn)
    assert await store.migrate() == (0, 3)
    connections = store._database.connections()
    heard: list[Any] = []
    isolation = "SELECT current_setting('transaction_isolation')"
    async with (
        connections._alone() as alone,
        connections._listen(["told"], lambda connection, *_: heard.append(connection)),
    ):
        assert await alone.fetchval(isolation) == "read committed"
        await alone.execute("NOTIFY told")
        await until(lambda: bool(heard))
        assert await heard[0].fetchval(isolation) == "read committed"


async def test_postgres_store_refuses_a_pool_with_another_isolation(dsn: str) -> None:
    """The store uses an application's pool only if its default is READ COMMITTED. The error names the remedy."""
    pools = [await asyncpg.create_pool(dsn, min_size=0, max_size=2)]
    store = PostgresStore(pool=lambda: pools[-1])
    await store.migrate()
    acts: list[Callable[[], Awaitable[Any]]] = [store.open, lambda: store.scope("user").users.get("a")]
    for act in acts:
        with pytest.raises(ConfigurationError, match=REMEDY):
            await act()
    pools.append(await asyncpg.create_pool(dsn, min_size=0, max_size=2, server_settings=READ_COMMITTED))
    await check_races(dsn, store.scope("user"))
    for pool in pools:
        await pool.close()


class Pooler(Relay):
    """A relay that refuses an unknown setting with this error code, like a pooler."""

    def __init__(self, dsn: str, code: bytes) -> None:
        super().__init__(dsn)
        self._code = code

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = await reader.readexactly(4)
        start = size + await reader.readexactly(int.from_bytes(size) - 4)
        if b"default_transaction_isolation" in start:
            fields = b"SFATAL\0C" + self._code + b"\0Mthis is not supported\0\0"
            writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
            writer.close()
        else:
            reader.feed_data(start)
            await super()._serve(reader, writer)


@pytest.mark.parametrize("code", [b"08P01", b"0A000"])
async def test_postgres_store_checks_the_isolation_behind_a_pooler(dsn: str, code: bytes) -> None:
    """If a pooler refuses the setting, the store accepts the database's default only if it is READ COMMITTED."""
    async with Pooler(dsn, code).running() as pooler, database() as usual, Pooler(usual, code).running() as good:
        store = PostgresStore(f"{pooler.dsn}&sslmode=disable")
        assert await store.migrate() == (0, 3)
        with pytest.raises(ConfigurationError, match=REMEDY):
            await store.open()
        await store.close()
        store = PostgresStore(f"{good.dsn}&sslmode=disable")
        await check_races(usual, store.scope("user"))
        await store.close()


# --- SQLAlchemyStore -------------------------------------------------------------------------------------------------


async def test_sqlalchemy_store_refuses_another_isolation(dsn: str) -> None:
    """The store uses an engine only if its connections default to READ COMMITTED. Its own transactions may differ."""

    async def connect(**settings: str) -> Any:
        return await asyncpg.connect(dsn, server_settings=settings)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
    await make(engine, IntUser)
    with pytest.raises(ConfigurationError, match=f"^SQLAlchemyStore: .*{REMEDY}"):
        await SQLAlchemyStore(engine, IntUser).open()
    await engine.dispose()
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect(**READ_COMMITTED), isolation_level="SERIALIZABLE"
    )
    store = SQLAlchemyStore(engine, IntUser)
    await store.open()
    await check_races(dsn, store.scope("user"))
    await engine.dispose()
