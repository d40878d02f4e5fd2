"""``require`` as a decorator of Starlette endpoints and as a dependency."""

import inspect
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgi_auth.errors import AuthenticationFailedError, ConfigurationError
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


@require(factor="totp", redirect="/sign_in")
async def _factor(request: Request) -> Response:
    return PlainTextResponse("proven")


@require(factor="password", fresh=HOUR)
async def _fresh_factor(request: Request) -> Response:
    return PlainTextResponse("proven")


class _Methods(HTTPEndpoint):
    """An endpoint whose methods have different guards, or none."""

    @require()
    async def get(self, request: Request) -> Response:
        return PlainTextResponse(f"{type(self).__name__} {request.user.email}")

    @require()
    def post(self, request: Request) -> Response:
        return PlainTextResponse(f"{type(self).__name__} {request.user.email}")

    @require()
    @staticmethod
    async def put(request: Request) -> Response:
        return PlainTextResponse(f"_Methods {request.user.email}")

    @require()
    @classmethod
    async def patch(cls, request: Request) -> Response:
        return PlainTextResponse(f"{cls.__name__} {request.user.email}")

    async def delete(self, request: Request) -> Response:
        return PlainTextResponse("open")


class _Open(HTTPEndpoint):
    """An endpoint without a guard."""

    async def get(self, request: Request) -> Response:
        return PlainTextResponse(type(self).__name__)


_Guarded = require(redirect="/sign_in")(_Open)


class _Below(_Guarded):  # type: ignore[valid-type, misc]  # a class, as at run time
    """A subclass of a guarded class."""

    async def dispatch(self) -> None:
        await PlainTextResponse("below")(self.scope, self.receive, self.send)


@require(fresh=HOUR)
@require("admin")
class _Twice(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("admin")


@require(fresh=HOUR)
@require("admin")
async def _twice(request: Request) -> Response:
    return PlainTextResponse("admin")


@require()
async def _socket(websocket: WebSocket) -> None:
    await websocket.accept()


@require()
class _ClassSocket(WebSocketEndpoint):
    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.user.email)


class _MethodSocket(WebSocketEndpoint):
    encoding = "text"

    @require()
    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()

    @require(fresh=HOUR)
    async def on_receive(self, websocket: WebSocket, data: str) -> None:
        await websocket.send_text(data)


ENDPOINTS: dict[str, Any] = {
    "async": _async,
    "sync": _sync,
    "admin": _admin,
    "fresh": _fresh,
    "strict": _strict,
    "factor": _factor,
    "fresh-factor": _fresh_factor,
    "twice": _twice,
    "redirecting": _redirecting,
}


def _roles(app: ASGIApp) -> ASGIApp:
    """An application's own middleware, which adds a scope."""

    async def add(scope: Scope, receive: Receive, send: Send) -> None:
        if (b"x-role", b"admin") in scope["headers"]:
            scope["auth"] = AuthCredentials([*scope["auth"].scopes, "admin"])
        await app(scope, receive, send)

    return add


@dataclass
class _Site:
    """Endpoints with guards, and a signed-in user."""

    auth: LocalAuthentication
    app: ASGIApp
    user: User
    token: AccessToken

    @property
    def cookie(self) -> str:
        return f"user_session={self.token.cookie}"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[_Site]:
    """All endpoints inside both middlewares."""
    methods = ["GET", "POST"]
    routes = [Route(f"/{name}", endpoint, methods=methods) for name, endpoint in ENDPOINTS.items()]
    classes = {"methods": _Methods, "open": _Open, "guarded": _Guarded, "below": _Below, "twice-class": _Twice}
    routes += [Route(f"/{name}", endpoint) for name, endpoint in classes.items()]
    sockets: dict[str, Any] = {"socket": _socket, "class-socket": _ClassSocket, "method-socket": _MethodSocket}
    app = Starlette(routes=[*routes, *(WebSocketRoute(f"/{name}", socket) for name, socket in sockets.items())])
    auth = make_auth(tmp_path)
    async with auth.running():
        wrapped = SessionUserMiddleware(BearerUserMiddleware(_roles(app), auth), auth)
        yield _Site(auth, wrapped, *await register(auth))


@pytest.mark.parametrize("name", ["async", "sync"])
async def test_guarded_endpoint_admits_only_users(site: _Site, name: str) -> None:
    """A user with a cookie or a token is admitted; an anonymous request gets 401 and a challenge."""
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
async def test_refusal_names_its_reason(
    site: _Site, request_: dict[str, Any], status: int, code: str, challenge: str
) -> None:
    """TK-20: no error without a bearer token, ``invalid_token`` for an invalid one; the answer contains no token."""
    options = {**request_, "headers": {**request_.get("headers", {}), **JSON}}
    answer = await ask(site.app, "GET", "/async", **options)

    assert (answer.status, answer.json()["code"], answer["www-authenticate"]) == (status, code, challenge)
    assert "forged" not in answer.text + str(answer.headers)


async def test_cross_site_request_is_anonymous(site: _Site) -> None:
    """CF-1: the answer is 401, because the cookie is ignored."""
    answer = await ask(site.app, "POST", "/async", headers={"origin": "null"}, cookie=site.cookie)

    assert (answer.status, answer["www-authenticate"]) == (401, CHALLENGE)


async def test_missing_scope_is_refused(site: _Site) -> None:
    """TK-20: 403 for a known user without the scope, 401 without a user; scopes of the application are accepted."""
    known = await ask(site.app, "GET", "/admin", cookie=site.cookie)
    admin = await ask(site.app, "GET", "/admin", cookie=site.cookie, headers={"x-role": "admin"})
    nobody = await ask(site.app, "GET", "/admin", headers={"x-role": "admin"})

    assert (known.status, known.text) == (403, "You are not allowed to do this")
    assert known["www-authenticate"] == f'{CHALLENGE}, error="insufficient_scope", scope="admin"'
    assert (admin.status, nobody.status) == (200, 401)


async def test_stale_session_is_refused(site: _Site) -> None:
    """``fresh`` requires a proof in this session within the hour; a remembered sign-in is not a proof."""
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
        ("GET", {"headers": {"accept": "text/html,*/*;q=0.8"}}, "/sign_in?lang=en&return_to=%2Ffresh"),
        ("GET", {"headers": {"authorization": "Basic eDp5"}}, "/sign_in?lang=en&return_to=%2Ffresh"),
    ],
)
async def test_redirect_contains_the_local_return_path(
    site: _Site, method: str, options: dict[str, Any], location: str
) -> None:
    """RD-1: the browser is redirected to the sign-in, with a local return path if the request can be repeated."""
    answer = await ask(site.app, method, "/fresh", **options)

    assert (answer.status, answer["location"]) == (303, location)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("GET", {"headers": {"accept": "application/json"}}),
        ("GET", {"headers": {"accept": "text/html;q=0.5, application/problem+json"}}),
        ("POST", {"headers": {"content-type": "application/json"}}),
        ("GET", {"bearer": "forged"}),
        ("GET", {"bearer": "forged", "headers": {"accept": "text/html"}}),
    ],
)
async def test_redirect_is_for_browsers(site: _Site, method: str, options: dict[str, Any]) -> None:
    """RFC 6750 section 3: a client that prefers JSON or sends a bearer token gets 401: it cannot show a page."""
    answer = await ask(site.app, method, "/fresh", **options)

    assert (answer.status, answer["location"]) == (401, None)
    assert answer["www-authenticate"] == (INVALID if "bearer" in options else CHALLENGE)


async def test_script_with_a_stale_proof_is_not_redirected(site: _Site) -> None:
    """The script gets 403, with a cookie and with a token."""
    site.auth.clock.advance(HOUR + timedelta(microseconds=1))
    by_cookie = await ask(site.app, "GET", "/fresh", cookie=site.cookie, headers=JSON)
    by_token = await ask(site.app, "GET", "/fresh", bearer=str(site.token))

    assert (by_cookie.status, by_cookie.json()["code"], by_token.status) == (403, "not_fresh", 403)


async def test_redirect_helps_a_stale_session_but_not_a_missing_scope(site: _Site) -> None:
    """A stale session is redirected to the sign-in. A user without the scope is not: a new sign-in would not help."""
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
def test_redirect_contains_no_return_path_to_another_host(path: str, way_back: str) -> None:
    """RD-1: the redirect omits a return path that a browser could read as another host."""
    connection = HTTPConnection(make_scope("GET", path))
    with pytest.raises(HTTPException) as caught:
        require(redirect="/sign_in")(connection).close()

    assert caught.value.headers == {"Location": f"/sign_in{way_back}"}


async def test_refused_websocket_is_closed_before_it_is_accepted(site: _Site) -> None:
    """WS-1: the guard closes a refused websocket before it is accepted."""
    headers = {"origin": BASE_URL, "cookie": site.cookie}
    accepted = await shake(site.app, "/socket", headers)
    denied = await shake(site.app, "/socket", {**headers, "origin": "https://evil.example"})

    assert [message["type"] for message in accepted] == ["websocket.accept"]
    assert [(message["type"], message["code"]) for message in denied] == [("websocket.close", 1008)]


# --- class-based endpoints ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH"])
async def test_guarded_method_admits_only_users(site: _Site, method: str) -> None:
    """A method, async or plain, is guarded like a function; ``self`` is still the endpoint."""
    user = await ask(site.app, method, "/methods", bearer=str(site.token))
    nobody = await ask(site.app, method, "/methods")

    assert (user.status, user.text) == (200, f"_Methods {EMAIL}")
    assert (nobody.status, nobody.text, nobody["www-authenticate"]) == (401, "Access denied", CHALLENGE)


async def test_guard_of_a_method_does_not_guard_other_methods(site: _Site) -> None:
    """A method without a guard is open; a missing method gets 405."""
    assert (await ask(site.app, "DELETE", "/methods")).text == "open"
    assert (await ask(site.app, "OPTIONS", "/methods")).status == 405


async def test_guarded_class_admits_only_users(site: _Site) -> None:
    """Every method is guarded, even a missing one; browsers are redirected."""
    user = await ask(site.app, "GET", "/guarded", cookie=site.cookie)
    page = await ask(site.app, "GET", "/guarded", query=b"a=1")
    script = await ask(site.app, "GET", "/guarded", headers=JSON)
    unknown = await ask(site.app, "DELETE", "/guarded")

    assert (user.status, user.text) == (200, "_Open")
    assert (page.status, page["location"]) == (303, "/sign_in?return_to=%2Fguarded%3Fa%3D1")
    assert (script.status, script.json()["code"]) == (401, "authentication_failed")
    assert unknown.status == 303


async def test_guard_of_a_class_is_inherited(site: _Site) -> None:
    """A subclass keeps the guard, even if it overrides ``dispatch``."""
    assert (await ask(site.app, "GET", "/below", cookie=site.cookie)).text == "below"
    assert (await ask(site.app, "GET", "/below")).status == 303


@pytest.mark.parametrize("name", ["twice", "twice-class"])
async def test_two_guards_are_both_checked(site: _Site, name: str) -> None:
    """Each of two guards can refuse, on a class and on a function."""
    role = {"x-role": "admin", **JSON}
    both = await ask(site.app, "GET", f"/{name}", cookie=site.cookie, headers=role)
    inner = await ask(site.app, "GET", f"/{name}", cookie=site.cookie, headers=JSON)
    site.auth.clock.advance(2 * HOUR)
    outer = await ask(site.app, "GET", f"/{name}", cookie=site.cookie, headers=role)

    assert (both.status, both.text) == (200, "admin")
    assert (inner.status, inner.json()["code"]) == (403, "forbidden")
    assert (outer.status, outer.json()["code"]) == (403, "not_fresh")


async def test_guarded_class_is_a_separate_class(site: _Site) -> None:
    """The decorated class stays open for other routes; the guarded class has the same name and docstring."""
    assert (await ask(site.app, "GET", "/open")).text == "_Open"
    assert issubclass(_Guarded, _Open)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(_Guarded, name) == getattr(_Open, name)


async def test_guarded_websocket_class_admits_only_users(site: _Site) -> None:
    """WS-1: a stranger's websocket is closed before it is accepted and before a method of the class runs."""
    accepted = await shake(site.app, "/class-socket", {"origin": BASE_URL, "cookie": site.cookie})
    denied = await shake(site.app, "/class-socket")

    assert [message.get("text") for message in accepted] == [None, EMAIL]
    assert [(message["type"], message["code"]) for message in denied] == [("websocket.close", 1008)]


async def test_guarded_websocket_method_closes_the_websocket(site: _Site) -> None:
    """The guard of ``on_receive`` closes the websocket when its condition no longer holds."""
    bearer = {"authorization": f"Bearer {site.token}"}
    fresh = await shake(site.app, "/method-socket", bearer, ["hello"])
    site.auth.clock.advance(2 * HOUR)
    stale = await shake(site.app, "/method-socket", bearer, ["hello"])
    denied = await shake(site.app, "/method-socket")

    assert [message.get("text") for message in fresh] == [None, "hello"]
    assert [message.get("code") for message in stale] == [None, 1008]
    assert [message.get("code") for message in denied] == [1008]


@pytest.mark.parametrize("kind", [object, Starlette, Exception])
def test_other_classes_are_refused(kind: type) -> None:
    """A class that is not an endpoint is refused; the message points to Litestar's guards."""
    with pytest.raises(TypeError, match=r"neither an HTTPEndpoint nor .*guards=\[require\(\)\]"):
        require()(kind)


# --- factors --------------------------------------------------------------------------------------------------------


async def test_factor_must_be_proven_in_this_session(site: _Site) -> None:
    """A user who has not proven the factor gets the same answer as a user with an old proof."""
    totp = await site.auth.sign_in(site.user, factor="totp")
    proven = await ask(site.app, "GET", "/factor", cookie=f"user_session={totp.cookie}")
    missing = await ask(site.app, "GET", "/factor", cookie=site.cookie, headers=JSON)
    page = await ask(site.app, "GET", "/factor", cookie=site.cookie)
    nobody = await ask(site.app, "GET", "/factor", headers=JSON)

    assert (proven.status, proven.text) == (200, "proven")
    assert (missing.status, missing.json()["code"], nobody.status) == (403, "not_fresh", 401)
    assert (page.status, page["location"]) == (303, "/sign_in?return_to=%2Ffactor")


async def test_factor_without_fresh_does_not_expire(site: _Site) -> None:
    """The proof is valid as long as the session, even in a remembered one."""
    remembered = await site.auth.sign_in(site.user, factor="totp", remember=True)
    site.auth.clock.advance(2 * HOUR)

    assert (await ask(site.app, "GET", "/factor", cookie=f"user_session={remembered.cookie}")).text == "proven"


async def test_factor_with_fresh_must_be_proven_recently(site: _Site) -> None:
    """The age of the named factor is checked, not the age of another factor."""
    totp = await site.auth.sign_in(site.user, factor="totp")
    other = await ask(site.app, "GET", "/fresh-factor", cookie=f"user_session={totp.cookie}")
    site.auth.clock.advance(HOUR)
    fresh = await ask(site.app, "GET", "/fresh-factor", cookie=site.cookie)
    site.auth.clock.advance(timedelta(microseconds=1))
    stale = await ask(site.app, "GET", "/fresh-factor", cookie=site.cookie, headers=JSON)

    assert (other.status, fresh.text) == (403, "proven")
    assert (stale.status, stale.json()["code"]) == (403, "not_fresh")


async def test_fresh_proof_of_another_factor_is_not_enough(site: _Site) -> None:
    """If a session has two factors, the age of the named factor is checked."""
    now = site.auth.clock()
    session = replace(site.token.session, factors={"password": now - 2 * HOUR, "totp": now})
    state = AuthState(site.user, session, "session", ("authenticated",), None, site.auth)
    connection = HTTPConnection({**_scope_of(site.user, site.token, site.auth), "asgi_auth": state})

    assert require(fresh=HOUR).check(connection) is None
    assert require(fresh=HOUR, factor="totp").check(connection) is None
    reason = require(fresh=HOUR, factor="password").check(connection)
    assert reason is not None
    assert reason.code == "not_fresh"


# --- as a dependency ------------------------------------------------------------------------------------------------


def _scope_of(user: User, token: AccessToken, authentication: object) -> dict[str, Any]:
    state = AuthState(user, token.session, "session", ("authenticated",), None, authentication)
    known = {"user": user, "auth": AuthCredentials(["authenticated"]), "asgi_auth": state}
    return {**make_scope("GET", "/"), **known}


async def test_dependency_returns_the_user(site: _Site) -> None:
    """The dependency returns the middleware's user, even if ``scope["user"]`` was replaced."""
    scope = _scope_of(site.user, site.token, site.auth) | {"user": "planted"}

    assert await require()(HTTPConnection(scope)) == site.user


def _forget(awaitable: object) -> None:
    """Ignore the result, as a missing ``await`` does."""


async def test_missing_middleware_is_logged(site: _Site, caplog: pytest.LogCaptureFixture) -> None:
    """The log says that the middleware is missing; an anonymous request logs nothing."""
    state = AuthState(AnonymousUser(), None, None, (), None, site.auth)
    nobody = {**make_scope("GET", "/"), "asgi_auth": state}
    caplog.clear()
    require().check(HTTPConnection(nobody))
    assert caplog.messages == []

    require().check(HTTPConnection(make_scope("GET", "/")))
    assert "wrap the application in SessionUserMiddleware" in caplog.text


@pytest.mark.parametrize(
    ("running", "missing", "method"),
    [
        (SessionUserMiddleware, "BearerUserMiddleware", "bearer"),
        (BearerUserMiddleware, "SessionUserMiddleware", "session"),
    ],
)
async def test_missing_middleware_is_named(
    site: _Site, caplog: pytest.LogCaptureFixture, running: Any, missing: str, method: str
) -> None:
    """The state's error, the guard's reason and one log line name the middleware; the database is not queried."""
    caplog.set_level("DEBUG", "asgi_auth")
    reasons = list[str]()

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        error, refusal = site.auth.state(scope).error, require().check(HTTPConnection(scope))
        assert isinstance(error, AuthenticationFailedError)
        assert isinstance(refusal, AuthenticationFailedError)
        assert site.auth.user(scope) is None
        reasons.extend([error.reason, refusal.reason])
        await PlainTextResponse()(scope, receive, send)

    shown = {"bearer": str(site.token)} if method == "bearer" else {"cookie": site.cookie}
    await site.auth.close()
    for _ in range(2):
        await ask(running(endpoint, site.auth), "GET", "/", **shown)
    assert site.auth.closed

    text = f"the request shows a {method} credential, and no {missing} looks at it: wrap the application in {missing}"
    assert len(reasons) == 4
    assert all(reason.startswith(text) for reason in reasons)
    told = [(record.levelname, record.getMessage()) for record in caplog.records if missing in record.getMessage()]
    assert [line for line in told if line[0] == "DEBUG"] == [("DEBUG", reasons[0])]


@pytest.mark.parametrize(
    "headers",
    [[], [("authorization", "Basic eDp5")], [("authorization", "Bearer")], [("authorization", "Bearer x")] * 300],
)
async def test_request_without_a_credential_requires_no_middleware(site: _Site, headers: list[tuple[str, str]]) -> None:
    """Without a credential, or for a scope that is not a request, no missing middleware is reported."""
    assert site.auth.state(make_scope("GET", "/", headers)).error is None
    assert site.auth.state({"type": "lifespan"}).error is None
    shown = site.auth.state(make_scope("GET", "/", [("cookie", site.cookie)])).error
    assert shown is not None
    assert "no SessionUserMiddleware looks at it" in shown.reason


def test_dependency_refuses_before_anything_is_awaited() -> None:
    """A forgotten ``await`` admits no request; without a middleware no user is signed in."""
    with pytest.raises(HTTPException) as http:
        _forget(require()(HTTPConnection(make_scope("GET", "/"))))
    with pytest.raises(WebSocketException) as websocket:
        _forget(require()(HTTPConnection(make_scope("GET", "/", type="websocket"))))

    assert (http.value.status_code, http.value.headers) == (401, {"WWW-Authenticate": 'Bearer realm=""'})
    assert http.value.detail == "Access denied"
    assert websocket.value.code == 1008


async def test_state_without_an_authentication_is_never_fresh(site: _Site) -> None:
    """If the ``Authentication`` of a state is unknown, the session is never fresh."""
    scope = _scope_of(site.user, site.token, None)

    assert require().check(HTTPConnection(scope)) is None
    reason = require(fresh=HOUR).check(HTTPConnection(scope))
    assert reason is not None
    assert reason.code == "not_fresh"


# --- usage ----------------------------------------------------------------------------------------------------------


def test_guard_has_no_fastapi_attributes_without_fastapi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without FastAPI, a guard does not have the attributes that FastAPI reads."""
    for name in ("fastapi", "fastapi.params"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    assert not hasattr(require(), "__wrapped__")
    assert require().__class__ is Require
    assert inspect.unwrap(require()(_plain)) is _plain
    with pytest.raises(HTTPException):
        require()(HTTPConnection(make_scope("GET", "/"))).close()
    with pytest.raises(WebSocketException):
        require()(HTTPConnection(make_scope("GET", "/", type="websocket"))).close()


async def _plain(request: Request) -> None: ...


def test_same_arguments_return_the_same_object() -> None:
    """``dependency_overrides`` can find a guard, because equal arguments return the same object."""
    assert require("a", fresh=HOUR, factor="totp") is require("a", fresh=HOUR, factor="totp")
    assert require(factor="totp") is not require(factor="password")
    assert require("a") is not require("b")
    assert isinstance(require(), Require)


def test_invalid_arguments_are_refused() -> None:
    """RD-1: a redirect to another site, a ``fresh`` without a unit and an invalid factor are refused."""
    for redirect in ("https://evil.example", "//evil.example", "sign_in"):
        with pytest.raises(ConfigurationError, match="redirect"):
            require(redirect=redirect)
    with pytest.raises(ConfigurationError, match="fresh"):
        require(fresh=5)  # type: ignore[arg-type]  # as if it were seconds
    for factor in ("", timedelta(1)):
        with pytest.raises(ConfigurationError, match="factor must be the name of a strategy"):
            require(factor=factor)  # type: ignore[arg-type]  # as if it were ``fresh``


def test_forgotten_parentheses_are_refused() -> None:
    """``@require`` without parentheses is an error at once: it would admit every request or none."""
    with pytest.raises(TypeError, match="parentheses"):
        require(_async)  # type: ignore[arg-type]  # mypy sees it, too


async def _misnamed(connection: Request) -> None: ...
async def _socket_misnamed(connection: "WebSocket", room: str = "a") -> None: ...
def _short(req): ...  # type: ignore[no-untyped-def]  # as many write it
def _of_fastapi(order_id: int, *, full: bool = False) -> None: ...
def _nothing() -> None: ...


class _Odd:
    def get(self, order_id: int) -> None: ...

    def post(self) -> None: ...

    def __call__(self, order_id: int) -> None: ...


@pytest.mark.parametrize(
    ("endpoint", "signature"),
    [
        (_misnamed, "_misnamed(request)"),
        (_socket_misnamed, "_socket_misnamed(websocket, room)"),
        (_short, "_short(request)"),
        (_of_fastapi, "_of_fastapi(request, order_id, full)"),
        (_nothing, "_nothing(request)"),
        (_Odd.get, "get(self, request, order_id)"),
        (_Odd.post, "post(self, request)"),
        (_Odd(), "__call__(request, order_id)"),
    ],
)
def test_endpoint_without_a_request_is_refused_with_the_right_signature(endpoint: Any, signature: str) -> None:
    """A guard requires a request; the error is raised where the endpoint is declared."""
    with pytest.raises(TypeError) as raised:
        require()(endpoint)

    assert f"takes neither 'request' nor 'websocket': write def {signature}; under FastAPI " in str(raised.value)
    assert str(raised.value).endswith("guards=[require()]")


async def test_guard_keeps_name_and_kind_of_its_endpoint(site: _Site) -> None:
    """A guarded function keeps its name and kind; the request is also found in the keyword arguments."""
    call = partial(_async, request=Request(_scope_of(site.user, site.token, site.auth)))

    assert (_async.__name__, _sync.__name__) == ("_async", "_sync")
    assert inspect.iscoroutinefunction(_async)
    assert not inspect.iscoroutinefunction(_sync)
    assert (await call()).body == EMAIL.encode()


async def test_unhashable_endpoint_is_guarded(site: _Site) -> None:
    """A callable that cannot be hashed is guarded, too; only functions are searched for among unguarded routes."""

    class Endpoint:
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, request: Request) -> Response:
            return Response("in")

    guarded = require()(Endpoint())
    assert guarded(Request(make_scope("GET", "/"))).status_code == 401
    assert guarded(Request(_scope_of(site.user, site.token, site.auth))).body == b"in"
