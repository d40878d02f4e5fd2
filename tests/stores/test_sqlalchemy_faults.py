"""SQLAlchemyStore and faults: of the database, of the application, and cancelled tasks."""

import asyncio
import sqlite3
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import selectinload

from asgi_auth.errors import ConfigurationError, StoreUnavailableError, ValidationError
from asgi_auth.stores.sqlalchemy import SQLAlchemyStore
from asgi_auth.testing.stores.records import NOW, add_session, add_token, add_user
from asgi_auth.types import Account
from tests.postgres import database, execute
from tests.stores.engines import Engines, engines, make
from tests.stores.models import IntUser, UuidUser

pytestmark = pytest.mark.anyio


async def test_pool_exhausted_is_unavailable_in_time(made: Engines) -> None:
    """FT-1: a caller that gets no connection fails in bounded time. A later call succeeds."""
    engine = made(pool_size=1, max_overflow=0)
    scoped = SQLAlchemyStore(engine, IntUser).scope("user")
    hasty = SQLAlchemyStore(engine, IntUser, timeout=timedelta(seconds=0.2)).scope("user")
    alice = await add_user(scoped)
    record = await add_token(scoped, alice)
    async with scoped.transaction():
        with pytest.raises(StoreUnavailableError):
            await hasty.tokens.consume("reset", record.token_hash, now=NOW)
        with pytest.raises(StoreUnavailableError):
            async with hasty.transaction():
                raise AssertionError  # pragma: no cover  # never entered
    assert await scoped.tokens.consume("reset", record.token_hash, now=NOW) == record


async def test_every_engine_gets_its_listener_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also an engine that reuses the memory address of a deleted one, whose listeners SQLAlchemy still reports."""
    monkeypatch.setattr(event, "contains", lambda *_: True)
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
    for _ in range(2):
        SQLAlchemyStore(engine, IntUser)

    heard = [listener.__name__ for listener in engine.sync_engine.dialect.dispatch.handle_error]
    assert heard.count("_note_broken") == 1


async def test_error_has_no_values(engine: AsyncEngine, store: SQLAlchemyStore[IntUser]) -> None:
    """SE-13: neither the error nor its cause quotes the statement or the values."""
    scoped = store.scope("user")
    alice = await add_user(scoped)
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE asgi_auth_tokens"))
    with pytest.raises(StoreUnavailableError) as error:
        await add_token(scoped, alice)
    assert error.value.reason.startswith("sqlalchemy: ")
    assert error.value.reason.removesuffix(": SQLITE_ERROR").endswith("Error")
    assert (error.value.__cause__, error.value.__context__) == (None, None)


async def test_loader_options_for_another_class_are_rejected(made: Engines) -> None:
    """A loader option for another class is a ConfigurationError."""
    store = SQLAlchemyStore(made(), IntUser, options=[selectinload(UuidUser.__mapper__.attrs["login_mail"])])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="SQLAlchemyStore: "):
        await store.scope("user").users.get("1")


async def test_account_columns_are_known(engine: AsyncEngine, store: SQLAlchemyStore[IntUser]) -> None:
    """The name of a column comes only from the list of known columns."""
    for changes, expected in (({}, {}), ({"user_id": 2}, {}), ({"stamp": b"s"}, {"bcrypt_cost": 4})):
        with pytest.raises(ConfigurationError, match="stamp, password_hash, confirmed_at, disabled_at"):
            await store.scope("user").accounts.update("1", changes, expected=expected)
    assert await SQLAlchemyStore(engine, IntUser).scope("user").users.find("password_hash", "x") is None


async def test_file_locked_by_another_process_is_unavailable_in_time(tmp_path: Path) -> None:
    """FT-1: a write does not wait for ever, and succeeds after the other process has released the lock."""
    async with engines("sqlite", tmp_path) as made:
        await make(made(), IntUser)
        scoped = SQLAlchemyStore(made(connect_args={"timeout": 0.1}), IntUser).scope("user")
        other = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError):
            await add_user(scoped)
        other.close()
        await add_user(scoped)


async def test_postgres_look_up_is_one_round_trip_and_recovers(tmp_path: Path) -> None:
    """A look-up is one round trip. FT-5: connections that the server dropped are replaced."""
    queries: list[str] = []

    async with database() as dsn, AsyncExitStack() as stack:

        async def connect() -> Any:
            connection = await asyncpg.connect(dsn)
            connection.add_query_logger(lambda query: queries.append(query.query))
            return connection

        engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
        stack.push_async_callback(engine.dispose)
        await make(engine, IntUser)
        scoped = SQLAlchemyStore(engine, IntUser).scope("user")
        alice = await add_user(scoped)
        assert any(query.startswith("BEGIN") for query in queries)
        _, secret_hash = await add_session(scoped, alice)
        assert await scoped.sessions.load(secret_hash, now=NOW)
        queries.clear()
        assert await scoped.sessions.load(secret_hash, now=NOW)
        assert queries == []  # asyncpg logs unprepared statements: there was neither BEGIN nor ROLLBACK

        await execute(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%asgi_auth_sess%'"
                           " AND pid <> pg_backend_pid()")  # fmt: skip
        with pytest.raises(StoreUnavailableError):
            await scoped.sessions.load(secret_hash, now=NOW)
        assert await scoped.sessions.load(secret_hash, now=NOW)


async def test_postgres_termination_message_is_unavailable() -> None:
    """FT-5: after the server's termination message, a driver error before the connection ends is unavailability."""
    made: list[Any] = []

    async with database() as dsn, AsyncExitStack() as stack:

        async def connect() -> Any:
            made.append(await asyncpg.connect(dsn))
            return made[-1]

        engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, pool_size=1, max_overflow=0)
        stack.push_async_callback(engine.dispose)
        await make(engine, IntUser)
        scoped = SQLAlchemyStore(engine, IntUser).scope("user")
        alice = await add_user(scoped)
        _, secret_hash = await add_session(scoped, alice)
        farewell = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"
        made[-1]._protocol.data_received(b"E" + (len(farewell) + 4).to_bytes(4, "big") + farewell)
        with pytest.raises(StoreUnavailableError, match=r"ConnectionResetError") as error:
            await scoped.sessions.load(secret_hash, now=NOW)
        assert (error.value.__cause__, error.value.__context__) == (None, None)
        assert await scoped.sessions.load(secret_hash, now=NOW)
        assert made[0].is_closed()


async def test_session_insert_waits_for_a_deletion(made: Engines, store: SQLAlchemyStore[IntUser]) -> None:
    """A token or session whose insert races with the deletion of its user is not stored, and causes no error."""
    scoped, other = store.scope("user"), SQLAlchemyStore(made(), IntUser).scope("user")
    alice = await add_user(scoped)
    async with scoped.transaction() as work:
        await work.users.delete("1")
        racing = [asyncio.create_task(add_token(other, alice)), asyncio.create_task(add_session(other, alice))]
        await asyncio.wait(racing, timeout=0.1)
        assert not any(task.done() for task in racing)
    for task in racing:
        await task
    async with store._database.engine.connect() as connection:  # including rows that no look-up returns
        for table in ("asgi_auth_sessions", "asgi_auth_tokens"):
            assert (await connection.execute(text(f"SELECT 1 FROM {table}"))).all() == []  # noqa: S608


async def test_field_without_a_column_is_rejected(store: SQLAlchemyStore[IntUser]) -> None:
    """A field without a column, and the id, are rejected; the error names the field."""
    users = store.scope("user").users
    for name in ("nickname", "id", "notes"):
        with pytest.raises(ValidationError) as error:
            await users.insert("x", {"email": "a@example.com", name: "1"}, {}, Account(user_id="", stamp=b"s"), now=NOW)
        assert error.value.fields == {name: "This is not supported here."}


async def test_store_is_usable_after_any_cancellation(store: SQLAlchemyStore[IntUser]) -> None:
    """Wherever a transaction or a look-up is cancelled, nothing is half done, and the next call succeeds."""
    scoped = store.scope("user")

    async def act(number: int) -> None:
        async with scoped.transaction() as work:
            await add_user(work, f"a{number}")
            await add_user(work, f"b{number}")
        await scoped.users.get("1")

    for steps in range(0, 60, 3):
        task = asyncio.create_task(act(steps))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        found = [await scoped.users.find("email", f"{name}{steps}@example.com") for name in "ab"]
        assert found.count(None) in (0, 2)
    await act(60)
