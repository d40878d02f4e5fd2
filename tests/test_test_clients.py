"""Test clients that call an https application over http: they do not send the cookie, and the log says why."""

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import to_thread
from litestar.testing import AsyncTestClient as LitestarClient

from asgi_auth.web.clients import is_insecure_test
from asgi_auth.web.plug import AuthPlug
from tests import apps
from tests.support import EMAIL, LocalAuthentication, credentials, make_auth, register

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`")]

HTTPS = "https://site.example"
SIGN_IN, ME = "/auth/password/sign_in", "/me"
WARNING = (
    "the test client will not send the cookie of this answer back: base_url is https://site.example, so the cookie is "
    "Secure, and the client asks over http. Give the client that address: "
    'TestClient(app, base_url="https://site.example")'
)

Seen = list[str | None]
"""The address that ``/me`` returns after each of two sign-ins."""
Visit = Callable[[LocalAuthentication, str], Awaitable[Seen]]


async def visit(client: Any) -> Seen:
    """Sign in twice with a client that has httpx's interface."""
    seen = []
    for _ in range(2):
        assert (await client.post(SIGN_IN, data=credentials())).status_code == 200
        seen.append((await client.get(ME)).json()["email"])
    return seen


async def by_starlette(auth: LocalAuthentication, url: str) -> Seen:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of its own imports
        from starlette.testclient import TestClient

    client = TestClient(apps.starlette_app(auth, lifespan=False), base_url=url)
    seen = []
    for _ in range(2):
        assert (await to_thread.run_sync(lambda: client.post(SIGN_IN, data=credentials()))).status_code == 200
        seen.append((await to_thread.run_sync(client.get, ME)).json()["email"])
    return seen


async def by_litestar(auth: LocalAuthentication, url: str) -> Seen:
    async with LitestarClient(apps.litestar_app(auth), base_url=url) as client:
        return await visit(client)


async def by_httpx(auth: LocalAuthentication, url: str) -> Seen:
    transport = httpx.ASGITransport(apps.starlette_app(auth))
    async with httpx.AsyncClient(transport=transport, base_url=url) as client:
        return await visit(client)


CLIENTS = {
    "starlette": (by_starlette, "http://testserver"),
    "litestar": (by_litestar, "http://testserver.local"),
    "httpx": (by_httpx, "http://test"),
}
"""Each client with its default URL; for httpx the one in its documentation."""


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication on https with one user."""
    auth = make_auth(tmp_path, base_url=HTTPS)
    async with auth.running():
        await register(auth)
        yield auth


@pytest.mark.parametrize(("sign_in", "url"), CLIENTS.values(), ids=CLIENTS)
async def test_warning_explains_the_missing_cookie_on_http(
    auth: LocalAuthentication, caplog: pytest.LogCaptureFixture, sign_in: Visit, url: str
) -> None:
    """With its default URL no client sends the Secure cookie; one warning names the right URL."""
    assert await sign_in(auth, url) == [None, None]
    assert caplog.messages.count(WARNING) == 1


@pytest.mark.parametrize("sign_in", [each for each, _ in CLIENTS.values()], ids=CLIENTS)
async def test_client_on_https_sends_its_cookie(
    auth: LocalAuthentication, caplog: pytest.LogCaptureFixture, sign_in: Visit
) -> None:
    """With the public URL every client sends the cookie, and there is no warning."""
    assert await sign_in(auth, HTTPS) == [EMAIL, EMAIL]
    assert WARNING not in caplog.messages


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        pytest.param("http://site.example", {}, id="proxy-ends-tls"),
        pytest.param("http://test", {"Accept": "application/json"}, id="script-gets-a-token"),
    ],
)
async def test_proxy_and_script_get_no_warning(
    auth: LocalAuthentication, caplog: pytest.LogCaptureFixture, url: str, headers: dict[str, str]
) -> None:
    """A request over http with the public host comes from a proxy; a script does not use the cookie."""
    transport = httpx.ASGITransport(AuthPlug(auth))
    async with httpx.AsyncClient(transport=transport, base_url=url, headers=headers) as client:
        answer = await client.post(SIGN_IN.removeprefix("/auth"), data=credentials())

    assert answer.status_code == 200
    assert WARNING not in caplog.messages


def test_missing_scheme_is_http() -> None:
    """The key is optional in ASGI; without it the scheme is http and the answer does not fail."""
    assert is_insecure_test({"type": "http", "headers": [], "client": ("testclient", 50000)})
    assert not is_insecure_test({"type": "http", "headers": [], "client": ("192.0.2.1", 50000)})
