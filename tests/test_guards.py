"""require, as a decorator of Starlette's endpoints and as a dependency."""

import inspect
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgi_auth.errors import ConfigurationError
from asgi_auth.types import AccessToken, AnonymousUser, AuthState, User
from asgi_auth.web.guards import Require, require
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from tests.asgi import JSON, ask, make_scope, shake
from tests.support import BASE_URL, EMAIL, LocalAuthentication, credentials, make_auth, register

pytestmark = pytest.mark.anyio

CHALLENGE = 'Bearer realm="localhost"'
INVALID = f'{CHALLENGE}, error="invalid_token"'
HOUR = timedelta(hours=1)


@require()
async def _async(request: Request) -> Response:
    return PlainTextResponse(request.user.email)


@require()
def _sync(request: Request) -> Response:
    return PlainTextResponse(request.user.email)


@require("admin")
async def _admin(request: Request) -> Response:
    return PlainTextResponse("admin")


@require(redirect="/sign_in?lang=en", fresh=HOUR)
async def _fresh(request: Request) -> Response:
    return PlainTextResponse("fresh")


@require(fresh=HOUR)
async def _strict(request: Request) -> Response:
    return PlainTextResponse("fresh")


@require("admin", redirect="/sign_in")
async def _redirecting(request: Request) -> Response:
    return PlainTextResponse("admin")


class _Endpoint(HTTPEndpoint):
    @require()
    async def get(self, request: Request) -> Response:
        return PlainTextResponse(request.user.email)


@require()
async def _socket(websocket: WebSocket) -> None:
    await websocket.accept()


ENDPOINTS: dict[str, Any] = {
    "async": _async,
    "sync": _sync,
    "class": _Endpoint,
    "admin": _admin,
    "fresh": _fresh,
    "strict": _strict,
    "redirecting": _redirecting,
}


def _roles(app: ASGIApp) -> ASGIApp:
    """What an application may add: a scope of its own."""

    async def add(scope: Scope, receive: Receive, send: Send) -> None:
        if (b"x-role", b"admin") in scope["headers"]:
            scope["auth"] = AuthCredentials([*scope["auth"].scopes, "admin"])
        await app(scope, receive, send)

    return add


@dataclass
class _Site:
    """Endpoints with guards, and somebody who is signed in."""

    auth: LocalAuthentication
    app: ASGIApp
    user: User
    token: AccessToken

    @property
    def cookie(self) -> str:
        return f"user_session={self.token.cookie}"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[_Site]:
    """Both middlewares around all endpoints."""
    methods = ["GET", "POST"]
    routes = [Route(f"/{name}", endpoint, methods=methods) for name, endpoint in ENDPOINTS.items() if name != "class"]
    app = Starlette(routes=[*routes, Route("/class", _Endpoint), WebSocketRoute("/socket", _socket)])
    auth = make_auth(tmp_path)
    async with auth.running():
        wrapped = SessionUserMiddleware(BearerUserMiddleware(_roles(app), auth), auth)
        yield _Site(auth, wrapped, *await register(auth))


@pytest.mark.parametrize("name", ["async", "sync", "class"])
async def test_guarded_endpoints(site: _Site, name: str) -> None:
    """Whoever is signed in is let in, by cookie or token; nobody is 401 and asked for a token."""
    by_cookie = await ask(site.app, "GET", f"/{name}", cookie=site.cookie)
    by_token = await ask(site.app, "GET", f"/{name}", bearer=str(site.token))
    nobody = await ask(site.app, "GET", f"/{name}")

    assert (by_cookie.text, by_token.text) == (EMAIL, EMAIL)
    assert (nobody.status, nobody.text, nobody["www-authenticate"]) == (401, "Access denied", CHALLENGE)


@pytest.mark.parametrize(
    ("request_", "status", "code", "challenge"),
    [
        ({}, 401, "authentication_failed", CHALLENGE),
        ({"headers": {"authorization": "Basic eDp5"}}, 401, "authentication_failed", CHALLENGE),
        ({"cookie": "user_session=forged"}, 401, "invalid_token", CHALLENGE),
        ({"bearer": "forged"}, 401, "invalid_token", INVALID),
        ({"bearer": "two words"}, 400, "malformed_request", f'{CHALLENGE}, error="invalid_request"'),
        ({"query": b"access_token=x"}, 401, "authentication_failed", CHALLENGE),
    ],
)
async def test_why_nobody_may_pass(
    site: _Site, request_: dict[str, Any], status: int, code: str, challenge: str
) -> None:
    """TK-20: no error value without a bearer token, ``invalid_token`` for a bad one, and no token is echoed."""
    options = {**request_, "headers": {**request_.get("headers", {}), **JSON}}
    answer = await ask(site.app, "GET", "/async", **options)

    assert (answer.status, answer.json()["code"], answer["www-authenticate"]) == (status, code, challenge)
    assert "forged" not in answer.text + str(answer.headers)


async def test_a_cross_site_request_is_nobody(site: _Site) -> None:
    """CF-1: 401, because the cookie counts for nothing."""
    answer = await ask(site.app, "POST", "/async", headers={"origin": "null"}, cookie=site.cookie)

    assert (answer.status, answer["www-authenticate"]) == (401, CHALLENGE)


async def test_scopes(site: _Site) -> None:
    """TK-20: 403 for a known user without the scope, 401 for nobody; the application's own scopes count."""
    known = await ask(site.app, "GET", "/admin", cookie=site.cookie)
    admin = await ask(site.app, "GET", "/admin", cookie=site.cookie, headers={"x-role": "admin"})
    nobody = await ask(site.app, "GET", "/admin", headers={"x-role": "admin"})

    assert (known.status, known.text) == (403, "This is not allowed")
    assert known["www-authenticate"] == f'{CHALLENGE}, error="insufficient_scope", scope="admin"'
    assert (admin.status, nobody.status) == (200, 401)


async def test_fresh(site: _Site) -> None:
    """A proof of this session within the hour; a remembered session never has one."""
    _, remembered = await site.auth.strategy("password").sign_in({**credentials(), "remember_me": True})
    stale = f"user_session={remembered.cookie}"
    assert (await ask(site.app, "GET", "/strict", cookie=site.cookie)).text == "fresh"
    assert (await ask(site.app, "GET", "/strict", cookie=stale)).status == 403
    site.auth.clock.advance(HOUR)
    assert (await ask(site.app, "GET", "/strict", cookie=site.cookie)).text == "fresh"
    site.auth.clock.advance(timedelta(microseconds=1))
    answer = await ask(site.app, "GET", "/strict", cookie=site.cookie, headers=JSON)

    assert (answer.status, answer.json()["code"], answer["www-authenticate"]) == (403, "not_fresh", None)


@pytest.mark.parametrize(
    ("method", "options", "location"),
    [
        ("GET", {}, "/sign_in?lang=en&return_to=%2Ffresh"),
        ("HEAD", {}, "/sign_in?lang=en&return_to=%2Ffresh"),
        ("GET", {"query": b"a=1&b=/c"}, "/sign_in?lang=en&return_to=%2Ffresh%3Fa%3D1%26b%3D%2Fc"),
        ("GET", {"query": b"a" * 2043}, "/sign_in?lang=en"),
        ("GET", {"query": b"a=%0d%0a"}, "/sign_in?lang=en"),
        ("GET", {"root_path": "/app"}, "/sign_in?lang=en&return_to=%2Fapp%2Ffresh"),
        ("GET", {"root_path": "/app", "query": b"a=1"}, "/sign_in?lang=en&return_to=%2Fapp%2Ffresh%3Fa%3D1"),
        ("POST", {}, "/sign_in?lang=en"),
        ("GET", {"bearer": "forged"}, "/sign_in?lang=en&return_to=%2Ffresh"),
    ],
)
async def test_redirect(site: _Site, method: str, options: dict[str, Any], location: str) -> None:
    """RD-1: to sign in, and back by a local path, if the request is one that can be repeated."""
    answer = await ask(site.app, method, "/fresh", **options)

    assert (answer.status, answer["location"]) == (303, location)


async def test_redirect_of_somebody_who_is_known(site: _Site) -> None:
    """A stale session is sent to sign in again; for whoever lacks a scope that would not help."""
    allowed = await ask(site.app, "GET", "/redirecting", cookie=site.cookie, headers={"x-role": "admin"})
    fresh = await ask(site.app, "GET", "/fresh", cookie=site.cookie)
    site.auth.clock.advance(2 * HOUR)
    stale = await ask(site.app, "GET", "/fresh", cookie=site.cookie)
    lacking = await ask(site.app, "GET", "/redirecting", cookie=site.cookie)
    nobody = await ask(site.app, "GET", "/redirecting")

    assert (allowed.text, fresh.text) == ("admin", "fresh")
    assert (stale.status, lacking.status, nobody.status) == (303, 403, 303)
    assert nobody["location"] == "/sign_in?return_to=%2Fredirecting"


@pytest.mark.parametrize(
    ("path", "way_back"),
    [("//evil.example/x", ""), ("/\\evil.example", ""), ("/a/../b", ""), ("/\ud800", "?return_to=%2F%253F")],
)
def test_redirect_gives_no_way_back_elsewhere(path: str, way_back: str) -> None:
    """RD-1: a path that a browser could read as another host is left out."""
    connection = HTTPConnection(make_scope("GET", path))
    with pytest.raises(HTTPException) as caught:
        require(redirect="/sign_in")(connection).close()

    assert caught.value.headers == {"Location": f"/sign_in{way_back}"}


async def test_websocket(site: _Site) -> None:
    """WS-1: closed before it is accepted."""
    headers = {"origin": BASE_URL, "cookie": site.cookie}
    accepted = await shake(site.app, "/socket", headers)
    denied = await shake(site.app, "/socket", {**headers, "origin": "https://evil.example"})

    assert [message["type"] for message in accepted] == ["websocket.accept"]
    assert [(message["type"], message["code"]) for message in denied] == [("websocket.close", 1008)]


# --- as a dependency ------------------------------------------------------------------------------------------------


def _scope_of(user: User, token: AccessToken, authentication: object) -> dict[str, Any]:
    state = AuthState(user, token.session, "session", ("authenticated",), None, authentication)
    known = {"user": user, "auth": AuthCredentials(["authenticated"]), "asgi_auth": state}
    return {**make_scope("GET", "/"), **known}


async def test_dependency_gives_the_user(site: _Site) -> None:
    """The user whom the middleware found, whatever became of ``scope["user"]`` since."""
    scope = _scope_of(site.user, site.token, site.auth) | {"user": "planted"}

    assert await require()(HTTPConnection(scope)) == site.user


def _forget(awaitable: object) -> None:
    """What a missing ``await`` does."""


async def test_a_forgotten_middleware_is_said_aloud(site: _Site, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever forgot it finds the reason in the log; who is merely nobody is not worth a line."""
    state = AuthState(AnonymousUser(), None, None, (), None, site.auth)
    nobody = {**make_scope("GET", "/"), "asgi_auth": state}
    caplog.clear()
    require().check(HTTPConnection(nobody))
    assert caplog.messages == []

    require().check(HTTPConnection(make_scope("GET", "/")))
    assert "wrap the application in SessionUserMiddleware" in caplog.text


def test_dependency_refuses_before_anything_is_awaited() -> None:
    """A forgotten ``await`` lets nobody in; without any middleware nobody is signed in."""
    with pytest.raises(HTTPException) as http:
        _forget(require()(HTTPConnection(make_scope("GET", "/"))))
    with pytest.raises(WebSocketException) as websocket:
        _forget(require()(HTTPConnection(make_scope("GET", "/", type="websocket"))))

    assert (http.value.status_code, http.value.headers) == (401, {"WWW-Authenticate": 'Bearer realm=""'})
    assert http.value.detail == "Access denied"
    assert websocket.value.code == 1008


async def test_a_state_of_nobody_knows_no_freshness(site: _Site) -> None:
    """A state whose ``Authentication`` is unknown is never fresh."""
    scope = _scope_of(site.user, site.token, None)

    assert require().check(HTTPConnection(scope)) is None
    reason = require(fresh=HOUR).check(HTTPConnection(scope))
    assert reason is not None
    assert reason.code == "not_fresh"


# --- how it is written ----------------------------------------------------------------------------------------------


def test_guard_is_nothing_but_itself_without_fastapi(monkeypatch: pytest.MonkeyPatch) -> None:
    """What FastAPI reads of a guard does not exist where there is no FastAPI."""
    for name in ("fastapi", "fastapi.params"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    assert not hasattr(require(), "__wrapped__")
    assert require().__class__ is Require


def test_the_same_arguments_give_the_same_object() -> None:
    """So that ``dependency_overrides`` finds it."""
    assert require("a", fresh=HOUR) is require("a", fresh=HOUR)
    assert require("a") is not require("b")
    assert isinstance(require(), Require)


def test_arguments_that_cannot_be_meant() -> None:
    """RD-1: no guard sends anybody away from the site; a freshness without a unit is none."""
    for redirect in ("https://evil.example", "//evil.example", "sign_in"):
        with pytest.raises(ConfigurationError, match="redirect"):
            require(redirect=redirect)
    with pytest.raises(ConfigurationError, match="fresh"):
        require(fresh=5)  # type: ignore[arg-type]  # as if it were seconds


def test_forgotten_parentheses() -> None:
    """``@require`` alone would let everybody in or nobody; it is an error at once."""
    with pytest.raises(TypeError, match="parentheses"):
        require(_async)  # type: ignore[arg-type]  # mypy sees it, too


def test_an_endpoint_needs_a_name_to_be_found_by() -> None:
    """There is nothing to check without a request."""

    async def endpoint(connection: Request) -> None: ...

    with pytest.raises(TypeError, match="neither 'request' nor 'websocket'"):
        require()(endpoint)


async def test_a_guard_keeps_the_shape_of_its_endpoint(site: _Site) -> None:
    """Name and kind are the endpoint's; the request is found among keyword arguments, too."""
    call = partial(_async, request=Request(_scope_of(site.user, site.token, site.auth)))

    assert (_async.__name__, _sync.__name__) == ("_async", "_sync")
    assert inspect.iscoroutinefunction(_async)
    assert not inspect.iscoroutinefunction(_sync)
    assert (await call()).body == EMAIL.encode()
