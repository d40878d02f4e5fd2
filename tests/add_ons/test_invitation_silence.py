"""The answers of a real server do not reveal to an inviter whether an account exists (IN-3)."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_auth.authentication import utc_now
from asgi_auth.limits import Limit
from asgi_auth.senders import MemorySender
from tests.add_ons.inviting import admin_of, invitations, make_inviting, member_of, newest_token
from tests.gate import Turnstile
from tests.served import application
from tests.servers import serving
from tests.support import EMAIL, OTHER_EMAIL, PATIENCE, LocalAuthentication
from tests.timing import are_alike, measured, ratios_to

pytestmark = pytest.mark.anyio

ROUNDS = 25


class SlowSender(MemorySender):
    """Waits until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def send(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        """Keep one message as soon as the test allows it."""
        async with asyncio.timeout(PATIENCE):
            await self.go_on.wait()
        await super().send(user, token, opts)


class Site:
    """The admin's client."""

    def __init__(self, auth: LocalAuthentication, client: httpx.AsyncClient, turnstile: Turnstile) -> None:
        self.auth, self._client, self._turnstile = auth, client, turnstile

    async def post(self, phase: str, params: Mapping[str, str]) -> httpx.Response:
        """Send one request."""
        return await self._client.post(f"/auth/invitation/{phase}", data=dict(params))

    async def quiet(self) -> None:
        """Wait until the jobs of every request have ended; only the lifespan stays."""
        await self._turnstile.until(lambda: self._turnstile.entered - self._turnstile.left <= 1)

    async def seconds(self, phase: str, params: Mapping[str, str]) -> float:
        """Return the processor time of one request, of client and server together: they share this process."""
        began = time.process_time()
        answer = await self.post(phase, params)
        spent = time.process_time() - began
        assert answer.status_code == 200
        await self.quiet()
        return spent


@asynccontextmanager
async def served(directory: Path, sender: MemorySender | None = None, **invitation: Any) -> AsyncIterator[Site]:
    """An application on a real server: Alice has an account."""
    limit, microsecond = Limit(10_000, timedelta(days=1)), timedelta(microseconds=1)
    chosen = {"per_inviter": limit, "per_address": limit, "resend_after": microsecond, "sent_at_most": 10_000}
    auth = make_inviting(directory, sender=sender, clock=utc_now, invitation={**chosen, **invitation})
    turnstile = Turnstile(application(auth))
    async with serving(turnstile) as url:
        await member_of(auth)
        headers = {"Host": "localhost:8000", "Authorization": f"Bearer {await auth.sign_in(await admin_of(auth))}"}
        async with httpx.AsyncClient(base_url=url, headers=headers) as client:
            yield Site(auth, client, turnstile)


async def test_answers_do_not_wait_for_the_mail(tmp_path: Path) -> None:
    """IN-3: with a slow mail server, the answers arrive before the mails are sent and are all the same."""
    sender = SlowSender()
    async with served(tmp_path, sender) as site:
        answers = [await site.post("invite", {"email": email}) for email in (EMAIL, OTHER_EMAIL)]
        assert sender.messages == []
        sender.go_on.set()
        await site.quiet()
        assert sorted(opts["registered"] for _, _, opts in sender.messages) == [False, True]

    shown = [(answer.status_code, answer.content, _headers(answer)) for answer in answers]
    assert shown[0] == shown[1]
    assert newest_token(site.auth) not in answers[1].text


def _headers(answer: httpx.Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in answer.headers.multi_items() if name != "date"]


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["invite", "resend"])
async def test_answers_take_the_same_time(tmp_path: Path, phase: str) -> None:
    """IN-3: on a real server, the medians' ratio of registered and unknown addresses is within 0.85 and 1.18."""
    async with served(tmp_path) as site:
        tries = count()
        ratios = await measured(lambda: _ratios(site, phase, next(tries)))
    assert are_alike(ratios), ratios


async def _ratios(site: Site, phase: str, try_: int) -> dict[str, float]:
    """Send fifty invitations or repeated mails, half of them to existing accounts."""
    spent: dict[str, list[float]] = {"known": [], "stranger": []}
    for round_ in range(ROUNDS):
        for registered in (True, False) if round_ % 2 else (False, True):
            name = "known" if registered else "stranger"
            email = f"{name}{try_}x{round_:02}@mail.example.org"
            if registered:
                await member_of(site.auth, email)
            params = {"email": email}
            if phase == "resend":
                await site.post("invite", params)
                await site.quiet()
                [params] = [{"id": each.id} for each in await invitations(site.auth) if each.email == email]
            spent[name].append(await site.seconds(phase, params))
    return ratios_to("stranger", spent)
