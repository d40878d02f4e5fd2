"""A store that has only the required parts: it passes the suite and serves an application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.limits import Limits
from asgi_auth.store import ScopedStore, Store, Work
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password
from asgi_auth.testing import StoreSuite
from asgi_auth.types import User
from tests.support import EMAIL, PASSWORD, credentials, make_auth


class MinimalScoped:
    """A scoped store without the attributes for invitations and counters."""

    def __init__(self, scoped: ScopedStore[User]) -> None:
        self._scoped = scoped
        self.users, self.accounts, self.sessions, self.tokens = (
            scoped.users,
            scoped.accounts,
            scoped.sessions,
            scoped.tokens,
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Work[User]]:
        """A transaction, written by a developer who knows only the required parts."""
        async with self._scoped.transaction() as work:
            yield Work(
                users=work.users,
                accounts=work.accounts,
                sessions=work.sessions,
                tokens=work.tokens,
                connection=work.connection,
            )


class MinimalStore(SQLiteStore):
    """SQLite without the optional parts."""

    def scope(self, subject_name: str) -> Any:
        """The same store, for one kind of user."""
        return MinimalScoped(super().scope(subject_name))


class TestMinimalStore(StoreSuite):
    """The suite, which requires only these parts."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store[User]]:
        """An opened store on an empty database."""
        store = MinimalStore(tmp_path / "app.db")
        await store.open()
        yield store
        await store.close()

    second = store


@pytest.mark.anyio
async def test_minimal_store_serves_and_is_pruned(tmp_path: Path) -> None:
    """An application that uses only the required parts runs on the store and prunes it."""
    store = MinimalStore(tmp_path / "app.db")
    auth = make_auth(
        tmp_path, store=store, strategies=[Password()], registration="closed", limits=Limits(current_password=None)
    )
    async with auth.running():
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
        for _ in range(2):
            await auth.strategy("password").sign_in(credentials())
        auth.clock.advance(timedelta(days=400))
        assert await auth.prune() == 2
