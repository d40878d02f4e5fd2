"""Floods: hashing neither blocks nor fills the server, and one address cannot delay the users of another."""

import asyncio
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from asgi_auth.errors import AuthError
from asgi_auth.hashing import _is_ready
from asgi_auth.passwords import Bcrypt
from asgi_auth.types import Activity
from asgi_auth.web.plug import AuthPlug
from tests.asgi import Exchange, post, start
from tests.gate import GatedBcrypt, Turnstile
from tests.served import APP, application, real_auth
from tests.servers import serving, uvicorn_process
from tests.support import EMAIL, OTHER_EMAIL, PASSWORD, PATIENCE, credentials, make_auth, register, registration, until

pytestmark = pytest.mark.anyio

SIGN_IN = "/auth/password/sign_in"
ROOM = 1 + 32
"""One job that is hashed, and the jobs that may wait."""


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash one password at a time, so that hashes run in the order of the queue."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)


# --- beside the hashing ----------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_sign_ins_leave_other_requests_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DO-1: while twenty passwords are hashed, the server answers ``/ping`` many times for each hash.

    The test counts and does not measure time, because other programs use the machine, too. A server that hashes in its
    event loop would answer only between two hashes, about seven times. ``tox -e bench`` measures the seconds.
    """
    monkeypatch.setenv("BCRYPT_COST", "12")
    auth = real_auth(tmp_path, hasher=Bcrypt())
    async with (
        auth.running(),
        uvicorn_process(*APP, directory=tmp_path) as server,
        server.client() as pinging,
        server.client() as client,
    ):
        await register(auth)
        await asyncio.gather(pinging.get("/ping"), client.get("/ping"))
        signing_in = asyncio.gather(*(client.post(SIGN_IN, data=credentials()) for _ in range(20)))
        answered = 0
        while not signing_in.done():
            assert (await pinging.get("/ping")).text == "pong"
            answered += 1
        assert {answer.status_code for answer in await signing_in} == {200}
    assert answered > 20 * 15


@pytest.mark.slow
async def test_flood_of_sign_ins_is_bounded(tmp_path: Path, one_core: None) -> None:
    """DO-2: of 2,000 concurrent sign-ins, as many as the queue holds are hashed; the others get 503 and Retry-After."""
    hasher = GatedBcrypt()
    auth = make_auth(tmp_path, hasher=hasher)
    turnstile = Turnstile(AuthPlug(auth))
    async with auth.running():
        await register(auth)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        hasher.gate.close("verify")
        exchanges = [sign_in(turnstile) for _ in range(2000)]
        await turnstile.until(lambda: turnstile.left == 2000 - ROOM)
        hasher.gate.open()
        await asyncio.gather(*(exchange.task for exchange in exchanges))

        answers = [exchange.answer for exchange in exchanges]
        assert Counter((answer.status, answer["Retry-After"]) for answer in answers) == {
            (200, None): ROOM,
            (503, "1"): 2000 - ROOM,
        }
        assert len(hasher.gate.passwords("verify")) == ROOM
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # kilobytes
        assert (await post(AuthPlug(auth), SIGN_IN, credentials())).status == 200


def sign_in(app: Any, *, client: str = "192.0.2.1", **parameters: str) -> Exchange:
    """Begin to sign in from an address."""
    return start(app, "POST", SIGN_IN, data={**credentials(), **parameters}, client=(client, 1234))


async def test_burst_is_refused_before_any_query(
    tmp_path: Path, one_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DO-2: of 200 concurrent sign-ins from one or many addresses, only those with a place query the store."""
    asked = Counter[str]()
    for many in (False, True):
        hasher = GatedBcrypt()
        auth = make_auth(tmp_path, hasher=hasher)
        find = auth.services.store.users.find

        async def counted(field: str, value: str, find: Any = find) -> Any:
            asked[value] += 1
            return await find(field, value)

        async with auth.running():
            monkeypatch.setattr(auth.services.store.users, "find", counted)
            hasher.gate.close("verify")
            emails = [f"{many}.{number}@mail.example.org" for number in range(200)]
            exchanges = [
                sign_in(AuthPlug(auth), client=f"192.0.2.{number if many else 1}", email=email)
                for number, email in enumerate(emails)
            ]
            await until(lambda exchanges=exchanges: sum(map(is_refused, exchanges)) == 200 - ROOM)  # type: ignore[misc]
            hasher.gate.open()
            await asyncio.gather(*(exchange.task for exchange in exchanges))

        assert {email for email in emails if asked[email.lower()]} == set(emails[:ROOM])


def is_refused(exchange: Exchange) -> bool:
    """Whether the server has answered that it is overloaded."""
    return exchange.answer.status == 503


@pytest.mark.parametrize(
    ("phase", "params"),
    [
        ("sign_in", {"email": EMAIL, "password": PASSWORD}),
        ("sign_in", {"email": OTHER_EMAIL, "password": PASSWORD}),
        ("register", registration(OTHER_EMAIL)),
        ("reset", {"reset_token": "x", "password": PASSWORD, "password_confirmation": PASSWORD}),
        ("reauthenticate", {"password": PASSWORD}),
    ],
    ids=["known", "unknown", "register", "reset", "reauthenticate"],
)
async def test_overloaded_server_refuses_in_one_step(
    tmp_path: Path, one_core: None, phase: str, params: dict[str, str]
) -> None:
    """DO-2, EN-2: while the queue is full, every phase that hashes is refused in the same way, in one step."""
    auth = make_auth(tmp_path, hasher=GatedBcrypt())
    async with auth.running():
        _, token = await register(auth)
        with ExitStack() as places:
            for _ in range(ROOM):
                places.enter_context(auth.services.passwords.place("192.0.2.1"))
            cookie = f"user_session={token.cookie}"
            exchange = start(AuthPlug(auth), "POST", f"/auth/password/{phase}", data=params, cookie=cookie)
            await asyncio.sleep(0)
            assert (exchange.answer.status, exchange.answer["Retry-After"]) == (503, "1")
            await exchange.task
        # The end of the blocks has released the places.
        answer = await post(AuthPlug(auth), SIGN_IN, credentials())
        assert answer.status == 200


async def test_crowd_of_one_address_does_not_starve_others(tmp_path: Path, one_core: None) -> None:
    """DO-6: the sign-ins of one address fill the queue; a user at another address gets a place near the front."""
    hasher = GatedBcrypt()
    auth = make_auth(tmp_path, hasher=hasher)
    turnstile = Turnstile(AuthPlug(auth))
    async with auth.running():
        await register(auth)
        await register(auth, OTHER_EMAIL)
        hasher.gate.close("verify")
        crowd = [sign_in(turnstile, password=f"guess {number}") for number in range(16 * 3)]
        await turnstile.until(lambda: turnstile.left == len(crowd) - ROOM)
        other = sign_in(turnstile, client="192.0.2.2", email=OTHER_EMAIL)
        await turnstile.until(lambda: turnstile.left == len(crowd) - ROOM + 1)  # the crowd's newest job loses its place
        # The other user holds a place now; the job gets its turn as soon as the account was read.
        await until(lambda: any(job.key == "192.0.2.2" and _is_ready(job) for job in auth._pool._queue()._waiting))
        hasher.gate.open()
        await asyncio.gather(*(exchange.task for exchange in [other, *crowd]))

        assert other.answer.status == 200
        assert hasher.gate.passwords("verify").index(PASSWORD) <= 2
        assert Counter(exchange.answer.status for exchange in crowd) == {401: ROOM - 1, 503: len(crowd) - ROOM + 1}


async def test_disconnected_client_frees_its_place(tmp_path: Path, one_core: None) -> None:
    """DO-2: over a real server, a waiting client that disconnects is not hashed; another client gets its place."""
    hasher = GatedBcrypt()
    auth = make_auth(tmp_path, hasher=hasher)
    turnstile = Turnstile(application(auth))
    async with auth.running(), serving(turnstile) as url, AsyncExitStack() as stack:
        await register(auth)
        hasher.gate.close("verify")
        clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=url)) for _ in range(ROOM + 7)]
        tasks = [asyncio.create_task(guess(client, number)) for number, client in enumerate(clients[: ROOM + 1])]
        await turnstile.until(lambda: turnstile.left == 1)  # the one beyond the limit
        await hasher.gate.arrived()
        running = hasher.gate.passwords("verify")
        leaving = [number for number, task in enumerate(tasks) if not task.done() and f"guess {number}" not in running]
        for number in leaving[:5]:
            tasks[number].cancel()
        await turnstile.until(lambda: turnstile.left == 6)
        tasks += [
            asyncio.create_task(guess(client, number)) for number, client in enumerate(clients[ROOM + 1 :], ROOM + 1)
        ]
        await turnstile.until(lambda: turnstile.left == 7)  # six requests for five places
        hasher.gate.open()
        statuses = Counter(await asyncio.gather(*tasks, return_exceptions=True))

        assert {status: statuses[status] for status in (401, 503)} == {401: ROOM, 503: 2}
        hashed = hasher.gate.passwords("verify")
        assert len(hashed) == ROOM
        assert not {f"guess {number}" for number in leaving[:5]} & set(hashed)


async def guess(client: httpx.AsyncClient, number: int) -> int:
    """The status of a sign-in with a wrong password."""
    answer = await client.post(SIGN_IN, data=credentials(EMAIL, f"guess {number}"), timeout=PATIENCE)
    return answer.status_code


# --- the worst input -------------------------------------------------------------------------------------------------

SIZE = 64 * 1024


class ReturningPlug(AuthPlug[Any]):
    """Reads all parameters of a form, like an application that shows the form again."""

    async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """Read ``return_to`` and the parameters."""
        response = await super().handle_failure(request, activity, reason)
        response.headers["X-Return-To"] = self.return_to(request)
        assert self.params(request) is not None
        return response


def filled(text: str, *, start: str = "", end: str = "", size: int = SIZE) -> str:
    """*text* repeated between *start* and *end*, up to *size* characters."""
    return start + text * ((size - len(start) - len(end)) // len(text)) + end


EMAILS = [
    filled("a", end="@x.example", size=4096),
    filled("a.", end="@x.example", size=4096),
    filled("a.", start="a@", end="example", size=4096),
    filled("@", size=4096),
    filled('"', end="@x.example", size=4096),
    filled("(", end="@x.example", size=4096),
    filled("\u0301", start="a", size=4096),
    filled("ﷺ", end="@x.example", size=4096),
    filled("xn--", start="a@", end=".example", size=4096),
    filled("a", end="@x.example"),
]
VALUES = [
    filled(" "),
    filled(","),
    filled(";"),
    filled("="),
    filled('"'),
    filled("\\"),
    filled("a=b; "),
    filled('\\"', start='user_session="', end='"'),
    filled("user_session=a; "),
    filled("text/html;q=0.5,"),
    filled("a/b;a=b;"),
    filled("\t\x1b[0m"),
    filled("é"),
    filled("1,"),
    filled("a.", start="Bearer "),
    filled("Bearer "),
]
HEADERS = ["user-agent", "cookie", "accept", "authorization", "x-forwarded-for", "origin", "content-type", "host"]
PATHS = ["/", "a/", "%2e", "%2f", "..;/", "\\"]
PLACES = ["/", "\\", "/%2f", "/../", "@", "/\t"]
BODIES = {
    "application/x-www-form-urlencoded": ["&", "a=b&", "%41", "=", "+", "email=%41&"],
    "application/json": ["[", '{"a":', '"\\u0041', "1", "[],", '{"email":"a",'],
}

Asked = Iterator[tuple[str, dict[str, Any]]]


def worst_values() -> Asked:
    """Values in parameters and in headers."""
    for (number, email), phase in product(enumerate(EMAILS), ("sign_in", "register", "reset_request")):
        json = {"email": email, "password": PASSWORD, "password_confirmation": PASSWORD}
        yield f"email {number} {phase}", {"json": json, "path": f"/auth/password/{phase}"}
    for (number, value), header in product(enumerate(VALUES), HEADERS):
        yield f"{header} {number}", {"headers": {header: value}, "body": b"{}"}
    for place in PLACES:
        yield f"return_to {place}", {"json": {"return_to": filled(place, size=SIZE // 2)}}
        yield f"return_to {place} in the query", {"json": {}, "query": filled(place, start="return_to=").encode()}


def worst_shapes() -> Asked:
    """Paths and bodies."""
    for piece in PATHS:
        yield f"path {piece}", {"path": filled(piece, start="/auth/")}
    for kind, pieces in BODIES.items():
        for piece in pieces:
            yield f"{kind} {piece}", {"headers": {"content-type": kind}, "body": filled(piece).encode()}


async def test_worst_input_is_refused_in_time(tmp_path: Path) -> None:
    """DO-4: no known input of 64 KiB takes the plug more than 50 ms of processor time."""
    auth = make_auth(tmp_path, trusted_proxies=["192.0.2.0/24"])
    plug = ReturningPlug(auth)
    async with auth.running():
        await register(auth)
        times = {name: await fastest(plug, request) for name, request in [*worst_values(), *worst_shapes()]}
    assert {name: seconds for name, seconds in times.items() if seconds > 0.05} == {}


async def fastest(app: Any, request: dict[str, Any]) -> float:
    """The processor time of a request in seconds, the best of three; the answer must not be a server error."""
    tracer, times = sys.gettrace(), []
    for tracing in (None, None, tracer):  # coverage costs more than the measured code
        sys.settrace(tracing)
        began = time.process_time()
        exchange = start(app, "POST", **{"path": SIGN_IN, **request})
        await exchange.task
        times.append(time.process_time() - began)
        assert exchange.answer.status < 500
    return min(times)
