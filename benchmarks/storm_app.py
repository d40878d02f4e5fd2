"""The application that the storm hits; served by uvicorn."""

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from asgi_auth import AuthPlug, BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.stores import SQLiteStore
from benchmarks.middleware import make_auth


async def ping(request: Request) -> Response:
    """Answer the requests whose time is measured."""
    return PlainTextResponse("pong")


auth = make_auth(SQLiteStore(Path(os.environ["BENCHMARK_DATABASE"])))
app = Starlette(
    routes=[Mount("/auth", AuthPlug(auth)), Route("/ping", ping)],
    middleware=[Middleware(SessionUserMiddleware, auth=auth), Middleware(BearerUserMiddleware, auth=auth)],
    lifespan=auth.lifespan,
)
