"""Two worker processes of one server on one database: a change by one is visible to the other's next request."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_auth.authentication import Authentication
from asgi_auth.senders import ConsoleSender
from asgi_auth.strategies.password import Password, Resettable
from tests.apps import starlette_app
from tests.servers import Served, uvicorn_process
from tests.support import BASE_URL, EMAIL, HASHER, NEW_PASSWORD, PATIENCE, SECRET, credentials, registration
from tests.workers import OnPostgres, OnSQLite, store_of_all

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def make_app() -> ASGIApp:  # pragma: no cover - the workers run it, and a signal ends them
    """The application of every worker; each answer has the worker's process id."""
    resettable = Resettable(sender=ConsoleSender())
    auth = Authentication(
        store=store_of_all(),
        secret=SECRET,
        base_url=BASE_URL,
        strategies=[Password(resettable=resettable)],
        hasher=HASHER,
    )
    inner = starlette_app(auth)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Worker"] = str(os.getpid())
            await send(message)

        await inner(scope, receive, send_signed)

    return app


@asynccontextmanager
async def two_workers(directory: Path) -> AsyncIterator[tuple[Served, httpx.AsyncClient, httpx.AsyncClient]]:
    """The server, started on an empty database, and a connection to each of its workers."""
    options = ("--factory", "--workers", "2", "--timeout-keep-alive", "60")
    async with (
        uvicorn_process("tests.test_workers:make_app", *options, directory=directory) as served,
        AsyncExitStack() as stack,
    ):
        workers = dict[str, httpx.AsyncClient]()
        async with asyncio.timeout(PATIENCE):
            while len(workers) < 2:  # the kernel selects the worker; a connection stays with it
                client = await stack.enter_async_context(served.client())
                response = await client.get("/me")
                workers.setdefault(response.headers["Worker"], client)
        one, other = workers.values()
        yield served, one, other


async def who(client: httpx.AsyncClient, **headers: str) -> str | None:
    """The address of the user that a worker recognises by these headers."""
    response = await client.get("/me", headers=headers)
    email: str | None = response.json()["email"]
    return email


def cookie_of(response: httpx.Response) -> str:
    """The session cookie of an answer, for a Cookie header."""
    return str(response.headers["Set-Cookie"]).partition(";")[0]


async def test_workers_share_their_state(shared: OnSQLite | OnPostgres, tmp_path: Path) -> None:
    """FT-5: a sign-in, a sign-out or a reset at one worker is in force at the other's next request."""
    async with two_workers(tmp_path) as (served, one, other):
        registered = await one.post("/auth/password/register", data=registration())
        cookie = cookie_of(registered)
        assert [await who(worker, Cookie=cookie) for worker in (one, other)] == [EMAIL, EMAIL]

        signed_in = await other.post("/auth/password/sign_in", json=credentials())
        bearer = f"Bearer {signed_in.json()['token']}"
        assert [await who(worker, Authorization=bearer) for worker in (one, other)] == [EMAIL, EMAIL]

        await one.post("/auth/sign_out", headers={"Cookie": cookie})
        assert await who(other, Cookie=cookie) is None
        await other.post("/auth/sign_out", headers={"Authorization": bearer})
        assert await who(one, Authorization=bearer) is None

        await reset_by_mail(served, one, other)


async def reset_by_mail(served: Served, one: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
    """A reset link that one worker mailed works once at the other, and ends the session at the first."""
    cookie = cookie_of(await one.post("/auth/password/sign_in", data=credentials()))
    assert await who(one, Cookie=cookie) == EMAIL
    await one.post("/auth/password/reset_request", data={"email": EMAIL})
    token = await served.printed_after("/auth/password/reset?reset_token=")
    reset = {"reset_token": token, "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}

    assert (await other.post("/auth/password/reset", data=reset)).status_code == 200

    assert await who(one, Cookie=cookie) is None
    assert (await one.post("/auth/password/reset", data=reset)).status_code == 401
    assert (await one.post("/auth/password/sign_in", data=credentials())).status_code == 401
    assert (await one.post("/auth/password/sign_in", data=credentials(password=NEW_PASSWORD))).status_code == 200
