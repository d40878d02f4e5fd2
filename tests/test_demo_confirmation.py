"""The demo's pages about addresses: confirm, resend, change, cancel, undo."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from asgi_auth.add_ons import APPLICATION
from asgi_auth.errors import AuthenticationFailedError
from tests import demos
from tests.demos import SIGN_IN, confirming, is_signed_in, sign_in, sign_up, visit, where
from tests.gate import Gatekeeper
from tests.support import EMAIL, OTHER_EMAIL, PASSWORD, LocalAuthentication, mailed_token, registration

pytestmark = pytest.mark.anyio

NEW_EMAIL = "alice@new.example.org"
CHANGE = "/auth/confirmation/change_email"


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """The demo's Authentication."""
    auth = demos.make_auth(tmp_path)
    yield auth
    await auth.close()


def purposes(auth: LocalAuthentication) -> list[str]:
    """The purposes of all mails since the last call."""
    found = [opts["purpose"] for _, _, opts in auth.sender.messages]
    auth.sender.messages.clear()
    return found


async def change(browser: httpx.AsyncClient, email: str = NEW_EMAIL, password: str = PASSWORD) -> httpx.Response:
    """Request a change of the address."""
    return await browser.post(CHANGE, data={"email": email, "current_password": password})


# --- the first proof -------------------------------------------------------------------------------------------------


async def test_registration_requires_confirmation_by_mail(auth: LocalAuthentication) -> None:
    """Registration does not sign in. The user can sign in only after pressing the button on the mailed page."""
    async with visit(auth) as browser:
        sent = await browser.post("/auth/password/register", data=registration())
        too_early = await sign_in(browser)
        token = mailed_token(auth, parameter="confirmation_token")
        page = await browser.get(f"/auth/confirmation/confirm?confirmation_token={token}")
        done = await browser.post("/auth/confirmation/confirm", data={"confirmation_token": token})

        assert "<h1>Check your mail</h1>" in sent.text
        assert "The demo prints its mails in the terminal that runs it." in sent.text
        assert "set-cookie" not in sent.headers
        assert too_early.status_code == 401
        assert "or the address is not confirmed yet." in too_early.text
        assert page.text.count(token) == 1
        assert f"You confirm {EMAIL} for your account." in page.text
        assert "Your address is confirmed." in done.text
        assert f'href="{SIGN_IN}"' in done.text
        assert where(await sign_in(browser)) == (303, "/account")


async def test_taken_address_is_not_revealed(auth: LocalAuthentication) -> None:
    """EN-4: the page is the same for a taken and a free address; the owner of a taken address gets a mail."""
    async with visit(auth) as browser, visit(auth) as other:
        await sign_up(browser, auth)
        purposes(auth)
        taken = await other.post("/auth/password/register", data=registration())
        told = purposes(auth)
        free = await other.post("/auth/password/register", data=registration(OTHER_EMAIL))

    assert taken.status_code == free.status_code == 200
    assert taken.text.replace(EMAIL, OTHER_EMAIL) == free.text
    assert told == ["already_registered"]


async def test_link_is_sent_again(auth: LocalAuthentication) -> None:
    """The page after a registration links to the form, which sends one mail a minute and reports invalid addresses."""
    async with visit(auth) as browser:
        sent = await browser.post("/auth/password/register", data=registration())
        purposes(auth)
        early = await browser.post("/auth/confirmation/resend", data={"email": EMAIL})
        mails = [purposes(auth)]
        auth.clock.advance(timedelta(minutes=2))
        again = await browser.post("/auth/confirmation/resend", data={"email": EMAIL})
        mails.append(purposes(auth))
        form = await browser.get("/auth/confirmation/resend")
        refused = await browser.post("/auth/confirmation/resend", data={"email": "nobody"})

    assert 'href="/auth/confirmation/resend"' in sent.text
    assert mails == [[], ["confirmation"]]
    assert early.text == again.text
    assert "another link is on its way" in again.text
    assert "We have sent" not in again.text
    assert 'action="/auth/confirmation/resend"' in form.text
    assert refused.status_code == 422
    assert 'id="email-problem">This is not a mail address.<' in refused.text


async def test_dead_link_page_offers_a_new_link(auth: LocalAuthentication) -> None:
    """A used link is rejected; the page links to the form for a new one."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        await browser.post("/auth/sign_out")
        dead = await browser.post("/auth/confirmation/confirm", data=confirming(auth))
        bare = await browser.post("/auth/confirmation/confirm")

    assert dead.status_code == 401
    assert 'href="/auth/confirmation/resend"' in dead.text
    assert bare.status_code == 422
    assert "This link is incomplete." in bare.text


# --- a change --------------------------------------------------------------------------------------------------------


async def test_address_changes_when_the_new_address_is_confirmed(auth: LocalAuthentication) -> None:
    """The page shows the pending address. The old one gets a mail and stays until the confirmation; no session ends."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        purposes(auth)
        asked = await change(browser)
        mails = purposes(auth)
        again = await browser.post("/auth/confirmation/resend")
        page = await browser.get(asked.headers["Location"])
        auth.clock.advance(timedelta(minutes=2))
        await browser.post("/auth/confirmation/resend")
        link = await browser.get("/auth/confirmation/confirm", params=confirming(auth))
        done = await browser.post("/auth/confirmation/confirm", data=confirming(auth))
        account = await browser.get(done.headers["Location"])

    assert f"{NEW_EMAIL} becomes the address of the account" in link.text
    assert where(asked) == (303, "/account?note=change_asked")
    assert sorted(mails) == ["email_change", "email_change_asked"]
    assert where(again) == (303, "/account?note=sent_again")
    assert f"<strong>{EMAIL}</strong>" in page.text
    assert f"<strong>{NEW_EMAIL}</strong>" in page.text
    assert "Not confirmed yet" in page.text
    assert "We have sent" not in page.text
    assert where(done) == (303, "/account?note=confirmed")
    assert f"<strong>{NEW_EMAIL}</strong>" in account.text
    assert EMAIL not in account.text.replace(NEW_EMAIL, "")


async def test_rejected_change_is_reported_at_its_field(auth: LocalAuthentication) -> None:
    """A wrong password and an invalid address are reported at the field; the page does not contain the password."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        form = await browser.get(CHANGE)
        wrong = await change(browser, password="not this one")
        no_address = await change(browser, email="alice")

    assert 'action="/auth/confirmation/change_email"' in form.text
    assert (wrong.status_code, no_address.status_code) == (422, 422)
    assert 'id="current_password-problem">The password is wrong.<' in wrong.text
    assert f'value="{NEW_EMAIL}"' in wrong.text
    assert "not this one" not in wrong.text
    assert 'id="email-problem">This is not a mail address.<' in no_address.text


async def test_too_many_wrong_passwords_are_rejected(auth: LocalAuthentication) -> None:
    """The form is shown again with 429 and the time to wait."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        for _ in range(10):
            await change(browser, password="not this one")
        refused = await change(browser)

    assert refused.status_code == 429
    assert re.search(r"Too many attempts\. Try again in \d+ minutes\.", refused.text)


async def test_old_sign_in_requires_the_password_again(auth: LocalAuthentication) -> None:
    """The form and its submission first require the password again; then the user returns to the form."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        auth.clock.advance(timedelta(minutes=16))
        sent, stale = await browser.get(CHANGE), await change(browser)
        page = await browser.get(sent.headers["Location"])
        wrong = await browser.post("/auth/password/reauthenticate", data=again("not this one"))
        done = await browser.post("/auth/password/reauthenticate", data=again(PASSWORD))
        form = await browser.get(done.headers["Location"])

    assert where(sent) == where(stale) == (303, f"/auth/password/reauthenticate?return_to={quote(CHANGE, safe='')}")
    assert f'<input type="hidden" name="return_to" value="{CHANGE}">' in page.text
    assert f'value="{EMAIL}" autocomplete="username"' in page.text
    assert wrong.status_code == 401
    assert "The password is wrong." in wrong.text
    assert where(done) == (303, CHANGE)
    assert "<h1>Change your address</h1>" in form.text


def again(password: str) -> dict[str, str]:
    """The parameters of ``reauthenticate``."""
    return {"password": password, "return_to": CHANGE}


async def test_change_is_cancelled(auth: LocalAuthentication) -> None:
    """After the cancellation no change is pending, and the link is rejected."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        await change(browser)
        done = await browser.post("/auth/confirmation/cancel")
        page = await browser.get(done.headers["Location"])
        dead = await browser.post("/auth/confirmation/confirm", data=confirming(auth))

    assert where(done) == (303, "/account?note=kept")
    assert "The change was cancelled." in page.text
    assert "Not confirmed yet" not in page.text
    assert dead.status_code == 401


async def test_change_is_undone(auth: LocalAuthentication) -> None:
    """The link in the mail to the earlier address undoes the change and ends every session; a new password is next."""
    async with visit(auth) as browser, visit(auth) as owner:
        await sign_up(browser, auth)
        await change(browser)
        await browser.post("/auth/confirmation/confirm", data=confirming(auth))
        token = mailed_token(auth, parameter="undo_token")
        page = await owner.get(f"/auth/confirmation/undo?undo_token={token}")
        undone = await owner.post("/auth/confirmation/undo", data={"undo_token": token})
        dead = await owner.post("/auth/confirmation/undo", data={"undo_token": token})

        assert "<h1>Undo the change of your address</h1>" in page.text
        assert "Your account has its address back" in undone.text
        assert 'href="/auth/password/reset_request"' in undone.text
        assert not await is_signed_in(browser)
        assert dead.status_code == 401


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (CHANGE, CHANGE),
        ("/auth/confirmation/cancel", "/account"),
        ("/auth/password/reauthenticate", "/auth/password/reauthenticate"),
        ("/auth/invitation/invite", "/auth/invitation/invite"),
        ("/auth/invitation/revoke", "/account"),
    ],
)
async def test_strangers_sign_in_first(auth: LocalAuthentication, path: str, to: str) -> None:
    """A user whose session ended while a form was open returns to that form or to the account after the sign-in."""
    async with visit(auth) as browser:
        assert where(await browser.post(path)) == (303, f"{SIGN_IN}?return_to={quote(to, safe='')}")


async def test_registration_in_an_old_tab_keeps_the_session(auth: LocalAuthentication) -> None:
    """A registration from an old tab is answered as usual, and the user stays signed in."""
    async with visit(auth) as browser:
        await sign_up(browser, auth)
        page = await browser.post("/auth/password/register", data=registration(OTHER_EMAIL))

        assert "<h1>Check your mail</h1>" in page.text
        assert await is_signed_in(browser)


async def test_invited_registration_without_a_session_leads_to_the_sign_in_page(tmp_path: Path) -> None:
    """If a gate refuses the sign-in, the account is created anyway."""
    auth = demos.make_auth(tmp_path, more=[Gatekeeper(AuthenticationFailedError("closed"))])
    async with visit(auth) as browser:
        await auth.add_on("invitation").invite(APPLICATION, EMAIL)
        token = mailed_token(auth, parameter="invitation_token")
        sent = {"invitation_token": token, "password": PASSWORD, "password_confirmation": PASSWORD}
        answer = await browser.post("/auth/password/register", data=sent)
    await auth.close()

    assert "Your account was created. You can sign in now." in answer.text
    assert f'href="{SIGN_IN}"' in answer.text
