"""The same scenario in every framework, by ASGI calls and over a real server."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from asgi_auth.senders import MemorySender
from asgi_auth.web.plug import AuthPlug
from tests import apps
from tests.asgi import make_scope
from tests.servers import say_hello, serving
from tests.support import (
    BASE_URL,
    EMAIL,
    NEW_PASSWORD,
    PATIENCE,
    LocalAuthentication,
    credentials,
    make_auth,
    registration,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated"),  # FastAPI's; it is still widely used
]

JSON = {"Accept": "application/json"}


class Mailbox(MemorySender):
    """A mailbox that the test can wait for: a server sends mail after the answer."""

    def __init__(self) -> None:
        super().__init__()
        self._links = asyncio.Queue[str]()

    async def send(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        await super().send(user, token, opts)
        if "url" in opts:
            self._links.put_nowait(opts["url"])

    async def link(self) -> str:
        """Wait for the next link."""
        async with asyncio.timeout(PATIENCE):
            return await self._links.get()


@dataclass(frozen=True)
class Case:
    """One way to mount the plug. All paths are public paths, as the browser uses them."""

    build: Callable[[LocalAuthentication], Any]
    prefix: str = ""
    """The path of the application."""
    mount_path: str = "/auth"
    stripped: str = ""
    """The prefix that a proxy removes."""
    lifespan: Literal["on", "auto"] = "on"
    """``auto`` if the application does not support it."""


CASES = {
    "starlette": Case(apps.starlette_app),
    "starlette-nested": Case(apps.nested_starlette_app, mount_path="/v1/auth"),
    "fastapi": Case(apps.fastapi_app),
    "fastapi-proxy-strips": Case(
        partial(apps.fastapi_app, root_path="/api"), prefix="/api", mount_path="/api/auth", stripped="/api"
    ),
    "fastapi-proxy-keeps": Case(partial(apps.fastapi_app, root_path="/api"), prefix="/api", mount_path="/api/auth"),
    "litestar": Case(apps.litestar_app),
    "plug-around-quart": Case(apps.plug_around_quart),
    "quart-with-plug": Case(apps.quart_with_plug),
    "bare": Case(apps.bare_app, lifespan="auto"),
}
SERVED = ["starlette", "fastapi", "litestar", "quart-with-plug", "bare"]


@dataclass
class Site:
    """A running application and its address."""

    case: Case
    url: str
    hello: Callable[[str, dict[str, str]], Awaitable[str | int]]
    mailbox: Mailbox
    transport: httpx.AsyncBaseTransport | None = None

    def client(self, **headers: str) -> httpx.AsyncClient:
        """A new client with its own cookies."""
        return httpx.AsyncClient(transport=self.transport, headers=headers, timeout=PATIENCE)

    def at(self, public: str) -> str:
        """The URL of a public path, as the server receives it."""
        return self.url + public.removeprefix(self.case.stripped)

    def auth(self, path: str) -> str:
        """The URL of a path below the plug."""
        return self.at(f"{self.case.mount_path}/{path}")

    async def who(self, client: httpx.AsyncClient, **headers: str) -> Any:
        """The answer of ``/me``."""
        response = await client.get(self.at(self.case.prefix + "/me"), headers=headers)
        assert response.status_code == 200
        return response.json()

    async def on_websocket(self, path: str, headers: dict[str, str]) -> str | int:
        """The first message of a websocket, or the status that refused it."""
        return await self.hello(self.at(self.case.prefix + path), headers)


ANONYMOUS: dict[str, Any] = {"email": None, "scopes": []}
BY_COOKIE = {"email": EMAIL, "scopes": ["authenticated", "session", "user"]}
BY_BEARER = {"email": EMAIL, "scopes": ["authenticated", "bearer", "user"]}


async def play(site: Site) -> None:
    """Run the whole scenario of a user and a stranger, in order."""
    async with site.client(Origin=BASE_URL) as browser, site.client(**JSON) as script:
        assert await site.who(script) == ANONYMOUS
        await register_in(browser, site)
        bearer = await sign_in_from(script, site)
        await be_refused(script, site)
        await lose_the_way(script, site)
        await send_too_much(script, site)
        await open_websockets(browser, site)
        await reset_password(browser, site, bearer)
        await sign_out_of(browser, site)


async def register_in(browser: httpx.AsyncClient, site: Site) -> None:
    response = await browser.post(site.auth("password/register"), data=registration())

    assert (response.status_code, response.text) == (200, "Access granted")
    assert await site.who(browser) == BY_COOKIE


async def sign_in_from(script: httpx.AsyncClient, site: Site) -> str:
    response = await script.post(site.auth("password/sign_in/"), json=credentials())  # a trailing slash is accepted

    assert response.status_code == 200
    assert "set-cookie" not in response.headers
    bearer = f"Bearer {response.json()['token']}"
    assert await site.who(script, Authorization=bearer) == BY_BEARER
    return bearer


async def be_refused(script: httpx.AsyncClient, site: Site) -> None:
    response = await script.post(site.auth("password/sign_in"), json=credentials(password="not this one"))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    assert response.json()["code"] == "authentication_failed"


async def lose_the_way(script: httpx.AsyncClient, site: Site) -> None:
    unknown = await script.post(site.auth("password/nonsense"), json=credentials())
    wrong_method = await script.put(site.auth("password/sign_in"))

    assert unknown.status_code == 404
    assert unknown.headers["Content-Type"] == "application/problem+json"
    assert unknown.json()["code"] == "route_not_found"
    assert (wrong_method.status_code, wrong_method.headers["Allow"]) == (405, "GET, HEAD, POST")
    await misspell(script, site)


MISSPELT = [
    "/password//sign_in",
    "//password/sign_in",
    "/password%2fsign_in",
    "/password/sign%5Fin",
    "/password/sign_in;x",
    "/password/sign_in//",
    "/%2e%2e/auth/password/sign_in",
    "/Password/sign_in",
    "/password/sign_in%00",
]


async def misspell(script: httpx.AsyncClient, site: Site) -> None:
    """RP-6: a path has one spelling; another spelling is neither served nor redirected with the body."""
    mount = site.at(site.case.mount_path)
    encoded = site.at(site.case.mount_path.replace("/auth", "/%61uth"))
    doubled = site.at(site.case.mount_path.replace("/auth", "//auth"))
    for url in [*(mount + path for path in MISSPELT), f"{encoded}/password/sign_in", f"{doubled}/password/sign_in"]:
        response = await script.post(url, json=credentials())

        assert (url, response.status_code) == (url, 404)


async def send_too_much(script: httpx.AsyncClient, site: Site) -> None:
    announced = await script.post(site.auth("password/sign_in"), content=b"x" * 65_537)
    streamed = await script.post(site.auth("password/sign_in"), content=pieces(65))

    assert announced.status_code == 413
    assert streamed.status_code == 413


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 1024


async def open_websockets(browser: httpx.AsyncClient, site: Site) -> None:
    """WS-1: the cookie is accepted from listed origins only."""
    ours = {"Cookie": f"user_session={browser.cookies['user_session']}", "Origin": BASE_URL}
    foreign = ours | {"Origin": "https://evil.example"}

    assert await site.on_websocket("/hello", ours) == EMAIL
    assert await site.on_websocket("/mine", ours) == EMAIL
    assert await site.on_websocket("/hello", foreign) == "None"
    assert await site.on_websocket("/mine", foreign) == 403


async def reset_password(browser: httpx.AsyncClient, site: Site, bearer: str) -> None:
    """The mailed link opens a page; its form sets the password and ends every session."""
    await browser.post(site.auth("password/reset_request"), data={"email": EMAIL})
    link = await site.mailbox.link()
    assert link.startswith(f"{BASE_URL}{site.case.mount_path}/password/reset?reset_token=")
    page = await browser.get(site.at(link.removeprefix(BASE_URL)))
    assert page.status_code == 200
    assert await site.who(browser) == BY_COOKIE  # the page changed nothing

    form = re.search(r'action="(.*?)".*name="reset_token" value="(.*?)"', page.text, re.DOTALL)
    assert form is not None
    passwords = {"password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    answer = await browser.post(site.at(form[1]), data={"reset_token": form[2], **passwords})

    assert answer.status_code == 200
    assert await site.who(browser) == ANONYMOUS
    async with site.client() as script:
        assert await site.who(script, Authorization=bearer) == ANONYMOUS


async def sign_out_of(browser: httpx.AsyncClient, site: Site) -> None:
    """SE-4: a copy of the cookie is rejected after the sign-out."""
    await browser.post(site.auth("password/sign_in"), data=credentials(password=NEW_PASSWORD))
    copy = f"user_session={browser.cookies['user_session']}"
    assert await site.who(browser) == BY_COOKIE

    response = await browser.post(site.auth("sign_out"))

    assert response.status_code == 200
    assert "user_session" not in browser.cookies
    async with site.client() as thief:
        assert await site.who(thief, Cookie=copy) == ANONYMOUS


# --- by ASGI calls


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_scenario_works_by_asgi_calls(case: Case, tmp_path: Path) -> None:
    """In every framework, without lifespan events: the store opens at the first request."""
    auth = make_auth(tmp_path, sender=(mailbox := Mailbox()), mount_path=case.mount_path)
    app = case.build(auth)
    try:
        await play(Site(case, BASE_URL, partial(hello_by_asgi, app), mailbox, httpx.ASGITransport(app)))
    finally:
        await auth.close()


async def hello_by_asgi(app: Any, url: str, headers: dict[str, str]) -> str | int:
    """Like ``say_hello``, without a server; it stays connected until the application closes, as a browser does."""
    scope = make_scope("GET", url.removeprefix(BASE_URL), headers, type="websocket", scheme="ws", subprotocols=[])
    del scope["method"]
    incoming, sent, over = [{"type": "websocket.connect"}], list[Any](), asyncio.Event()

    async def receive() -> Any:
        if incoming:
            return incoming.pop()
        await over.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "websocket.close":
            over.set()

    await app(scope, receive, send)
    return next((message["text"] for message in sent if message["type"] == "websocket.send"), 403)


# --- over a real server


@pytest.mark.parametrize("root_path", ["", "/api"], ids=["at-the-root", "root-path"])
@pytest.mark.parametrize("name", SERVED)
async def test_scenario_works_over_uvicorn(name: str, root_path: str, tmp_path: Path) -> None:
    """Over a real server, also with ``--root-path``: uvicorn restores the prefix that a proxy has removed."""
    case = replace(CASES[name], prefix=root_path, mount_path=f"{root_path}/auth", stripped=root_path)
    auth = make_auth(tmp_path, sender=(mailbox := Mailbox()), mount_path=case.mount_path)
    try:
        async with serving(case.build(auth), lifespan=case.lifespan, root_path=root_path) as url:
            await play(Site(case, url, say_hello, mailbox))
            await send_odd_targets(url, case)
    finally:
        await auth.close()


async def send_odd_targets(url: str, case: Case) -> None:
    """RP-6: request targets that clients usually normalise are sent unchanged and not served."""
    mount = case.mount_path.removeprefix(case.stripped)
    odd = [f"{mount}/../auth/password/sign_in", f"{mount}/./password/sign_in", f"{url}{mount}/password/sign_in"]
    async with httpx.AsyncClient() as client:
        for target in odd:
            sent = await client.post(
                url, json=credentials(password=NEW_PASSWORD), extensions={"target": target.encode()}
            )

            assert (target, sent.status_code) == (target, 404)


# --- starting and ending


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """A server's part of the lifespan protocol."""
    incoming, sent = asyncio.Queue[Any](), asyncio.Queue[Any]()
    running = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, incoming.get, sent.put))
    incoming.put_nowait({"type": "lifespan.startup"})
    assert await sent.get() == {"type": "lifespan.startup.complete"}
    yield
    incoming.put_nowait({"type": "lifespan.shutdown"})
    assert await sent.get() == {"type": "lifespan.shutdown.complete"}
    await running


LIFESPANS: dict[str, Callable[[LocalAuthentication], Any]] = {
    "starlette-lifespan": apps.starlette_app,
    "starlette-middlewares": partial(apps.starlette_app, lifespan=False),
    "fastapi": apps.fastapi_app,
    "litestar": apps.litestar_app,
    "plug-around-quart": apps.plug_around_quart,
    "quart-with-plug": apps.quart_with_plug,
    "plug-alone": AuthPlug,
}


@pytest.mark.parametrize("build", LIFESPANS.values(), ids=LIFESPANS)
async def test_lifespan_opens_and_closes_the_store(build: Callable[[LocalAuthentication], Any], tmp_path: Path) -> None:
    """Several parts may receive the lifespan events; the store is open between startup and shutdown, then closed."""
    app = build(make_auth(tmp_path))

    async with lifespan(app):
        assert (tmp_path / "app.db-wal").exists()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE_URL) as client:
            response = await client.post("/auth/password/register", data=registration())
        assert response.status_code == 200

    assert os.listdir(tmp_path) == ["app.db"]
