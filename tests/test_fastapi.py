"""``require`` as a FastAPI dependency: documented, replaceable, for routes and websockets, never run in a thread."""

import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import fastapi.params
import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Security, WebSocket, WebSocketException
from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_auth.types import User
from asgi_auth.web.guards import require
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from tests.asgi import live, make_scope, shake
from tests.support import BASE_URL, EMAIL, make_auth, register

pytestmark = pytest.mark.anyio

SignedIn = Annotated[User, Depends(require())]
Admin = Annotated[User, Depends(require("admin"))]
ALICE = User(id="1", email="alice@elsewhere.example.org", created_at=datetime(2030, 1, 1, tzinfo=UTC))


def make_app() -> FastAPI:
    """Routes that are open, for users, for admins and for fresh sessions; a guarded router; a websocket."""
    app, guarded = FastAPI(), APIRouter(prefix="/guarded", dependencies=[Depends(require())])

    @app.get("/open")
    async def everybody() -> str:
        return "open"

    @app.get("/me")
    async def me(user: SignedIn) -> str | None:
        return user.email

    @app.get("/plain")
    def plain(user: SignedIn) -> str | None:  # FastAPI runs it in a thread
        return user.email

    @app.get("/admin")
    def admin(user: Admin) -> str | None:  # the same; the guard, which reads the scopes, stays on the event loop
        return user.email

    @app.get("/page", dependencies=[Depends(require(redirect="/sign-in", fresh=timedelta(minutes=10)))])
    async def page() -> str:
        return "page"

    @guarded.get("/thing")
    async def thing() -> str:
        return "thing"

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, user: SignedIn) -> None:
        await websocket.accept()
        await websocket.send_text(str(user.email))

    app.include_router(guarded)
    return app


class Watched:
    """Replaces ``scope["auth"]`` and records the thread on which the guard reads it."""

    def __init__(self) -> None:
        self.readers = list[threading.Thread]()

    @property
    def scopes(self) -> list[str]:
        """The scopes, as the middlewares set them."""
        self.readers.append(threading.current_thread())
        return ["authenticated", "admin"]


class Visit:
    """The application inside both middlewares, and a bearer token for it."""

    def __init__(self, app: FastAPI, site: ASGIApp, client: httpx.AsyncClient, token: str) -> None:
        self.app, self.site, self.client = app, site, client
        self.bearer = {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    """The application with a registered user."""
    app, auth = make_app(), make_auth(tmp_path)
    _, token = await register(auth)
    site = SessionUserMiddleware(BearerUserMiddleware(app, auth), auth)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url=BASE_URL) as client:
        yield Visit(app, site, client, token)
    await auth.close()


# --- misuse

BARE: Any = require()
"""A guard that is not wrapped in ``Depends``."""
UNCALLED: Any = require
"""``require`` itself."""
OTHER = Depends(lambda: None)
"""Another dependency."""
REQUIRED: Any = Parameter.empty


def _taking(annotation: Any, default: Any) -> Any:
    """An endpoint or a dependency with one parameter."""

    def endpoint(**parameters: Any) -> None: ...

    user = Parameter("user", Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
    endpoint.__signature__ = Signature([user])  # type: ignore[attr-defined]  # as inspect documents it
    return endpoint


class _Current:
    """A class as a dependency; its parameter is a guard without ``Depends``."""

    def __init__(self, user: Annotated[Any, BARE]) -> None: ...


MISUSES: dict[str, tuple[Any, Any]] = {
    "default": (Any, BARE),
    "default of a model": (User, BARE),
    "default with arguments": (User, require("admin", redirect="/sign_in")),
    "default without a type": (REQUIRED, BARE),
    "annotated": (Annotated[Any, BARE], REQUIRED),
    "annotated model": (Annotated[User, BARE], REQUIRED),
    "annotated with a default": (Annotated[Any, BARE], None),
    "annotated before a marker": (Annotated[str, BARE, Query()], ""),
    "annotated after a marker": (Annotated[str, Query(), BARE], ""),
    "annotated before a dependency": (Annotated[User, BARE, OTHER], REQUIRED),
    "annotated after a dependency": (Annotated[User, OTHER, BARE], REQUIRED),
    "annotated beside a dependency": (Annotated[User, BARE], OTHER),
    "annotated deeper": (list[Annotated[Any, BARE]], None),
    "as a type": (BARE, None),
    "uncalled default": (Any, UNCALLED),
    "uncalled default of a model": (User, UNCALLED),
    "uncalled default without a type": (REQUIRED, UNCALLED),
    "uncalled annotated": (Annotated[Any, UNCALLED], REQUIRED),
    "uncalled annotated with a default": (Annotated[Any, UNCALLED], None),
    "uncalled annotated before a dependency": (Annotated[Any, UNCALLED, OTHER], REQUIRED),
    "uncalled as a type": (UNCALLED, None),
    "uncalled dependency": (Any, Depends(UNCALLED)),
    "uncalled annotated dependency": (Annotated[Any, Depends(UNCALLED)], REQUIRED),
    "uncalled security": (Any, Security(UNCALLED, scopes=["admin"])),
    "of a dependency": (Any, Depends(_taking(Any, BARE))),
    "of a class": (Any, Depends(_Current)),
}


@pytest.mark.parametrize("kind", ["get", "post", "websocket"])
@pytest.mark.parametrize("misuse", MISUSES)
def test_guard_without_depends_fails_when_the_route_is_declared(misuse: str, kind: str) -> None:
    """A forgotten ``Depends`` never opens a route: FastAPI would accept a client's value as the user."""
    with pytest.raises(TypeError, match=r"write Annotated\[User, Depends\(require\(\)\)\]"):
        getattr(FastAPI(), kind)("/x")(_taking(*MISUSES[misuse]))


@pytest.mark.parametrize("wrong", [BARE, UNCALLED, Depends(UNCALLED)], ids=["bare", "uncalled", "uncalled dependency"])
@pytest.mark.parametrize("router", [FastAPI, APIRouter])
@pytest.mark.parametrize("kind", ["get", "websocket"])
def test_listed_guard_without_depends_fails_when_the_route_is_declared(router: Any, kind: str, wrong: Any) -> None:
    """A guard without ``Depends`` in ``dependencies=[…]`` of a route or of its router is refused, too."""
    of_route = getattr(router(), kind)("/x", dependencies=[wrong])
    of_router = getattr(router(dependencies=[wrong]), kind)("/x")
    for declare in (of_route, of_router):
        with pytest.raises(TypeError, match=r"dependencies=\[Depends\(require\(\)\)\]"):
            declare(_taking(Any, None))


@pytest.mark.parametrize("wrong", [BARE, UNCALLED, Depends(UNCALLED)], ids=["bare", "uncalled", "uncalled dependency"])
async def test_guard_without_depends_around_a_router_opens_nothing(visit: Visit, wrong: Any) -> None:
    """FastAPI reads the dependencies of ``include_router`` at the first request. No request reaches the route."""
    router, reached = APIRouter(), list[str]()
    router.get("/included")(lambda: reached.append("included"))

    async def include_and_ask() -> None:
        visit.app.include_router(router, dependencies=[wrong])
        await visit.client.get("/included", headers=visit.bearer)

    with pytest.raises(TypeError, match=r"dependencies=\[Depends\(require\(\)\)\]"):
        await include_and_ask()
    assert reached == []


async def test_decorator_above_the_route_is_told_of_at_start(visit: Visit, caplog: pytest.LogCaptureFixture) -> None:
    """FastAPI has registered the endpoint without the guard. The log names no other route."""
    router = APIRouter(prefix="/part")

    def declare(routes: Any, path: str) -> None:
        async def above(request: Request) -> None: ...
        async def below(request: Request) -> None: ...

        require()(routes.get(path)(above))
        routes.get(f"{path}-below")(require()(below))

    declare(visit.app, "/above")
    declare(router, "/above")
    visit.app.include_router(router)
    mounted = FastAPI()
    declare(mounted, "/mounted")
    visit.app.mount("/sub", mounted)
    await live(visit.site)
    told = [line for line in caplog.messages if "without its guard" in line]
    name = f"{test_decorator_above_the_route_is_told_of_at_start.__name__}.<locals>.declare.<locals>.above"
    assert told == [
        f"require: the route {path} calls {name} without its guard: write @require() below the decorator of the route"
        for path in ("/above", "/part/above", "/mounted")
    ]


async def test_decorator_below_the_route_guards(visit: Visit) -> None:
    """The decorator guards async and plain functions."""

    @visit.app.get("/below")
    @require()
    async def below(request: Request) -> str | None:
        return request.user.email  # type: ignore[no-any-return]

    @visit.app.get("/plainly-below")
    @require()
    def plainly_below(request: Request) -> str | None:
        return request.user.email  # type: ignore[no-any-return]

    for path in ("/below", "/plainly-below"):
        assert (await visit.client.get(path)).status_code == 401
        assert (await visit.client.get(path, headers=visit.bearer)).json() == EMAIL


@pytest.mark.parametrize("wrong", [BARE, UNCALLED], ids=["bare", "uncalled"])
def test_guard_looks_like_depends_to_fastapi(wrong: Any) -> None:
    """FastAPI treats the guard as a ``Depends`` and reads ``dependency``, which raises TypeError."""
    assert isinstance(wrong, fastapi.params.Depends)
    with pytest.raises(TypeError, match=r"write Annotated\[User, Depends\(require\(\)\)\]"):
        _ = wrong.dependency


def test_require_shows_its_parameters() -> None:
    """Tools can read the parameters of ``require``."""
    assert list(signature(require).parameters) == ["scopes", "redirect", "fresh", "factor"]


# --- documentation


def test_openapi_shows_the_scheme() -> None:
    """The "Authorize" button of /docs requests the bearer token of a sign-in."""
    schemes: dict[str, Any] = make_app().openapi()["components"]["securitySchemes"]

    assert list(schemes) == ["asgi_auth"]
    assert (schemes["asgi_auth"]["type"], schemes["asgi_auth"]["scheme"]) == ("http", "bearer")
    assert schemes["asgi_auth"]["bearerFormat"] == "JWT"


def test_openapi_shows_locks_on_guarded_routes() -> None:
    """Every guarded route has a lock, however it is guarded; an open route has none."""
    paths = make_app().openapi()["paths"]
    locks = {path: methods["get"].get("security") for path, methods in paths.items()}

    lock = [{"asgi_auth": list[str]()}]
    guarded = ["/me", "/plain", "/admin", "/page", "/guarded/thing"]
    assert locks == {"/open": None} | dict.fromkeys(guarded, lock)


def test_openapi_documents_no_parameters_of_the_guard() -> None:
    """The parameters of the guard's own call are not part of the documentation."""
    assert "parameters" not in make_app().openapi()["paths"]["/me"]["get"]


# --- access


@pytest.mark.parametrize("path", ["/me", "/plain"])
async def test_dependency_is_the_user(visit: Visit, path: str) -> None:
    """Async and plain endpoints receive the user object."""
    response = await visit.client.get(path, headers=visit.bearer)

    assert (response.status_code, response.json()) == (200, EMAIL)


@pytest.mark.parametrize(("path", "answer"), [("/open", "open"), ("/guarded/thing", "thing")])
async def test_guard_does_not_change_the_answer_to_a_user(visit: Visit, path: str, answer: str) -> None:
    """An open route and a guarded router answer a user as if there were no guard."""
    assert (await visit.client.get(path, headers=visit.bearer)).json() == answer


@pytest.mark.parametrize("path", ["/me", "/plain", "/admin", "/guarded/thing"])
async def test_stranger_gets_401_with_a_challenge(visit: Visit, path: str) -> None:
    """TK-20: without a token, the challenge contains no error."""
    response = await visit.client.get(path)

    assert (response.status_code, response.json()) == (401, {"detail": "Access denied"})
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="localhost"'


async def test_invalid_token_gets_401_with_its_error(visit: Visit) -> None:
    """TK-20: with an invalid token, the challenge contains the error."""
    response = await visit.client.get("/me", headers={"Authorization": "Bearer e30.e30.e30"})

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="localhost", error="invalid_token"'


async def test_missing_scope_gets_403(visit: Visit) -> None:
    """The challenge to a known user names the missing scope."""
    response = await visit.client.get("/admin", headers=visit.bearer)

    assert response.status_code == 403
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="localhost", error="insufficient_scope", scope="admin"'


async def test_redirect_sends_strangers_to_the_sign_in_page(visit: Visit) -> None:
    """The redirect contains the requested page; a user with a fresh sign-in sees the page."""
    stranger = await visit.client.get("/page?a=b")
    user = await visit.client.get("/page", headers=visit.bearer)

    assert (stranger.status_code, stranger.headers["Location"]) == (303, "/sign-in?return_to=%2Fpage%3Fa%3Db")
    assert (user.status_code, user.json()) == (200, "page")


async def test_redirect_is_for_browsers(visit: Visit) -> None:
    """A script gets 401, even if it accepts pages and has an invalid token."""
    script = await visit.client.get("/page", headers={"Accept": "application/json"})
    expired = await visit.client.get("/page", headers={"Authorization": "Bearer e30.e30.e30", "Accept": "text/html"})

    assert (script.status_code, expired.status_code) == (401, 401)
    assert expired.headers["WWW-Authenticate"] == 'Bearer realm="localhost", error="invalid_token"'


async def test_exception_handler_of_the_application_is_called(visit: Visit) -> None:
    """The dependency raises FastAPI's own HTTPException, so that the application's handler is called."""

    @visit.app.exception_handler(HTTPException)
    async def handle(request: Request, exc: HTTPException) -> JSONResponse:
        return JSONResponse([exc.detail, exc.headers], exc.status_code)

    stranger = await visit.client.get("/me")
    page = await visit.client.get("/page")

    challenge = {"WWW-Authenticate": 'Bearer realm="localhost"'}
    assert (stranger.status_code, stranger.json()) == (401, ["Access denied", challenge])
    assert (page.status_code, page.json()) == (303, ["See Other", {"Location": "/sign-in?return_to=%2Fpage"}])


def test_dependency_raises_exceptions_of_fastapi() -> None:
    """A dependency of the application may call the guard and catch FastAPI's own exceptions."""
    with pytest.raises(HTTPException):
        require()(HTTPConnection(make_scope("GET", "/"))).close()
    with pytest.raises(WebSocketException):
        require()(HTTPConnection(make_scope("GET", "/", type="websocket"))).close()


async def test_security_guards_like_depends(visit: Visit) -> None:
    """FastAPI's ``Security`` calls the guard, independent of the scopes that it documents."""
    visit.app.get("/secured", dependencies=[Security(require(), scopes=["documented"])])(lambda: "secured")

    assert (await visit.client.get("/secured")).status_code == 401
    assert (await visit.client.get("/secured", headers=visit.bearer)).json() == "secured"


async def test_application_without_middlewares_refuses_requests() -> None:
    """Without the middlewares, every guarded route is closed."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app()), base_url=BASE_URL) as client:
        response = await client.get("/me", headers={"Authorization": "Bearer e30.e30.e30"})

    assert response.status_code == 401


# --- websockets


async def test_strangers_websocket_is_closed_before_it_is_accepted(visit: Visit) -> None:
    """WS-1: a stranger's handshake is refused."""
    sent = await shake(visit.site, "/socket")

    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


async def test_websocket_of_a_user_is_served(visit: Visit) -> None:
    """The dependency works on websockets, too."""
    sent = await shake(visit.site, "/socket", visit.bearer)

    assert [message.get("text") for message in sent] == [None, EMAIL]


# --- execution


async def test_override_replaces_the_guard(visit: Visit) -> None:
    """``require(…)`` with the same arguments is the same object, so an application's tests can replace it."""
    visit.app.dependency_overrides[require("admin")] = lambda: ALICE

    assert (await visit.client.get("/admin")).json() == "alice@elsewhere.example.org"
    assert (await visit.client.get("/me")).status_code == 401  # another guard


async def test_dependency_runs_on_the_loop(visit: Visit) -> None:
    """The guard reads the scopes on the event loop, not in a thread of the pool."""
    watched = Watched()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scope["auth"] = watched
        await visit.app(scope, receive, send)

    visit.site.app.app = application  # type: ignore[attr-defined]  # inside both middlewares
    response = await visit.client.get("/admin", headers=visit.bearer)

    assert (response.status_code, response.json()) == (200, EMAIL)
    assert set(watched.readers) == {threading.current_thread()}
