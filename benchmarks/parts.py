"""The cost of each part of a request: ``tox -e bench -- --parts``."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from asgi_auth import Bcrypt, BearerUserMiddleware, SessionUserMiddleware, User, require
from asgi_auth.store import Store
from asgi_auth.stores import PostgresStore, SQLiteStore
from benchmarks.middleware import LOOK_UP, NUMBERED, call, credentials, make_auth, sign_in
from benchmarks.postgres import postgres
from benchmarks.timing import Variant, in_turn

CREDENTIALS = ("cookie", "bearer")
Times = Mapping[str, float]
# A row of the table is the difference of two variants; {} is the credential.
ROWS = {
    "the route itself, in Starlette": ("route", None),
    "both middlewares, no credential": ("no credential", "route"),
    "the statement, through the driver alone": ("statement", None),
    "the store: a connection, its own statement, the rows as objects": ("store {}", "statement"),
    "`Sessions`: the credential is one that was verified before": ("sessions {}", "store {}"),
    "the middlewares and the guard: reading headers, the scope, `Vary`": ("request {}", "sessions {}"),
}


async def me(request: Request) -> Response:
    """Answer."""
    return PlainTextResponse("pong")


async def nothing(_: bytes) -> None:
    """The statement of the cache: there is none."""


async def _measure(store: Store[User], ask: Callable[[bytes], Any], rounds: int) -> Times:
    auth = make_auth(store, hasher=Bcrypt(cost=4))
    both = [Middleware(SessionUserMiddleware, auth=auth), Middleware(BearerUserMiddleware, auth=auth)]
    route = Starlette(routes=[Route("/ping", me)])
    open_app, app = (Starlette(routes=[Route("/ping", end)], middleware=both) for end in (me, require()(me)))
    async with auth.running():
        token, sessions = await sign_in(auth), auth.services.store.sessions
        key, now = auth.sessions.cookie_hash(token.cookie), auth.clock()
        variants: dict[str, Variant] = {
            "route": call(route),
            "no credential": call(open_app),
            "statement": lambda: ask(key),
            "store cookie": lambda: sessions.load(key, now=now),
            "store bearer": lambda: sessions.load_by_id(token.session.id, now=now),
            "sessions cookie": lambda: auth.sessions.load(token.cookie),
            "sessions bearer": lambda: auth.sessions.load_bearer(token),
        }
        for kind, header in credentials(auth, token).items():
            variants[f"request {kind}"] = call(app, header)
        return await in_turn(variants, rounds=rounds, shuffled=True)


async def measure(*, rounds: int) -> dict[str, Times]:
    """Microseconds of each variant, by store."""
    times: dict[str, Times] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "parts.db"
        async with aiosqlite.connect(path, isolation_level=None) as bare:
            look_up = partial(bare.execute_fetchall, LOOK_UP)
            times["SQLite"] = await _measure(SQLiteStore(path), lambda key: look_up(("user", key)), rounds)
        with closing(sqlite3.connect(path, isolation_level=None)) as inline:

            async def ask(key: bytes) -> object:
                return inline.execute(LOOK_UP, ("user", key)).fetchall()

            times["inline_reads"] = await _measure(SQLiteStore(path, inline_reads=True), ask, rounds)
    async with postgres() as address:
        if address is not None:
            async with asyncpg.create_pool(address) as pool, pool.acquire() as one:
                ask_server = partial(one.fetchrow, NUMBERED, "user")
                times["PostgreSQL"] = await _measure(PostgresStore(address), ask_server, rounds)
            cached = PostgresStore(address, session_cache=timedelta(seconds=10))
            times["cached"] = await _measure(cached, nothing, rounds)
    return times


def report(times: Mapping[str, Times]) -> None:
    """Print the table."""
    print("\n".join(_lines(times)))


def _lines(times: Mapping[str, Times]) -> Iterator[str]:
    yield f"| µs, cookie / bearer | {' | '.join(times)} |"
    yield f"|---|{'---:|' * len(times)}"
    for what, (whole, part) in ROWS.items():
        yield f"| {what} | {' | '.join(_cell(each, whole, part) for each in times.values())} |"


def _cell(times: Times, whole: str, part: str | None) -> str:
    figures = []
    for credential in CREDENTIALS if "{}" in whole else CREDENTIALS[:1]:
        rest = times[part.format(credential)] if part else 0
        if whole.startswith("request"):
            rest += times["route"]
        figures.append(f"{times[whole.format(credential)] - rest:.0f}")
    return " / ".join(figures)
