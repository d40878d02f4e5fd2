"""Behind a real nginx: the address of the client and the path of the application (``docs/proxies.md``)."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.gate import GatedBcrypt, Turnstile
from tests.nginx import listen_at, nginx
from tests.other_servers import KINDS, Kind, Running, server_process
from tests.served import application, real_auth
from tests.servers import serving
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PATIENCE,
    Events,
    credentials,
    register,
    registration,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STRANGER, HONEST = "127.0.0.2", "127.0.0.3"
SIGN_IN = "/auth/password/sign_in"
SIGN_IN_BELOW = f"/app{SIGN_IN}"
Browser = httpx.AsyncClient
ROOM = 1 + 32
"""One password that is being hashed, and the number that may wait."""

SET_HEADERS = {
    "x-forwarded-for": "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "forwarded": "proxy_set_header Forwarded $forwarded_for;",
}


def client_at(address: str, url: str) -> Browser:
    """A client with that address."""
    transport = httpx.AsyncHTTPTransport(local_address=address)
    return Browser(base_url=url, timeout=PATIENCE, transport=transport)


class Recorder:
    """An application that records the headers of its last request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.headers: dict[bytes, bytes] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http":
            self.headers = dict(scope["headers"])
        await self._app(scope, receive, send)


@pytest.mark.parametrize("header", SET_HEADERS)
async def test_stranger_cannot_choose_an_address_by_either_header(tmp_path: Path, header: Any) -> None:
    """HT-2: nginx sets one header and passes the other one on unchanged; the client cannot forge its address."""
    auth = real_auth(tmp_path, trusted_proxies=["unix"], forwarded_header=header, add_ons=[events := Events()])
    app = Recorder(application(auth))
    forged = {"x-forwarded-for": "203.0.113.7", "forwarded": "for=203.0.113.8"}
    proxied = f"location / {{ proxy_pass http://unix:{tmp_path}/server.sock; {SET_HEADERS[header]} }}"
    async with (
        serving(app, listening=listen_at(tmp_path / "server.sock")),
        nginx(tmp_path, proxied) as (url,),
        client_at(STRANGER, url) as client,
    ):
        answer = await client.post(SIGN_IN, data=credentials(), headers=forged)

    (other,) = forged.keys() - {header}
    assert app.headers[other.encode()] == forged[other].encode()
    (failed,) = events.take()
    assert (answer.status_code, failed.client.address) == (401, STRANGER)


@pytest.mark.parametrize("header", SET_HEADERS)
async def test_ipv6_address_of_the_client_is_read(tmp_path: Path, header: Any) -> None:
    """HT-2: an IPv6 address is read from the header that the docs let nginx set; Forwarded has brackets and quotes."""
    auth = real_auth(tmp_path, trusted_proxies=["unix"], forwarded_header=header, add_ons=[events := Events()])
    pretend = "set_real_ip_from 127.0.0.0/8; real_ip_header X-Test;"
    proxied = f"{pretend} location / {{ proxy_pass http://unix:{tmp_path}/server.sock; {SET_HEADERS[header]} }}"
    async with (
        serving(application(auth), listening=listen_at(tmp_path / "server.sock")),
        nginx(tmp_path, proxied) as (url,),
        client_at(STRANGER, url) as client,
    ):
        await client.post(SIGN_IN, data=credentials(), headers={"x-test": "2001:db8::7"})

    (failed,) = events.take()
    assert failed.client.address == "2001:db8::7"


async def test_flood_through_a_socket_does_not_starve_other_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HT-2, DO-1: during 60 sign-ins of a stranger behind the same nginx, all eight of another client succeed."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    auth = real_auth(tmp_path, trusted_proxies=["unix"], hasher=(hasher := GatedBcrypt()))
    for address in (EMAIL, OTHER_EMAIL):
        await register(auth, address)
    app = Turnstile(application(auth))
    proxied = f"location / {{ proxy_pass http://unix:{tmp_path}/server.sock; {SET_HEADERS['x-forwarded-for']} }}"
    async with (
        serving(app, listening=listen_at(tmp_path / "server.sock")),
        nginx(tmp_path, proxied) as (url,),
        client_at(STRANGER, url) as stranger,
        client_at(HONEST, url) as honest,
    ):
        hasher.gate.close("verify")
        flood = [asyncio.ensure_future(stranger.post(SIGN_IN, data=credentials())) for _ in range(60)]
        await until(lambda: sum(each.done() for each in flood) == 60 - ROOM)
        wanted = [asyncio.ensure_future(honest.post(SIGN_IN, data=credentials(OTHER_EMAIL))) for _ in range(8)]
        await until(lambda: sum(each.done() for each in [*flood, *wanted]) == 60 - ROOM + 8)
        hasher.gate.open()
        statuses = [(await each).status_code for each in wanted]
        stranger_statuses = [(await each).status_code for each in flood]

    assert statuses == [200] * 8
    assert stranger_statuses.count(200) == ROOM - 8


# --- the path of the application

ROOT_PATH: dict[Kind, str] = {kind: "--root-path=/app" for kind in KINDS} | {"granian": "--url-path-prefix=/app"}
STRIPS = "location /app/ { proxy_pass http://unix:{socket}:/; {header} }"
KEEPS = "location /app/ { proxy_pass http://unix:{socket}; {header} }"


@asynccontextmanager
async def proxied(kind: Kind, app: str, *options: str, directory: Path) -> AsyncIterator[tuple[Running, list[Browser]]]:
    """A server on a UNIX socket and two browsers: nginx strips the prefix for one and keeps it for the other."""
    places = {"{socket}": f"{directory}/server.sock", "{header}": SET_HEADERS["x-forwarded-for"]}
    blocks = [STRIPS, KEEPS]
    for place, value in places.items():
        blocks = [block.replace(place, value) for block in blocks]
    async with (
        server_process(kind, f"tests.proxied_apps:{app}", *options, directory=directory, uds=True) as server,
        nginx(directory, *blocks) as urls,
        AsyncExitStack() as stack,
    ):
        yield server, [await stack.enter_async_context(client_at(STRANGER, url)) for url in urls]


async def visit(browser: Browser, server: Running, email: str) -> dict[str, Any]:
    """Visit everything that contains a path and return what the browser saw."""
    seen: dict[str, Any] = {"address": (await browser.get("/app/address")).text}
    seen["guard"] = location(await browser.get("/app/me?tab=1"))
    await browser.post("/app/auth/password/register", data=registration(email))
    await browser.post("/app/auth/sign_out")
    wanted = parse_qs(urlsplit(seen["guard"]).query)["return_to"][0]
    signed_in = await browser.post(SIGN_IN_BELOW, data={**credentials(email), "return_to": wanted})
    seen["return_to"] = location(signed_in)
    seen["me"] = (await browser.get("/app/me")).text
    await browser.post("/app/auth/password/reset_request", data={"email": email})
    link = await mailed_link(server, email)
    seen["link"] = link.path
    page = await browser.get(f"{link.path}?{link.query}", headers={"Accept": "text/html"})
    [seen["form"]] = re.findall(r'action="([^"]*)"', page.text)
    reset = {**parse_qs(link.query), "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    seen["reset"] = (await browser.post(seen["form"], data=reset)).status_code
    return seen


def location(answer: httpx.Response) -> str:
    return str(answer.headers.get("location", answer.status_code))


async def mailed_link(server: Running, email: str) -> SplitResult:
    """The link in the newest mail to that address; the server prints its mail."""

    def links() -> list[str]:
        printed = server.printed()
        return (
            re.findall(r"http://\S+reset_token=\S+", printed[printed.rindex(f"to {email}:") :])
            if email in printed
            else []
        )

    await until(lambda: bool(links()))
    return urlsplit(links()[-1])


RIGHT = {
    "address": STRANGER,
    "guard": "/app/sign_in?return_to=%2Fapp%2Fme%3Ftab%3D1",
    "return_to": "/app/me?tab=1",
    "me": EMAIL,
    "link": "/app/auth/password/reset",
    "form": "/app/auth/password/reset",
    "reset": 200,
}
LOST = {"guard": "/app/sign_in?return_to=%2Fme%3Ftab%3D1", "return_to": "/me?tab=1"}


@pytest.mark.parametrize("kind", KINDS)
async def test_paths_are_right_if_the_server_knows_the_prefix(kind: Kind, tmp_path: Path) -> None:
    """RD-1: all paths are right whether nginx strips the prefix or keeps it; uvicorn adds a kept prefix twice."""
    async with proxied(kind, "at_the_root", ROOT_PATH[kind], directory=tmp_path) as (server, (stripped, kept)):
        assert await visit(stripped, server, EMAIL) == RIGHT
        if kind == "uvicorn":
            assert (await kept.get("/app/me")).status_code == 404
        else:
            assert await visit(kept, server, OTHER_EMAIL) == {**RIGHT, "me": OTHER_EMAIL}
        assert "root_path" not in server.printed()
        await stripped.post("/app/other/password/sign_in", data=credentials())
        told = "mount_path: the server has root_path /app, and links go to /other: give mount_path='/app/other'"
        await until(lambda: told in server.printed())


@pytest.mark.parametrize("kind", KINDS)
async def test_paths_are_right_below_a_prefix_unless_nginx_strips_it(kind: Kind, tmp_path: Path) -> None:
    """RD-1: an application below the prefix needs no setting; if nginx strips it, the log names the missing one."""
    async with proxied(kind, "in_both_places", directory=tmp_path) as (server, (stripped, kept)):
        assert await visit(kept, server, OTHER_EMAIL) == {**RIGHT, "me": OTHER_EMAIL}
        assert "root_path" not in server.printed()
        assert await visit(stripped, server, EMAIL) == {**RIGHT, **LOST}
        told = "requests come to /auth. If a proxy cuts /app off, give the server root_path /app"
        await until(lambda: told in server.printed())
