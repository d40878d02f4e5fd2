"""One small application in every framework: the plug, both middlewares, ``/me`` and two websockets.

``/me`` returns the user and the scopes. ``/hello`` sends the user's address on a websocket. ``/mine`` is a websocket
for signed-in users.
"""

from collections.abc import Callable
from typing import Any

import quart
from fastapi import Depends, FastAPI
from fastapi.websockets import WebSocket as FastAPIWebSocket
from litestar import Litestar, Request, WebSocket, asgi, get
from litestar.handlers import websocket
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket as StarletteWebSocket

from asgi_auth.authentication import Authentication
from asgi_auth.web.guards import require
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug

Auth = Authentication[Any]

MIDDLEWARES: list[Callable[..., Any]] = [SessionUserMiddleware, BearerUserMiddleware]


def wrapped(app: Any, auth: Auth) -> Any:
    """*app* inside both middlewares. (Any: each framework has its own types for ASGI.)"""
    return SessionUserMiddleware(BearerUserMiddleware(app, auth), auth)


def who(scope: Any) -> dict[str, Any]:
    """The user's address and the scopes that the middlewares put into *scope*."""
    return {"email": scope["user"].email, "scopes": list(scope["auth"].scopes)}


# --- Starlette


async def starlette_me(request: StarletteRequest) -> JSONResponse:
    return JSONResponse(who(request.scope))


async def starlette_hello(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(str(websocket.user.email))
    await websocket.close()


def starlette_app(auth: Auth, mount: BaseRoute | None = None, *, lifespan: bool = True) -> Starlette:
    """A Starlette application with the plug at *mount*, by default ``/auth``."""
    routes = [
        mount or Mount("/auth", AuthPlug(auth)),
        Route("/me", starlette_me),
        WebSocketRoute("/hello", starlette_hello),
        WebSocketRoute("/mine", require()(starlette_hello)),
    ]
    middleware = [Middleware(each, auth=auth) for each in MIDDLEWARES]
    return Starlette(routes=routes, middleware=middleware, lifespan=auth.lifespan if lifespan else None)


def nested_starlette_app(auth: Auth) -> Starlette:
    """A Starlette application with the plug at ``/v1/auth``, a mount within a mount."""
    return starlette_app(auth, Mount("/v1", routes=[Mount("/auth", AuthPlug(auth))]))


# --- FastAPI


def fastapi_app(auth: Auth, *, root_path: str = "") -> FastAPI:
    """A FastAPI application; the guard is a dependency."""
    app = FastAPI(lifespan=auth.lifespan, root_path=root_path)
    for each in reversed(MIDDLEWARES):
        app.add_middleware(each, auth=auth)
    app.mount("/auth", AuthPlug(auth))

    @app.get("/me")
    async def me(request: StarletteRequest) -> dict[str, Any]:
        return who(request.scope)

    @app.websocket("/hello")
    async def hello(websocket: FastAPIWebSocket) -> None:
        await starlette_hello(websocket)

    @app.websocket("/mine", dependencies=[Depends(require())])
    async def mine(websocket: FastAPIWebSocket) -> None:
        await starlette_hello(websocket)

    return app


# --- Litestar


@get("/me")
async def litestar_me(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return who(request.scope)


async def say_hello(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.send_text(str(socket.user.email))
    await socket.close()


@websocket("/hello")
async def litestar_hello(socket: WebSocket[Any, Any, Any]) -> None:
    await say_hello(socket)


@websocket("/mine", guards=[require()])
async def litestar_mine(socket: WebSocket[Any, Any, Any]) -> None:
    await say_hello(socket)


def litestar_app(auth: Auth) -> Litestar:
    """A Litestar application: the plug is a mounted ASGI handler, the middlewares are registered with Litestar."""
    plug = AuthPlug(auth)

    @asgi("/auth", is_mount=True, copy_scope=True)
    async def auth_routes(scope: Any, receive: Any, send: Any) -> None:
        await plug(scope, receive, send)

    return Litestar(
        route_handlers=[auth_routes, litestar_me, litestar_hello, litestar_mine],
        middleware=[DefineMiddleware(each, auth=auth) for each in MIDDLEWARES],
        lifespan=[auth.lifespan],
        openapi_config=None,
        logging_config=None,  # otherwise Litestar removes pytest's handlers
    )


# --- Quart


def quart_app() -> quart.Quart:
    """A Quart application without a plug."""
    app = quart.Quart(__name__)

    @app.get("/me")
    async def me() -> dict[str, Any]:
        return who(quart.request.scope)

    @app.websocket("/hello")
    async def hello() -> None:
        await quart.websocket.send(str(quart.websocket.scope["user"].email))  # type: ignore[typeddict-item]  # ours

    @app.websocket("/mine")
    async def mine() -> None:
        if not quart.websocket.scope["user"].is_authenticated:  # type: ignore[typeddict-item]  # ours
            quart.abort(403)
        await hello()

    return app


def plug_around_quart(auth: Auth) -> Any:
    """The plug passes all other requests to a Quart application."""
    inner: Any = quart_app()
    return wrapped(AuthPlug(auth, app=inner), auth)


def quart_with_plug(auth: Auth) -> quart.Quart:
    """The plug and the middlewares are installed as Quart documents it."""
    app = quart_app()
    inner: Any = app.asgi_app
    app.asgi_app = wrapped(AuthPlug(auth, app=inner), auth)  # type: ignore[method-assign]
    return app


# --- bare ASGI


async def bare_inner(scope: Scope, receive: Receive, send: Send) -> None:
    """An application without a framework and without lifespan support, with three paths."""
    if scope["type"] == "lifespan":
        raise NotImplementedError  # ASGI: an application without lifespan support raises
    path = scope["path"].removeprefix(scope["root_path"])
    if scope["type"] == "websocket":
        hello = starlette_hello if path == "/hello" else require()(starlette_hello)
        await hello(StarletteWebSocket(scope, receive, send))
    else:
        response = JSONResponse(who(scope)) if path == "/me" else PlainTextResponse("Not Found", 404)
        await response(scope, receive, send)


def bare_app(auth: Auth) -> Any:
    """An application inside the plug, both inside the middlewares."""
    return wrapped(AuthPlug(auth, app=bare_inner), auth)
