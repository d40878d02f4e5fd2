"""The application that server processes run, on ``app.db`` in their current directory; tests run it in-process, too."""

import os
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgi_auth.authentication import Authentication, utc_now
from asgi_auth.passwords import Bcrypt
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.support import LocalAuthentication, make_auth

APP = ("tests.served:application", "--factory", "--no-access-log")
"""Arguments of uvicorn; without an access log, because a full pipe would block the server."""


async def me(request: Request) -> PlainTextResponse:
    """The address of the current user, or ``-``."""
    return PlainTextResponse(request.user.email or "-")


async def ping(request: Request) -> PlainTextResponse:
    """Answer at once; uses only the event loop."""
    return PlainTextResponse("pong")


def real_auth(directory: Path, **options: Any) -> LocalAuthentication:
    """An ``Authentication`` on ``app.db`` in *directory* with the system's clock, which all processes share."""
    return make_auth(directory, clock=utc_now, **options)


def application(auth: Authentication[Any] | None = None) -> Starlette:
    """The plug, both middlewares, ``/me`` and ``/ping``. If *auth* is None, ``BCRYPT_COST`` sets the cost of hashes."""
    auth = auth or real_auth(Path(), hasher=Bcrypt(cost=int(os.environ.get("BCRYPT_COST", "4"))))
    return Starlette(
        routes=[Mount("/auth", AuthPlug(auth)), Route("/me", me), Route("/ping", ping)],
        middleware=[Middleware(each, auth=auth) for each in (SessionUserMiddleware, BearerUserMiddleware)],
        lifespan=auth.lifespan,
    )
