"""The figures that ``--against`` compares: ``python -m benchmarks.figures [--quick]``.

The program reads names of parts from standard input, one in each line. It measures each part at once and prints the
cost of its figures as one line of JSON; less is better. The current directory contains the measured ``asgi_auth``, of
any revision, beside a copy of this package. So this code and its imports use only documented names of the library.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import asgi_auth
from asgi_auth import Bcrypt
from asgi_auth.store import Store
from asgi_auth.stores import PostgresStore, SQLAlchemyStore, SQLiteStore
from benchmarks import sign_in, storm
from benchmarks.middleware import call, credentials, endpoint, make_auth, wrapped
from benchmarks.middleware import sign_in as session_of
from benchmarks.peers import loopback
from benchmarks.peers.engine import engine_on
from benchmarks.peers.own_model import TABLES, Person
from benchmarks.peers.peer import Database
from benchmarks.postgres import postgres
from benchmarks.storm import Connection, connect
from benchmarks.timing import Variant, in_turn, percentile


class Effort(NamedTuple):
    """The amount of work in one measurement."""

    rounds: int
    sign_ins: int
    seconds: float


FULL = Effort(rounds=40, sign_ins=4, seconds=0.3)
QUICK = Effort(rounds=20, sign_ins=1, seconds=0.1)
Figures = dict[str, float]
Measure = Callable[[Effort], Awaitable[Figures]]


class Part(NamedTuple):
    """Figures that are measured together."""

    opened: Callable[[], AbstractAsyncContextManager[Measure]]
    repeats: int
    """How often the part is measured in each order. Many short measurements are better than few long ones: the load
    changes less between the compared ones."""


@asynccontextmanager
async def sqlite() -> AsyncIterator[Database]:
    """A new file."""
    with tempfile.TemporaryDirectory() as directory:
        yield Database(str(Path(directory) / "figures.db"))


@asynccontextmanager
async def postgresql() -> AsyncIterator[Database]:
    """An empty schema."""
    async with postgres() as address:
        if address is None:
            raise RuntimeError("there is no PostgreSQL server")
        yield Database(address)


# --- in process ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def no_credential() -> AsyncIterator[Measure]:
    """The cost of both middlewares for a request without a credential; the store is never asked."""
    async with sqlite() as database:
        app = wrapped(make_auth(SQLiteStore(database.address)))

        async def measure(effort: Effort) -> Figures:
            return await _added({"middleware, no credential, µs": call(app)}, effort.rounds * 10)

        yield measure


@asynccontextmanager
async def middleware_on_sqlite() -> AsyncIterator[Measure]:
    """The cost of both middlewares for a request with a credential, on SQLite."""
    async with sqlite() as database:
        inline = SQLiteStore(database.address, inline_reads=True)
        stores = {"SQLite": SQLiteStore(database.address), "inline_reads": inline}
        async with _middleware("SQLite", database, stores) as measure:
            yield measure


@asynccontextmanager
async def middleware_on_postgresql() -> AsyncIterator[Measure]:
    """The cost of both middlewares for a request with a credential, on PostgreSQL."""
    async with postgresql() as database:
        cached = PostgresStore(database.address, session_cache=timedelta(seconds=10))
        stores = {"PostgreSQL": PostgresStore(database.address), "cached": cached}
        async with _middleware("PostgreSQL", database, stores) as measure:
            yield measure


@asynccontextmanager
async def _middleware(title: str, database: Database, stores: Mapping[str, Store[Any]]) -> AsyncIterator[Measure]:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(engine_on(database))
        own = {f"{title}, own model": SQLAlchemyStore(engine, Person, tables=TABLES, create_tables=True)}
        usual = await _requests(stack, stores)
        by_own_model = await _requests(stack, own)

        async def measure(effort: Effort) -> Figures:
            # Separate runs: a slow variant leaves the caches cold for the next one.
            return await _added(usual, effort.rounds) | await _added(by_own_model, effort.rounds // 10)

        yield measure


async def _requests(stack: AsyncExitStack, stores: Mapping[str, Store[Any]]) -> dict[str, Variant]:
    variants: dict[str, Variant] = {}
    for title, store in stores.items():
        auth = make_auth(store, hasher=Bcrypt(cost=4))
        await stack.enter_async_context(auth.running())
        for kind, header in credentials(auth, await session_of(auth)).items():
            request = call(wrapped(auth), header)
            if not (await request())["user"].is_authenticated:
                raise RuntimeError(f"{title} rejects the {kind}")
            variants[f"middleware, {title}, {kind}, µs"] = request
    return variants


async def _added(variants: Mapping[str, Variant], rounds: int) -> Figures:
    times = await in_turn({"bare": call(endpoint), **variants}, rounds=rounds)
    bare = times.pop("bare")
    return {name: micros - bare for name, micros in times.items()}


@asynccontextmanager
async def sign_ins() -> AsyncIterator[Measure]:
    """Time for each sign-in of several clients: with the default hash, and with a cheap one to show the other costs."""

    async def measure(effort: Effort) -> Figures:
        return {
            f"sign-in, bcrypt of cost {cost}, ms": 1e3 / await sign_in.sign_ins_per_second(count, cost=cost)
            for cost, count in ((sign_in.COST, effort.sign_ins), (4, effort.sign_ins * 10))
        }

    yield measure


# --- served ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def storms() -> AsyncIterator[Measure]:
    """The time that other requests wait during a storm."""
    async with storm.served() as port:

        async def measure(effort: Effort) -> Figures:
            figures: Figures = {}
            for name, kind in storm.STORMS.items():
                pings, answers = await storm.during(port, kind.path, kind.body, effort.seconds)
                if answers and not answers[kind.answer]:
                    raise RuntimeError(f"storm {name}: {dict(answers)} instead of {kind.answer}")
                figures[f"storm, p99 of /ping {name}, ms"] = percentile(pings, 0.99)
            return figures

        yield measure


@asynccontextmanager
async def loopback_on_sqlite() -> AsyncIterator[Measure]:
    """Time for each request of several connections, on SQLite."""
    async with sqlite() as database, _loads(database, "SQLite", "inline_reads") as measure:
        yield measure


@asynccontextmanager
async def loopback_on_postgresql() -> AsyncIterator[Measure]:
    """Time for each request of several connections, on PostgreSQL."""
    async with postgresql() as database, _loads(database, "PostgreSQL", "cached") as measure:
        yield measure


@asynccontextmanager
async def _loads(database: Database, title: str, option: str) -> AsyncIterator[Measure]:
    names = {title: "", option: f", {option}", f"{title}, own model": ", SQLAlchemyStore"}
    async with AsyncExitStack() as stack:
        servers = {}
        for name, peer in names.items():
            server = loopback.served(f"asgi_auth{peer}, cookie", database)
            servers[f"loopback, {name}, cookie, µs"] = await stack.enter_async_context(server)

        async def measure(effort: Effort) -> Figures:
            return {name: await _time_each(effort.rounds, *server) for name, server in servers.items()}

        yield measure


async def _time_each(count: int, port: int, credential: tuple[str, str]) -> float:
    """Microseconds for each of *count* requests: the total time divided by *count*."""
    connections = [await connect(port) for _ in range(loopback.CONNECTIONS)]
    head, left = "{}: {}\r\n".format(*credential), iter(range(count))

    async def client(connection: Connection) -> None:
        for _ in left:
            if (status := await connection.ask("GET", "/me", head=head)) != 200:
                raise RuntimeError(f"the credential is answered {status}")

    began = time.perf_counter()
    await asyncio.gather(*map(client, connections))
    elapsed = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return elapsed / count * 1e6


ANYWHERE: dict[str, Part] = {
    "no credential": Part(no_credential, 10),
    "middleware on SQLite": Part(middleware_on_sqlite, 10),
    "sign-in": Part(sign_ins, 1),
    "storm": Part(storms, 1),
    "loopback on SQLite": Part(loopback_on_sqlite, 10),
}
WITH_POSTGRES: dict[str, Part] = {
    "middleware on PostgreSQL": Part(middleware_on_postgresql, 10),
    "loopback on PostgreSQL": Part(loopback_on_postgresql, 10),
}


async def main(effort: Effort) -> None:
    """Measure the requested parts; a part stays open until another one is requested.

    Waiting for the next line blocks the loop, so that the process does nothing during the turn of another process.
    """
    for name, lines in groupby(sys.stdin):
        async with (ANYWHERE | WITH_POSTGRES)[name.strip()].opened() as measure:
            for _ in lines:
                print(json.dumps(await measure(effort)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if not Path(asgi_auth.__file__).is_relative_to(Path.cwd()):
        raise SystemExit(f"{asgi_auth.__file__} was imported, not what is in {Path.cwd()}")
    logging.disable(logging.WARNING)  # hides the warning about the cheap hash
    asyncio.run(main(QUICK if given.quick else FULL))
