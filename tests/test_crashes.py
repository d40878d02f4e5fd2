"""A killed server, and clients that disconnect: every answered act holds, and no act is done in part.

``ASGI_AUTH_KILLS=200 pytest tests/test_crashes.py`` kills the server more often than a usual test run does.
"""

import asyncio
import os
import random
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_auth.errors import InvalidTokenError
from asgi_auth.store import Found
from asgi_auth.strategies.password import RESET
from asgi_auth.types import User
from tests.gate import Turnstile
from tests.served import APP, application, real_auth
from tests.servers import Served, serving, uvicorn_process
from tests.support import HASHER, LocalAuthentication, credentials, make_auth, registration
from tests.workers import OnSQLite, check_rows, count_rows, resetting

pytestmark = pytest.mark.anyio

KILLS = int(os.environ.get("ASGI_AUTH_KILLS", "8"))
PEOPLE = 6
"""How many users act at once; each of them sends one request at a time."""
MOMENTS = random.Random(20260401)  # noqa: S311  # the same values in every run


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@dataclass
class Person:
    """One user, and the answers that the client received. An act without an answer may have happened or not."""

    email: str
    password: str
    registered: bool = False
    alive: list[str] = field(default_factory=list)
    """Cookies of sign-ins that were answered."""
    dead: list[str] = field(default_factory=list)
    """Cookies of sessions whose end was answered."""
    leaving: str | None = None
    """The cookie of an unanswered sign-out."""
    wanted: str | None = None
    """The password of an unanswered reset; ``token`` is its token."""
    token: str = ""

    async def live(self, client: httpx.AsyncClient, auth: LocalAuthentication, answered: "asyncio.Queue[str]") -> None:
        """Register, then sign in, reset and sign out until the server is killed."""
        with suppress(httpx.TransportError):
            await self._post(client, answered, "password/register", registration(self.email, self.password))
            self.registered = True
            while True:
                await self._sign_in(client, answered)
                await self._reset(client, answered, auth, f"{self.password}#")
                await self._sign_in(client, answered)
                await self._sign_in(client, answered)
                await self._sign_out(client, answered)

    async def _sign_in(self, client: httpx.AsyncClient, answered: "asyncio.Queue[str]") -> None:
        data = credentials(self.email, self.password)
        self.alive.append(await self._post(client, answered, "password/sign_in", data))

    async def _reset(
        self, client: httpx.AsyncClient, answered: "asyncio.Queue[str]", auth: LocalAuthentication, password: str
    ) -> None:
        found = await auth.accounts.find("email", self.email)
        assert found is not None
        lifetime, factor = timedelta(hours=1), {"factor": "password"}
        issued = await auth.tokens.issue(RESET, account=found.account, lifetime=lifetime, extra_data=factor)
        self.wanted, self.token = password, issued.token
        await self._post(client, answered, "password/reset", resetting(self.token, password))
        self.password, self.wanted = password, None
        self.dead += self.alive
        self.alive = []

    async def _sign_out(self, client: httpx.AsyncClient, answered: "asyncio.Queue[str]") -> None:
        self.leaving = self.alive.pop()
        await self._post(client, answered, "sign_out", {}, Cookie=f"user_session={self.leaving}")
        self.dead.append(self.leaving)
        self.leaving = None

    async def _post(
        self,
        client: httpx.AsyncClient,
        answered: "asyncio.Queue[str]",
        path: str,
        data: dict[str, str],
        **headers: str,
    ) -> str:
        """Send a request and return the cookie in the answer."""
        response = await client.post(f"/auth/{path}", data=data, headers=headers)
        assert response.status_code == 200, (path, response.text)
        client.cookies.clear()
        answered.put_nowait(path)
        return str(response.cookies.get("user_session", ""))

    async def check(self, auth: LocalAuthentication) -> None:
        """Compare the answers that the client received with the database."""
        found = await auth.accounts.find("email", self.email)
        assert found is not None or not self.registered, "a registration was answered and is lost"
        changed = found is not None and await self._check_password(auth, found)
        await self._check_sessions(auth, changed=changed)

    async def _check_password(self, auth: LocalAuthentication, found: Found[User]) -> bool:
        """Whether the unanswered reset was done."""
        stored = found.account.password_hash
        assert stored is not None
        changed = self.wanted is not None and HASHER.verify(self.wanted.encode(), stored)
        assert changed != HASHER.verify(self.password.encode(), stored), "neither password, or both"
        live = self.wanted is None or await holds(auth.tokens.peek(RESET, self.token))
        assert live != changed, "a used token and the old password, or the opposite"
        return changed

    async def _check_sessions(self, auth: LocalAuthentication, *, changed: bool) -> None:
        live = [cookie for cookie in self.dead + self.alive if await holds(auth.sessions.load(cookie))]
        assert live == ([] if changed else self.alive)


async def holds(look: Awaitable[Any]) -> bool:
    """Whether a token or a cookie is live."""
    try:
        await look
    except InvalidTokenError:
        return False
    return True


async def live_until_killed(server: Served, auth: LocalAuthentication, people: list[Person], enough: int) -> int:
    """Kill the server at a random moment after *enough* answers; return the number of answers."""
    answered: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        for person in people:
            group.create_task(live_alone(server, person, auth, answered))
        for _ in range(enough):
            await answered.get()
        await asyncio.sleep(MOMENTS.random() / 50)  # not a wait for anything: the moment is random
        server.process.kill()
    await server.process.wait()
    return enough + answered.qsize()


async def live_alone(server: Served, person: Person, auth: LocalAuthentication, answered: "asyncio.Queue[str]") -> None:
    """Let one user act on a separate connection."""
    async with server.client() as client:
        await person.live(client, auth, answered)


@pytest.mark.slow
async def test_killed_server_keeps_answered_acts(tmp_path: Path) -> None:
    """FT-2: kill -9 at random moments: every answered act holds; every other act is done completely or not at all."""
    auth, everybody, answers = real_auth(tmp_path), list[Person](), 0
    async with auth.running():
        for round_ in range(KILLS):
            people = [Person(f"p{round_}.{n}@mail.example.org", f"marble falcon {round_} {n}") for n in range(PEOPLE)]
            async with uvicorn_process(*APP, directory=tmp_path) as server:
                async with server.client() as client:
                    for person in MOMENTS.sample(
                        everybody, min(2, len(everybody))
                    ):  # after the restart they can sign in
                        password = person.wanted if await has_changed(auth, person) else person.password
                        data = credentials(person.email, password or "")
                        assert (await client.post("/auth/password/sign_in", data=data)).status_code == 200
                # Later each time: early kills interrupt registrations, late kills interrupt the later acts.
                answers += await live_until_killed(server, auth, people, round_ * 60 // KILLS)
            await check_rows(OnSQLite(tmp_path))
            for person in people:
                await person.check(auth)
            everybody += [person for person in people if person.registered]
    assert answers > KILLS


async def has_changed(auth: LocalAuthentication, person: Person) -> bool:
    """Whether the unanswered reset was done."""
    return person.wanted is not None and not await holds(auth.tokens.peek(RESET, person.token))


# --- clients that disconnect -----------------------------------------------------------------------------------------

HEAD = b"POST /auth/password/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def test_disconnected_clients_leave_no_rows(tmp_path: Path) -> None:
    """RP-9: a hundred connections abort after the head or in the body: no row is written and no call keeps waiting."""
    auth = make_auth(tmp_path)
    turnstile = Turnstile(application(auth))
    body = httpx.Request("POST", "http://localhost", json=registration()).content
    announced = HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    pieces = [announced, announced + body[:-1], HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", HEAD]
    async with auth.running(), serving(turnstile) as url:
        writers = [(await asyncio.open_connection("127.0.0.1", httpx.URL(url).port))[1] for _ in range(100)]
        for number, writer in enumerate(writers):
            writer.write(pieces[number % 4])
        lifespan = 1
        await turnstile.until(lambda: turnstile.entered == lifespan + 75)  # the last piece is not a complete request
        for writer in writers:
            writer.transport.abort()
        await turnstile.until(lambda: turnstile.left == 75)

        assert [count_rows(tmp_path, table) for table in ("users", "sessions", "tokens")] == [0, 0, 0]
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.post("/auth/password/register", data=registration())).status_code == 200
