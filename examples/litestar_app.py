"""Litestar: the plug is mounted as an ASGI handler, the middlewares are Litestar's, ``require`` is a guard.

From the root of the repository:

    AUTH_SECRET=$(python -m asgi_auth secret) uvicorn --app-dir examples litestar_app:app

Accounts are kept in litestar.db in the current directory.
"""

import os
from collections.abc import Callable
from typing import Any

from litestar import Litestar, Request, asgi, get
from litestar.middleware import DefineMiddleware

from asgi_auth import Authentication, AuthPlug, BearerUserMiddleware, SessionUserMiddleware, User, require
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password

auth = Authentication(
    store=SQLiteStore("litestar.db"),
    secret=os.environ["AUTH_SECRET"],
    base_url="http://localhost:8000",
    strategies=[Password()],
)
plug = AuthPlug(auth)


@asgi("/auth", is_mount=True, copy_scope=True)
async def auth_routes(scope: Any, receive: Any, send: Any) -> None:
    """Everything below /auth. (Any: Litestar and Starlette have types of their own for the same ASGI arguments.)"""
    await plug(scope, receive, send)


@get("/me", guards=[require()])
async def me(request: Request[User, Any, Any]) -> dict[str, str | None]:
    """The signed-in user."""
    return {"email": request.user.email}


middlewares: list[Callable[..., Any]] = [SessionUserMiddleware, BearerUserMiddleware]

app = Litestar(
    route_handlers=[auth_routes, me],
    middleware=[DefineMiddleware(middleware, auth=auth) for middleware in middlewares],
    lifespan=[auth.lifespan],
)
