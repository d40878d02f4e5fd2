"""Invitations and counters of SQLAlchemyStore in an application: its metadata, its transactions, its users."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Index, MetaData, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateIndex

from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.store import InvitationRecord
from asgi_auth.stores.sqlalchemy import SQLAlchemyStore, make_tables
from asgi_auth.testing.stores.records import HOUR, NOW, SECOND, add_user
from asgi_auth.types import UserMixin
from tests.stores.engines import Engines, engines, make
from tests.stores.models import IntUser, Note, UuidUser

Store = SQLAlchemyStore[IntUser]


def invitation(**changes: Any) -> InvitationRecord:
    """An invitation for carol that expires in an hour."""
    values: dict[str, Any] = {
        "id": "6e8bc430-9c3a-11d9-9669-0800200c9a66",
        "email": "Carol@example.com",
        "email_key": "carol@example.com",
        "created_at": NOW,
        "expires_at": NOW + HOUR,
        "last_sent_at": NOW,
    }
    return InvitationRecord(**{**values, **changes})


# --- the metadata ----------------------------------------------------------------------------------------------------


def test_invitation_and_counter_tables_have_no_foreign_keys() -> None:
    """The metadata for Alembic has both tables, without foreign keys: inviting and accepting users may be deleted."""
    for model in (IntUser, UuidUser):
        tables = cast("Any", model).metadata.tables
        for name in ("asgi_auth_invitations", "asgi_auth_counters"):
            assert not tables[name].foreign_keys
            assert next(iter(tables[name].primary_key)).name == "subject_name"
            assert {next(iter(index.columns)).name for index in tables[name].indexes} == {"subject_name"}


@pytest.mark.parametrize("database", [sqlite, postgresql], ids=["sqlite", "postgresql"])
def test_database_permits_one_pending_invitation(database: Any) -> None:
    """A migration creates unique indexes over the pending invitations, with and without a scope."""
    unique = [index for index in make_tables(IntUser).invitations.indexes if index.unique]
    assert sorted(str(CreateIndex(index).compile(dialect=database.dialect())) for index in unique) == [
        "CREATE UNIQUE INDEX asgi_auth_invitations_pending_in_scope ON asgi_auth_invitations "
        "(subject_name, scope, email_key) WHERE status = 'pending' AND scope IS NOT NULL",
        "CREATE UNIQUE INDEX asgi_auth_invitations_pending_without_scope ON asgi_auth_invitations "
        "(subject_name, email_key) WHERE status = 'pending' AND scope IS NULL",
    ]


def test_existing_tables_are_kept() -> None:
    """Metadata that was read from an older database keeps its tables. The missing tables are added."""

    class Reflected(DeclarativeBase):
        metadata = MetaData(schema="crm")

    class Member(UserMixin, Reflected):
        __tablename__ = "members"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str]

    before = make_tables(Member, prefix="p_")
    for table in (before.invitations, before.counters):
        Reflected.metadata.remove(table)
    after = make_tables(Member, prefix="p_")
    assert (after.accounts, after.sessions, after.tokens) == (before.accounts, before.sessions, before.tokens)
    assert (after.invitations.fullname, after.counters.fullname) == ("crm.p_invitations", "crm.p_counters")
    assert make_tables(Member, prefix="p_") == after


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_older_database_is_refused_until_it_is_migrated(tmp_path: Path, dialect: str) -> None:
    """A migration keeps the existing tables of the library and their users, and creates the new tables."""
    async with engines(dialect, tmp_path) as made:
        engine = made()
        await make(engine, IntUser)
        store = SQLAlchemyStore(engine, IntUser)
        alice = await add_user(store.scope("user"))
        async with engine.begin() as connection:
            for name in ("invitations", "counters"):
                await connection.execute(text(f"DROP TABLE asgi_auth_{name}"))
        with pytest.raises(ConfigurationError, match="has no asgi_auth_counters, asgi_auth_invitations: run the app"):
            await store.open()
        assert await store.migrate() == (1, 3)
        await store.open()
        assert await store.scope("user").users.get("1") == alice
        assert await store.scope("user").invitations.insert(invitation())
        async with engine.connect() as connection:
            found = await connection.run_sync(lambda sync: inspect(sync).get_indexes("asgi_auth_invitations"))
        assert {str(index["name"]) for index in found} == index_names(make_tables(IntUser).invitations.indexes)


def index_names(indexes: Iterable[Index]) -> set[str]:
    """The expected names of the indexes in the database."""
    return {str(index.name) for index in indexes}


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_prefix_separates_two_models(tmp_path: Path, dialect: str) -> None:
    """Two models in one database have invitations and counters of their own."""

    class Shared(DeclarativeBase):
        """The base class of both models."""

    class Buyer(UserMixin, Shared):
        __tablename__ = "buyers"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str]

    class Seller(UserMixin, Shared):
        __tablename__ = "sellers"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str]

    async with engines(dialect, tmp_path) as made:
        buyers: Any = SQLAlchemyStore(made(), Buyer)
        sellers: Any = SQLAlchemyStore(made(), Seller, tables=make_tables(Seller, prefix="s_"), create_tables=True)
        await sellers.open()
        await buyers.open()
        for store in (buyers, sellers):
            scoped = store.scope("user")
            assert [await scoped.invitations.insert(invitation()) for _ in range(2)] == [True, False]
            assert (await scoped.counters.count("mail", b"k", now=NOW, expires_at=NOW + HOUR)).count == 1


# --- transactions ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_acceptance_is_part_of_the_application_transaction(
    engine: AsyncEngine, made: Engines, store: Store, end: str
) -> None:
    """IN-1: the grant and the acceptance are stored together, or neither is and the invitation can be accepted again.

    Counts persist in both cases.
    """
    scoped, outside = store.scope("user"), SQLAlchemyStore(made(), IntUser).scope("user")
    alice = await add_user(scoped)
    record = invitation(grant={"text": "welcome"})
    assert await scoped.invitations.insert(record)

    async with AsyncSession(engine) as session:
        async with store.joined(session), scoped.transaction() as work:
            accepted = await work.invitations.end(record.id, "accepted", now=NOW, version=1, accepted_by="1")
            assert accepted
            work.connection.add(Note(user_id=alice.user.id, text=accepted.grant["text"]))
            counted = await work.counters.count("accept", b"k", now=NOW, expires_at=NOW + HOUR)
            assert counted.count == 1
        assert await outside.invitations.get(record.id) == record
        await (session.commit() if end == "commit" else session.rollback())

    kept = await outside.invitations.get(record.id)
    again = await outside.invitations.end(record.id, "accepted", now=NOW, version=1, accepted_by="1")
    counted = await outside.counters.count("accept", b"k", now=NOW, expires_at=NOW + HOUR)
    assert (kept, again) == ((accepted, None) if end == "commit" else (record, accepted))
    assert counted.count == 2


@pytest.mark.anyio
async def test_refused_invitation_keeps_the_transaction_usable(engine: AsyncEngine, store: Store) -> None:
    """After a refused second invitation of a user, the transaction can go on: the store's and the application's."""
    scoped = store.scope("user")
    async with AsyncSession(engine) as session, session.begin(), store.joined(session):
        assert [await scoped.invitations.insert(invitation(id=name)) for name in "ab"] == [True, False]
        await add_user(scoped)
    async with scoped.transaction() as work:
        assert not await work.invitations.insert(invitation(id="c"))
        await add_user(work, "bob")
    assert [record.id for record in await scoped.invitations.list()] == ["a"]
    assert await scoped.users.find("email", "bob@example.com")


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_concurrent_invitation_waits_for_the_first(made: Engines, store: Store, end: str) -> None:
    """IN-2: a concurrent invitation of a user waits for the first one, and succeeds if the first is rolled back."""
    scoped, other = store.scope("user"), SQLAlchemyStore(made(), IntUser).scope("user")

    async def invite() -> None:
        async with scoped.transaction() as work:
            assert await work.invitations.insert(invitation(id="first"))
            racing.append(asyncio.create_task(other.invitations.insert(invitation(id="second"))))
            await asyncio.wait(racing, timeout=0.1)
            assert not racing[0].done()
            if end == "rollback":
                raise LookupError
            assert await work.invitations.get("first")

    racing: list[asyncio.Task[bool]] = []
    if end == "rollback":
        with pytest.raises(LookupError):
            await invite()
    else:
        await invite()
    assert await racing[0] is (end == "rollback")
    assert len(await scoped.invitations.list(status="pending")) == 1


@pytest.mark.anyio
async def test_sweep_skips_rows_that_are_being_changed(tmp_path: Path) -> None:
    """On PostgreSQL, a sweep neither waits for locked rows nor removes rows that are renewed meanwhile."""
    async with engines("postgresql", tmp_path) as made:
        await make(made(), IntUser)
        scoped, other = (SQLAlchemyStore(made(), IntUser).scope("user") for _ in range(2))
        late = NOW + 2 * HOUR
        assert await scoped.invitations.insert(invitation())
        await scoped.counters.count("mail", b"k", now=NOW, expires_at=NOW + HOUR)
        async with scoped.transaction() as work:
            assert await work.invitations.end(invitation().id, "revoked", now=NOW)
            assert (await work.counters.count("mail", b"k", now=late, expires_at=late + HOUR)).count == 1
            assert await other.invitations.expire(now=late, limit=9) == 0
            assert await other.counters.prune(now=late, limit=9) == 0
        assert [record.status for record in await scoped.invitations.list()] == ["revoked"]
        assert (await scoped.counters.count("mail", b"k", now=late, expires_at=late)).count == 2


# --- users and errors ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_invitation_outlives_the_user(store: Store) -> None:
    """A user who invited, accepted or revoked can be deleted. The invitation stores ids of any type as text."""
    scoped = store.scope("user")
    alice = await add_user(scoped)
    user_id = alice.account.user_id
    assert await scoped.invitations.insert(invitation(inviter_id=user_id))
    ended = await scoped.invitations.end(invitation().id, "accepted", now=NOW, accepted_by=user_id, ended_by="someone")
    assert await scoped.users.delete(user_id)
    assert [ended] == await scoped.invitations.list(inviter_id="1")


@pytest.mark.anyio
async def test_errors_have_no_values(engine: AsyncEngine, store: Store) -> None:
    """SE-13: neither the error nor its cause quotes the statement or the values."""
    scoped = store.scope("user")
    async with engine.begin() as connection:
        for name in ("invitations", "counters"):
            await connection.execute(text(f"DROP TABLE asgi_auth_{name}"))

    async def count(now: datetime) -> None:
        await scoped.counters.count("mail", b"k", now=now, expires_at=now + SECOND)

    for call in (scoped.invitations.insert(invitation()), scoped.invitations.get("x"), count(NOW)):
        with pytest.raises(StoreUnavailableError) as error:
            await call
        assert error.value.reason.startswith("sqlalchemy: ")
        assert error.value.reason.removesuffix(": SQLITE_ERROR").endswith("Error")
        assert (error.value.__cause__, error.value.__context__) == (None, None)
