"""Litestar's JWTAuth with the look-up of this library."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, MediaType, Request, get
from litestar.connection import ASGIConnection
from litestar.security.jwt import JWTAuth, Token

from benchmarks.middleware import EMAIL, SECRET
from benchmarks.peers.ours import secret_hash
from benchmarks.peers.peer import Database, Peer, look_up


@get("/me", media_type=MediaType.TEXT)
async def bare() -> str:
    """Answer every client."""
    return "pong"


@get("/ping", media_type=MediaType.TEXT, exclude_from_auth=True)
async def ping() -> str:
    """Answer every client."""
    return "pong"


@get("/me", media_type=MediaType.TEXT)
async def me(request: Request[str, Token, Any]) -> str:
    """Answer signed-in users."""
    return "pong" if request.user == EMAIL else ""


@asynccontextmanager
async def build(database: Database) -> AsyncIterator[Mapping[str, Peer]]:
    """The token's subject is the key of the session."""
    async with look_up(database) as ask, secret_hash(database) as key:

        async def retrieve(token: Token, connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
            row = await ask(bytes.fromhex(token.sub))
            return row[11] if row else None

        auth = JWTAuth[str](retrieve_user_handler=retrieve, token_secret=SECRET)
        app = Litestar([me, ping], on_app_init=[auth.on_app_init], openapi_config=None)
        bearer = f"Bearer {auth.create_token(key.hex())}"
        yield {"Litestar JWTAuth, bearer": Peer(app, Litestar([bare], openapi_config=None), ("authorization", bearer))}
