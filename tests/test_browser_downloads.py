"""A download link behind the guard, in a real browser: the file that it saves after the session has ended."""

import asyncio
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from asgi_auth.web.guards import require
from asgi_auth.web.middleware import SessionUserMiddleware
from tests.browsing import browser
from tests.servers import serving
from tests.support import PATIENCE, make_auth

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

REDIRECTED, REFUSED = "/redirected.txt", "/refused.txt"
LINKS = f'<!doctype html><a download href="{REDIRECTED}">redirected</a> <a download href="{REFUSED}">refused</a>'


async def page(request: Request) -> Response:
    return HTMLResponse(LINKS)


async def sign_in(request: Request) -> Response:
    return HTMLResponse("the sign-in page")


async def report(request: Request) -> Response:
    return PlainTextResponse("the report")


class Site:
    """A page with two download links, and the headers of the browser's requests for the files."""

    def __init__(self, directory: Path) -> None:
        self.asked: dict[str, tuple[str | None, str | None]] = {}
        """Sec-Fetch-Mode and Sec-Fetch-Dest of each path."""
        auth = make_auth(directory)
        self._app = Starlette(
            routes=[
                Route("/", page),
                Route("/sign_in", sign_in),
                Route(REDIRECTED, require(redirect="/sign_in")(report)),
                Route(REFUSED, require()(report)),
            ],
            middleware=[Middleware(SessionUserMiddleware, auth=auth)],
            lifespan=auth.lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record the request, then pass it on."""
        if scope["type"] == "http":
            headers = Request(scope).headers
            self.asked[scope["path"]] = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
        await self._app(scope, receive, send)


async def test_download_link_saves_the_sign_in_page_if_the_guard_redirects(tmp_path: Path) -> None:
    """The browser requests a download like a page. If the guard does not redirect, it saves nothing."""
    site, saved = Site(tmp_path), tmp_path / "saved"
    saved.mkdir()

    def walk(driver: Chrome, url: str) -> None:
        # The browser may rename a file while the test reads it.
        wait = WebDriverWait(driver, PATIENCE, poll_frequency=0.05, ignored_exceptions=[OSError])
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(saved)})
        driver.get(url)
        driver.find_element(By.LINK_TEXT, "refused").click()
        wait.until(lambda _: REFUSED in site.asked)
        driver.find_element(By.LINK_TEXT, "redirected").click()
        wait.until(lambda _: [file.read_text() for file in saved.iterdir()] == ["the sign-in page"])
        assert not list(saved.glob("refused*"))

    with browser(tmp_path / "profile", scripts=True) as driver:
        async with serving(site) as url:
            await asyncio.to_thread(walk, driver, url)

    assert site.asked[REFUSED] == site.asked[REDIRECTED] == ("navigate", "empty")
