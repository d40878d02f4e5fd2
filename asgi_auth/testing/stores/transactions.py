"""The contract of a store for transactions, opening and closing."""
# ruff: noqa: S101  # the asserts of tests

from typing import Any

import anyio
import pytest

from asgi_auth.errors import IdentityTakenError
from asgi_auth.store import Store
from asgi_auth.testing.stores.records import NOW, add_session, add_token, add_user, together


class TransactionTests:
    """``ScopedStore.transaction``, ``Store.open``, ``close`` and ``migrate``."""

    async def test_transaction_commits_everything_together(self, store: Store[Any], second: Store[Any]) -> None:
        """The block sees its changes at once, other connections after the commit. The caller runs the jobs."""
        outside = second.scope("user")

        async def job() -> None:
            raise AssertionError("the store runs no jobs")  # pragma: no cover  # that is what is tested

        async with store.scope("user").transaction() as work:
            alice = await add_user(work)
            record = await add_token(work, alice)
            _, secret_hash = await add_session(work, alice)
            assert await work.users.get(alice.account.user_id) == alice
            assert await outside.users.get(alice.account.user_id) is None
            assert await work.tokens.consume("reset", record.token_hash, now=NOW) == record
            await work.accounts.update(alice.account.user_id, {"password_hash": "h"})
            work.after_commit(job)

        assert work.jobs == [job]
        found = await outside.users.get(alice.account.user_id)
        assert found is not None
        assert found.account.password_hash == "h"
        assert await outside.sessions.load(secret_hash, now=NOW) is not None
        assert await outside.tokens.peek("reset", record.token_hash, now=NOW) is None

    async def test_transaction_that_raises_leaves_no_trace(self, store: Store[Any]) -> None:
        """FT-2: a block that raises undoes its changes, and the next transaction works."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        record = await add_token(scoped, alice)

        async def fail(name: str) -> None:
            async with scoped.transaction() as work:
                await work.tokens.consume("reset", record.token_hash, now=NOW)
                await work.accounts.update(alice.account.user_id, {"stamp": b"t" * 16})
                await add_user(work, name)
                raise LookupError

        with pytest.raises(LookupError):
            await fail("bob")
        assert await scoped.users.find("email", "bob@example.com") is None
        assert await scoped.users.get(alice.account.user_id) == alice
        assert await scoped.tokens.consume("reset", record.token_hash, now=NOW) == record
        with pytest.raises(IdentityTakenError):
            await fail("alice")
        assert await scoped.users.get(alice.account.user_id) == alice

    async def test_transaction_that_is_cancelled_leaves_no_trace(self, store: Store[Any]) -> None:
        """Cancelling the task undoes the block, and the next transaction works."""
        scoped = store.scope("user")
        with anyio.CancelScope() as scope:
            async with scoped.transaction() as work:
                await add_user(work)
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        assert await scoped.users.find("email", "alice@example.com") is None
        await add_user(scoped)

    async def test_transactions_wait_for_each_other(self, store: Store[Any], second: Store[Any]) -> None:
        """Parallel transactions, over separate connections, all commit, also if they read before they write."""

        async def both(scoped: Any, number: int) -> None:
            async with scoped.transaction() as work:
                assert await work.users.find("email", f"u{number}@example.com") is None
                await add_user(work, f"u{number}")
                await add_user(work, f"v{number}")

        stores = (store.scope("user"), second.scope("user"))
        assert await together(both(stores[number % 2], number) for number in range(6)) == [None] * 6
        for name in [f"{letter}{number}" for letter in "uv" for number in range(6)]:
            assert await stores[0].users.find("email", f"{name}@example.com") is not None

    async def test_store_opens_and_closes_as_often_as_asked(self, store: Store[Any]) -> None:
        """Opening or closing twice, also at once, is the same as once. A closed store opens again with all its data."""
        alice = await add_user(store.scope("user"))
        assert await together([store.open(), store.open()]) == [None, None]
        assert await together([store.close(), store.close()]) == [None, None]
        await store.close()
        assert await together([store.open(), store.open()]) == [None, None]
        assert await store.scope("user").users.get(alice.account.user_id) == alice

    async def test_store_migrate_of_the_newest_schema_changes_nothing(self, store: Store[Any]) -> None:
        """A store that was just opened has the newest schema. ``versions`` and ``migrate`` change nothing then."""
        alice = await add_user(store.scope("user"))
        found, newest = await store.versions()
        assert await store.migrate() == (found, newest)
        assert found == newest
        assert await store.scope("user").users.get(alice.account.user_id) == alice
