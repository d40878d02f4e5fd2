"""The demo: its pages and its sessions."""

import re
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from asgi_auth.demo import device_name
from asgi_auth.demo.pages import draw_time
from asgi_auth.errors import StoreUnavailableError
from tests import demos
from tests.demos import FIREFOX, SIGN_IN, is_signed_in, sign_in, sign_up, visit, where
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    LocalAuthentication,
    credentials,
    mailed_token,
    registration,
)

PAGES = (
    *("/", "/auth/password/sign_in", "/auth/password/register"),
    *("/auth/password/reset_request", "/auth/confirmation/resend"),
)
"""Public pages."""
NOT_CAREFUL = '"><script>alert(1)</script>@x'


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """The demo's Authentication, with cheap hashes and mail that the test reads."""
    auth = demos.make_auth(tmp_path)
    yield auth
    await auth.close()


def ids_to_end(page: httpx.Response) -> list[str]:
    """The ids of the sessions that have a button on the account page."""
    return re.findall(r'action="/account/end/([^"]+)"', page.text)


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("path", PAGES)
async def test_page_is_complete_and_not_cached(auth: LocalAuthentication, path: str) -> None:
    """CF-8: every page has a language, a title and one heading, permits no scripts or frames, and is not cached."""
    async with visit(auth) as browser:
        page = await browser.get(path)

    assert page.status_code == 200
    assert '<html lang="en" dir="ltr">' in page.text
    assert page.text.count("<h1>") == page.text.count(" - asgi_auth demo</title>") == 1
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    shown = re.findall(r'<input id="(\w+)"', page.text)
    assert sorted(re.findall(r'<label for="(\w+)"', page.text)) == sorted(shown)
    assert "The demo prints its mails in the terminal that runs it." in page.text


@pytest.mark.anyio
async def test_account_shows_this_session(auth: LocalAuthentication) -> None:
    """A signed-in user sees the address, the password button, the session and the sign-out button."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        page = await browser.get("/account")
        home = await browser.get("/")

    assert f"You are signed in as <strong>{EMAIL}</strong>." in page.text
    assert page.text.count(f"<strong>{EMAIL}</strong>") == 2
    assert 'action="/auth/password/reset_request"' in page.text
    assert "<strong>Firefox on Linux</strong>" in page.text
    assert 'action="/auth/sign_out"' in page.text
    assert "This session" in page.text
    assert ids_to_end(page) == []
    assert "/account/end_others" not in page.text
    assert page.headers["Cache-Control"] == "no-store"
    assert 'href="/account"' in home.text


@pytest.mark.anyio
async def test_rejected_registration_keeps_the_address_but_no_password(auth: LocalAuthentication) -> None:
    """422 shows the form again with the address and the message at its field, without the password."""
    async with visit(auth) as browser:
        page = await browser.post("/auth/password/register", data=registration(password="password"))

    assert page.status_code == 422
    assert "<title>Error: Create an account - asgi_auth demo</title>" in page.text
    assert f'value="{EMAIL}"' in page.text
    assert page.text.count(" value=") == 1
    assert page.text.count("<form") == 1
    assert 'aria-invalid="true" aria-describedby="password-problem" autofocus' in page.text
    assert '<p class="problem" id="password-problem">' in page.text
    assert 'role="alert">Some fields are not right yet' in page.text


@pytest.mark.anyio
async def test_invalid_fields_have_messages(auth: LocalAuthentication) -> None:
    """Every invalid field has a message. The first one has the focus."""
    async with visit(auth) as browser:
        no_address = await browser.post("/auth/password/register", data=registration("alice"))
        empty = await browser.post("/auth/password/sign_in")

    assert no_address.status_code == empty.status_code == 422
    assert 'id="email-problem">This is not a mail address.<' in no_address.text
    assert 'id="email-problem">This field is required.<' in empty.text
    assert 'id="password-problem">This field is required.<' in empty.text
    assert empty.text.count(" autofocus") == 1


@pytest.mark.anyio
async def test_rejected_sign_in_does_not_reveal_the_cause(auth: LocalAuthentication) -> None:
    """EN-1: a wrong password and an unknown address give 401 and the same page, with the entered address."""
    async with visit(auth) as browser, visit(auth) as other:
        await sign_up(other, auth)
        wrong = await sign_in(browser, password="not this one")
        unknown = await sign_in(browser, email=OTHER_EMAIL)

    assert wrong.status_code == unknown.status_code == 401
    assert "The address or the password is wrong, or the address is not confirmed yet." in wrong.text
    assert f'value="{EMAIL}"' in wrong.text
    assert wrong.text.replace(EMAIL, OTHER_EMAIL) == unknown.text
    assert "not this one" not in wrong.text


@pytest.mark.anyio
async def test_entered_values_are_escaped(auth: LocalAuthentication) -> None:
    """Markup in a field is shown as text."""
    async with visit(auth) as browser:
        page = await sign_in(browser, email=NOT_CAREFUL, remember_me="on")

    assert page.status_code == 422
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    assert 'type="checkbox" checked>' in page.text


@pytest.mark.anyio
async def test_return_to_survives_a_rejected_sign_in(auth: LocalAuthentication) -> None:
    """The form, its repetition and the links keep the guard's ``return_to``; the sign-in redirects to it."""
    async with visit(auth) as browser, visit(auth) as other:
        await sign_up(other, auth)
        sent = await browser.get("/account?a=1")
        form = await browser.get(sent.headers["Location"])
        refused = await sign_in(browser, password="not this one", return_to="/account?a=1")
        done = await sign_in(browser, return_to="/account?a=1")

    for page in (form, refused):
        assert '<input type="hidden" name="return_to" value="/account?a=1">' in page.text
        assert 'href="/auth/password/register?return_to=%2Faccount%3Fa%3D1"' in page.text
    assert done.headers["Location"] == "/account?a=1"


@pytest.mark.anyio
async def test_foreign_return_to_is_ignored(auth: LocalAuthentication) -> None:
    """RD-1: the demo never redirects to another site and does not show its address."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        await browser.post("/auth/sign_out")
        form = await browser.get("/auth/password/sign_in?return_to=//evil.example")
        done = await sign_in(browser, return_to="//evil.example")

    assert "evil" not in form.text
    assert done.headers["Location"] == "/account"


@pytest.mark.anyio
async def test_unknown_note_is_not_shown(auth: LocalAuthentication) -> None:
    """A link can select a note of the demo, but cannot put its own text on a page."""
    async with visit(auth) as browser:
        known = await browser.get("/?note=ended")
        unknown = await browser.get("/?note=Call+0900+12345")

    assert '<p class="notice" role="status">The session was ended.</p>' in known.text
    assert "0900" not in unknown.text
    assert 'class="notice"' not in unknown.text


@pytest.mark.anyio
async def test_unknown_address_is_answered_with_a_page(auth: LocalAuthentication) -> None:
    """Unknown addresses, inside and outside the plug, and a wrong method are answered with a page."""
    async with visit(auth) as browser:
        pages = [await browser.get("/nowhere"), await browser.get("/auth/nowhere")]
        wrong_method = await browser.get("/account/end_others")

    assert [page.status_code for page in pages] == [404, 404]
    assert all("<h1>There is nothing at this address</h1>" in page.text for page in pages)
    assert wrong_method.status_code == 405
    assert wrong_method.headers["Allow"] == "POST"
    assert "<h1>This address cannot be used in this way</h1>" in wrong_method.text


@pytest.mark.anyio
async def test_unavailable_store_is_answered_with_a_page(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the store is unavailable, the answer is a page with 503 and Retry-After; the page does not show the reason."""

    async def fail(user_id: str) -> None:
        raise StoreUnavailableError("sqlite: SQLITE_BUSY")

    async with visit(auth) as browser:
        await sign_up(browser, auth)
        monkeypatch.setattr(auth.sessions, "list", fail)
        page = await browser.get("/account")

    assert (page.status_code, page.headers["Retry-After"]) == (503, "1")
    assert "SQLITE" not in page.text


# --- sessions --------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_session_list_ends_one_session(auth: LocalAuthentication) -> None:
    """The button of another session ends only that session; a second press changes nothing."""
    async with visit(auth) as here, visit(auth, **{"User-Agent": "curl/8"}) as there:
        await sign_up(here, auth)
        await sign_in(there, remember_me="on")
        page = await here.get("/account")
        (session_id,) = ids_to_end(page)
        first = await here.post(f"/account/end/{session_id}")
        second = await here.post(f"/account/end/{session_id}")

        assert "<strong>curl/8</strong>" in page.text
        assert "Kept until" in page.text
        assert first.headers["Location"] == "/account?note=ended"
        assert second.headers["Location"] == "/account"
        assert (await is_signed_in(here), await is_signed_in(there)) == (True, False)


@pytest.mark.anyio
async def test_session_list_ends_all_others(auth: LocalAuthentication) -> None:
    """SE-6: the button ends all sessions except the current one."""
    async with visit(auth) as here, visit(auth) as there, visit(auth) as elsewhere:
        await sign_up(here, auth)
        await sign_in(there)
        await sign_in(elsewhere)
        answer = await here.post("/account/end_others")

        assert answer.headers["Location"] == "/account?note=others_ended"
        signed_in = [await is_signed_in(browser) for browser in (here, there, elsewhere)]
        assert signed_in == [True, False, False]


@pytest.mark.anyio
async def test_session_of_another_user_cannot_be_ended(auth: LocalAuthentication) -> None:
    """Another user's session id ends nothing."""
    async with visit(auth) as alice, visit(auth) as phone, visit(auth) as bob:
        await sign_up(alice, auth)
        await sign_in(phone)
        await sign_up(bob, auth, OTHER_EMAIL)
        (session_id,) = ids_to_end(await alice.get("/account"))
        answer = await bob.post(f"/account/end/{session_id}")

        assert answer.headers["Location"] == "/account"
        assert await is_signed_in(phone)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/account/end_others", "/account/end/x"])
async def test_strangers_are_sent_to_the_sign_in_page(auth: LocalAuthentication, path: str) -> None:
    """The account page and its actions require a session."""
    async with visit(auth) as browser:
        page, act = await browser.get("/account"), await browser.post(path)

    assert where(page) == (303, f"{SIGN_IN}?return_to=%2Faccount")
    assert where(act) == (303, SIGN_IN)


@pytest.mark.anyio
async def test_other_sites_cannot_act(auth: LocalAuthentication) -> None:
    """CF-1: a request with the cookie from a page of another site ends no session and signs no user in or out."""
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:9"}
    async with visit(auth) as here, visit(auth) as there:
        await sign_up(here, auth)
        await sign_in(there)
        ended = await here.post("/account/end_others", headers=foreign)
        signed_out = await here.post("/auth/sign_out", headers=foreign)
        signed_in = await here.post("/auth/password/sign_in", data=credentials(), headers=foreign)

        assert ended.headers["Location"] == SIGN_IN
        assert signed_out.status_code == signed_in.status_code == 403
        assert "<h1>The request came from another site</h1>" in signed_out.text
        assert "set-cookie" not in signed_out.headers
        assert (await is_signed_in(here), await is_signed_in(there)) == (True, True)


@pytest.mark.anyio
async def test_sign_out_ends_the_session(auth: LocalAuthentication) -> None:
    """SE-4: after a sign-out, a copy of the cookie is rejected."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        copy = dict(browser.cookies)
        answer = await browser.post("/auth/sign_out")
        browser.cookies.update(copy)

        assert answer.status_code == 200
        assert "<h1>You are signed out</h1>" in answer.text
        assert f'<nav aria-label="Main" lang="en" dir="ltr"><a href="{SIGN_IN}">Sign in</a>' in answer.text
        assert not await is_signed_in(browser)


@pytest.mark.anyio
async def test_forgotten_password_is_reset(auth: LocalAuthentication) -> None:
    """The answer is the same for every address. The link works once; a dead link shows no password field."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        await browser.post("/auth/sign_out")
        sent = [await browser.post("/auth/password/reset_request", data={"email": e}) for e in (OTHER_EMAIL, EMAIL)]
        token = mailed_token(auth)
        form = await browser.get(f"/auth/password/reset?reset_token={token}")
        weak = await browser.post("/auth/password/reset", data=new_password(token, "password"))
        done = await browser.post("/auth/password/reset", data=new_password(token, NEW_PASSWORD))
        dead = await browser.post("/auth/password/reset", data=new_password(token, NEW_PASSWORD))
        unread = await browser.get(f"/auth/password/reset?reset_token={token}")
        bare = await browser.post("/auth/password/reset", data=new_password("", NEW_PASSWORD))

        assert sent[0].text == sent[1].text
        assert "<h1>Check your mail</h1>" in sent[0].text
        assert form.text.count(token) == weak.text.count(token) == 1
        assert f'value="{EMAIL}" autocomplete="username"' in form.text
        assert weak.status_code == 422
        assert 'id="password-problem"' in weak.text
        assert "Your new password is set. You can sign in with it now." in done.text
        assert (dead.status_code, unread.status_code) == (401, 401)
        assert 'href="/auth/password/reset_request"' in dead.text
        assert 'type="password"' not in unread.text
        assert bare.status_code == 422
        assert "This link is incomplete." in bare.text
        assert (await sign_in(browser)).status_code == 401
        assert (await sign_in(browser, password=NEW_PASSWORD)).status_code == 303


@pytest.mark.anyio
async def test_account_page_mails_a_link_to_change_the_password(auth: LocalAuthentication) -> None:
    """The button of the account page sends the link, and the page confirms it."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        page = await browser.get("/account")
        sent = re.search(
            r'action="(/auth/password/reset_request)"><input type="hidden" name="email" value="(.*?)"', page.text
        )
        assert sent
        asked = await browser.post(sent[1], data={"email": sent[2]})
        after = await browser.get(asked.headers["Location"])
        form = await browser.get(f"/auth/password/reset?reset_token={mailed_token(auth)}")

    assert where(asked) == (303, "/account?note=reset_asked")
    assert "A link to choose a new password is on its way to your address." in after.text
    assert "<h1>Choose a new password</h1>" in form.text


def new_password(token: str, password: str) -> dict[str, str]:
    """The parameters of ``reset``."""
    return {"reset_token": token, "password": password, "password_confirmation": password}


@pytest.mark.parametrize(
    ("label", "name"),
    [
        (FIREFOX, "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Plan9) Firefox/1", "Firefox on another system"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", "Unknown device"),
    ],
)
def test_device_name_is_readable(label: str, name: str) -> None:
    """The name has the browser and the system, or the label itself."""
    assert device_name(label) == name


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time zone of this machine is Tokyo's."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_times_are_in_the_zone_of_the_machine() -> None:
    """The page shows the time that the user's clock shows, with the name of its zone."""
    assert draw_time(datetime(2031, 4, 2, 20, 5, tzinfo=UTC)) == (
        '<time datetime="2031-04-02T20:05:00Z">3 Apr 2031, 05:05 JST</time>'
    )
