"""Copies of signed-in pages in a real browser: for the back button, prefetched, prerendered, and static files."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from asgi_auth.phases import Challenge, Outcome, Phase, PhaseRequest
from asgi_auth.strategies.password import Password
from asgi_auth.types import User
from asgi_auth.web.middleware import SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.browsing import browser
from tests.servers import serving
from tests.support import EMAIL, OTHER_EMAIL, PATIENCE, LocalAuthentication, credentials, make_auth, register

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CACHING = Path(__file__).parent.parent / "docs" / "middleware.md"
NOBODY = "nobody"
SECRET, CALLBACK = "/secret", "/auth/flow/callback"


class _Flow:
    """A strategy with a callback by GET, like the callback of a provider."""

    name, factor, phases = "flow", "flow", ()

    def __init__(self) -> None:
        self.runs = 0

    def bind(self, services: Any) -> "_Flow":
        self.phases = [Phase(name="callback", methods=frozenset({"GET"}), handle=self._handle)]  # type: ignore[assignment]
        return self

    async def _handle(self, request: PhaseRequest) -> Outcome:
        self.runs += 1
        return Challenge({"runs": self.runs})


class Site:
    """An application with its own pages and a record of all requests."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.flow, self.seen = _Flow(), list[tuple[str, int, str | None]]()
        self.auth: LocalAuthentication = make_auth(directory, strategies=[Password(), self.flow])
        self._plug: AuthPlug[User] = AuthPlug(self.auth)
        self.script = ""
        files = directory / "files"
        files.mkdir()
        (files / "site.js").write_text("document.title = 'scripted'")
        self._app = Starlette(
            routes=[
                Route("/hub", self._hub),
                Route(SECRET, self._secret),
                Route("/leave", self._leave, methods=["POST"]),
                Mount("/files", StaticFiles(directory=files)),
                Mount("/auth", self._plug),
            ],
            middleware=[Middleware(SessionUserMiddleware, auth=self.auth, **options)],
            lifespan=self.auth.lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record the path, the status and Sec-Purpose of a request after its answer."""
        status = 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self._app(scope, receive, send_noting)
        if scope["type"] == "http":
            purpose = dict(scope["headers"]).get(b"sec-purpose")
            self.seen.append((scope["path"], status, None if purpose is None else purpose.decode()))

    def times(self, path: str, *, ahead: bool = False) -> int:
        """How often a path was requested, by the user or (*ahead*) by prefetching."""
        return sum(seen == path and (purpose is not None) == ahead for seen, _, purpose in self.seen)

    async def _hub(self, request: Request) -> Response:
        kind, url = request.query_params.get("ahead"), request.query_params.get("url", SECRET)
        rules = json.dumps({kind: [{"urls": [url], "eagerness": "immediate"}]})
        ahead = {
            None: "",
            "link": f'<link rel="prefetch" href="{url}">',
        }.get(kind, f'<script type="speculationrules">{rules}</script>')
        return self._page(request, f'{ahead}<a href="{url}">go</a>')

    async def _secret(self, request: Request) -> Response:
        return self._page(request, "")

    def _page(self, request: Request, body: str) -> Response:
        user = request.user.email or NOBODY
        forms = "".join(
            f'<form method="post" action="{path}"><button id="{name}">out</button></form>'
            for name, path in (("plug", "/auth/sign_out"), ("own", "/leave"))
        )
        scripts = f'<script src="/files/site.js"></script><script>{self.script}</script>'
        return HTMLResponse(f"<!doctype html>{scripts}<h1>{user}</h1>{body}{forms}")

    async def _leave(self, request: Request) -> Response:
        response = PlainTextResponse("Goodbye")
        await self._plug.clear_session(request, response)
        return response


@asynccontextmanager
async def running(directory: Path, **options: Any) -> AsyncIterator[tuple[Site, str]]:
    """Serve the application with two users; yield it and its URL."""
    site = Site(directory, **options)
    for email in (EMAIL, OTHER_EMAIL):
        await register(site.auth, email)
    async with serving(site) as url:
        yield site, url


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests: every test has its own origin."""
    with browser(tmp_path_factory.mktemp("profile"), scripts=True) as driver:
        yield driver


def until(driver: Chrome, done: Callable[[], object]) -> None:
    """Wait until *done* returns a true value; between two pages there is a moment without a page."""
    wait = WebDriverWait(driver, PATIENCE, poll_frequency=0.02, ignored_exceptions=[WebDriverException])
    wait.until(lambda _: done())


def user(driver: Chrome) -> str:
    """The user that the page shows."""
    return driver.find_element(By.TAG_NAME, "h1").text


def is_at(driver: Chrome, path: str) -> Callable[[], bool]:
    """A function that tells whether the browser shows the page at *path*."""
    return lambda: path in driver.current_url and bool(driver.find_element(By.TAG_NAME, "body").text)


def send(driver: Chrome, path: str, **form: str) -> None:
    """Post with a script, so that the browser stays on the page and keeps its prefetched pages."""
    script = "const [path, form, done] = arguments; fetch(path, {method: 'POST', body: new URLSearchParams(form)})"
    driver.execute_async_script(f"{script}.then(answer => answer.text()).then(done)", path, form)


def sign_in(driver: Chrome, email: str = EMAIL) -> None:
    """Sign in, so that the browser gets the cookie."""
    send(driver, "/auth/password/sign_in", **credentials(email))


@pytest.mark.parametrize("button", ["plug", "own"])
async def test_back_button_shows_no_signed_in_page_after_a_sign_out(
    tmp_path: Path, driver: Chrome, button: Literal["plug", "own"]
) -> None:
    """SE-4, SE-15: after the plug's sign-out and after the application's sign-out with ``clear_session``."""

    def walk(url: str) -> None:
        driver.get(f"{url}/hub")
        sign_in(driver)
        driver.get(f"{url}{SECRET}")
        assert user(driver) == EMAIL
        driver.get(f"{url}/hub?again")
        assert user(driver) == EMAIL
        driver.find_element(By.ID, button).click()
        until(driver, lambda: "You are signed out" in driver.page_source or "Goodbye" in driver.page_source)
        for path in ("/hub?again", SECRET):
            driver.back()
            until(driver, is_at(driver, path))
            assert user(driver) == NOBODY

    async with running(tmp_path) as (_, url):
        await asyncio.to_thread(walk, url)


async def test_private_pages_are_restored_by_the_back_button(tmp_path: Path, driver: Chrome) -> None:
    """SE-15: with ``cache_control="private"`` the back button sends no request, even after a sign-out."""

    def walk(site: Site, url: str) -> None:
        driver.get(f"{url}/hub")
        sign_in(driver)
        driver.get(f"{url}{SECRET}")
        driver.get(f"{url}/hub?again")
        send(driver, "/auth/sign_out")
        driver.back()
        until(driver, is_at(driver, SECRET))
        assert user(driver) == EMAIL
        assert site.times(SECRET) == 1

    async with running(tmp_path, cache_control="private") as (site, url):
        await asyncio.to_thread(walk, site, url)


async def test_self_reloading_page_shows_no_signed_in_copy(tmp_path: Path, driver: Chrome) -> None:
    """SE-4: the documented script for private pages works."""
    (shown,) = re.findall(
        r"^```html\n<script>(.*?)</script>\n^```", CACHING.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )

    def walk(url: str) -> None:
        driver.get(f"{url}/hub")
        sign_in(driver)
        driver.get(f"{url}{SECRET}")
        driver.get(f"{url}/hub?again")
        send(driver, "/auth/sign_out")
        driver.back()
        until(driver, lambda: is_at(driver, SECRET)() and user(driver) == NOBODY)

    async with running(tmp_path, cache_control="private") as (site, url):
        site.script = shown
        await asyncio.to_thread(walk, url)


@pytest.mark.parametrize("kind", ["prefetch", "prerender"])
@pytest.mark.parametrize("who", [NOBODY, OTHER_EMAIL])
async def test_prefetched_page_is_not_shown_after_the_session_has_ended(
    tmp_path: Path, driver: Chrome, kind: str, who: str
) -> None:
    """SE-4: the copy is shown only until a sign-out or the sign-in of another user; until then without a request."""

    def walk(site: Site, url: str) -> None:
        driver.get(f"{url}/hub")
        sign_in(driver)
        look_ahead(site, url, times=1)
        driver.find_element(By.LINK_TEXT, "go").click()
        until(driver, is_at(driver, SECRET))
        assert (user(driver), site.times(SECRET)) == (EMAIL, 0)

        look_ahead(site, url, times=2)
        if who == NOBODY:
            send(driver, "/auth/sign_out")
        else:
            sign_in(driver, who)
        driver.find_element(By.LINK_TEXT, "go").click()
        until(driver, is_at(driver, SECRET))
        assert (user(driver), site.times(SECRET)) == (who, 1)

    def look_ahead(site: Site, url: str, *, times: int) -> None:
        driver.get(f"{url}/hub?ahead={kind}")
        until(driver, lambda: site.times(SECRET, ahead=True) == times)

    async with running(tmp_path) as (site, url):
        await asyncio.to_thread(walk, site, url)


async def test_linked_prefetch_is_not_shown_after_a_sign_out(tmp_path: Path, driver: Chrome) -> None:
    """SE-4, SE-15: ``<link rel="prefetch">`` uses the cache, which stores no signed-in page."""

    def walk(site: Site, url: str) -> None:
        driver.get(f"{url}/hub")
        sign_in(driver)
        driver.get(f"{url}/hub?ahead=link")
        until(driver, lambda: site.times(SECRET, ahead=True))
        send(driver, "/auth/sign_out")
        driver.find_element(By.LINK_TEXT, "go").click()
        until(driver, is_at(driver, SECRET))
        assert user(driver) == NOBODY

    async with running(tmp_path) as (site, url):
        await asyncio.to_thread(walk, site, url)


async def test_script_of_signed_in_pages_is_loaded_once(tmp_path: Path, driver: Chrome) -> None:
    """SE-15: on every later page the browser revalidates the script and the answer is 304 without a body."""

    def walk(url: str) -> None:
        driver.get(f"{url}/hub")
        sign_in(driver)
        for page in ("/hub", SECRET, "/hub"):
            driver.get(f"{url}{page}")
            assert driver.title == "scripted"

    async with running(tmp_path) as (site, url):
        await asyncio.to_thread(walk, url)

    statuses = [status for path, status, _ in site.seen if path == "/files/site.js"]
    assert statuses[:2].count(200) >= 1
    assert set(statuses[2:]) == {304}


@pytest.mark.parametrize("kind", ["prefetch", "prerender", "link"])
async def test_prefetched_callback_runs_when_it_is_opened(tmp_path: Path, driver: Chrome, kind: str) -> None:
    """CF-3: the plug refuses a prefetch of a callback; the browser sends the request again when the user opens it."""

    def walk(site: Site, url: str) -> None:
        driver.get(f"{url}/hub?ahead={kind}&url={CALLBACK}")
        until(driver, lambda: site.times(CALLBACK, ahead=True))
        assert site.flow.runs == 0
        driver.find_element(By.LINK_TEXT, "go").click()
        until(driver, is_at(driver, CALLBACK))
        assert '"runs":1' in driver.page_source

    async with running(tmp_path) as (site, url):
        await asyncio.to_thread(walk, site, url)
