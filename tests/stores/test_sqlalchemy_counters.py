"""Counters of SQLAlchemyStore when the store joins the application's transaction, which may end in any way."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from asgi_auth.add_ons import Confirmation
from asgi_auth.errors import IdentityTakenError, RateLimitedError
from asgi_auth.limits import Limit, Limits
from asgi_auth.senders import MemorySender
from asgi_auth.store import Counted, ScopedStore
from asgi_auth.stores.sqlalchemy import SQLAlchemyStore
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.testing.stores.records import HOUR, NOW, add_user
from asgi_auth.types import Client
from tests.add_ons.confirming import confirm, links, sign_up
from tests.postgres import database
from tests.stores.engines import Engines, engines, make
from tests.stores.models import IntUser
from tests.support import EMAIL, NEW_PASSWORD, PASSWORD, found_of, make_auth, registration

pytestmark = pytest.mark.anyio

Store = SQLAlchemyStore[IntUser]
Scoped = ScopedStore[IntUser]
PATIENCE = timedelta(minutes=1)
"""Longer than ``in_time`` allows, so that a deadlock fails the test."""
CLIENT = Client(address="192.0.2.1")


@pytest.fixture
def outside(made: Engines) -> Scoped:
    """A store of another worker."""
    return SQLAlchemyStore(made(), IntUser).scope("user")


def in_time() -> asyncio.Timeout:
    """A timeout of half of ``PATIENCE``."""
    return asyncio.timeout(PATIENCE.total_seconds() / 2)


async def count(counters: Any, key: bytes = b"k") -> int:
    """Count once, and return the new count."""
    counted: Counted = await counters.count("mail", key, now=NOW, expires_at=NOW + HOUR)
    return counted.count


async def counted(scoped: Scoped, key: bytes = b"k") -> int:
    """Return the count."""
    found = await scoped.counters.get("mail", key, now=NOW)
    return 0 if found is None else found.count


async def uncount(scoped: Scoped, key: bytes = b"k") -> None:
    """Take one back."""
    await scoped.counters.uncount("mail", key, now=NOW)


async def fail_to_flush(session: AsyncSession) -> None:
    """A transaction that SQLAlchemy rolls back by itself, because of an error of the application."""
    session.add_all([IntUser(id=7), IntUser(id=7)])
    with pytest.raises(Exception, match=r"(?i)unique"):
        await session.flush()
    await session.close()


ENDS: dict[str, Callable[[AsyncSession], Awaitable[None]]] = {
    "commit": AsyncSession.commit,
    "rollback": AsyncSession.rollback,
    "close": AsyncSession.close,
    "reset": AsyncSession.reset,
    "flush": fail_to_flush,
}


@pytest.mark.parametrize("within", [True, False], ids=["in the block", "after the block"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_counters_persist_after_every_end_of_a_joined_transaction(
    engine: AsyncEngine, store: Store, outside: Scoped, end: Any, within: bool
) -> None:
    """RL-7: counting and uncounting persist, exactly once. The user of the same transaction persists only by commit."""
    scoped = store.scope("user")
    await count(scoped.counters, b"before")
    async with AsyncSession(engine) as session:
        async with store.joined(session):
            await add_user(scoped)
            assert [await count(scoped.counters) for _ in range(3)] == [1, 2, 3]
            await uncount(scoped)
            assert [await count(scoped.counters), await counted(scoped)] == [3, 3]
            assert await count(scoped.counters, b"other") == 1
            await uncount(scoped, b"before")
            if within:
                await end(session)
        if not within:
            await end(session)
        assert [await counted(outside, key) for key in (b"k", b"other", b"before")] == [3, 1, 0]
        assert (await outside.users.get("1") is not None) is (end is AsyncSession.commit)
    assert await count(outside.counters) == 4


async def test_counters_persist_after_an_application_error(engine: AsyncEngine, store: Store, outside: Scoped) -> None:
    """An exception that ends ``session.begin()`` does not roll the counters back."""
    scoped = store.scope("user")

    async def fail() -> None:
        async with AsyncSession(engine) as session, session.begin(), store.joined(session):
            await count(scoped.counters)
            raise LookupError

    for number in (1, 2, 3):
        with pytest.raises(LookupError):
            await fail()
        assert await counted(outside) == number


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_counters_persist_after_a_failed_act(
    engine: AsyncEngine, store: Store, outside: Scoped, end: str
) -> None:
    """Neither a refused or cancelled act nor the end of the transaction around it undoes a count."""
    scoped, waiting = store.scope("user"), asyncio.Event()

    async def refused() -> None:
        async with scoped.transaction() as work:
            await count(work.counters)
            await count(scoped.counters)
            raise LookupError

    async def cancelled() -> None:
        async with scoped.transaction() as work:
            await count(work.counters)
            waiting.set()
            await asyncio.Event().wait()

    async with AsyncSession(engine) as session:
        async with store.joined(session):
            with pytest.raises(LookupError):
                await refused()
            assert await counted(scoped) == 2
            task = asyncio.create_task(cancelled())
            await waiting.wait()
            task.cancel()
            await asyncio.wait([task])
            assert await counted(scoped) == 3
        await (session.commit() if end == "commit" else session.rollback())
    assert await counted(outside) == 3


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_counters_persist_after_a_savepoint_of_the_application(
    engine: AsyncEngine, store: Store, outside: Scoped, end: str
) -> None:
    """A rolled back savepoint, even a nested one, undoes no count. Nor does a savepoint that is open at the end."""
    scoped = store.scope("user")

    async def fail(session: AsyncSession) -> None:
        async with session.begin_nested(), scoped.transaction() as work:
            await count(work.counters)
            async with session.begin_nested():
                await count(scoped.counters)
            raise LookupError

    async with AsyncSession(engine) as session:
        async with store.joined(session):
            with pytest.raises(LookupError):
                await fail(session)
            assert await counted(scoped) == 2
            opened = await session.begin_nested()
            assert (await count(scoped.counters), opened.is_active) == (3, True)
        await (session.commit() if end == "commit" else session.rollback())
    assert await counted(outside) == 3


async def test_reused_session_counts_each_transaction_once(engine: AsyncEngine, store: Store, outside: Scoped) -> None:
    """Several stores can join one session repeatedly. Each of its transactions is counted separately."""
    other = SQLAlchemyStore(engine, IntUser)
    scoped, admins = store.scope("user"), other.scope("admin")
    async with AsyncSession(engine) as session:
        for number, end in enumerate([session.rollback, session.commit, session.rollback, session.close], 1):
            async with store.joined(session):
                assert await count(scoped.counters) == number
            await end()
        async with other.joined(session):
            assert await count(admins.counters) == 1
        await session.rollback()
    assert (await counted(outside), await counted(admins)) == (4, 1)


async def test_failed_act_outside_a_joined_transaction_rolls_back_its_counts(store: Store) -> None:
    """Without a transaction of the application, a failed act also rolls back its own counts."""
    scoped = store.scope("user")

    async def refused() -> None:
        async with scoped.transaction() as work:
            assert await count(work.counters) == 1
            raise LookupError

    with pytest.raises(LookupError):
        await refused()
    assert await counted(scoped) == 0


async def test_counters_on_a_connection_of_the_application_do_not_block(
    engine: AsyncEngine, store: Store, outside: Scoped
) -> None:
    """Counts persist after a session on the application's connection rolls back, also if that has a transaction."""
    scoped = store.scope("user")

    async def joined(connection: AsyncConnection, **options: Any) -> None:
        async with AsyncSession(connection, **options) as session, store.joined(session):
            await count(scoped.counters)
            await session.rollback()

    async with engine.connect() as connection, connection.begin():
        await joined(connection, join_transaction_mode="create_savepoint")
    async with engine.connect() as connection:
        await connection.begin()
        await joined(connection)
    assert (await counted(scoped), await counted(outside)) == (2, 2)


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_limit_holds_in_transactions_that_are_rolled_back(
    engine: AsyncEngine, store: Store, tmp_path: Path
) -> None:
    """EN-4, RL-2: rolling back a refused registration reveals nothing more, because the limit still holds."""
    auth = make_auth(tmp_path, store=store, limits=Limits(identity_taken=Limit(2, timedelta(hours=1))))
    await auth.accounts.create({"email": EMAIL}, password=PASSWORD)

    async def register() -> None:
        async with AsyncSession(engine) as session, session.begin(), store.joined(session):
            await auth.strategy("password").register(registration(), client=CLIENT)

    for error in (IdentityTakenError, IdentityTakenError, RateLimitedError, RateLimitedError):
        with pytest.raises(error):
            await register()


async def test_mails_are_counted_in_transactions_that_are_rolled_back(
    engine: AsyncEngine, store: Store, tmp_path: Path
) -> None:
    """RL-6: a sent mail counts, even if the application rolls back the request for it."""
    sender = MemorySender()
    password = Password(resettable=Resettable(sender=sender, mails=Limit(2, timedelta(hours=1))))
    auth = make_auth(tmp_path, store=store, sender=sender, strategies=[password])
    await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    for _ in range(4):
        async with AsyncSession(engine) as session, store.joined(session):
            await auth.strategy("password").reset_request({"email": EMAIL})
            await session.rollback()
    assert len(sender.messages) == 2


async def test_rival_registration_is_known_after_a_rollback(engine: AsyncEngine, made: Engines, tmp_path: Path) -> None:
    """AC-1: a rival registration of an address is known when the address is confirmed, and causes no deadlock."""
    store, sender = SQLAlchemyStore(engine, IntUser, timeout=PATIENCE), MemorySender()
    auth = make_auth(
        tmp_path, store=store, sender=sender, strategies=[Password()], add_ons=[Confirmation(sender=sender)]
    )
    await sign_up(auth)
    token = links(auth)["confirmation", EMAIL]
    async with in_time(), AsyncSession(engine) as session, store.joined(session):
        await sign_up(auth, password=NEW_PASSWORD)
        await session.rollback()
    async with in_time(), AsyncSession(engine) as session, session.begin(), store.joined(session):
        await confirm(auth, token)
        await sign_up(auth, password=NEW_PASSWORD)
    assert (await found_of(auth)).account.password_hash is None


async def test_counters_work_while_joined_transactions_hold_every_connection(made: Engines, outside: Scoped) -> None:
    """FT-1: a count needs no second connection from the pool, so an exhausted pool does not block it."""
    engine = made(pool_size=2, max_overflow=0)
    store = SQLAlchemyStore(engine, IntUser, timeout=PATIENCE)
    everybody = asyncio.Barrier(2)

    async def act() -> None:
        async with AsyncSession(engine) as session:
            await session.connection()
            await everybody.wait()
            async with store.joined(session):
                await count(store.scope("user").counters)
            await session.rollback()

    async with in_time():
        await asyncio.gather(act(), act())
    assert await counted(outside) == 2


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


async def test_count_in_a_joined_transaction_is_visible_at_once(tmp_path: Path) -> None:
    """On PostgreSQL, concurrent counts are visible at once, even in a transaction with REPEATABLE READ."""
    async with engines("postgresql", tmp_path) as made:
        await make(made(), IntUser)
        engine = made(isolation_level="REPEATABLE READ")
        store = SQLAlchemyStore(engine, IntUser, timeout=PATIENCE)
        scoped, outside = store.scope("user"), SQLAlchemyStore(made(), IntUser, timeout=PATIENCE).scope("user")
        async with in_time(), AsyncSession(engine) as session, session.begin(), store.joined(session):
            await add_user(scoped)
            assert [await count(counters) for counters in (scoped.counters, outside.counters) * 2] == [1, 2, 3, 4]
            async with scoped.transaction() as work:
                assert [await count(counters) for counters in (work.counters, outside.counters) * 2] == [5, 6, 7, 8]
                assert await work.counters.get("mail", b"k", now=NOW) == Counted(8, NOW + HOUR)


async def test_connections_for_counters_close_with_the_engine() -> None:
    """Disposing of the engine closes the connections for counters too. The engine can be used again."""
    made: list[Any] = []

    async with database() as dsn, AsyncExitStack() as stack:

        async def connect() -> Any:
            made.append(await asyncpg.connect(dsn))
            return made[-1]

        engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
        stack.push_async_callback(engine.dispose)
        await make(engine, IntUser)
        store = SQLAlchemyStore(engine, IntUser)
        for number in (1, 2):
            async with AsyncSession(engine) as session, store.joined(session):
                assert [await count(store.scope("user").counters) for _ in range(2)] == [2 * number - 1, 2 * number]
                assert len(made) == 1 + number
            await engine.dispose()
            assert all(connection.is_closed() for connection in made)


# --- SQLite ----------------------------------------------------------------------------------------------------------


async def test_rollback_succeeds_if_counts_cannot_be_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If another process takes the lock between the rollback and the count, the count is lost, which is logged."""
    async with engines("sqlite", tmp_path) as made:
        await make(made(), IntUser)
        engine = made(connect_args={"timeout": 0.1})
        store = SQLAlchemyStore(engine, IntUser)
        other = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
        async with AsyncSession(engine) as session:
            event.listen(session.sync_session, "after_rollback", lambda _: other.execute("BEGIN IMMEDIATE"))
            async with store.joined(session):
                await count(store.scope("user").counters)
            await session.rollback()
        other.close()
        assert await counted(store.scope("user")) == 0
    reason = "sqlalchemy: OperationalError: SQLITE_BUSY"
    assert caplog.messages == [f"counts of a transaction that was rolled back are lost: {reason}"]
