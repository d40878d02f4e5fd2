"""A sign-out and a sign-in end every session of the browser's cookies, at a bounded cost."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from asgi_auth.errors import MalformedRequestError
from asgi_auth.store import ScopedStore
from asgi_auth.stores import SQLiteStore
from asgi_auth.stores.columns import Row
from asgi_auth.stores.executor import Executor
from asgi_auth.stores.sql import SQLScopedStore
from asgi_auth.stores.sql_sessions import REVOKE_SESSIONS_BY_SECRET
from asgi_auth.strategies.password import Password
from asgi_auth.types import AccessToken, User
from asgi_auth.web.plug import AuthPlug
from tests.asgi import BROWSER, ask, post, seen_user, site, tables
from tests.second_factor import Code
from tests.support import (
    EMAIL,
    OTHER_EMAIL,
    PASSWORD,
    LocalAuthentication,
    credentials,
    found_of,
    is_alive,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

ENDINGS = {
    "sign_out": {},
    "password/sign_in": credentials(),
    "password/register": registration("new@mail.example.org"),
}
"""Requests that end the sessions of the browser's cookies."""


class _Noting:
    """An executor that records every statement that writes."""

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
    """A store that records every statement that writes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written: list[str] = []

    def scope(self, subject_name: str) -> ScopedStore[User]:
        return SQLScopedStore(_Noting(self._database, self.written), subject_name)


async def signed_in(auth: LocalAuthentication, times: int) -> list[AccessToken]:
    """Create *times* sessions of one user."""
    user, _ = await register(auth)
    return [await auth.sign_in(user) for _ in range(times)]


def cookies(*values: str) -> str:
    """Return a Cookie header with a session cookie for each of *values*."""
    return "; ".join(f"user_session={value}" for value in values)


@pytest.mark.parametrize("path", ENDINGS)
async def test_copies_of_a_cookie_end_in_one_statement(tmp_path: Path, path: str) -> None:
    """SE-8: one statement ends the sessions of all cookies, even if they are repeated or in several headers."""
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
async def test_too_many_different_cookies_are_rejected(tmp_path: Path, auth: LocalAuthentication, path: str) -> None:
    """SE-8: nine different session cookies give 400 and change nothing; for the middleware the client is anonymous."""
    tokens = await signed_in(auth, 9)
    cookie, before = cookies(*(token.cookie for token in tokens)), tables(tmp_path)
    answer = await post(AuthPlug(auth), f"/auth/{path}", ENDINGS[path], cookie=cookie)

    assert (answer.status, answer.all("set-cookie")) == (400, [])
    assert tables(tmp_path) == before
    assert await seen_user(site(auth), cookie=cookie) is None


async def test_forged_cookies_cost_no_statement(tmp_path: Path) -> None:
    """SE-2: a sign-out with a forged cookie or without one writes nothing."""
    store = _NotingStore(tmp_path / "app.db")
    auth = make_auth(tmp_path, store=store)
    async with auth.running():
        store.written.clear()
        for cookie in (None, cookies("forged", "?" * 9)):
            assert (await ask(AuthPlug(auth), "POST", "/auth/sign_out", cookie=cookie)).status == 200
        assert store.written == []


async def test_clear_session_rejects_too_many_cookies(auth: LocalAuthentication) -> None:
    """SE-8: ``clear_session``, for the application's own sign-out, has the same limit and keeps the cookie."""
    tokens = await signed_in(auth, 9)
    scope = {"type": "http", "headers": [(b"cookie", cookies(*(token.cookie for token in tokens)).encode())]}
    response = Response()
    with pytest.raises(MalformedRequestError):
        await AuthPlug(auth).clear_session(Request(scope), response)

    assert "set-cookie" not in response.headers
    assert await is_alive(auth, tokens[0])


# --- pending sign-ins ------------------------------------------------------------------------------------------------

CODE = {"code": f"code-{EMAIL}"}
DROPPED = "=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.fixture
async def factored(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """Alice has a second factor, Bob has none."""
    auth = make_auth(tmp_path, strategies=[Password(), Code(enrolled=frozenset({EMAIL}))])
    async with auth.running():
        for email in (EMAIL, OTHER_EMAIL):
            await auth.accounts.create({"email": email}, password=PASSWORD)
        yield auth


async def first_factor(app: ASGIApp, **request: Any) -> str:
    """Send Alice's password and return the pending cookie."""
    answer = await post(app, "/auth/password/sign_in", credentials(), headers=BROWSER, **request)
    return f"user_pending={answer.cookie('user_pending')}"


async def second_factor(app: ASGIApp, cookie: str) -> int:
    """Send Alice's code and return the status."""
    return (await post(app, "/auth/code/verify", CODE, cookie=cookie)).status


async def test_sign_out_ends_a_pending_sign_in(factored: LocalAuthentication) -> None:
    """SE-4: after a sign-out the second factor of a pending sign-in is rejected; the cookies are removed."""
    app = site(factored)
    assert await second_factor(app, await first_factor(app)) == 200
    pending, flow = await first_factor(app), f"user_flow_{'0' * 16}"
    answer = await post(app, "/auth/sign_out", cookie=f"{pending}; {flow}=x; user_flow_odd=x; other=y")

    assert sorted(answer.all("set-cookie")) == [f"{name}{DROPPED}" for name in (flow, "user_pending", "user_session")]
    assert await second_factor(app, pending) == 401


async def test_sign_out_ends_every_copy_of_a_pending_sign_in(factored: LocalAuthentication) -> None:
    """SE-8: up to 8 pending sign-ins end together; a request with more of them is rejected and ends none."""
    plug = AuthPlug(factored)
    pending = [await first_factor(plug) for _ in range(9)]
    refused = await post(plug, "/auth/sign_out", cookie="; ".join(pending))
    ended = await post(plug, "/auth/sign_out", cookie="; ".join([*pending[:7], "user_pending=garbage"]))

    assert (refused.status, ended.status) == (400, 200)
    assert [await second_factor(plug, each) for each in pending] == [401] * 7 + [200] * 2


async def test_clear_session_ends_a_pending_sign_in(factored: LocalAuthentication) -> None:
    """SE-4: the application's own sign-out ends it too."""
    plug, response = AuthPlug(factored), Response()
    pending = await first_factor(plug)
    await plug.clear_session(Request({"type": "http", "headers": [(b"cookie", pending.encode())]}), response)

    assert response.headers.getlist("set-cookie") == [f"{name}{DROPPED}" for name in ("user_pending", "user_session")]
    assert await second_factor(plug, pending) == 401


async def test_another_sign_in_ends_a_pending_one(factored: LocalAuthentication) -> None:
    """SE-1: a sign-in of another user, or a second first factor, ends the earlier pending sign-in."""
    app = site(factored)
    pending = await first_factor(app)
    again = await first_factor(app, cookie=pending)
    doubled = f"{again}; user_pending=planted"
    answer = await post(app, "/auth/password/sign_in", credentials(OTHER_EMAIL), cookie=doubled)

    assert f"user_pending{DROPPED}" in answer.all("set-cookie")
    assert [await second_factor(app, each) for each in (pending, again)] == [401, 401]


async def test_rejected_second_factor_can_be_tried_again(factored: LocalAuthentication) -> None:
    """A wrong code keeps the pending sign-in; a new stamp of the account ends it."""
    app = site(factored)
    pending = await first_factor(app)
    assert (await post(app, "/auth/code/verify", {"code": "wrong"}, cookie=pending)).status == 401
    assert await second_factor(app, pending) == 200

    pending = await first_factor(app)
    await factored.sessions.revoke_all((await found_of(factored)).account.user_id)
    assert await second_factor(app, pending) == 401
