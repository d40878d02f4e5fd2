"""What ends when somebody signs out or in: every session that the browser shows, at a bounded cost."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from asgi_auth.errors import MalformedRequestError
from asgi_auth.plug import AuthPlug
from asgi_auth.store import ScopedStore
from asgi_auth.stores import SQLiteStore
from asgi_auth.stores.executor import Executor
from asgi_auth.stores.rows import Row
from asgi_auth.stores.sql import REVOKE_SESSIONS_BY_SECRET, SQLScopedStore
from asgi_auth.types import AccessToken, User
from tests.asgi import ask, post, seen_user, site, tables
from tests.support import LocalAuthentication, credentials, is_alive, make_auth, register, registration

pytestmark = pytest.mark.anyio

ENDINGS = {
    "sign_out": {},
    "password/sign_in": credentials(),
    "password/register": registration("new@mail.example.org"),
}
"""Requests that end the sessions of the browser's cookies."""


class _Noting:
    """An executor that notes what is written through it."""

    def __init__(self, inner: Executor, written: list[str]) -> None:
        self._inner, self.written = inner, written
        self.rows, self.connection = inner.rows, inner.connection

    async def read(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        return await self._inner.read(sql, values)

    async def write(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        self.written.append(sql)
        return await self._inner.write(sql, values)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["_Noting"]:
        async with self._inner.transaction() as bound:
            yield _Noting(bound, self.written)


class _NotingStore(SQLiteStore):
    """Notes every statement that writes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written: list[str] = []

    def scope(self, subject_name: str) -> ScopedStore[User]:
        return SQLScopedStore(_Noting(self._database, self.written), subject_name)


async def signed_in(auth: LocalAuthentication, times: int) -> list[AccessToken]:
    """So many sessions of one user."""
    user, _ = await register(auth)
    return [await auth.sign_in(user) for _ in range(times)]


def cookies(*values: str) -> str:
    """A Cookie header with a session cookie for each of *values*."""
    return "; ".join(f"user_session={value}" for value in values)


@pytest.mark.parametrize("path", ENDINGS)
async def test_copies_of_a_cookie_end_in_one_statement(tmp_path: Path, path: str) -> None:
    """SE-8: however often the cookies come, in one header or several, their sessions end in one statement."""
    store = _NotingStore(tmp_path / "app.db")
    auth = make_auth(tmp_path, store=store)
    async with auth.running():
        tokens = await signed_in(auth, 8)
        shown = [token.cookie for token in tokens]
        store.written.clear()
        headers = [("cookie", cookies(*shown, *shown)), *(("cookie", cookies(each)) for each in shown)]
        answer = await post(AuthPlug(auth), f"/auth/{path}", ENDINGS[path], headers=headers)

        assert answer.status == 200
        assert [await is_alive(auth, token) for token in tokens] == [False] * 8
        assert store.written.count(REVOKE_SESSIONS_BY_SECRET) == 1


@pytest.mark.parametrize("path", ENDINGS)
async def test_too_many_different_cookies_are_refused(tmp_path: Path, auth: LocalAuthentication, path: str) -> None:
    """SE-8: nine different cookies of our name are 400, and nothing is done; in the middleware they are nobody."""
    tokens = await signed_in(auth, 9)
    cookie, before = cookies(*(token.cookie for token in tokens)), tables(tmp_path)
    answer = await post(AuthPlug(auth), f"/auth/{path}", ENDINGS[path], cookie=cookie)

    assert (answer.status, answer.all("set-cookie")) == (400, [])
    assert tables(tmp_path) == before
    assert await seen_user(site(auth), cookie=cookie) is None


async def test_cookies_that_are_not_ours_cost_no_statement(tmp_path: Path) -> None:
    """SE-2: to sign out with a forged cookie, or none, writes nothing and begins no transaction."""
    store = _NotingStore(tmp_path / "app.db")
    auth = make_auth(tmp_path, store=store)
    async with auth.running():
        store.written.clear()
        for cookie in (None, cookies("forged", "?" * 9)):
            assert (await ask(AuthPlug(auth), "POST", "/auth/sign_out", cookie=cookie)).status == 200
        assert store.written == []


async def test_clear_session_refuses_too_many_cookies(auth: LocalAuthentication) -> None:
    """SE-8: ``clear_session``, for a sign-out of the application's own, keeps the same bound and leaves the cookie."""
    tokens = await signed_in(auth, 9)
    scope = {"type": "http", "headers": [(b"cookie", cookies(*(token.cookie for token in tokens)).encode())]}
    response = Response()
    with pytest.raises(MalformedRequestError):
        await AuthPlug(auth).clear_session(Request(scope), response)

    assert "set-cookie" not in response.headers
    assert await is_alive(auth, tokens[0])
