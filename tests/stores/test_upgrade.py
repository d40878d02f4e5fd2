"""A database of an older version: refused at the start, brought forward by ``migrate``, with everything in it."""

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
    """What makes stores of each kind, all on one empty database."""
    if request.param == "sqlite":
        yield lambda: SQLiteStore(tmp_path / "app.db")
    else:
        async with database() as dsn:
            yield lambda: PostgresStore(dsn)


@pytest.mark.anyio
async def test_version_1_is_brought_to_2_with_its_rows(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database without invitations and counters is not touched unasked; then it has them, and lost nothing."""
    released = {dialect: schema.steps(dialect) for dialect in ("sqlite", "postgres")}
    with monkeypatch.context() as patch:
        patch.setattr(schema, "steps", lambda dialect: released[dialect][:1])
        old: Store[Any] = make()
        await old.open()
        scoped = old.scope("user")
        alice = await add_user(scoped, password_hash="$2b$12$abc", confirmed_at=NOW)
        session, secret_hash = await add_session(scoped, alice, factors={"password": NOW})
        older = await add_token(scoped, alice, extra_data={"a": [1]})
        newer = await add_token(scoped, alice)
        await old.close()

    store: Store[Any] = make()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"has schema 1, .* needs 2: run python -m asgi_auth migrate"):
            await store.open()
    assert [await store.migrate(), await store.migrate()] == [(1, 2), (2, 2)]
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
    await store.close()
