"""Mail under load: one source's burst drops no mail of others; a process that stops sends accepted mail first."""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from asgi_auth.add_ons.confirmation import Confirmation
from asgi_auth.errors import AuthenticationFailedError
from asgi_auth.runtime.lanes import Outbox
from asgi_auth.senders import MemorySender
from asgi_auth.types import AccessToken, Activity, User
from asgi_auth.web.plug import AuthPlug
from tests.other_servers import WITH_LIFESPAN, Kind, Running, server_process
from tests.served import application
from tests.stormed import DRAIN, SLOW
from tests.support import (
    BASE_URL,
    EMAIL,
    NEW_PASSWORD,
    PASSWORD,
    Events,
    LocalAuthentication,
    credentials,
    mailed_token,
    make_auth,
    register,
    registration,
    until,
)
from tests.workers import resetting

pytestmark = pytest.mark.anyio

MAILS = int(os.environ.get("ASGI_AUTH_STORM", "240"))
CLIENTS = 24
MEMORY = 10 * 1024
"""Kilobytes by which the worker's memory may grow in the second half."""


class Slow(MemorySender):
    """A mail server that sends nothing until the test opens it."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.begun = 0

    async def send(self, user: object, token: str | None, opts: object) -> None:
        self.begun += 1
        await self.open.wait()
        await super().send(user, token, opts)  # type: ignore[arg-type]


def clients(auth: LocalAuthentication, *addresses: str) -> list[httpx.AsyncClient]:
    """One client for each address, behind a proxy."""
    transport = httpx.ASGITransport(application(auth), client=("127.0.0.1", 1))
    return [
        httpx.AsyncClient(transport=transport, base_url=BASE_URL, headers={"X-Forwarded-For": address})
        for address in addresses
    ]


async def test_burst_of_one_source_drops_no_mail_of_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """AU-2, DO-1: a victim's notice and another user's reset mail are sent while a stranger's requests fill a share."""
    sender = Slow()
    auth = make_auth(tmp_path, sender=sender, trusted_proxies=["127.0.0.1"], outbox=Outbox(share=100))
    owned = [f"s{number}@mail.example.org" for number in range(150)]
    for address in ["victim@mail.example.org", "other@mail.example.org", *owned]:
        await auth.accounts.create({"email": address}, password=PASSWORD)
    stranger, victim, other = clients(auth, "198.51.100.66", "203.0.113.1", "203.0.113.2")

    async def ask(client: httpx.AsyncClient, address: str) -> None:
        answer = await client.post("/auth/password/reset_request", data={"email": address})
        assert answer.status_code == 200

    sender.open.set()
    await ask(victim, "victim@mail.example.org")
    token = mailed_token(auth)
    sender.open.clear()
    flood = asyncio.gather(*(ask(stranger, address) for address in owned))
    await until(lambda: sender.begun == 1 + 8)
    changed = asyncio.ensure_future(victim.post("/auth/password/reset", data=resetting(token, NEW_PASSWORD)))
    asked = asyncio.ensure_future(ask(other, "other@mail.example.org"))
    await until(lambda: sender.begun == 1 + 8 + 1)  # the notice does not wait for the stranger's mail
    sender.open.set()
    await asyncio.gather(flood, changed, asked)
    assert changed.result().status_code == 200
    await auth.close()
    sent = [(opts["purpose"], opts["address"]) for _, _, opts in sender.messages]
    assert ("password_changed", "victim@mail.example.org") in sent
    assert ("reset", "other@mail.example.org") in sent
    assert sum(address in owned for _, address in sent) == 8 + 100
    assert "42 mails were dropped: too many wait already" in caplog.text


async def test_cancelled_creation_still_sends_its_mail(tmp_path: Path) -> None:
    """FT-3: a caller that cancels while the mail is sent has created the user, and the mail is still sent."""
    sender = Slow()
    auth = make_auth(tmp_path, sender=sender, add_ons=[Confirmation(sender=sender)])
    creating = asyncio.ensure_future(auth.accounts.create({"email": EMAIL}))
    await until(lambda: sender.begun == 1)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert await auth.accounts.find("email", EMAIL) is not None
    sender.open.set()
    await auth.close()
    assert [opts["address"] for _, _, opts in sender.messages] == [EMAIL]


async def test_task_of_a_callback_may_outlive_its_request(tmp_path: Path) -> None:
    """AU-2: a task that a callback starts and does not await still sends its mail and reports its events."""
    over, tasks, events = asyncio.Event(), list["asyncio.Task[None]"](), Events()
    auth = make_auth(tmp_path, add_ons=[events])
    await register(auth)
    events.take()

    async def later() -> None:
        await over.wait()
        password = auth.strategy("password")
        await password.reset_request({"email": EMAIL})
        with pytest.raises(AuthenticationFailedError):
            await password.sign_in(credentials(password=NEW_PASSWORD))

    class Starting(AuthPlug[User]):
        async def handle_success(
            self, request: Request, activity: Activity, user: User, token: AccessToken
        ) -> Response:
            tasks.append(asyncio.create_task(later()))
            return Response()

    transport = httpx.ASGITransport(Starting(auth))
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        answer = await client.post("/password/sign_in", data=credentials())
    assert answer.status_code == 200
    over.set()
    await asyncio.gather(*tasks)
    assert [opts["purpose"] for _, _, opts in auth.sender.messages] == ["reset"]
    assert [event.name for event in events.take()] == ["sign_in.succeeded", "act.accepted", "act.failed"]
    await auth.close()


def storm(
    directory: Path, *, seconds: float, drain: float, kind: Kind = "uvicorn", options: Sequence[str] = ()
) -> AbstractAsyncContextManager[Running]:
    """A worker whose sender takes *seconds* for a mail; on stop it waits up to *drain* seconds for unsent mail."""
    environment = {SLOW: str(seconds), DRAIN: str(drain)}
    return server_process(kind, "tests.stormed:app", *options, directory=directory, uds=False, **environment)


def mailed(directory: Path) -> list[str]:
    """The addresses that received mail."""
    box = directory / "mails"
    return box.read_text().split() if box.exists() else []


def resident(pid: int) -> int:
    """Kilobytes of memory of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0])


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux shows the memory of a process so")
async def test_storm_of_registrations_loses_no_mail(tmp_path: Path) -> None:
    """AU-2, DO-4: 24 clients register at full speed and a mail takes 0.1 s: each is sent once, memory stays flat."""
    memory = list[int]()
    proxied = ["--no-proxy-headers"]
    async with (
        storm(tmp_path, seconds=0.1, drain=60, options=proxied) as server,
        server.client() as client,
    ):

        async def one_client(number: int) -> None:
            for count in range(MAILS // CLIENTS):
                answer = await client.post(
                    "/auth/password/register",
                    data=registration(f"c{number}n{count}@mail.example.org"),
                    headers={"X-Forwarded-For": f"203.0.113.{number}"},
                )
                assert answer.status_code == 200, answer.text
                if count == MAILS // CLIENTS // 2:
                    memory.append(resident(server.process.pid))

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(one_client(number))
        memory.append(resident(server.process.pid))
        waiting = MAILS - len(mailed(tmp_path))
    assert len(mailed(tmp_path)) == len(set(mailed(tmp_path))) == MAILS
    print(f"{MAILS} mails, {waiting} of them after the last answer; kB resident {memory}")  # noqa: T201  # with -s
    assert memory[-1] <= memory[0] + MEMORY
    assert "dropped" not in server.printed()


@pytest.mark.slow
@pytest.mark.parametrize("kind", WITH_LIFESPAN)
async def test_end_of_a_process_waits_for_accepted_mail(kind: Kind, tmp_path: Path) -> None:
    """AU-2: a server that stops still sends accepted mail; it drops mail that takes too long and logs the count."""
    printed = list[str]()
    for name, seconds, drain, sent in [("waits", 1.0, 60, 20), ("hurries", 600.0, 0, 0)]:
        directory = tmp_path / name
        directory.mkdir()
        async with storm(directory, seconds=seconds, drain=drain, kind=kind) as server, server.client() as client:
            for number in range(20):
                answer = await client.post("/auth/password/register", data=registration(f"n{number}@mail.example.org"))
                assert answer.status_code == 200
            await server.stop()
            printed.append(server.printed())
        assert len(mailed(directory)) == sent
    assert ["dropped" in each for each in printed] == [False, True]
    assert "20 mails were dropped: the application ends" in printed[1]
