"""This library, in Starlette."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from asgi_auth import AuthPlug, BearerUserMiddleware, SessionUserMiddleware, require
from asgi_auth.store import Store
from asgi_auth.stores import PostgresStore, SQLAlchemyStore, SQLiteStore
from benchmarks.middleware import EMAIL, credentials, make_auth, sign_in
from benchmarks.peers.engine import engine_on
from benchmarks.peers.own_model import TABLES, Person
from benchmarks.peers.peer import Builder, Database, Peer

OWN_MODEL = "asgi_auth, SQLAlchemyStore"
CACHED_FOR = timedelta(seconds=10)


async def ping(request: Request) -> Response:
    """Answer every client."""
    return PlainTextResponse("pong")


@require()
async def me(request: Request) -> Response:
    """Answer signed-in users."""
    return PlainTextResponse("pong" if request.user.email == EMAIL else "")


BARE = Starlette(routes=[Route("/me", ping)])


def usual_store(database: Database) -> Store[Any]:
    """The store for this database with default options."""
    return PostgresStore(database.address) if database.postgres else SQLiteStore(database.address)


@asynccontextmanager
async def served(name: str, store: Store[Any]) -> AsyncIterator[Mapping[str, Peer]]:
    """One application as two peers: with the cookie and with the bearer token."""
    auth = make_auth(store)
    app = Starlette(
        routes=[Route("/me", me), Route("/ping", ping), Mount("/auth", AuthPlug(auth))],
        middleware=[Middleware(SessionUserMiddleware, auth=auth), Middleware(BearerUserMiddleware, auth=auth)],
    )
    async with auth.running():
        headers = credentials(auth, await sign_in(auth))
        yield {f"{name}, {kind}": Peer(app, BARE, header) for kind, header in headers.items()}


@asynccontextmanager
async def build(database: Database, *, option: str = "") -> AsyncIterator[Mapping[str, Peer]]:
    """The store with default options, or with an *option* for reading."""
    stores: dict[str, Callable[[Database], Store[Any]]] = {
        "": usual_store,
        "inline_reads": lambda database: SQLiteStore(database.address, inline_reads=True),
        "cached": lambda database: PostgresStore(database.address, session_cache=CACHED_FOR),
    }
    async with served(f"asgi_auth, {option}" if option else "asgi_auth", stores[option](database)) as peers:
        yield peers


INLINE: Builder = partial(build, option="inline_reads")
CACHED: Builder = partial(build, option="cached")


@asynccontextmanager
async def build_own_model(database: Database) -> AsyncIterator[Mapping[str, Peer]]:
    """The application's own model, through its own engine."""
    async with engine_on(database) as engine:
        store = SQLAlchemyStore(engine, Person, tables=TABLES, create_tables=True)
        async with served(OWN_MODEL, store) as peers:
            yield peers


@asynccontextmanager
async def secret_hash(database: Database) -> AsyncIterator[bytes]:
    """The hash of a session's secret in the same tables, for peers that look it up themselves."""
    auth = make_auth(usual_store(database))
    async with auth.running():
        yield auth.sessions.cookie_hash((await sign_in(auth)).cookie)
