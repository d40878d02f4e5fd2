"""The log of an outage: one line a second with a count of the failures, and one line when it is over."""

import asyncio
import re
import sqlite3
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from asgi_auth.errors import StoreUnavailableError
from asgi_auth.runtime.jobs import Jobs
from asgi_auth.runtime.telling import Telling
from asgi_auth.stores import PostgresStore
from tests.postgres import database, server
from tests.served import application
from tests.servers import serving
from tests.support import EMAIL, PATIENCE, credentials, make_auth, register
from tests.test_faults import asking, impatient_auth

pytestmark = pytest.mark.anyio


class Seconds:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    """The clock that decides when the next line may be logged."""
    clock = Seconds()
    defaults = Telling.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(Telling.__init__, "__kwdefaults__", {**defaults, "clock": clock})
    monkeypatch.setattr("asgi_auth.upkeep.PRUNE_INTERVAL", timedelta(days=365))  # its failures are lines of their own
    return clock


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the library since the last call."""
    written = [record.getMessage() for record in caplog.records if record.name == "asgi_auth"]
    caplog.clear()
    return written


@pytest.mark.slow
async def test_outage_of_postgres_is_one_line_a_second(
    clock: Seconds, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """FT-5: 200 requests, sign-ins among them, while the database is down log one line; the next line counts them."""
    if not server().restarts:  # pragma: no cover  # only with an external server
        pytest.skip("the server is not ours to restart")
    async with database() as dsn:
        auth = make_auth(tmp_path, store=PostgresStore(dsn))
        async with serving(application(auth)) as url, httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
            _, token = await register(auth)

            async def show() -> httpx.Response:
                return await client.get("/me", headers={"Cookie": f"{auth.site.session_cookie}={token.cookie}"})

            await asyncio.to_thread(server().stop)
            try:
                caplog.clear()
                answers = await asyncio.gather(*(show() for _ in range(150)))
                answers += [await client.post("/auth/password/sign_in", data=credentials()) for _ in range(50)]
                await auth.services.commit.jobs.drain()
                assert {answer.status_code for answer in answers} == {503}
                [line] = lines(caplog)
                assert re.fullmatch(r"a credential could not be checked: postgres: \w+", line)
                clock.now += 1
                await show()
                [line] = lines(caplog)
                counted = re.fullmatch(r"a credential .* \((\d+) more like it since the last such line\)", line)
                assert counted is not None
                assert int(counted[1]) >= 199  # failed jobs that record the failures are counted, too
            finally:
                await asyncio.to_thread(server().start)
            clock.now += 1
            assert (await show()).text == EMAIL
            [line] = lines(caplog)
            assert re.fullmatch(r"credentials are checked again: there were 2\d\d failures in 2 seconds", line)
            await show()
            assert lines(caplog) == []


async def test_outage_is_over_after_a_second_without_failures(
    clock: Seconds, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A successful check between failures does not end the outage; a second without failures does."""
    auth = impatient_auth(tmp_path)
    async with auth.running(), asking(auth) as client:
        _, token = await register(auth)
        client.cookies.set(auth.site.session_cookie, token.cookie)
        for _ in range(2):
            change(tmp_path, "ALTER TABLE asgi_auth_sessions RENAME TO gone")
            # In its own task: Python 3.11 does not trace the callers of a coroutine that failed this way.
            [answer] = await asyncio.gather(client.get("/me"))
            assert answer.status_code == 503
            change(tmp_path, "ALTER TABLE gone RENAME TO asgi_auth_sessions")
            assert (await client.get("/me")).status_code == 200
        [line] = lines(caplog)[-1:]
        assert line.startswith("a credential could not be checked: ")
        clock.now += 1
        assert (await client.get("/me")).status_code == 200
        assert lines(caplog) == ["credentials are checked again: there were 2 failures in 1 seconds"]


async def test_failed_notes_of_last_use_are_one_line_a_second(
    clock: Seconds, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If the database cannot be written, requests of a session succeed and share one log line."""
    auth = impatient_auth(tmp_path)
    async with auth.running(), asking(auth) as client:
        _, token = await register(auth)
        client.cookies.set(auth.site.session_cookie, token.cookie)
        auth.clock.advance(timedelta(minutes=2))
        change(
            tmp_path, "CREATE TRIGGER refuse BEFORE UPDATE ON asgi_auth_sessions BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        caplog.clear()
        for _ in range(5):
            assert (await client.get("/me")).text == EMAIL
        [line] = lines(caplog)
        assert line.startswith("a session's last use could not be noted: ")


async def test_failed_jobs_are_one_line_a_second(clock: Seconds, caplog: pytest.LogCaptureFixture) -> None:
    """Jobs that fail in an outage log one line a second with a count."""

    async def fail() -> None:
        raise StoreUnavailableError("postgres: TimeoutError")

    jobs = Jobs()
    for _ in range(3):
        await jobs.schedule(fail)
    clock.now += 1
    await jobs.schedule(fail)
    assert lines(caplog) == [
        "a job failed: postgres: TimeoutError",
        "a job failed: postgres: TimeoutError (2 more like it since the last such line)",
    ]


def change(directory: Path, sql: str) -> None:
    """Have another program change the database."""
    connection = sqlite3.connect(directory / "app.db", isolation_level=None, timeout=PATIENCE)
    connection.execute(sql)
    connection.close()
