"""A page and its API on different origins, in a real browser: the code in ``docs/single_page.md``."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.browsing import browser
from tests.servers import listen, serving
from tests.support import EMAIL, SECRET, credentials, registration

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = (Path(__file__).parent.parent / "docs" / "single_page.md").read_text("utf-8")
REGISTER, SIGN_IN, SIGN_OUT = "/auth/password/register", "/auth/password/sign_in", "/auth/sign_out"
FAILED = "TypeError: Failed to fetch"
SIGNED_IN = {"status": 200, "body": {"email": EMAIL}}


def shown(language: str) -> str:
    """The code block of the page in this language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(code)


class Visitor:
    """A browser, the API, and the page on a listed and on an unlisted origin."""

    def __init__(self, driver: Chrome, *, listed: str, unlisted: str) -> None:
        self._driver, self.listed, self.unlisted = driver, listed, unlisted

    def open(self, url: str) -> None:
        """Open the page on one of its origins."""
        self._driver.get(url)

    def call(self, path: str, body: object = None) -> Any:
        """Run the page's function ``call`` and return its result, or the text of its error."""
        arguments = "arguments[0]" if body is None else "arguments[0], arguments[1]"
        return self._run(f"call({arguments})", path, body)

    def call_without_credentials(self, path: str) -> Any:
        """The status of a plain ``fetch``."""
        return self._run("fetch(API + arguments[0]).then(answer => answer.status)", path)

    def send_blindly(self, path: str) -> Any:
        """Send a form with the cookie without reading the answer, which every page may do."""
        options = "{method: 'POST', mode: 'no-cors', credentials: 'include', body: new URLSearchParams()}"
        return self._run(f"fetch(API + arguments[0], {options}).then(answer => answer.type)", path)

    def _run(self, promise: str, *arguments: object) -> Any:
        script = f"const done = arguments[arguments.length - 1]; {promise}.then(done, error => done(`${{error}}`))"
        return self._driver.execute_async_script(script, *arguments)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests: every test has its own port for the API."""
    with browser(tmp_path_factory.mktemp("profile"), scripts=True) as driver:
        yield driver


def page_of(api: str) -> Starlette:
    """A server for the page of the documentation."""
    script = shown("js").replace("http://localhost:8000", api)

    async def page(request: Request) -> Response:
        return HTMLResponse(f"<!doctype html><script>{script}</script>")

    return Starlette(routes=[Route("/", page)])


@asynccontextmanager
async def running(driver: Chrome, options: dict[str, str]) -> AsyncIterator[Visitor]:
    """Serve the API and the page. *options*: pieces of the API's code and their replacements."""
    listener, url = listen()
    api = named(url)
    page = page_of(api)
    async with serving(page, lifespan="auto") as listed, serving(page, lifespan="auto") as unlisted:
        code = shown("python").replace("http://localhost:8000", api).replace("http://localhost:5173", named(listed))
        for old, new in options.items():
            assert old in code
            code = code.replace(old, new)
        namespace: dict[str, Any] = {}
        exec(code, namespace)  # noqa: S102  # the project's own page
        async with serving(namespace["app"], listening=(listener, url)):
            yield Visitor(driver, listed=named(listed), unlisted=named(unlisted))


def named(url: str) -> str:
    """The URL with ``localhost`` as its host, so that all origins are on one site."""
    return url.replace("127.0.0.1", "localhost")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code on the page creates its file in the current directory and reads the secret from the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTH_SECRET", SECRET)


async def visit(driver: Chrome, walk: Callable[[Visitor], None], **options: str) -> None:
    """Run *walk* in a thread while the servers answer."""
    async with running(driver, options) as visitor:
        await asyncio.to_thread(walk, visitor)


async def test_page_of_a_listed_origin_signs_in_and_out(driver: Chrome) -> None:
    """CF-1: ``credentials: "include"`` sends the session, a plain ``fetch`` does not; no answer contains a token."""

    def walk(visitor: Visitor) -> None:
        visitor.open(visitor.listed)
        assert visitor.call("/me")["status"] == 401
        registered = visitor.call(REGISTER, registration())
        assert (registered["status"], sorted(registered["body"])) == (200, ["status", "subject"])
        assert visitor.call("/me") == SIGNED_IN
        assert visitor.call_without_credentials("/me") == 401
        assert visitor.call(SIGN_OUT, {})["body"] == {"status": "signed_out"}
        assert visitor.call("/me")["status"] == 401
        wrong = visitor.call(SIGN_IN, credentials(password="not this one"))
        assert (wrong["status"], wrong["body"]["code"]) == (401, "authentication_failed")
        assert visitor.call(SIGN_IN, credentials())["status"] == 200
        assert visitor.call("/me") == SIGNED_IN

    await visit(driver, walk)


async def test_page_of_another_origin_reads_and_changes_nothing(driver: Chrome) -> None:
    """CF-1: the browser hides the answers from a page on an unlisted origin, and the plug refuses its requests."""

    def walk(visitor: Visitor) -> None:
        visitor.open(visitor.listed)
        assert visitor.call(REGISTER, registration())["status"] == 200
        visitor.open(visitor.unlisted)
        assert visitor.call("/me") == FAILED
        assert visitor.call(SIGN_OUT, {}) == FAILED
        assert visitor.send_blindly(SIGN_OUT) == "opaque"
        visitor.open(visitor.listed)
        assert visitor.call("/me") == SIGNED_IN

    await visit(driver, walk)


async def test_each_of_the_two_lists_is_required(driver: Chrome) -> None:
    """CF-1: with CORS alone a sign-in is ``cross_site``; with ``allowed_origins`` alone the script sees no answer."""

    def walk_with_cors(visitor: Visitor) -> None:
        visitor.open(visitor.listed)
        refused = visitor.call(REGISTER, registration())
        assert (refused["status"], refused["body"]["code"]) == (403, "cross_site")

    def walk_without_cors(visitor: Visitor) -> None:
        visitor.open(visitor.listed)
        assert visitor.call(REGISTER, registration()) == FAILED

    await visit(driver, walk_with_cors, **{"allowed_origins=PAGES": "allowed_origins=[]"})
    await visit(driver, walk_without_cors, **{"allow_origins=PAGES": "allow_origins=[]"})
