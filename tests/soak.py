"""Users send requests to two workers on one database while the workers and the database are killed and restarted."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from websockets.exceptions import WebSocketException

from asgi_auth.runtime.jobs import shielded
from asgi_auth.stores import PostgresStore
from tests.postgres import server
from tests.servers import Served, say_hello, uvicorn_process
from tests.soaked import APP, mailed_to
from tests.support import BASE_URL, credentials, registration, until
from tests.workers import resetting

BOUND = 12.0
"""The maximum time of an answer, in seconds: the store waits five for a connection and five for its answer."""
PAUSE = 5.0
"""The maximum time between two disturbances, in seconds."""
BACKOFF = 0.05
KEPT = 8
"""How many sign-ins a user keeps using."""

CUT_OFF = (OSError, EOFError, WebSocketException)
"""The errors of a websocket whose worker is killed."""

Headers = dict[str, str]


class Dead(NamedTuple):
    """A revoked credential, and when the client received the answer, by the clock of the event loop."""

    headers: Headers
    since: float


# --- the site --------------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """A uvicorn process with its own port."""

    served: Served
    client: httpx.AsyncClient
    gone: bool = False
    """Whether it was killed. Only a killed worker may leave a request without an answer."""
    memory: list[int] = field(default_factory=list)
    """Samples of the resident memory (``VmRSS``), in kilobytes."""
    files: list[int] = field(default_factory=list)
    """Samples of the number of open files."""

    def measure(self) -> None:
        """Take a sample of both from ``/proc`` (Linux)."""
        process = Path(f"/proc/{self.served.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        self.memory.append(int(status["VmRSS"].split()[0]))
        self.files.append(len(list((process / "fd").iterdir())))


class Site:
    """Two workers, and the results of all requests."""

    def __init__(self, directory: Path, store: Any, moments: random.Random, lag: float = 0.0) -> None:
        """Args: lag: Seconds in which a worker may still accept a session that another worker has ended."""
        self.directory, self.moments, self.lag = directory, moments, lag
        self.disturbances = [self.kill_worker]
        if isinstance(store, PostgresStore) and server().restarts:
            self.disturbances.append(self.restart_database)
        self.workers: list[Worker] = []
        self.answers = Counter[int]()
        """How many answers had each status; 0: a killed worker did not answer."""
        self.happened = Counter[str]()
        self.slowest = 0.0
        self.late = 0
        """How often a worker still accepted an ended session within the lag."""
        self._stack = AsyncExitStack()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run both workers until the end of the block."""
        async with self._stack:
            self.workers = [await self._start(), await self._start()]
            yield

    async def _start(self) -> Worker:
        with (self.directory / "workers.log").open("ab") as log:
            served = await self._stack.enter_async_context(uvicorn_process(*APP, directory=self.directory, log=log))
        no_cookies: Any = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        client = await self._stack.enter_async_context(served.client(cookies=no_cookies))
        weak = registration("nobody@mail.example.org", "password")  # loads the list of weak passwords, which takes 8 MB
        assert (await client.post("/auth/password/register", data=weak)).status_code == 422
        client.timeout = BOUND
        self.happened["start"] += 1
        return Worker(served, client)

    def worker(self) -> Worker:
        """A random worker."""
        return self.moments.choice(self.workers)

    async def disturb(self, seconds: float) -> None:
        """Repeat all disturbances in random order for *seconds*; each happens at least once."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            for disturb in self.moments.sample(self.disturbances, len(self.disturbances)):
                await asyncio.sleep(self.moments.uniform(0, min(seconds / 10, PAUSE)))
                await disturb()

    async def kill_worker(self) -> None:
        """Kill a worker with SIGKILL and start a new one in its place."""
        place = self.moments.randrange(2)
        self.workers[place].gone = True
        self.happened["kill"] += 1
        self.workers[place].served.process.kill()
        await self.workers[place].served.process.wait()
        self.workers[place] = await self._start()

    async def restart_database(self) -> None:
        """Stop the database server and start it again a little later, even if the test is cancelled."""
        await shielded(asyncio.to_thread(self._restart_database, self.moments.uniform(0, 2)))

    def _restart_database(self, seconds: float) -> None:
        self.happened["stop"] += 1
        server().stop()
        time.sleep(seconds)
        server().start()
        self.happened["restart"] += 1

    async def measure(self, seconds: float) -> None:
        """Let the workers run undisturbed for *seconds* and take five samples."""
        for _ in range(5):
            await asyncio.sleep(seconds / 5)
            for worker in self.workers:
                worker.measure()

    def log(self) -> str:
        """The log of the workers."""
        return (self.directory / "workers.log").read_text()

    def report(self) -> str:
        """The results of a run."""
        lines = [f"answers {dict(sorted(self.answers.items()))}, the slowest after {self.slowest:.2f} s"]
        lines += [f"disturbed {dict(self.happened)}, taken {self.late} times after its end"]
        lines += [f"worker: kB resident {worker.memory}, files {worker.files}" for worker in self.workers]
        return "\n".join(lines)

    async def ask(self, worker: Worker, method: str, path: str, **request: Any) -> httpx.Response | None:
        """The answer. None: there was none, or the store was unavailable; the request may have been executed or not."""
        began = asyncio.get_running_loop().time()
        asked = worker.client.request(method, path, **request)
        [response] = await asyncio.gather(asked, return_exceptions=True)
        if not isinstance(response, httpx.Response):
            assert worker.gone, f"{path}: {response!r}"
            assert isinstance(response, httpx.TransportError), repr(response)
            self.answers[0] += 1
            return None
        self.slowest = max(self.slowest, asyncio.get_running_loop().time() - began)
        self.answers[response.status_code] += 1
        assert response.status_code < 500 or response.status_code == 503, (path, response.text)
        assert response.status_code != 503 or response.headers["Retry-After"]
        return None if response.status_code == 503 else response

    async def insist(self, method: str, path: str, **request: Any) -> tuple[httpx.Response, int]:
        """Repeat a request at random workers until one answers; return the answer and the number of tries."""
        tries = 1
        while (response := await self.ask(self.worker(), method, path, **request)) is None:
            tries += 1
            await asyncio.sleep(BACKOFF)
        return response, tries


# --- people ----------------------------------------------------------------------------------------------------------

SIGN_IN, RESET = "/auth/password/sign_in", "/auth/password/reset"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MALFORMED: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", SIGN_IN, {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
    ("POST", SIGN_IN, {"content": b"email=a&email=b", "headers": FORM}, 400),
    ("POST", SIGN_IN, {"content": b"=" * 100_000, "headers": FORM}, 413),
    ("POST", SIGN_IN, {"content": b"email", "headers": {"Content-Type": "text/plain"}}, 415),
    ("POST", SIGN_IN, {"data": {"email": "a\0@mail.example.org", "password": "x"}}, 422),
    ("POST", RESET, {"data": resetting("A" * 43)}, 401),
    ("PUT", SIGN_IN, {}, 405),
    ("POST", "/auth/nobody/home", {}, 404),
    ("GET", "/me", {"headers": {"Cookie": "user_session=x.y"}}, 200),
    ("GET", "/me", {"headers": [("Authorization", "Bearer a.b.c"), ("Authorization", "Bearer d.e.f")]}, 200),
]


class Person:
    """One user, and what must hold after the answers that the user's clients received."""

    def __init__(self, site: Site, number: int) -> None:
        self.site, self.moments = site, random.Random(f"{site.moments.random()} {number}")  # noqa: S311  # no secret
        self.email, self.password = f"p{number}@mail.example.org", f"marble falcon {number} 0"
        self.alive: list[Headers] = []
        """Live credentials."""
        self.dead: list[Dead] = []
        self.spent: list[str] = []
        """Consumed tokens."""

    async def live(self, over: asyncio.Event) -> None:
        """Register, then do random acts until *over* is set."""
        response, tries = await self.site.insist("POST", "/auth/password/register", data=registration(*self._known()))
        assert response.status_code == 200 or (response.status_code == 422 and tries > 1), response.text
        await self.sign_in()
        acts = self._acts()
        while not over.is_set():
            [act] = self.moments.choices([*acts], [*acts.values()])
            await act()

    def _acts(self) -> dict[Callable[[], Awaitable[None]], int]:
        """The acts of a user, and the weight of each."""
        return {
            self.look: 6,
            self.look_back: 3,
            self.sign_in: 2,
            self.sign_out: 2,
            self.say_hello: 1,
            self.mistype: 1,
            self.reset: 1,
            self.replay: 1,
            self.send_rubbish: 1,
        }

    def _known(self) -> tuple[str, str]:
        return self.email, self.password

    async def sign_in(self) -> None:
        """Sign in with a form, which returns a cookie, or with JSON, which returns a bearer token."""
        response = await self._try(self.password)
        assert response.status_code == 200, response.text
        self.alive = [*self.alive, credential_of(response)][-KEPT:]

    async def _try(self, password: str) -> httpx.Response:
        encoding = self.moments.choice(["data", "json"])
        response, _ = await self.site.insist("POST", SIGN_IN, **{encoding: credentials(self.email, password)})
        return response

    async def mistype(self) -> None:
        """A wrong password, possibly similar to an earlier one, is rejected."""
        response = await self._try(self.moments.choice(["marble falcon", f"marble falcon {self.email[1]} 0 "]))
        assert response.status_code == 401, response.text

    async def look(self) -> None:
        """Every worker accepts a live credential."""
        assert await self._seen(self.site.worker(), self.moments.choice(self.alive)) in (self.email, "")

    async def look_back(self) -> None:
        """No worker accepts a credential that was revoked, recently or long ago."""
        await self._check_dead([*self.dead[-1:], *self.moments.sample(self.dead, min(len(self.dead), 1))])

    async def _check_dead(self, dead: list[Dead]) -> None:
        for worker in self.site.workers[:]:
            for ended in dead:
                late = self._may_be_unknown(ended)
                seen = await self._seen(worker, ended.headers)
                assert seen in ("-", "") or late
                self.site.late += seen == self.email

    def _may_be_unknown(self, dead: Dead) -> bool:
        return asyncio.get_running_loop().time() < dead.since + self.site.lag

    def _end(self, alive: list[Headers]) -> list[Dead]:
        now = asyncio.get_running_loop().time()
        return [Dead(headers, now) for headers in alive]

    async def _seen(self, worker: Worker, headers: Headers) -> str:
        """The address of the user that a worker sees; ``-``: anonymous; empty: no answer."""
        response = await self.site.ask(worker, "GET", "/me", headers=headers)
        return "" if response is None else response.text

    async def say_hello(self) -> None:
        """Open a websocket with a live or a revoked credential."""
        alive = [(headers, {self.email}) for headers in self.alive]
        dead = [(end.headers, {"-", self.email} if self._may_be_unknown(end) else {"-"}) for end in self.dead[-3:]]
        worker, (headers, taken) = self.site.worker(), self.moments.choice([*alive, *dead])
        asked = say_hello(f"{worker.served.url}/hello", {**headers, "Origin": BASE_URL})
        [said] = await asyncio.gather(asked, return_exceptions=True)
        assert said in {*taken, 503} or (worker.gone and isinstance(said, CUT_OFF)), repr(said)

    async def sign_out(self) -> None:
        """Sign out at one worker; the others reject the credential at the next request."""
        await self.sign_in()
        headers = self.alive.pop(self.moments.randrange(len(self.alive)))
        response = await self.site.ask(self.site.worker(), "POST", "/auth/sign_out", headers=headers)
        assert response is None or response.status_code == 200, response.text
        ended = self._end([headers] if response is not None else [])  # otherwise unknown, and not used again
        self.dead += ended
        await self._check_dead(ended)
        await self.sign_in()

    async def reset(self) -> None:
        """Both workers receive a mailed token at once: it works at most once and ends all earlier sessions."""
        token, new = await self._mailed_token(), f"{self.password[:-1].rstrip('0123456789')}{len(self.spent) + 1}"
        requests = (self.site.ask(worker, "POST", RESET, data=resetting(token, new)) for worker in self.site.workers)
        statuses = [response and response.status_code for response in await asyncio.gather(*requests)]
        assert set(statuses) <= {200, 401, None}, statuses
        assert statuses.count(200) <= 1, "a token was accepted twice"
        await asyncio.sleep(BACKOFF * 4 * (None in statuses))  # a killed worker may have sent a change
        answers = {password: await self._try(password) for password in (self.password, new)}
        valid = [password for password, response in answers.items() if response.status_code == 200]
        assert valid == [new] if 200 in statuses else len(valid) == 1, (statuses, valid)
        done = valid == [new]
        self.dead += self._end(self.alive) if done else []
        self.spent += [token] if done else []
        self.alive = [*([] if done else self.alive), credential_of(answers[valid[0]])][-KEPT:]
        self.password = valid[0]
        await self._check_dead(self.dead[-KEPT:])

    async def _mailed_token(self) -> str:
        """Request a mail and return its token; if the mail was lost with a worker or the database, an invalid token."""
        before, happened = len(self._mails()), Counter(self.site.happened)
        response, _ = await self.site.insist("POST", "/auth/password/reset_request", data={"email": self.email})
        assert response.status_code == 200
        await until(lambda: len(self._mails()) > before or happened != self.site.happened)
        mails = self._mails()[before:]
        return [*mails, "A" * 43][0]

    def _mails(self) -> list[str]:
        return mailed_to(self.site.directory, self.email)

    async def replay(self) -> None:
        """Every worker rejects a consumed token."""
        for token in self.spent[-1:]:
            response, _ = await self.site.insist("POST", RESET, data=resetting(token, "marble falcon replayed"))
            assert response.status_code == 401, response.text

    async def send_rubbish(self) -> None:
        """Every worker rejects a malformed request with the right status."""
        method, path, request, status = self.moments.choice(MALFORMED)
        response, _ = await self.site.insist(method, path, **request)
        assert response.status_code == status, (path, request, response.text)

    async def check(self) -> None:
        """At the end, every worker agrees with all earlier answers, and the user can do each act once more."""
        for worker in self.site.workers:
            for headers in self.alive:
                assert await self._seen(worker, headers) == self.email
            for dead in self.moments.sample(self.dead, min(len(self.dead), 100)):
                late = self._may_be_unknown(dead)
                assert await self._seen(worker, dead.headers) == "-" or late
        for act in self._acts():
            await act()


def credential_of(response: httpx.Response) -> Headers:
    """The cookie or the bearer token of an answer."""
    cookie = response.cookies.get("user_session")
    return {"Cookie": f"user_session={cookie}"} if cookie else {"Authorization": f"Bearer {response.json()['token']}"}
