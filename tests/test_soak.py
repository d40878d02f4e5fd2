"""A soak test: mixed traffic, killed workers and a restarted database; no data is lost and no resources leak.

``tox -e soak`` is the long run. ``ASGI_AUTH_SOAK_SECONDS`` is its time for each database. ``ASGI_AUTH_SOAK_SEED``
repeats the acts of a run, but not their exact times.
"""

import asyncio
import os
import random
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import cast

import httpx
import pytest

from asgi_auth.authentication import utc_now
from asgi_auth.testing import FakeClock
from tests.servers import Served
from tests.soak import BOUND, Person, Site, Worker
from tests.support import BASE_URL, make_auth
from tests.workers import OnPostgres, OnSQLite, check_rows

SECONDS = float(os.environ.get("ASGI_AUTH_SOAK_SECONDS", "3"))
SEED = int(
    os.environ.get("ASGI_AUTH_SOAK_SEED", "20260401" if SECONDS < 60 else random.SystemRandom().randrange(10**9))
)
"""Short runs have the same acts, long runs new ones."""
PEOPLE = 8
"""The people act at the same time; each does one act after the other."""
MEMORY = 10 * 1024
"""Kilobytes by which the memory of a warm worker may grow. A full cache of credentials (after 8,000 sign-ins) takes
half of that. A leak of a kilobyte for each request would be more in a minute."""
FILES = 8
"""How many more files a worker may have open: a person may open one more connection."""

EXPECTED = re.compile(
    r"(INFO: .*"  # uvicorn: start, a websocket opened or closed
    r"|hasher: passwords are hashed too cheaply for real accounts"
    r"|(password\.\w+|None\.sign_out): postgres: \w+"  # 503
    r"|a credential could not be checked: postgres: \w+"  # 503
    r"|a (job failed|session's last use could not be noted): postgres: \w+"
    r"|(pruning \w+|upkeep) failed: postgres: \w+"
    r"|ERROR: +ASGI callable returned without completing handshake\."  # uvicorn: a handshake refused with 503
    r"|the session cache is off, every look-up asks the database: .*"
    r"|a password could not be re-hashed: postgres: \w+"
    r"|credentials are checked again: there were \d+ failures in \d+ seconds"
    r")( \(\d+ more like it since the last such line\))?"
)
"""The lines that workers may log; lines about the database appear only with PostgreSQL."""


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("shared", ["sqlite", "postgresql", "cached"], indirect=True)
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux shows the memory and files of a process so"
)
async def test_soak_loses_nothing_and_leaks_nothing(shared: OnSQLite | OnPostgres, tmp_path: Path) -> None:
    """FT-2, FT-5: an answered act holds at every worker, the worst answer is a 503 in time, and memory stays flat."""
    print(f"seed {SEED}, {SECONDS:.0f} s")  # noqa: T201  # shown if it fails, and with -s
    chance = random.Random(SEED)  # noqa: S311  # no secret
    site = Site(tmp_path, shared.store(), chance, shared.lag.total_seconds())
    people = [Person(site, number) for number in range(PEOPLE)]
    async with site.running():
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for person in people:
                group.create_task(person.live(over))
            await site.disturb(SECONDS * 0.6)
            await site.measure(SECONDS * 0.4)
            over.set()
        for person in people:
            await person.check()
        print(site.report())  # noqa: T201
        check_workers(site)
        await check_database(shared, people)
    unexpected = [line for line in site.log().splitlines() if not EXPECTED.fullmatch(line)]
    assert unexpected == []


@pytest.mark.anyio
async def test_insist_repeats_a_request_until_it_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """insist repeats a request that was lost with its worker or was answered with 503."""
    monkeypatch.setattr("tests.soak.BACKOFF", 0)
    answers: list[httpx.Response | Exception] = [
        httpx.Response(200),
        httpx.Response(503, headers={"Retry-After": "1"}),
        httpx.ReadError("the worker is gone"),
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        answered = answers.pop()
        if isinstance(answered, Exception):
            raise answered
        return answered

    site, served = Site(tmp_path, None, random.Random(SEED)), cast("Served", None)  # noqa: S311  # no secret
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url=BASE_URL) as client:
        site.workers = [Worker(served, client, gone=True)]
        response, tries = await site.insist("GET", "/me")
    assert (response.status_code, tries) == (200, 3)
    assert site.answers == {0: 1, 503: 1, 200: 1}


def check_workers(site: Site) -> None:
    """Every answer came in time; memory and files of a warm worker stay the same."""
    assert site.slowest < BOUND
    for worker in site.workers:
        assert worker.memory[-1] <= worker.memory[1] + MEMORY
        assert worker.files[-1] <= worker.files[1] + FILES


async def check_database(place: OnSQLite | OnPostgres, people: list[Person]) -> None:
    """Each user exists once; sessions that survive pruning are valid; after a month only users are left."""
    await check_rows(place)
    assert await place.count_rows("users") == len(people)
    clock = FakeClock(utc_now())
    auth = make_auth(Path(), store=place.store(), clock=clock)
    async with auth.running():
        await auth.prune()
        assert await place.rows(LEFT) == []
        assert await place.count_rows("sessions") >= sum(len(person.alive) for person in people)
        clock.advance(timedelta(days=31))
        await auth.prune()
    tables = ("users", "accounts", "sessions", "tokens")
    assert [await place.count_rows(table) for table in tables] == [len(people), len(people), 0, 0]


LEFT = """
SELECT s.id FROM asgi_auth_sessions s LEFT JOIN asgi_auth_accounts a ON a.user_id = s.user_id AND a.stamp = s.stamp
WHERE a.user_id IS NULL OR s.revoked_at IS NOT NULL"""
"""Invalid sessions that are still stored after pruning."""
