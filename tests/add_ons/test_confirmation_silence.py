"""The answer of a phase that mails does not reveal, by bytes, headers or time, whether an account exists."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from asgi_auth.authentication import utc_now
from asgi_auth.limits import Limit
from asgi_auth.passwords import Bcrypt
from asgi_auth.types import EMPTY
from tests.add_ons.confirming import actions, confirm, confirming, links, sign_in, sign_up
from tests.asgi import BROWSER, JSON, PAGE
from tests.gate import Turnstile
from tests.served import application
from tests.servers import serving
from tests.support import EMAIL, HASHER, NEW_PASSWORD, OTHER_EMAIL, PASSWORD, LocalAuthentication, registration
from tests.timing import are_alike, measured, ratios_to

pytestmark = pytest.mark.anyio

UNPROVEN = "carol@mail.example.org"
COST = 8
"""At some 15 ms, the hash dominates the time of a registration."""
ROUNDS = 30


@asynccontextmanager
async def served(directory: Path, *, cost: int = HASHER.cost) -> AsyncIterator[tuple["Site", LocalAuthentication]]:
    """An application on a real server: Alice and Bob are confirmed, Carol is not."""
    auth = confirming(directory, options={"clock": utc_now, "hasher": Bcrypt(cost=cost)})
    turnstile = Turnstile(application(auth))
    async with serving(turnstile) as url, httpx.AsyncClient(base_url=url, headers={"Host": "localhost:8000"}) as client:
        for email in (EMAIL, OTHER_EMAIL):
            await sign_up(auth, email)
            await confirm(auth, links(auth)["confirmation", email])
        await sign_up(auth, UNPROVEN)
        yield Site(client, turnstile), auth


class Site:
    """A client that waits until the jobs of its requests have ended."""

    def __init__(self, client: httpx.AsyncClient, turnstile: Turnstile) -> None:
        self._client, self._turnstile = client, turnstile
        self.headers: dict[str, str] = {}

    async def post(self, path: str, params: Mapping[str, str], headers: Mapping[str, str] = EMPTY) -> httpx.Response:
        """Send one request and wait for its jobs."""
        answer = await self._client.post(
            path, data=dict(params), headers=[*self.headers.items(), *dict(headers).items()]
        )
        await self._turnstile.until(lambda: self._turnstile.entered - self._turnstile.left <= 1)  # the lifespan stays
        return answer

    async def seconds(self, path: str, params: Mapping[str, str]) -> float:
        """Return the processor time of one request, of client and server together: they share this process."""
        began = time.process_time()
        await self._client.post(path, data=dict(params), headers=self.headers)
        spent = time.process_time() - began
        await self._turnstile.until(lambda: self._turnstile.entered - self._turnstile.left <= 1)
        return spent


class Cases:
    """Parameters of a phase, by the state of the address in the database; each call uses a fresh new address."""

    def __init__(self) -> None:
        self._count = 0

    def _new(self) -> str:
        self._count += 1
        return f"new{self._count:04}@mail.example.org"

    def register(self) -> dict[str, dict[str, str]]:
        """A new address, a user's address, and an address that was registered but never confirmed."""
        return {
            "new": registration(self._new()),
            "taken": registration(EMAIL, NEW_PASSWORD),
            "unproven": registration(UNPROVEN, NEW_PASSWORD),
        }

    def mail(self) -> dict[str, dict[str, str]]:
        """The same for phases that take only an address."""
        return {"new": {"email": self._new()}, "taken": {"email": EMAIL}, "unproven": {"email": UNPROVEN}}

    def change(self) -> dict[str, dict[str, str]]:
        """The same for Alice, who is signed in."""
        emails = {"new": self._new(), "taken": OTHER_EMAIL, "unproven": UNPROVEN}
        return {name: {"email": email, "current_password": PASSWORD} for name, email in emails.items()}


PHASES = {
    "/auth/password/register": Cases.register,
    "/auth/password/reset_request": Cases.mail,
    "/auth/confirmation/resend": Cases.mail,
    "/auth/confirmation/change_email": Cases.change,
}


async def _signed_in(auth: LocalAuthentication) -> dict[str, str]:
    _, token = await sign_in(auth)
    return {"Cookie": f"{auth.site.session_cookie}={token.cookie}"}


def _shown(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    headers = [(name, value) for name, value in answer.headers.multi_items() if name != "date"]
    return answer.status_code, answer.content, headers


@pytest.mark.parametrize("path", PHASES)
@pytest.mark.parametrize("kind", [{}, JSON, BROWSER, PAGE], ids=["plain", "json", "browser", "page"])
async def test_answers_are_the_same_for_every_address(tmp_path: Path, path: str, kind: dict[str, str]) -> None:
    """EN-3, EN-4: new, taken and unconfirmed addresses get the same bytes and headers, and no cookie, every time."""
    async with served(tmp_path) as (site, auth):
        site.headers = await _signed_in(auth) if path.endswith("change_email") else {}
        cases, answers = Cases(), []
        for _ in range(7):  # more requests than the limit of mails
            answers += [await site.post(path, params, kind) for params in PHASES[path](cases).values()]
        shown = [_shown(answer) for answer in answers]
        assert shown == [shown[0]] * len(shown)
        assert answers[0].status_code == 200
        assert "set-cookie" not in answers[0].headers


@pytest.mark.slow
@pytest.mark.parametrize("path", PHASES)
async def test_answers_take_the_same_time(tmp_path: Path, path: str) -> None:
    """EN-2, EN-3, EN-4: on a real server, with interleaved requests, the medians' ratio is within 0.85 and 1.18."""
    async with served(tmp_path, cost=COST) as (site, auth):
        site.headers = await _signed_in(auth) if path.endswith("change_email") else {}
        cases = Cases()
        ratios = await measured(lambda: _ratios(site, path, cases))
    assert are_alike(ratios), ratios


async def _ratios(site: Site, path: str, cases: Cases) -> dict[str, float]:
    spent: dict[str, list[float]] = {}
    for round_ in range(ROUNDS):
        turn = list(PHASES[path](cases).items())
        for name, params in turn[round_ % 3 :] + turn[: round_ % 3]:
            spent.setdefault(name, []).append(await site.seconds(path, params))
    return ratios_to("new", spent)


async def test_limits_reveal_no_account(tmp_path: Path) -> None:
    """An address without an account gets the same answers as one that has used up its mails."""
    auth = confirming(tmp_path, mails=Limit(1, timedelta(days=1)))
    await sign_up(auth)
    for email in (EMAIL, OTHER_EMAIL):
        for _ in range(3):
            assert await actions(auth).resend({"email": email}) == (None, None)
    assert len(auth.sender.messages) == 1
    await auth.close()
