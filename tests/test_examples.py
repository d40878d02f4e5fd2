"""Every example, run as its first lines document: uvicorn, an empty directory, ``AUTH_SECRET``."""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import Served, uvicorn_process
from tests.support import BASE_URL, EMAIL, NEW_PASSWORD, OTHER_EMAIL, PASSWORD, credentials, registration

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

EXAMPLES = Path(__file__).parent.parent / "examples"
JSON = {"Accept": "application/json"}
WRONG = credentials(password="not this one")


def run(name: str, directory: Path) -> AbstractAsyncContextManager[Served]:
    """The example under uvicorn, in an empty directory."""
    return uvicorn_process(f"{name}:app", "--app-dir", str(EXAMPLES), directory=directory)


@asynccontextmanager
async def visit(name: str, directory: Path, **headers: str) -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:
    """The example, and a client with these headers."""
    async with run(name, directory) as served, served.client(headers=headers) as client:
        yield served, client


async def status_of(client: httpx.AsyncClient, path: str, **headers: str) -> int:
    response = await client.get(path, headers=headers)
    return response.status_code


async def test_quickstart_serves_a_browser(tmp_path: Path) -> None:
    """The user registers, opens /me and signs out; then a copy of the cookie is rejected."""
    async with visit("quickstart", tmp_path, Origin=BASE_URL) as (served, browser):
        registered = await browser.post("/auth/password/register", data=registration())
        assert (registered.status_code, registered.headers["Location"]) == (303, "/me")
        assert (await browser.get("/me")).json() == {"email": EMAIL}
        copy = f"user_session={browser.cookies['user_session']}"

        assert (await browser.post("/auth/sign_out")).status_code == 200
        assert await status_of(browser, "/me") == 403
        assert await status_of(browser, "/me", Cookie=copy) == 403

        assert (await browser.post("/auth/password/sign_in", data=WRONG)).status_code == 401
        await reset_by_mail(served, browser)
        assert (await browser.post("/auth/password/sign_in", data=credentials())).status_code == 401
        signed_in = await browser.post(
            "/auth/password/sign_in?return_to=/me%3Fa", data=credentials(password=NEW_PASSWORD)
        )
        assert (signed_in.status_code, signed_in.headers["Location"]) == (303, "/me?a")
    assert (tmp_path / "app.db").exists()


async def reset_by_mail(served: Served, browser: httpx.AsyncClient) -> None:
    """Open the printed link and set a new password on its page."""
    await browser.post("/auth/password/reset_request", data={"email": EMAIL})
    token = await served.printed_after(f"{BASE_URL}/auth/password/reset?reset_token=")
    page = await browser.get("/auth/password/reset", params={"reset_token": token})
    found = re.search(r'action="(.*?)".*name="reset_token" value="(.*?)"', page.text, re.DOTALL)
    assert found
    passwords = {"password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    answer = await browser.post(found[1], data={"reset_token": found[2], **passwords})
    assert answer.status_code == 200


async def test_browser_controller_keeps_a_session(tmp_path: Path) -> None:
    """Forms, redirects and pages; 401 for a wrong password, 422 with the invalid fields."""
    async with visit("browser_controller", tmp_path, Origin=BASE_URL) as (_, browser):
        assert "/auth/password/register" in (await browser.get("/")).text
        weak = await browser.post("/auth/password/register", data=registration(password="12345678"))
        assert (weak.status_code, "<li>password " in weak.text) == (422, True)
        registered = await browser.post("/auth/password/register", data=registration())
        assert (registered.status_code, registered.headers["Location"]) == (303, "/")
        assert f"Hello {EMAIL}" in (await browser.get("/")).text
        copy = f"user_session={browser.cookies['user_session']}"

        signed_out = await browser.post("/auth/sign_out")
        assert (signed_out.status_code, "Signed out" in signed_out.text) == (200, True)
        assert "user_session" not in browser.cookies
        assert "Hello" not in (await browser.get("/", headers={"Cookie": copy})).text

        refused = await browser.post("/auth/password/sign_in", data=WRONG)
        assert (refused.status_code, refused.headers["Content-Type"]) == (401, "text/html; charset=utf-8")
        assert "Access denied" in refused.text
        assert "set-cookie" not in refused.headers


async def test_api_controller_returns_a_bearer_token(tmp_path: Path) -> None:
    """The controller defines the whole body; the token is rejected after the sign-out."""
    async with visit("api_controller", tmp_path) as (_, script):
        registered = await script.post("/auth/password/register", json=registration())
        bearer = f"Bearer {registered.json()['authentication'].pop('bearer')}"
        assert registered.status_code == 200
        assert "set-cookie" not in registered.headers
        assert (await script.get("/me", headers={"Authorization": bearer})).json() == {"email": EMAIL}
        assert await status_of(script, "/me") == 401

        signed_out = await script.post("/auth/sign_out", headers={"Authorization": bearer})
        assert (signed_out.status_code, signed_out.json()) == (200, {"status": "ok"})
        assert await status_of(script, "/me", Authorization=bearer) == 401

        refused = await script.post("/auth/password/sign_in", json=WRONG)
        assert (refused.status_code, refused.json()) == (401, {"authentication": {"status": "failed"}})
        assert refused.headers["WWW-Authenticate"].startswith("Bearer ")


async def token_for(script: httpx.AsyncClient) -> str:
    """Register and return the Authorization header."""
    registered = await script.post("/auth/password/register", json=registration(), headers=JSON)
    assert (registered.status_code, registered.json()["status"]) == (200, "success")
    return f"Bearer {registered.json()['token']}"


async def test_fastapi_app_guards_with_a_dependency(tmp_path: Path) -> None:
    """A bearer token opens /me; OpenAPI shows a lock on /me and none on the public route."""
    async with visit("fastapi_app", tmp_path) as (_, script):
        bearer = await token_for(script)
        assert (await script.get("/me", headers={"Authorization": bearer})).json()["email"] == EMAIL
        paths: dict[str, Any] = (await script.get("/openapi.json")).json()["paths"]
        assert {path: "security" in each["get"] for path, each in paths.items()} == {"/me": True, "/health": False}
        assert await status_of(script, "/health") == 200

        await script.post("/auth/sign_out", headers={"Authorization": bearer})
        assert await status_of(script, "/me", Authorization=bearer) == 401
        assert await status_of(script, "/me") == 401
        assert (await script.post("/auth/password/sign_in", json=WRONG, headers=JSON)).status_code == 401


async def test_litestar_app_accepts_cookie_and_bearer(tmp_path: Path) -> None:
    """Both middlewares work inside Litestar; the guard refuses other requests."""
    async with visit("litestar_app", tmp_path) as (served, script):
        bearer = await token_for(script)
        assert (await script.get("/me", headers={"Authorization": bearer})).json() == {"email": EMAIL}
        async with served.client(headers={"Origin": BASE_URL}) as browser:
            await browser.post("/auth/password/sign_in", data=credentials())
            assert (await browser.get("/me")).json() == {"email": EMAIL}
            copy = f"user_session={browser.cookies['user_session']}"
            await browser.post("/auth/sign_out")
            assert await status_of(script, "/me", Cookie=copy) == 401

        await script.post("/auth/sign_out", headers={"Authorization": bearer})
        refused = await script.get("/me", headers={"Authorization": bearer})
        challenge = 'Bearer realm="localhost", error="invalid_token"'
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, challenge)
        assert (await script.post("/auth/password/sign_in", json=WRONG, headers=JSON)).status_code == 401


async def test_sqlalchemy_app_stores_its_own_customers(tmp_path: Path) -> None:
    """The user is the application's own object; its profile was created in the same transaction."""
    async with visit("sqlalchemy_app", tmp_path, **JSON) as (_, script):
        form = {**registration(), "full_name": "Alice"}
        registered = (await script.post("/auth/password/register", json=form)).json()
        bearer = f"Bearer {registered['token']}"
        answer = await script.get("/me", headers={"Authorization": bearer})
        assert answer.json() == {"email": EMAIL, "name": "Alice", "points": 100}
        assert (await script.post("/auth/password/register", json=form)).status_code == 422
        await script.post("/auth/sign_out", headers={"Authorization": bearer})
        assert await status_of(script, "/me", Authorization=bearer) == 401
    assert (tmp_path / "shop.db").exists()


async def test_invitations_register_users_with_a_role(tmp_path: Path) -> None:
    """The application invites the first admin, who invites, resends and revokes; an invited user sets a password."""
    async with visit("invitations", tmp_path, Origin=BASE_URL) as (served, admin), served.client() as guest:
        guest.headers["Origin"] = BASE_URL
        closed = await guest.post("/auth/password/register", data=registration())
        assert closed.status_code == 403
        await join(served, admin)
        assert "Hello admin@mail.example.org, admin" in (await admin.get("/")).text

        assert (await admin.post("/invite", data={"email": EMAIL, "role": "editor"})).status_code == 303
        await join(served, guest)
        home = (await guest.get("/")).text
        assert (f"Hello {EMAIL}, editor" in home, "/invite" in home) == (True, False)
        assert f"{EMAIL}, accepted" in (await admin.get("/")).text
        assert (await guest.post("/invite", data={"email": OTHER_EMAIL, "role": "admin"})).status_code == 403
        assert (await admin.post("/invite", data={"email": OTHER_EMAIL, "role": "owner"})).status_code == 403

        await guest.post("/auth/sign_out")
        assert (await guest.post("/auth/password/sign_in", data=credentials())).headers["Location"] == "/"
        await revoke_before_it_is_opened(served, admin, guest)
    assert (tmp_path / "team.db").exists()


async def join(served: Served, guest: httpx.AsyncClient) -> None:
    """Open the printed link, enter an invalid, then a valid password; the user is signed in and redirected to ``/``."""
    token = await served.printed_after("http://localhost:8000/welcome?invitation_token=")
    page = await guest.get("/welcome", params={"invitation_token": token})
    assert f'name="invitation_token" type="hidden" value="{token}"' in page.text
    assert page.headers["Referrer-Policy"] == "strict-origin"
    sent = {"invitation_token": token, "password": "password", "password_confirmation": "password"}
    weak = await guest.post("/auth/password/register", data=sent, headers={"Accept": "text/html"})
    assert (weak.status_code, f'value="{token}"' in weak.text, "would like you" in weak.text) == (422, True, True)
    assert "<li>password " in weak.text
    sent |= {"password": PASSWORD, "password_confirmation": PASSWORD}
    joined = await guest.post("/auth/password/register", data=sent)
    assert (joined.status_code, joined.headers["Location"]) == (303, "/")


async def revoke_before_it_is_opened(served: Served, admin: httpx.AsyncClient, guest: httpx.AsyncClient) -> None:
    """A resend is too early; a signed-in user sees the library's page; a revoked link is rejected."""
    await admin.post("/invite", data={"email": OTHER_EMAIL, "role": "editor"})
    token = await served.printed_after("http://localhost:8000/welcome?invitation_token=")
    found = re.search(
        rf'{OTHER_EMAIL}, pending.*?name="id" type="hidden" value="(.*?)"', (await admin.get("/")).text, re.S
    )
    assert found
    assert (await admin.post("/auth/invitation/resend", data={"id": found[1]})).status_code == 429
    elsewhere = await guest.get("/welcome", params={"invitation_token": token})
    assert elsewhere.headers["Location"] == f"/auth/invitation/view?invitation_token={token}"
    assert (await admin.post("/auth/invitation/revoke", data={"id": found[1]})).status_code == 303
    assert await status_of(guest, f"/welcome?invitation_token={token}") == 401
    assert f"{OTHER_EMAIL}, revoked" in (await admin.get("/")).text


async def test_restyled_serves_the_pages_in_its_own_style(tmp_path: Path) -> None:
    """The template, the stylesheet and the logo are on every page, and the policy permits them."""
    async with visit("restyled", tmp_path, Origin=BASE_URL, Accept="text/html") as (_, browser):
        assert (await browser.get("/")).headers["Location"] == "/auth/password/sign_in?return_to=%2F"
        page = await browser.get("/auth/password/sign_in?return_to=/")
        assert "Bread since 1924" in page.text
        assert "img-src 'self'" in page.headers["Content-Security-Policy"]
        assert 'src="/logo.svg"' in page.text
        logo = await browser.get("/logo.svg")
        assert (logo.status_code, logo.headers["Content-Type"]) == (200, "image/svg+xml")

        registered = await browser.post("/auth/password/register", data={**registration(), "return_to": "/"})
        assert (registered.status_code, registered.headers["Location"]) == (303, "/")
        home = await browser.get("/")
        assert (f"Good morning, {EMAIL}" in home.text, "Bread since 1924" in home.text) == (True, True)
        assert home.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
        account = (await browser.get("/auth/account")).text
        assert ("Bread since 1924" in account, 'src="/logo.svg"' in account) == (True, True)


async def test_own_pages_keep_fields_and_show_messages(tmp_path: Path) -> None:
    """The application draws every form: it keeps the address, shows a message at each field and returns no password."""
    async with visit("own_pages", tmp_path, Origin=BASE_URL, Accept="text/html") as (served, browser):
        assert "Sign in to see" in (await browser.get("/")).text
        assert "Reading Room</a>" in (await browser.get("/auth/password/register")).text
        refused = await browser.post("/auth/password/register", data=registration(email="<odd>", password="12345678"))
        assert (refused.status_code, 'value="&lt;odd&gt;"' in refused.text) == (422, True)
        assert refused.text.count('aria-invalid="true"') == 2
        assert '<p class="problem" id="password-problem">' in refused.text
        assert ("<odd>" in refused.text, "12345678" in refused.text) == (False, False)
        registered = await browser.post("/auth/password/register", data=registration())
        assert (registered.status_code, registered.headers["Location"]) == (303, "/")
        assert f"signed in as {EMAIL}" in (await browser.get("/")).text
        assert (await browser.post("/auth/sign_out")).headers["Location"] == "/"

        wrong = await browser.post("/auth/password/sign_in", data={**WRONG, "remember_me": "on"})
        assert (wrong.status_code, f'value="{EMAIL}"' in wrong.text, "checked" in wrong.text) == (401, True, True)
        assert 'role="alert">The address or the password is wrong' in wrong.text
        await reset_by_mail(served, browser)
        dead = await browser.get("/auth/password/reset", params={"reset_token": "dead"})
        assert (dead.status_code, "Reading Room</a>" in dead.text) == (401, True)
        signed_in = await browser.post(
            "/auth/password/sign_in", data={**credentials(password=NEW_PASSWORD), "return_to": "/?a"}
        )
        assert (signed_in.status_code, signed_in.headers["Location"]) == (303, "/?a")


def test_every_example_is_tested() -> None:
    """A new example requires a test in this file."""
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    examples = sorted(path.stem for path in EXAMPLES.glob("*.py"))

    assert [name for name in examples if not any(test.startswith(name) for test in tests)] == []
