"""Applications at module level, for servers that do not support factories: on ``app.db`` in the current directory."""

from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgi_auth import upkeep
from asgi_auth.authentication import Authentication
from asgi_auth.web.middleware import BearerUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.apps import starlette_app
from tests.served import real_auth


class Deferred:
    """An application that is created at its first use, so that importing this module creates nothing."""

    def __init__(self, build: Callable[[Authentication[Any]], ASGIApp]) -> None:
        self._build = build

    @cached_property
    def _app(self) -> ASGIApp:
        return self._build(real_auth(Path()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        await self._app(scope, receive, send)


def _nobody(auth: Authentication[Any]) -> ASGIApp:
    return Starlette(routes=[Mount("/auth", AuthPlug(auth))])


def _often(auth: Authentication[Any]) -> ASGIApp:
    upkeep.PRUNE_INTERVAL = timedelta(milliseconds=50)
    return _nobody(auth)


async def _stay(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.email)
    await websocket.receive()  # only the disconnect


def _staying(auth: Authentication[Any]) -> ASGIApp:
    routes = [Mount("/auth", AuthPlug(auth)), WebSocketRoute("/stay", _stay)]
    return BearerUserMiddleware(Starlette(routes=routes), auth)


by_application = Deferred(starlette_app)
"""The plug, both middlewares and ``auth.lifespan``."""
by_middlewares = Deferred(lambda auth: starlette_app(auth, lifespan=False))
"""The same without ``auth.lifespan``."""
by_plug = Deferred(lambda auth: AuthPlug(auth, app=Starlette()))
"""The plug around an application that does not use the library."""
by_nobody = Deferred(_nobody)
"""The plug, mounted; nothing passes the lifespan on."""
often_pruned = Deferred(_often)
"""The same; expired rows are deleted twenty times a second."""
staying = Deferred(_staying)
"""The plug, and a websocket that stays open until the client or the server ends it."""


async def without_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """``staying`` as an application without lifespan support."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await staying(scope, receive, send)
