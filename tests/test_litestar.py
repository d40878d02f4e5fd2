"""``require`` in Litestar: as a guard and as a decorator."""

import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Controller, Litestar, Request, Response, Router, WebSocket, asgi, get, post, websocket
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.middleware import DefineMiddleware

from asgi_auth.web.guards import require
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.asgi import shake
from tests.support import BASE_URL, EMAIL, LocalAuthentication, credentials, make_auth, register

pytestmark = pytest.mark.anyio

AnyRequest = Request[Any, Any, Any]
CHALLENGE = 'Bearer realm="localhost"'
JSON = {"Accept": "application/json"}
SIGN_IN = require(redirect="/sign-in", fresh=timedelta(minutes=10))

threads = set[threading.Thread]()
"""The threads on which guards read scopes."""


class _Watched:
    """Replaces ``scope["auth"]`` and records the thread that reads it."""

    @property
    def scopes(self) -> list[str]:
        threads.add(threading.current_thread())
        return ["authenticated", "watched"]


def _watch(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """The application's own guard, which runs before ``require``."""
    connection.scope["auth"] = _Watched()


@get("/open")
async def open_to_all() -> str:
    return "open"


@get("/guarded", guards=[require()])
async def guarded(request: AnyRequest) -> dict[str, str]:
    return {"email": request.user.email}


@get("/admin", guards=[require("admin")])
async def admin() -> None: ...


@get("/page", guards=[SIGN_IN])
async def page() -> str:
    return "page"


@get("/watched", guards=[_watch, require("watched")], sync_to_thread=False)
def watched() -> str:
    return "watched"


@get("/decorated")
@require(redirect="/sign-in")
async def decorated(request: AnyRequest) -> dict[str, str]:
    return {"email": request.user.email}


@post("/decorated-plainly", sync_to_thread=False)
@require()
def decorated_plainly(request: "AnyRequest") -> "Response[dict[str, Any]]":
    return Response({"email": request.user.email})


class Things(Controller):
    """A controller: its handlers are methods."""

    path = "/things"

    @get("/mine")
    @require()
    async def mine(self, request: AnyRequest) -> str:
        return f"{type(self).__name__} {request.user.email}"


@websocket("/socket", guards=[require()])
async def socket(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.send_text(socket.user.email)
    await socket.close()


@get("/inside")
async def inside() -> str:
    return "inside"


HANDLERS: list[Any] = [
    *(open_to_all, guarded, admin, page, watched, decorated, decorated_plainly, Things, socket),
    Router("/router", route_handlers=[inside], guards=[require()]),
]


class Visit:
    """The application and a bearer token for it."""

    def __init__(self, app: Litestar, auth: LocalAuthentication, client: httpx.AsyncClient, token: str) -> None:
        self.app, self.auth, self.client = app, auth, client
        self.bearer = {"Authorization": f"Bearer {token}"}


def make_app(auth: LocalAuthentication, **options: Any) -> Litestar:
    """Every handler, inside both middlewares."""
    both: list[Callable[..., Any]] = [SessionUserMiddleware, BearerUserMiddleware]
    middleware = [DefineMiddleware(each, auth=auth) for each in both]
    return Litestar(HANDLERS, middleware=middleware, openapi_config=None, logging_config=None, **options)


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    """The application with a registered user."""
    auth = make_auth(tmp_path)
    _, token = await register(auth)
    app = make_app(auth)
    async with client_of(app) as client:
        yield Visit(app, auth, client, token)
    await auth.close()


def client_of(app: Any) -> httpx.AsyncClient:
    """A client without cookies."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE_URL)


GUARDED = [
    ("GET", "/guarded", {"email": EMAIL}),
    ("GET", "/decorated", {"email": EMAIL}),
    ("POST", "/decorated-plainly", {"email": EMAIL}),
    ("GET", "/things/mine", f"Things {EMAIL}"),
    ("GET", "/router/inside", "inside"),
]


@pytest.mark.parametrize(("method", "path", "answer"), GUARDED)
async def test_guarded_handler_admits_only_users(visit: Visit, method: str, path: str, answer: Any) -> None:
    """A user is admitted; a stranger gets 401 with a challenge, for every return type of the handler."""
    user = await visit.client.request(method, path, headers=visit.bearer)
    stranger = await visit.client.request(method, path, headers=JSON)
    expired = await visit.client.request(method, path, headers={"Authorization": "Bearer e30.e30.e30"})

    assert user.status_code in (200, 201)
    assert answer in (user.text, user.json() if isinstance(answer, dict) else None)
    assert (stranger.status_code, stranger.headers["WWW-Authenticate"]) == (401, CHALLENGE)
    assert stranger.json() == {"status_code": 401, "detail": "Access denied"}
    assert (expired.status_code, expired.headers["WWW-Authenticate"]) == (401, f'{CHALLENGE}, error="invalid_token"')


async def test_handler_without_a_guard_is_open(visit: Visit) -> None:
    """A guard applies only to its own handler."""
    assert (await visit.client.get("/open")).text == "open"


async def test_missing_scope_is_403(visit: Visit) -> None:
    """The challenge to a known user names the missing scope; a malformed credential gets 400."""
    known = await visit.client.get("/admin", headers=visit.bearer)
    malformed = await visit.client.get("/admin", headers={"Authorization": "Bearer two words"})

    assert known.status_code == 403
    assert known.headers["WWW-Authenticate"] == f'{CHALLENGE}, error="insufficient_scope", scope="admin"'
    assert malformed.status_code == 400


@pytest.mark.parametrize("path", ["/page", "/decorated"])
async def test_redirect_is_for_browsers(visit: Visit, path: str) -> None:
    """A browser is redirected to the sign-in with a return path; a script gets 401."""
    browser = await visit.client.get(f"{path}?a=b", headers={"Accept": "text/html"})
    script = await visit.client.get(path, headers=JSON)

    assert (browser.status_code, script.status_code) == (303, 401)
    assert browser.headers["Location"] == f"/sign-in?return_to=%2F{path[1:]}%3Fa%3Db"


async def test_stale_proof_is_403(visit: Visit) -> None:
    """``fresh`` works as in other frameworks."""
    assert (await visit.client.get("/page", headers=visit.bearer)).text == "page"
    visit.auth.clock.advance(timedelta(minutes=11))

    assert (await visit.client.get("/page", headers=visit.bearer)).status_code == 403


async def test_guard_runs_on_the_loop(visit: Visit) -> None:
    """The guard reads the scopes on the event loop, not in a thread of the pool."""
    threads.clear()

    assert (await visit.client.get("/watched", headers=visit.bearer)).text == "watched"
    assert threads == {threading.current_thread()}


async def test_guarded_websocket_admits_only_users(visit: Visit) -> None:
    """WS-1: a stranger's websocket is closed before it is accepted."""
    app: Any = visit.app
    accepted = await shake(app, "/socket", visit.bearer)
    denied = await shake(app, "/socket")

    assert [message.get("text") for message in accepted] == [None, EMAIL, None]
    assert [(message["type"], message["code"]) for message in denied] == [("websocket.close", 1008)]


@pytest.mark.parametrize("path", ["/guarded", "/decorated"])
async def test_exception_handlers_of_the_application_are_called(visit: Visit, path: str) -> None:
    """The guard raises Litestar's own exceptions, so that the application's handlers are called."""

    def handle(request: AnyRequest, exc: HTTPException) -> Response[str]:
        return Response(type(exc).__name__, status_code=exc.status_code)

    kinds = (NotAuthorizedException, PermissionDeniedException)
    app = make_app(visit.auth, exception_handlers=dict.fromkeys(kinds, handle))
    async with client_of(app) as client:
        stranger = await client.get(path, headers=JSON)
        lacking = await client.get("/admin", headers=visit.bearer)

    assert (stranger.status_code, stranger.text) == (401, "NotAuthorizedException")
    assert (lacking.status_code, lacking.text) == (403, "PermissionDeniedException")


async def test_application_without_middlewares_refuses_requests() -> None:
    """Without the middlewares, every guarded route is closed."""
    app = Litestar([guarded], openapi_config=None, logging_config=None)
    async with client_of(app) as client:
        assert (await client.get("/guarded")).status_code == 401


def test_decorator_above_the_route_is_refused() -> None:
    """A Litestar handler is not a function with a request."""
    with pytest.raises(TypeError, match=r"under Litestar guards=\[require\(\)\]"):
        require()(get("/x")(guarded.fn))


def test_controller_is_refused() -> None:
    """A controller has Litestar's own guards; the error points to them."""
    with pytest.raises(TypeError, match=r"under Litestar write guards=\[require\(\)\]"):
        require()(Things)


@pytest.mark.parametrize(("guarded", "status"), [("application", 401), ("router", 200)])
async def test_guard_of_the_application_also_guards_the_plug(tmp_path: Path, guarded: str, status: int) -> None:
    """With a guard on the whole application no user can sign in; with a guard on a router beside the plug users can."""
    auth = make_auth(tmp_path)
    await register(auth)
    plug, guards = AuthPlug(auth), [require()]

    @asgi("/auth", is_mount=True, copy_scope=True)
    async def auth_routes(scope: Any, receive: Any, send: Any) -> None:
        await plug(scope, receive, send)

    options: dict[str, Any] = {"openapi_config": None, "logging_config": None}
    if guarded == "application":
        app = Litestar([auth_routes, inside], guards=guards, **options)
    else:
        app = Litestar([auth_routes, Router("/", route_handlers=[inside], guards=guards)], **options)
    async with client_of(app) as client:
        assert (await client.post("/auth/password/sign_in", data=credentials())).status_code == status
        assert (await client.get("/inside", headers=JSON)).status_code == 401
    await auth.close()
