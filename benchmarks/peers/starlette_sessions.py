"""Starlette's SessionMiddleware and AuthenticationMiddleware with the look-up of this library."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from itsdangerous import TimestampSigner
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser, requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from benchmarks.middleware import EMAIL, SECRET
from benchmarks.peers.ours import BARE, ping, secret_hash
from benchmarks.peers.peer import Ask, Database, Peer, look_up


class SessionBackend(AuthenticationBackend):
    """Loads the user of the session from the database."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """The user, or None if the session is not in the table."""
        key = conn.session.get("key")
        row = await self._ask(bytes.fromhex(key)) if key else None
        return (AuthCredentials(["authenticated"]), SimpleUser(row[11])) if row else None


@requires("authenticated")
async def me(request: Request) -> Response:
    """Answer signed-in users."""
    return PlainTextResponse("pong" if request.user.username == EMAIL else "")


@asynccontextmanager
async def build(database: Database) -> AsyncIterator[Mapping[str, Peer]]:
    """Yield the peer; its cookie is the one that the middleware would set at a sign-in."""
    async with look_up(database) as ask, secret_hash(database) as key:
        middleware = [
            Middleware(SessionMiddleware, secret_key=SECRET),
            Middleware(AuthenticationMiddleware, backend=SessionBackend(ask)),
        ]
        app = Starlette(routes=[Route("/me", me), Route("/ping", ping)], middleware=middleware)
        session = TimestampSigner(SECRET).sign(base64.b64encode(json.dumps({"key": key.hex()}).encode())).decode()
        yield {"Starlette sessions, cookie": Peer(app, BARE, ("cookie", f"session={session}"))}
