"""This library, in Starlette."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from asgi_auth import AccessToken, Authentication, AuthPlug, BearerUserMiddleware, SessionUserMiddleware, User, require
from asgi_auth.stores import PostgresStore, SQLiteStore
from asgi_auth.strategies import Password
from benchmarks.middleware import PASSWORD, SECRET
from benchmarks.peers.peer import EMAIL, Builder, Database, Peer


async def ping(request: Request) -> Response:
    """Answer everybody."""
    return PlainTextResponse("pong")


@require()
async def me(request: Request) -> Response:
    """Answer users."""
    return PlainTextResponse("pong" if request.user.email == EMAIL else "")


BARE = Starlette(routes=[Route("/me", ping)])


def make(database: Database, *, inline_reads: bool) -> Authentication[User]:
    """As the documentation has it, with the default hasher."""
    store = (
        PostgresStore(database.address)
        if database.postgres
        else SQLiteStore(database.address, inline_reads=inline_reads)
    )
    return Authentication(store=store, secret=SECRET, base_url="http://localhost:8000", strategies=[Password()])


async def signed_in(auth: Authentication[User]) -> AccessToken:
    """The user, made at the first call, and a new session."""
    found = await auth.accounts.find("email", EMAIL)
    return await auth.sign_in(found.user if found else await auth.accounts.create({"email": EMAIL}, password=PASSWORD))


@asynccontextmanager
async def build(database: Database, *, inline_reads: bool = False) -> AsyncIterator[Mapping[str, Peer]]:
    """Both credentials open the same application."""
    auth = make(database, inline_reads=inline_reads)
    app = Starlette(
        routes=[Mount("/auth", AuthPlug(auth)), Route("/me", me), Route("/ping", ping)],
        middleware=[Middleware(SessionUserMiddleware, auth=auth), Middleware(BearerUserMiddleware, auth=auth)],
    )
    async with auth.running():
        token = await signed_in(auth)
        name = "asgi_auth, inline_reads" if inline_reads else "asgi_auth"
        yield {
            f"{name}, cookie": Peer(app, BARE, ("cookie", f"{auth.session_cookie}={token.cookie}")),
            f"{name}, bearer": Peer(app, BARE, ("authorization", f"Bearer {token}")),
        }


INLINE: Builder = partial(build, inline_reads=True)


@asynccontextmanager
async def secret_hash(database: Database) -> AsyncIterator[bytes]:
    """A session in the same tables, for those that look it up by themselves."""
    auth = make(database, inline_reads=False)
    async with auth.running():
        yield auth.sessions.cookie_hash((await signed_in(auth)).cookie)
