"""The query plans that SQLite makes for ``SQLAlchemyStore``: statements of the ORM and shared statements."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, event, text
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from asgi_auth.stores import SQLAlchemyStore
from asgi_auth.stores.sql_invitations import PENDING
from asgi_auth.stores.sql_sessions import PRUNE_SESSIONS
from asgi_auth.stores.sqlalchemy import invitations, make_tables, sessions
from asgi_auth.stores.sqlalchemy.native import Native
from asgi_auth.testing.stores.records import HOUR, NOW, add_invitation, add_session, add_token, add_user
from tests.stores.engines import engines, make
from tests.stores.models import ByValue, IntUser
from tests.stores.plans import is_quick_in_sqlite
from tests.stores.statements import STATEMENTS

pytestmark = pytest.mark.anyio


@contextmanager
def noted(engine: AsyncEngine) -> Iterator[dict[str, Any]]:
    """Every statement on the library's tables, with its parameters."""
    statements = dict[str, Any]()

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        statements[statement] = parameters

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine.sync_engine, "before_cursor_execute", note)


async def do_everything(scoped: Any) -> None:
    """Run every method that finds a row by some value."""
    alice = await add_user(scoped)
    (session, secret_hash), token = await add_session(scoped, alice), await add_token(scoped, alice)
    users, accounts, sessions, tokens = scoped.users, scoped.accounts, scoped.sessions, scoped.tokens
    user_id = alice.account.user_id
    assert await users.find("email", "alice@example.com") == await users.get(user_id) == alice
    assert await accounts.update(user_id, {"disabled_at": None}, expected={"stamp": alice.account.stamp})
    assert await accounts.highest_bcrypt_cost(15) is None
    assert await sessions.load(secret_hash, now=NOW) == await sessions.load_by_id(session.id, now=NOW)
    assert await sessions.list(user_id, now=NOW) == [session]
    await sessions.touch(session.id, last_seen_at=NOW, idle_expires_at=NOW)
    await sessions.restamp(session.id, alice.account.stamp)
    assert await sessions.revoke(session.id, user_id=user_id, now=NOW)
    assert await sessions.revoke_by_secrets([secret_hash], now=NOW) == []
    assert await sessions.revoke_all(user_id, except_id="x", now=NOW) == 0
    assert await tokens.retire("reset", user_id, older_than=token.token_hash) == 0
    assert await tokens.peek("reset", token.token_hash, now=NOW) == token
    assert await tokens.latest("reset", user_id, now=NOW) == token
    assert await tokens.consume("reset", token.token_hash, now=NOW) == token
    assert [await store.prune(now=NOW, limit=9) for store in (sessions, tokens)] == [1, 0]
    for scope in (None, "team"):
        invitation = await add_invitation(scoped, scope=scope)
        assert not await scoped.invitations.insert(invitation)
        assert await scoped.invitations.find(scope, invitation.email_key, now=NOW) == invitation
        assert await scoped.invitations.list(scope=scope, status="pending") == [invitation]
        assert await scoped.invitations.end(invitation.id, "revoked", now=NOW)
    assert await scoped.invitations.expire(now=NOW, limit=9) == 0
    assert [await scoped.counters.count("mail", b"k", now=NOW, expires_at=NOW + HOUR) for _ in range(2)][1].count == 2
    assert await scoped.counters.prune(now=NOW + HOUR, limit=9) == 1


async def test_sqlalchemy_finds_by_index_in_sqlite(tmp_path: Path) -> None:
    """No statement reads a whole table, or all rows of a subject. Only a list is sorted."""
    async with engines("sqlite", tmp_path) as made:
        await make(made(), IntUser)
        engine = made()
        with noted(engine) as statements:
            await do_everything(SQLAlchemyStore(engine, IntUser).scope("user"))
    found = {text: values for text, values in statements.items() if " WHERE " in text.replace("\n", " ")}
    assert len(found) >= 20
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        slow = [
            row[3]
            for text, values in found.items()
            for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)
            if not is_quick_in_sqlite("", row[3])
        ]
    assert slow == ["USE TEMP B-TREE FOR ORDER BY"]


OWN: Mapping[str, str] = {
    **{f"prune {number}": text for number, text in enumerate(sessions._PRUNE)},
    **{f"in scope {name}": text for name, text in invitations._IN_SCOPE._asdict().items()},
    **{f"without scope {name}": text for name, text in invitations._WITHOUT_SCOPE._asdict().items()},
}
"""The store's own statements, which replace some shared statements."""
SHARED = {
    name: text
    for name, text in STATEMENTS.items()
    if "asgi_auth_users" not in text and text not in (*PENDING, PRUNE_SESSIONS)
}


async def test_sqlalchemy_finds_by_index_in_sqlite_without_statistics(tmp_path: Path) -> None:
    """On the tables of the application's metadata the shared statements use indexes as they do in ``SQLiteStore``."""
    native, slow = Native(SQLiteDialect_aiosqlite(), make_tables(IntUser)), list[tuple[str, str]]()
    async with engines("sqlite", tmp_path) as made:
        await make(made(), IntUser)
        async with made().connect() as connection:
            asked: Any = connection
            for name, shared in {**SHARED, **OWN}.items():
                statement = native.statement(shared, asked.sync_connection).text
                plan = await asked.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (1,) * statement.count("?"))
                slow += [(name, row[3]) for row in plan if not is_quick_in_sqlite(name, row[3])]
    assert slow == []


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_every_statement_finds_tables_in_a_schema(tmp_path: Path, dialect: str) -> None:
    """Every statement finds the tables under any names: the names are quoted and have the schema of the model."""
    async with engines(dialect, tmp_path) as made:
        engine = made()
        if dialect == "sqlite":
            attach = f"ATTACH DATABASE '{tmp_path}/crm.db' AS crm"
            event.listen(engine.sync_engine, "connect", lambda connection, _: connection.execute(attach))
        async with engine.connect() as connection:
            schema = "crm" if dialect == "sqlite" else await connection.scalar(text("SELECT current_schema()"))

        class Base(DeclarativeBase):
            metadata = MetaData(schema=schema)

        class Member(ByValue, Base):
            __tablename__ = "members"
            id: Mapped[int] = mapped_column(primary_key=True)
            email: Mapped[str]

        store = SQLAlchemyStore(engine, Member, tables=make_tables(Member, prefix="My-"), create_tables=True)
        await store.open()
        await do_everything(store.scope("user"))
