"""A million users get the same plans and times as a thousand, and pruning never holds the writer for long.

``tox -e scale`` runs the large test. ``ASGI_AUTH_SCALE`` is the number of users, each with five sessions and a token.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest

from asgi_auth.stores.sql_counters import SQLCounters
from asgi_auth.stores.sql_sessions import SQLSessions
from asgi_auth.stores.sql_tokens import SQLTokens
from asgi_auth.stores.sqlite_connections import Pool
from asgi_auth.testing import FakeClock
from asgi_auth.testing.stores.records import HOUR, NOW
from asgi_auth.upkeep import PRUNE_BATCH
from tests.postgres import database
from tests.stores.plans import plans
from tests.stores.population import (
    EXPIRED_SESSIONS,
    EXPIRED_TOKENS,
    SESSIONS_OF_EACH,
    address_of,
    hash_of,
    id_of,
    populate_postgres,
    populate_sqlite,
)
from tests.stores.statements import STATEMENTS
from tests.support import make_auth
from tests.workers import OnPostgres, OnSQLite

MANY = int(os.environ.get("ASGI_AUTH_SCALE", "4000"))
FEW = 1000
LARGE = MANY >= 1_000_000
SLOWER = 2.0 if LARGE else 3.0
"""The permitted ratio of a look-up among many users to one among few: more index levels, fewer warm pages."""
SAMPLES = 400
HELD = 0.050 if LARGE else 0.5
"""Seconds for which pruning may hold the writer. While other tests keep the machine busy, only a stop shows."""

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Crowd(NamedTuple):
    """A database with this number of users."""

    place: OnSQLite | OnPostgres
    users: int


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for all tests here."""
    return "asyncio"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
async def crowds(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[Crowd]]:
    """A database with few users and one with many."""
    async with AsyncExitStack() as stack:
        made = list[Crowd]()
        for users in (FEW, MANY):
            if request.param == "sqlite":
                made.append(Crowd(await filled_file(tmp_path_factory.mktemp("crowd"), users), users))
            else:
                made.append(Crowd(await filled_schema(await stack.enter_async_context(database()), users), users))
        yield made


async def filled_file(directory: Path, users: int) -> OnSQLite:
    """A file with this number of users."""
    place = OnSQLite(directory)
    await make_tables(place)
    await asyncio.to_thread(populate_sqlite, directory / "app.db", users)
    return place


async def filled_schema(dsn: str, users: int) -> OnPostgres:
    """A schema on a server, with this number of users."""
    place = OnPostgres(dsn)
    await make_tables(place)
    await populate_postgres(dsn, users)
    return place


async def make_tables(place: OnSQLite | OnPostgres) -> None:
    """Let the store create the tables."""
    store = place.store()
    await store.open()
    await store.close()


def say(text: str) -> None:
    """Print the text. pytest shows it with ``-s``, or if the test fails."""
    print(text)  # noqa: T201


def milliseconds(seconds: list[float]) -> str:
    """Format the median, the 99th percentile and the maximum."""
    ordered = sorted(seconds)
    shown = (ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1])
    return f"{len(ordered)} times, " + ", ".join(f"{at * 1000:.1f}" for at in shown) + " ms (p50, p99, p100)"


# --- look-ups --------------------------------------------------------------------------------------------------------


def look_ups(scoped: Any) -> dict[str, Callable[[int, int], Awaitable[Any]]]:
    """The look-ups of requests, by the number of a session and of a user."""
    return {
        "cookie": lambda session, user: scoped.sessions.load(hash_of(f"session {session}"), now=NOW),
        "bearer": lambda session, user: scoped.sessions.load_by_id(id_of(f"session {session}"), now=NOW),
        "sign-in": lambda session, user: scoped.users.find("email", address_of(user)),
    }


async def seconds_of(look_up: Callable[[int, int], Awaitable[Any]], crowd: Crowd, chance: random.Random) -> float:
    """Measure how long it takes to find a random user."""
    session = chance.randrange(crowd.users * SESSIONS_OF_EACH // EXPIRED_SESSIONS) * EXPIRED_SESSIONS + 1
    asked = look_up(session, session % crowd.users + 1)
    began = time.perf_counter()
    found = await asked
    took = time.perf_counter() - began
    assert found.user.email == address_of(session % crowd.users + 1)
    return took


@pytest.mark.parametrize("kind", ["cookie", "bearer", "sign-in"])
async def test_scale_look_up_takes_the_same_time(crowds: list[Crowd], kind: str) -> None:
    """A look-up by cookie, bearer token or address takes as long among many users as among few."""
    chance = random.Random(20260401)  # noqa: S311  # the same users in every run
    stores = [crowd.place.store() for crowd in crowds]
    asked = [look_ups(store.scope("user"))[kind] for store in stores]
    times = [[await seconds_of(asked[n], crowds[n], chance) for n in (0, 1)] for _ in range(SAMPLES)]
    few, many = (median(each) for each in zip(*times, strict=True))
    say(f"{kind}: {few * 1e6:.0f} µs among {FEW} users, {many * 1e6:.0f} among {MANY}: {many / few:.2f}")
    for store in stores:
        await store.close()
    assert many / few < SLOWER


# --- plans -----------------------------------------------------------------------------------------------------------


async def test_scale_statements_search_by_index(crowds: list[Crowd]) -> None:
    """No statement reads or sorts a whole table, regardless of the planner's statistics and of the values."""
    many = crowds[1]
    # To delete a larger part of a small table, PostgreSQL rightly reads the whole table.
    steps = await plans(many.place, number=min(PRUNE_BATCH, many.users // 400))
    for name in ("LOAD_SESSION", "LOAD_SESSION_BY_ID", "FIND_USER email", "PRUNE_SESSIONS"):
        say(f"{name}: " + "; ".join(dict.fromkeys(step.text for step in steps if step.statement == name)))
    plain = {
        "INSERT_USER",
        "INSERT_ACCOUNT",
        "INSERT_TOKEN",
        "INSERT_INVITATION",
        "COUNT",
    }  # SQLite reports no plan for these
    assert {step.statement for step in steps} >= {*STATEMENTS} - plain
    assert [step for step in steps if not step.is_quick] == []


# --- pruning ---------------------------------------------------------------------------------------------------------


async def test_scale_pruning_does_not_delay_writers(crowds: list[Crowd], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch ends within 50 ms, and writers at this worker and at another one get their turn meanwhile."""
    many = crowds[1]
    auth, other = make_auth(Path(), store=many.place.store(), clock=FakeClock(NOW)), many.place.store()
    await asyncio.gather(auth.store.open(), other.open())
    pruning = asyncio.create_task(auth.prune())
    held = watched(monkeypatch, many.place, pruning)
    writing = [write_until(pruning, store.scope("user"), many) for store in (auth.store, other)]
    waits = await asyncio.gather(*writing)
    sessions_and_counters = many.users * (SESSIONS_OF_EACH + 1) // EXPIRED_SESSIONS
    expired = sessions_and_counters + many.users // EXPIRED_TOKENS
    assert await pruning == expired
    say(f"{expired} rows pruned; each batch: {milliseconds(held)}")
    for worker, wait in zip(("this", "another"), waits, strict=True):
        say(f"who writes at {worker} worker meanwhile waits: {milliseconds(wait)}")
    for store in (auth.store, other):
        await store.close()
    assert len(held) >= expired // PRUNE_BATCH
    # Without the slowest hundredth: a busy disk can delay even the smallest batch.
    assert sorted(held)[len(held) * 99 // 100] < HELD


def watched(monkeypatch: pytest.MonkeyPatch, place: OnSQLite | OnPostgres, pruning: asyncio.Task[int]) -> list[float]:
    """The list that receives how long each batch holds the locks that writers wait for."""
    held = list[float]()
    if isinstance(place, OnSQLite):
        transaction = Pool.transaction

        @asynccontextmanager
        async def timed(self: Pool) -> AsyncIterator[Any]:
            """Measure from the end of BEGIN IMMEDIATE to the end of COMMIT, including the checkpoint of the log."""
            async with transaction(self) as connection:
                began = time.perf_counter()
                yield connection
            held.extend([time.perf_counter() - began] * (asyncio.current_task() is pruning))

        monkeypatch.setattr(Pool, "transaction", timed)
    else:
        for table in (SQLSessions, SQLTokens, SQLCounters):
            monkeypatch.setattr(table, "prune", timed_call(table.prune, held))
    return held


def timed_call(call: Callable[..., Awaitable[int]], held: list[float]) -> Callable[..., Awaitable[int]]:
    """Measure one statement. It does not wait for rows that another transaction has locked."""

    async def timed(*args: Any, **options: Any) -> int:
        began = time.perf_counter()
        count = await call(*args, **options)
        held.append(time.perf_counter() - began)
        return count

    return timed


async def write_until(over: asyncio.Future[Any], scoped: Any, crowd: Crowd) -> list[float]:
    """Touch random sessions until *over* is done. Returns how long each write took."""
    waits, chance = list[float](), random.Random(20260402)  # noqa: S311  # the same sessions in every run
    while not over.done():
        number = chance.randrange(crowd.users * SESSIONS_OF_EACH)
        began = time.perf_counter()
        await scoped.sessions.touch(id_of(f"session {number}"), last_seen_at=NOW, idle_expires_at=NOW + HOUR)
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    return waits
