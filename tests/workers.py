"""Several workers on one database file, and what a test asks them."""

import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from asgi_auth.errors import AuthenticationFailedError
from asgi_auth.store import Work
from asgi_auth.stores import PostgresStore, SQLiteStore
from asgi_auth.types import AccessToken, User
from tests.postgres import execute
from tests.served import application
from tests.support import EMAIL, NEW_PASSWORD, LocalAuthentication, credentials, mailed_token, make_auth

DSN = "ASGI_AUTH_WORKERS_POSTGRES"
"""Where worker processes find the database; if it is not set it is the file ``app.db``."""

SESSION_CACHE = "ASGI_AUTH_WORKERS_SESSION_CACHE"
"""If set, they answer look-ups of sessions from memory."""
CACHED = timedelta(seconds=1)


def store_of_all() -> Any:  # pragma: no cover - the workers run it, and a signal ends them
    """A store on the database that a worker process shares with others."""
    if DSN not in os.environ:
        return SQLiteStore("app.db")
    return PostgresStore(os.environ[DSN], session_cache=CACHED if SESSION_CACHE in os.environ else None)


class OnSQLite:
    """A database that workers share: a file."""

    checks: Mapping[str, list[Any]] = {"PRAGMA integrity_check": [("ok",)], "PRAGMA foreign_key_check": []}
    """Further statements, with the rows that they must give."""
    lag = timedelta(0)

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def store(self) -> Any:
        """A store with connections of its own."""
        return SQLiteStore(self.directory / "app.db")

    def connect(self) -> sqlite3.Connection:
        """As another program does."""
        return sqlite3.connect(self.directory / "app.db")

    async def rows(self, statement: str) -> list[Any]:
        """As another program sees them."""
        with closing(self.connect()) as connection, connection:
            return connection.execute(statement).fetchall()

    async def count_rows(self, table: str) -> int:
        """As another program sees them."""
        return count_rows(self.directory, table)


class OnPostgres:
    """A database that workers share: one on a server."""

    checks: Mapping[str, list[Any]] = {}

    def __init__(self, dsn: str, lag: timedelta = timedelta(0)) -> None:
        """Args: lag: How long a worker may not know what another has ended."""
        self.dsn, self.lag = dsn, lag

    def store(self) -> Any:
        """A store with connections of its own."""
        return PostgresStore(self.dsn)

    async def rows(self, statement: str) -> list[Any]:
        """As another program sees them."""
        return await execute(self.dsn, statement)

    async def count_rows(self, table: str) -> int:
        """As another program sees them."""
        [(count,)] = await self.rows(f"SELECT count(*) FROM asgi_auth_{table}")  # noqa: S608  # a literal
        return int(count)


NEVER = (
    "SELECT id FROM asgi_auth_users WHERE id NOT IN (SELECT user_id FROM asgi_auth_accounts)",
    "SELECT user_id FROM asgi_auth_accounts WHERE password_hash IS NULL",
    "SELECT user_id FROM asgi_auth_accounts WHERE user_id NOT IN (SELECT id FROM asgi_auth_users)",
    "SELECT user_id FROM asgi_auth_sessions WHERE user_id NOT IN (SELECT user_id FROM asgi_auth_accounts)",
    "SELECT user_id FROM asgi_auth_tokens WHERE user_id NOT IN (SELECT user_id FROM asgi_auth_accounts)",
    "SELECT email_key FROM asgi_auth_users GROUP BY email_key HAVING count(*) > 1",
)
"""What finds no row, whatever happened."""


async def check_rows(place: OnSQLite | OnPostgres) -> None:
    """What holds between the rows."""
    rules = {**place.checks, **{statement: [] for statement in NEVER}}
    assert {rule: await place.rows(rule) for rule in rules} == rules


@asynccontextmanager
async def workers(
    shared: Path | OnSQLite | OnPostgres, count: int = 5, **options: Any
) -> AsyncIterator[list[LocalAuthentication]]:
    """As many workers on one database, each with connections and hashing threads of its own."""
    place = OnSQLite(shared) if isinstance(shared, Path) else shared
    auths = [make_auth(Path(), store=place.store(), **options) for _ in range(count)]
    async with AsyncExitStack() as stack:
        for auth in auths:
            await stack.enter_async_context(auth.running())
        yield auths


def overtake(auth: LocalAuthentication, act: Callable[[], Awaitable[Any]]) -> None:
    """Do *act* once, at the moment when *auth* is about to begin its next transaction: a race that one side wins."""
    store = auth.services.store
    begin = store.transaction

    @asynccontextmanager
    async def begin_later() -> AsyncIterator[Work[User]]:
        store.transaction = begin  # type: ignore[method-assign]
        await act()
        async with begin() as work:
            yield work

    store.transaction = begin_later  # type: ignore[method-assign]


async def shown(auth: LocalAuthentication, token: AccessToken) -> list[str]:
    """Who a request is with the cookie of a sign-in, and who with its bearer token; ``-`` is nobody."""
    transport = httpx.ASGITransport(application(auth))
    cookie, bearer = {"Cookie": f"{auth.site.session_cookie}={token.cookie}"}, {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url=auth.base_url) as client:
        return [(await client.get("/me", headers=headers)).text for headers in (cookie, bearer)]


async def valid_passwords(auth: LocalAuthentication, *passwords: str) -> list[str]:
    """Those of *passwords* that sign Alice in."""
    return [password for password in passwords if await _signs_in(auth, password)]


async def _signs_in(auth: LocalAuthentication, password: str) -> bool:
    try:
        await auth.strategy("password").sign_in(credentials(EMAIL, password))
    except AuthenticationFailedError:
        return False
    return True


async def reset_token(auth: LocalAuthentication) -> str:
    """The token of a mailed link."""
    await auth.strategy("password").reset_request({"email": EMAIL})
    return mailed_token(auth)


def resetting(token: str, password: str = NEW_PASSWORD) -> dict[str, str]:
    """The parameters of ``reset``."""
    return {"reset_token": token, "password": password, "password_confirmation": password}


def count_rows(directory: Path, table: str) -> int:
    """As another program sees them."""
    with closing(sqlite3.connect(directory / "app.db")) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM asgi_auth_{table}").fetchone()  # noqa: S608  # a literal
    return int(count)
