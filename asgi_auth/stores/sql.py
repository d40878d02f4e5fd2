"""All capabilities in SQL, over an executor."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asgi_auth.store import Work
from asgi_auth.stores.executor import Executor
from asgi_auth.stores.sql_accounts import SQLAccounts
from asgi_auth.stores.sql_counters import SQLCounters
from asgi_auth.stores.sql_invitations import SQLInvitations
from asgi_auth.stores.sql_sessions import SQLSessions
from asgi_auth.stores.sql_tokens import SQLTokens
from asgi_auth.stores.sql_users import SQLUsers
from asgi_auth.types import User


class SQLScopedStore:
    """``ScopedStore`` over an executor."""

    def __init__(self, executor: Executor, subject_name: str) -> None:
        self._executor, self._subject_name = executor, subject_name
        self.users = SQLUsers(executor, subject_name)
        self.accounts = SQLAccounts(executor, subject_name)
        self.sessions = SQLSessions(executor, subject_name)
        self.tokens = SQLTokens(executor, subject_name)
        self.invitations = SQLInvitations(executor, subject_name)
        self.counters = SQLCounters(executor, subject_name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Work[User]]:
        async with self._executor.transaction() as executor:
            bound = SQLScopedStore(executor, self._subject_name)
            yield Work(
                users=bound.users,
                accounts=bound.accounts,
                sessions=bound.sessions,
                tokens=bound.tokens,
                invitations=bound.invitations,
                counters=bound.counters,
                connection=executor.connection,
            )
