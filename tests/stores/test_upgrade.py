"""A database of an older version: rejected at start; ``migrate`` updates it and keeps every row."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.errors import ConfigurationError
from asgi_auth.store import Store
from asgi_auth.stores import PostgresStore, SQLiteStore, schema
from asgi_auth.testing.stores.records import HOUR, NOW, add_invitation, add_session, add_token, add_user
from tests.postgres import database


@pytest.fixture(params=["sqlite", "postgres"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """A function that makes stores of one kind, all on one empty database."""
    if request.param == "sqlite":
        yield lambda: SQLiteStore(tmp_path / "app.db")
    else:
        async with database() as dsn:
            yield lambda: PostgresStore(dsn)


TAKE_BACK = {
    2: ["ALTER TABLE asgi_auth_accounts DROP COLUMN proven_email"],
    1: ["DROP TABLE asgi_auth_invitations", "DROP TABLE asgi_auth_counters"],
}
"""The statements that take a database back by one version, by the version that they lead to."""


@pytest.mark.anyio
@pytest.mark.parametrize("version", [1, 2])
async def test_older_version_is_migrated_to_the_newest_with_its_rows(make: Any, version: int) -> None:
    """Opening does not change an older database. After ``migrate`` it has the new tables and columns, and every row."""
    old: Store[Any] = make()
    await old.open()
    scoped = old.scope("user")
    alice = await add_user(scoped, password_hash="$2b$12$abc", confirmed_at=NOW)
    session, secret_hash = await add_session(scoped, alice, factors={"password": NOW})
    older = await add_token(scoped, alice, extra_data={"a": [1]})
    newer = await add_token(scoped, alice)
    statements = [statement for to, each in TAKE_BACK.items() if to >= version for statement in each]
    async with scoped.transaction() as work:
        for statement in [*statements, f"UPDATE asgi_auth_schema SET version = {version}"]:  # noqa: S608
            await work.connection.execute(statement)
    await old.close()

    store: Store[Any] = make()
    for _ in range(2):
        with pytest.raises(
            ConfigurationError,
            match=rf"has schema {version}, .* needs 3: make a backup, then run python -m asgi_auth migrate",
        ):
            await store.open()
    assert [await store.migrate(), await store.migrate()] == [(version, 3), (3, 3)]
    await store.open()
    scoped = store.scope("user")
    assert await scoped.users.find("email", "alice@example.com") == alice
    assert await scoped.sessions.load(secret_hash, now=NOW) == (session, alice.user)
    assert await scoped.tokens.peek("reset", older.token_hash, now=NOW) == older
    assert await scoped.tokens.latest("reset", alice.account.user_id, now=NOW) == newer
    assert await scoped.accounts.highest_bcrypt_cost(31) == 12
    record = await add_invitation(scoped, inviter_id=alice.account.user_id)
    assert await scoped.invitations.find(None, record.email_key, now=NOW) == record
    assert (await scoped.counters.count("mail", b"k", now=NOW, expires_at=NOW + HOUR)).count == 1
    account = await scoped.accounts.update(alice.account.user_id, {"proven_email": "a@example.com"})
    assert account is not None
    assert account.proven_email == "a@example.com"
    await store.close()


@pytest.mark.anyio
async def test_earlier_release_rejects_a_migrated_database(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of a release with an older schema does not start, and changes nothing."""
    newer: Store[Any] = make()
    alice = await add_user(newer.scope("user"))
    await newer.close()
    released = schema.steps
    monkeypatch.setattr(schema, "steps", lambda dialect: released(dialect)[:-1])
    earlier: Store[Any] = make()
    for act in (earlier.open, earlier.migrate, lambda: earlier.scope("user").users.find("email", "alice@example.com")):
        with pytest.raises(
            ConfigurationError, match=r"schema of the database \(3\) is not one of 1 to 2: made by a newer"
        ):
            await act()
    monkeypatch.undo()
    assert await newer.scope("user").users.find("email", "alice@example.com") == alice
    await newer.close()
