"""The cost of both middlewares for a request."""

import hashlib
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import aiosqlite
import asyncpg
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_auth import (
    AccessToken,
    Authentication,
    AuthPlug,
    Bcrypt,
    BearerUserMiddleware,
    SessionUserMiddleware,
    User,
)
from asgi_auth.errors import IdentityTakenError
from asgi_auth.store import Store
from asgi_auth.stores import PostgresStore, SQLiteStore
from asgi_auth.strategies import Password
from benchmarks.postgres import postgres
from benchmarks.timing import Variant, in_turn, verdict

SECRET = hashlib.sha256(b"benchmarks").hexdigest()
EMAIL = "bench@mail.example.org"
PASSWORD = "walrus-teapot-orbit-41"
BROWSER_HEADERS = [
    (b"host", b"localhost:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"connection", b"keep-alive"),
    (b"sec-fetch-site", b"same-origin"),
]
# The query that any library needs: the session, its account and its user, by one indexed look-up.
LOOK_UP = """
SELECT s.id, s.user_id, s.stamp, s.created_at, s.last_seen_at, s.idle_expires_at, s.expires_at, s.label, s.factors,
    s.remembered, u.id, u.email, u.username, u.data, u.created_at, a.confirmed_at
FROM asgi_auth_sessions s
JOIN asgi_auth_accounts a ON a.subject_name = s.subject_name AND a.user_id = s.user_id
JOIN asgi_auth_users u ON u.subject_name = a.subject_name AND u.id = a.user_id
WHERE s.subject_name = ? AND s.secret_hash = ? AND s.revoked_at IS NULL AND a.stamp = s.stamp"""
NUMBERED = LOOK_UP.replace("?", "$1", 1).replace("?", "$2", 1)
# The cost of both middlewares divided by that of the bare look-up: at most this.
BUDGETS = {"": 1.5, ", inline_reads": 0.45, ", PostgreSQL": 1.3}
PASSES = 10
"""How often the part on PostgreSQL starts with new connections."""


async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    """The smallest application that answers."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"pong"})


async def receive() -> Any:
    """A request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    """Accept the answer and ignore it."""


def make_auth(store: Store[Any], **options: Any) -> Authentication[Any]:
    """An ``Authentication`` as in an application; parts that do not measure hashing pass a cheap hash."""
    address, strategies = "http://localhost:8000", [Password()]
    return Authentication(store=store, secret=SECRET, base_url=address, strategies=strategies, **options)


async def sign_in(auth: Authentication[Any]) -> AccessToken:
    """A new session of the user; the first call on a database creates the user."""
    with suppress(IdentityTakenError):
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    token: AccessToken
    _, token = await auth.strategy("password").sign_in({"email": EMAIL, "password": PASSWORD})
    return token


def credentials(auth: Authentication[Any], token: AccessToken) -> dict[str, tuple[str, str]]:
    """The header with the cookie of this sign-in, and the header with its bearer token."""
    response = Response()
    AuthPlug(auth).store_in_session(response, token)
    cookie = response.headers["set-cookie"].partition(";")[0]
    return {"cookie": ("cookie", cookie), "bearer": ("authorization", f"Bearer {token}")}


def wrapped(auth: Authentication[Any]) -> ASGIApp:
    """The application inside both middlewares."""
    return SessionUserMiddleware(BearerUserMiddleware(endpoint, auth), auth)


def call(app: ASGIApp, *headers: tuple[str, str]) -> Callable[[], Awaitable[Scope]]:
    """One request with the headers of a browser; it returns the scope that the application has filled in."""
    sent = [*BROWSER_HEADERS, *((name.encode(), value.encode()) for name, value in headers)]

    async def once() -> Scope:
        scope = {"type": "http", "method": "GET", "path": "/ping", "query_string": b"", "headers": sent}
        await app(scope, receive, send)
        return scope

    return once


async def measure(*, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds of a whole call of each variant: on SQLite, and on PostgreSQL if there is a server."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        stores = {"": SQLiteStore(path), ", inline_reads": SQLiteStore(path, inline_reads=True)}
        async with aiosqlite.connect(path, isolation_level=None) as bare:
            sqlite = await _measure(stores, lambda key: bare.execute_fetchall(LOOK_UP, ("user", key)), rounds)
    async with postgres() as address:
        if address is None:
            return sqlite, {}
        passes = [await _measure_postgres(address, max(rounds // PASSES, 1)) for _ in range(PASSES)]
        return sqlite, {name: median(times[name] for times in passes) for name in passes[0]}


async def _measure_postgres(address: str, rounds: int) -> dict[str, float]:
    """Measure with new connections: each connection has its own server process, and some processes are faster."""
    connection = await asyncpg.connect(address)
    try:
        only = {", PostgreSQL": PostgresStore(address)}
        return await _measure(only, lambda key: connection.fetchrow(NUMBERED, "user", key), rounds)
    finally:
        await connection.close()


async def _measure(stores: Mapping[str, Store[User]], ask: Callable[[bytes], Any], rounds: int) -> dict[str, float]:
    variants: dict[str, Variant] = {"bare application": call(endpoint)}
    async with AsyncExitStack() as stack:
        auths = {name: make_auth(store, hasher=Bcrypt(cost=4)) for name, store in stores.items()}
        for each in auths.values():
            await stack.enter_async_context(each.running())
        auth = next(iter(auths.values()))
        token = await sign_in(auth)
        variants["no credential"] = call(wrapped(auth))
        variants["bare look-up"] = partial(ask, auth.sessions.cookie_hash(token.cookie))
        for name, each in auths.items():
            for kind, header in credentials(auth, token).items():
                variants[f"{kind}{name}"] = call(wrapped(each), header)
        return await in_turn(variants, rounds=rounds)


def report(sqlite: Mapping[str, float], postgresql: Mapping[str, float]) -> None:
    """Print the cost of the middlewares and the ratios."""
    print("\nmiddleware: what both add to a request (µs, median)\n")
    added = sqlite["no credential"] - sqlite["bare application"]
    print(f"  {'no credential':<26}{added:8.1f}    {verdict(added <= 5)}: at most 5")
    _report_look_ups("aiosqlite", sqlite)
    if postgresql:
        _report_look_ups("asyncpg", postgresql)


def _report_look_ups(driver: str, times: Mapping[str, float]) -> None:
    look_up = times["bare look-up"]
    print(f"  {f'bare look-up, {driver}':<26}{look_up:8.1f}")
    for name, micros in times.items():
        credential, comma, store = name.partition(",")
        if credential in ("cookie", "bearer"):
            added, budget = micros - times["bare application"], BUDGETS[comma + store]
            ratio = added / look_up
            said = f"{ratio:.2f} x the bare look-up, {verdict(ratio <= budget)}: at most {budget}"
            print(f"  {name:<26}{added:8.1f}    {said}")
