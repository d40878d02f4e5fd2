"""How SQLite runs the statements of ``SQLAlchemyStore``, which takes what its planner is given, without hints."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from asgi_auth.stores import SQLAlchemyStore
from asgi_auth.testing.stores.records import NOW, add_session, add_token, add_user
from tests.stores.engines import engines, make
from tests.stores.models import IntUser
from tests.stores.plans import is_quick_in_sqlite

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
    """That finds a row by something."""
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
    assert await tokens.consume("reset", token.token_hash, now=NOW) == token
    assert [await store.prune(now=NOW, limit=9) for store in (sessions, tokens)] == [1, 0]


async def test_sqlalchemy_finds_by_index_in_sqlite(tmp_path: Path) -> None:
    """No statement reads a whole table, or all rows of a subject, however long it gets; only a list is sorted."""
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
