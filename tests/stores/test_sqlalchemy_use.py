"""SQLAlchemyStore in an application: its objects, its transactions, its errors; on SQLite and on PostgreSQL."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import selectinload
from sqlalchemy.orm.exc import DetachedInstanceError

from asgi_auth.errors import ConfigurationError, IdentityTakenError
from asgi_auth.passwords import Bcrypt
from asgi_auth.stores.sqlalchemy import Adopted, SQLAlchemyStore
from asgi_auth.stores.sqlalchemy.adopt import BATCH
from asgi_auth.testing.stores.records import NOW, add_session, add_token, add_user
from tests.stores.engines import Engines
from tests.stores.models import IntUser, Note
from tests.support import HASHER, OTHER_SECRET, PASSWORD, DigestHasher, make_auth

pytestmark = pytest.mark.anyio


# --- objects ---------------------------------------------------------------------------------------------------------


async def test_user_is_detached_with_every_column(store: SQLAlchemyStore[IntUser]) -> None:
    """Every method returns an object with all its columns. The object loads nothing else later."""
    scoped = store.scope("user")
    inserted = await add_user(scoped)
    _, secret_hash = await add_session(scoped, inserted)
    async with scoped.transaction() as work:
        within = await work.users.get("1")
        updated = await work.users.update("1", {"name": "Alice"}, {})
    loaded = await scoped.sessions.load(secret_hash, now=NOW)
    assert within
    assert updated
    assert loaded
    assert {inserted.user, within.user} == {within.user}
    assert within.user != loaded.user
    for user in (inserted.user, within.user, updated.user, loaded.user):
        assert type(user) is IntUser
        assert (user.id, user.email, user.username, user.age) == (1, "alice@example.com", None, None)
        assert (user.identity, user.display_name, user.is_authenticated) == ("1", "alice@example.com", True)
        with pytest.raises(DetachedInstanceError):
            _ = user.notes


async def test_options_load_relationships(engine: AsyncEngine) -> None:
    """Relationships in ``options`` are loaded with the user."""
    scoped = SQLAlchemyStore(engine, IntUser, options=[selectinload(IntUser.notes)]).scope("user")
    alice = await add_user(scoped)
    async with engine.begin() as connection:
        await connection.execute(insert(Note).values(user_id=alice.user.id, text="hello"))
    _, secret_hash = await add_session(scoped, alice)
    loaded = await scoped.sessions.load(secret_hash, now=NOW)
    found = await scoped.users.get("1")
    assert loaded
    assert found
    assert [note.text for note in (*loaded.user.notes, *found.user.notes)] == ["hello", "hello"]


async def test_session_is_loaded_by_one_statement(engine: AsyncEngine, store: SQLAlchemyStore[IntUser]) -> None:
    """The store runs one statement, without BEGIN and COMMIT."""
    alice = await add_user(store.scope("user"))
    _, secret_hash = await add_session(store.scope("user"), alice)
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert await store.scope("user").sessions.load(secret_hash, now=NOW)
    assert [statement.split()[0] for statement in statements if "isolation" not in statement] == ["SELECT"]


async def test_user_update_sees_the_change_that_it_waited_for(made: Engines, store: SQLAlchemyStore[IntUser]) -> None:
    """A change waits for another one and undoes it. The change is written."""
    scoped, other = store.scope("user"), SQLAlchemyStore(made(), IntUser).scope("user")
    old = {"email": (await add_user(scoped)).user.email}
    async with scoped.transaction() as work:
        await work.users.update("1", {"email": "new@example.com"}, {"email": "new@example.com"})
        waiting = asyncio.create_task(other.users.update("1", old, old))
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
    changed = await waiting
    assert changed
    assert changed.user.email == "alice@example.com"
    assert await scoped.users.find("email", "alice@example.com") == changed


# --- the application's own changes -----------------------------------------------------------------------------------


async def test_user_deleted_by_the_application_leaves_no_rows(
    engine: AsyncEngine, store: SQLAlchemyStore[IntUser]
) -> None:
    """The application deletes a user without the library. The next user with the same id inherits nothing."""
    scoped = store.scope("user")
    alice = await add_user(scoped)
    _, secret_hash = await add_session(scoped, alice)
    token = await add_token(scoped, alice)
    async with engine.begin() as connection:
        await connection.execute(delete(IntUser))
        await connection.execute(insert(IntUser).values(id=1, email="eve@example.com"))
    assert await scoped.sessions.load(secret_hash, now=NOW) is None
    assert await scoped.tokens.peek("reset", token.token_hash, now=NOW) is None
    assert await scoped.users.get("1") is None
    assert await scoped.users.find("email", "alice@example.com") is None


async def test_user_delete_follows_the_relationships(engine: AsyncEngine, store: SQLAlchemyStore[IntUser]) -> None:
    """Rows that belong to a user by a relationship of the model are deleted with the user."""
    alice = await add_user(store.scope("user"))
    async with engine.begin() as connection:
        await connection.execute(insert(Note).values(user_id=alice.user.id, text="hello"))
    assert await store.scope("user").users.delete("1")
    async with engine.connect() as connection:
        assert (await connection.execute(select(Note.id))).all() == []


# --- transactions ----------------------------------------------------------------------------------------------------


async def test_transaction_has_a_session_for_rows_of_the_application(
    engine: AsyncEngine, store: SQLAlchemyStore[IntUser]
) -> None:
    """Rows added to ``work.connection`` are committed with the act, not before, even if ``commit`` is called on it."""
    scoped = store.scope("user")

    async def fail() -> None:
        async with scoped.transaction() as work:
            alice = await add_user(work)
            work.connection.add(Note(user_id=alice.user.id, text="lost"))
            await work.connection.commit()
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with scoped.transaction() as work:
        alice = await add_user(work)
        work.connection.add(Note(user_id=alice.user.id, text="kept"))
    async with AsyncSession(engine) as session:
        assert (await session.scalars(select(Note.text))).all() == ["kept"]
        assert (await session.scalars(select(IntUser.email))).all() == ["alice@example.com"]
    with pytest.raises(ConfigurationError, match="the transaction is over"):
        await work.users.get("1")


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_application_ends_a_joined_transaction(made: Engines, tmp_path: Path, end: str) -> None:
    """Only the application commits or rolls back users, sessions and its own rows."""
    sessions = async_sessionmaker(made())
    store = SQLAlchemyStore(sessions, IntUser)
    auth: Any = make_auth(tmp_path, store=store)
    outside = SQLAlchemyStore(made(), IntUser).scope("user")

    async with sessions() as session:
        session.add(IntUser(email="earlier@example.com"))
        async with store.joined(session) as jobs:
            user = await auth.accounts.create({"email": "Alice@Mail.Example.org", "name": "Alice"})
            token = await auth.sign_in(user)
            assert (await auth.accounts.find("email", "alice@mail.example.org")).user == user
        assert jobs == []
        session.add(Note(user_id=user.id, text="welcome"))
        assert await outside.users.find("email", "alice@mail.example.org") is None
        await (session.commit() if end == "commit" else session.rollback())
    assert (user.email, user.name) == ("Alice@mail.example.org", "Alice")

    async with sessions() as session:
        kept = end == "commit"
        assert (await session.scalars(select(Note.text))).all() == (["welcome"] if kept else [])
        assert len((await session.scalars(select(IntUser.email))).all()) == (2 if kept else 0)
    assert (await outside.users.find("email", "alice@mail.example.org") is not None) is kept
    assert bool(await outside.sessions.list(str(user.id), now=token.session.created_at)) is kept


async def test_joined_transaction_survives_a_failed_act(engine: AsyncEngine, store: SQLAlchemyStore[IntUser]) -> None:
    """Only the failed act is undone. Earlier and later changes in the transaction are kept."""
    scoped = store.scope("user")
    await add_user(scoped)

    async def job() -> None:
        raise AssertionError("left to the application")  # pragma: no cover  # the store must not call it

    async def fail() -> None:
        async with scoped.transaction() as work:
            await add_user(work, "bob")
            work.after_commit(job)
            raise LookupError

    async with AsyncSession(engine) as session, session.begin():
        session.add(IntUser(email="before@example.com"))
        async with store.joined(session) as jobs:
            with pytest.raises(IdentityTakenError):
                await add_user(scoped)
            with pytest.raises(LookupError):
                await fail()
            assert jobs == []
            async with scoped.transaction() as work:
                await add_user(work, "carol")
                work.after_commit(job)
            assert (work.jobs, jobs) == ([], [job])
    async with AsyncSession(engine) as session:
        emails = await session.scalars(select(IntUser.email).order_by(IntUser.email))
        assert emails.all() == ["alice@example.com", "before@example.com", "carol@example.com"]


async def test_joined_transaction_ends_with_the_block(engine: AsyncEngine, store: SQLAlchemyStore[IntUser]) -> None:
    """A task that was started in the block and outlives it does not use the joined transaction afterwards."""
    go_on = asyncio.Event()

    async def later() -> None:
        await go_on.wait()
        await add_user(store.scope("user"), "later")

    async with AsyncSession(engine) as session:
        async with store.joined(session):
            task = asyncio.create_task(later())
            await add_user(store.scope("user"), "now")
        await session.rollback()
        go_on.set()
        await task
    async with AsyncSession(engine) as session:
        assert (await session.scalars(select(IntUser.email))).all() == ["later@example.com"]


# --- users who existed before ----------------------------------------------------------------------------------------


async def test_adopt_makes_accounts(engine: AsyncEngine, store: SQLAlchemyStore[IntUser], tmp_path: Path) -> None:
    """Every user with a valid, free address or name gets an account, once. Users keep their passwords."""
    auth: Any = make_auth(tmp_path, store=store)
    users: list[dict[str, Any]] = [
        {"id": 1, "email": "Alice@Mail.Example.org", "username": None, "name": "$hash"},
        {"id": 2, "email": " alice@mail.example.org ", "username": None, "name": None},
        {"id": 3, "email": "nonsense", "username": None, "name": None},
        {"id": 4, "email": None, "username": None, "name": None},
        {"id": 5, "email": None, "username": "Bob", "name": None},
        *({"id": 6 + n, "email": f"u{n}@mail.example.org", "username": None, "name": None} for n in range(BATCH)),
    ]
    async with engine.begin() as connection:
        await connection.execute(insert(IntUser), users)
    assert await auth.accounts.find("email", "alice@mail.example.org") is None
    password_hash = await asyncio.to_thread(HASHER.hash, PASSWORD.encode())

    def account(user: IntUser) -> dict[str, Any]:
        return {"password_hash": password_hash, "confirmed_at": NOW} if user.name else {}

    adopted = await store.adopt("user", account=account)
    assert (adopted.created, list(adopted.refused)) == (BATCH + 2, ["2", "3", "4"])
    assert adopted.refused["2"] == "another user has this address or name"
    assert adopted.refused["4"] == "there is no address or name"
    assert await store.adopt("user") == Adopted(0, adopted.refused)
    user, _ = await auth.strategy("password").sign_in({"email": "alice@mail.example.org", "password": PASSWORD})
    assert (type(user), user.id) == (IntUser, 1)
    found = await auth.accounts.find("username", "bob")
    assert (found.user.id, found.account.password_hash) == (5, None)
    assert found.account.stamp != (await auth.accounts.get("1")).account.stamp


async def test_adopt_rejects_users_whose_hash_cannot_be_verified(
    engine: AsyncEngine, store: SQLAlchemyStore[IntUser]
) -> None:
    """PW-10: the result gives one reason for each rejected user. The other users get their accounts."""
    hashes: dict[int, Any] = {
        1: "pbkdf2_sha256$600000$c2FsdA$jRyV2vDWw5YC2sTvoqC2QWbZ7UxVyjYmX5TqGgkCrD4=",
        2: "",
        3: b"$2b$04$" + b"." * 53,
        4: "{asgi_auth-1:0123456789abcdef}$2b$04$" + "." * 53,
        5: "$2b$04$" + "." * 53,
        6: None,
    }
    async with engine.begin() as connection:
        users = [{"id": key, "email": f"u{key}@mail.example.org"} for key in hashes]
        await connection.execute(insert(IntUser), users)

    adopted = await store.adopt("user", account=lambda user: {"password_hash": hashes[user.id]})
    unsupported = "the password hash cannot be verified: leave it out, and let the user reset the password"
    assert adopted == Adopted(
        2, {"1": unsupported, "2": unsupported, "3": "the password hash must be text", "4": unsupported}
    )
    assert await store.scope("user").users.get("1") is None


async def test_adopt_requires_plain_functions(engine: AsyncEngine, store: SQLAlchemyStore[IntUser]) -> None:
    """The functions run inside the session. An async one is rejected; one that returns an awaitable adopts no user."""

    async def account(user: IntUser) -> dict[str, Any]:
        raise AssertionError  # pragma: no cover  # rejected before the call

    async def can_verify(stored: str) -> bool:
        raise AssertionError  # pragma: no cover  # the same

    async with AsyncSession(engine) as session, session.begin():
        session.add(IntUser(email="alice@example.com", name=""))
    functions: list[dict[str, Any]] = [{"account": account}, {"can_verify": can_verify}]
    for options in functions:
        with pytest.raises(ConfigurationError, match=rf"^adopt: {next(iter(options))}: "):
            await store.adopt("user", **options)
    hidden: list[dict[str, Any]] = [
        {"account": lambda user: account(user)},
        {"account": lambda user: {"password_hash": "x"}, "can_verify": lambda stored: can_verify(stored)},
    ]
    for options in hidden:
        with pytest.raises(TypeError, match=r"^adopt: .* returned coroutine, not "):
            await store.adopt("user", **options)
    assert (await store.adopt("user")).created == 1


async def test_adopt_asks_the_hasher_of_the_application(engine: AsyncEngine, store: SQLAlchemyStore[IntUser]) -> None:
    """The application's own hasher, or a hasher with a pepper, decides which hashes are supported."""
    peppered = Bcrypt(cost=4, pepper=OTHER_SECRET)
    hashes = {1: DigestHasher().hash(PASSWORD.encode()), 2: peppered.hash(PASSWORD.encode())}
    async with engine.begin() as connection:
        await connection.execute(insert(IntUser), [{"id": key, "email": f"u{key}@mail.example.org"} for key in hashes])

    def account(user: IntUser) -> dict[str, Any]:
        return {"password_hash": hashes[user.id]}

    assert (await store.adopt("user", account=account)).created == 0
    adopted = await store.adopt("user", account=account, can_verify=DigestHasher().can_verify)
    assert (adopted.created, list(adopted.refused)) == (1, ["2"])
    assert await store.adopt("user", account=account, can_verify=peppered.can_verify) == Adopted(1, {})
