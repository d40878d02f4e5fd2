"""The demo's invitations: inviting users, and every way to accept or decline."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from asgi_auth.add_ons import APPLICATION
from tests import demos
from tests.demos import is_signed_in, sign_in, sign_up, visit, where
from tests.support import EMAIL, OTHER_EMAIL, PASSWORD, LocalAuthentication, mailed_token

pytestmark = pytest.mark.anyio

THIRD_EMAIL = "carol@mail.example.org"


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """The demo's Authentication; ``EMAIL`` has invited ``OTHER_EMAIL``."""
    auth = demos.make_auth(tmp_path)
    inviter = await auth.accounts.create({"email": EMAIL}, password=PASSWORD, confirmed=True)
    await auth.add_on("invitation").invite(inviter, OTHER_EMAIL)
    auth.clock.advance(timedelta(minutes=1))
    yield auth
    await auth.close()


def token_of(auth: LocalAuthentication) -> str:
    """The token in the mail of the newest invitation."""
    return mailed_token(auth, parameter="invitation_token")


async def open_link(browser: httpx.AsyncClient, token: str) -> httpx.Response:
    """Open the page of the invitation."""
    return await browser.get("/auth/invitation/view", params={"invitation_token": token})


def actions(page: httpx.Response) -> list[str]:
    """The targets of the forms of a page, in order, without the header's form."""
    return re.findall(r'action="([^"]+)"', page.text.partition("<main")[2])


def joining(token: str, password: str = PASSWORD) -> dict[str, str]:
    """The parameters of a registration with an invitation."""
    return {"invitation_token": token, "password": password, "password_confirmation": password}


def only_hidden(page: httpx.Response, token: str) -> bool:
    """Whether the token is in a hidden field of every form and nowhere else."""
    hidden = page.text.count(f'<input type="hidden" name="invitation_token" value="{token}"')
    return page.text.count(token) == hidden == len(actions(page))


# --- the inviter -----------------------------------------------------------------------------------------------------


async def test_invitations_are_sent_and_listed(auth: LocalAuthentication) -> None:
    """The list shows the state of each invitation; only pending ones have buttons, which name the address."""
    async with visit(auth) as browser:
        await sign_in(browser)
        sent = await browser.post("/auth/invitation/invite", data={"email": THIRD_EMAIL})
        page = await browser.get(sent.headers["Location"])
        (newest, _) = ids(page)
        revoked = await browser.post("/auth/invitation/revoke", data={"id": newest})
        after = await browser.get(revoked.headers["Location"])
        again = await browser.post("/auth/invitation/revoke", data={"id": newest})

    assert where(sent) == (303, "/invitations?note=invited")
    assert page.text.index(THIRD_EMAIL) < page.text.index(OTHER_EMAIL)
    assert f'Revoke<span class="unseen"> the invitation of {THIRD_EMAIL}</span>' in page.text
    assert page.text.count("Waiting") == 2
    assert where(revoked) == (303, "/invitations?note=revoked")
    assert newest not in after.text
    assert re.findall('<span class="badge (?:waits|over)">(.*?)<', after.text) == ["Revoked", "Waiting"]
    assert again.status_code == 422
    assert "This invitation is over: it was" in again.text
    assert 'href="/account"' in again.text


def ids(page: httpx.Response) -> list[str]:
    """The ids of the revocable invitations, in the order of the page."""
    return re.findall(r'action="/auth/invitation/revoke"><input type="hidden" name="id" value="([^"]+)"', page.text)


async def test_invitation_is_sent_again(auth: LocalAuthentication) -> None:
    """An immediate resend is refused. A later one sends a new link; the page of the old link says so."""
    async with visit(auth) as browser, visit(auth) as guest:
        await sign_in(browser)
        older = token_of(auth)
        (only,) = ids(await browser.get("/invitations"))
        await browser.post("/auth/invitation/resend", data={"id": only})
        early = await browser.post("/auth/invitation/resend", data={"id": only})
        auth.clock.advance(timedelta(minutes=2))
        again = await browser.post("/auth/invitation/resend", data={"id": only})
        page, dead = await browser.get(again.headers["Location"]), await open_link(guest, older)
        alive = await open_link(guest, token_of(auth))

    assert early.status_code == 429
    assert "Too many attempts. Try again in 60 seconds." in early.text
    assert where(again) == (303, "/invitations?note=invited_again")
    assert "The invitation was sent again." in page.text
    assert dead.status_code == 401
    assert "A newer invitation was sent." in dead.text
    assert alive.status_code == 200


async def test_rejected_invitation_is_reported_at_the_field(auth: LocalAuthentication) -> None:
    """The form keeps the entered value; the list links to the form."""
    async with visit(auth) as browser:
        await sign_in(browser)
        refused = await browser.post("/auth/invitation/invite", data={"email": "carol"})
        page = await browser.get("/invitations")

    assert refused.status_code == 422
    assert 'id="email-problem">This is not a mail address.<' in refused.text
    assert 'value="carol"' in refused.text
    assert OTHER_EMAIL in page.text
    assert 'href="/auth/invitation/invite"' in page.text


async def test_user_sees_and_revokes_only_own_invitations(auth: LocalAuthentication) -> None:
    """An empty list says so. It does not contain other users' invitations, and they cannot be revoked."""
    async with visit(auth) as browser, visit(auth) as other:
        await sign_in(browser)
        await sign_up(other, auth, THIRD_EMAIL)
        (theirs,) = ids(await browser.get("/invitations"))
        page = await other.get("/invitations")
        refused = await other.post("/auth/invitation/revoke", data={"id": theirs})

    assert "None yet." in page.text
    assert OTHER_EMAIL not in page.text
    assert refused.status_code == 403
    assert "You are not allowed to do this" in refused.text


async def test_failed_mail_is_shown_in_the_list(auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inviter's list shows that the mail could not be sent."""

    async def fail(*message: object) -> None:
        raise OSError("no mail today")

    async with visit(auth) as browser:
        await sign_in(browser)
        monkeypatch.setattr(auth.sender, "send", fail)
        await browser.post("/auth/invitation/invite", data={"email": THIRD_EMAIL})
        page = await browser.get("/invitations")

    assert page.text.count("The mail could not be sent") == 1


# --- the invited user ------------------------------------------------------------------------------------------------


async def test_invited_user_registers_with_a_password(auth: LocalAuthentication) -> None:
    """Registration signs in and confirms the invited address. A rejected password keeps the link usable."""
    async with visit(auth) as browser:
        token = token_of(auth)
        page = await open_link(browser, token)
        weak = await browser.post("/auth/password/register", data=joining(token, "password"))
        done = await browser.post("/auth/password/register", data=joining(token))
        account = await browser.get(done.headers["Location"])
        dead = await open_link(browser, token)

    for each in (page, weak):
        assert f"{EMAIL} has invited {OTHER_EMAIL}" in each.text
        assert actions(each) == ["/auth/password/register", "/auth/invitation/decline"]
    assert only_hidden(page, token)
    assert weak.status_code == 422
    assert 'id="password-problem"' in weak.text
    assert only_hidden(weak, token)
    assert where(done) == (303, "/account")
    assert f"<strong>{OTHER_EMAIL}</strong>" in account.text
    assert "Confirmed <time" in account.text
    assert dead.status_code == 401


async def test_invited_user_with_an_account_signs_in_first(auth: LocalAuthentication) -> None:
    """The user signs in on the page of the invitation and then sees it again; a wrong password does not lose it."""
    async with visit(auth) as browser, visit(auth) as guest:
        await sign_up(browser, auth, THIRD_EMAIL)
        await invite(auth, THIRD_EMAIL)
        token = token_of(auth)
        page = await open_link(guest, token)
        wrong = await sign_in(guest, THIRD_EMAIL, password="not this one", invitation_token=token)
        joins = await sign_in(guest, THIRD_EMAIL, invitation_token=token)
        done = await guest.post("/auth/invitation/accept", data={"invitation_token": token})
        account = await guest.get(done.headers["Location"])

    for each in (page, wrong):
        assert actions(each) == ["/auth/password/sign_in", "/auth/invitation/decline"]
        assert f"asgi_auth demo has invited {THIRD_EMAIL}" in each.text
        assert "Sign in with it to accept." in each.text
        assert only_hidden(each, token)
    assert wrong.status_code == 401
    assert "The address or the password is wrong" in wrong.text
    assert joins.status_code == 200
    assert actions(joins) == ["/auth/invitation/accept", "/auth/invitation/decline"]
    assert only_hidden(joins, token)
    assert where(done) == (303, "/account?note=joined")
    assert "You have accepted the invitation." in account.text


async def invite(auth: LocalAuthentication, email: str) -> None:
    """Send an invitation from the application."""
    await auth.add_on("invitation").invite(APPLICATION, email)


async def test_invited_user_with_another_account_signs_out_first(auth: LocalAuthentication) -> None:
    """After the sign-out, the page shows the invitation as an anonymous visitor sees it."""
    async with visit(auth) as browser:
        await sign_in(browser)
        token = token_of(auth)
        page = await open_link(browser, token)
        refused = await browser.post("/auth/invitation/accept", data={"invitation_token": token})
        out = await browser.post("/auth/sign_out", data={"invitation_token": token})

        assert actions(page) == ["/auth/sign_out", "/auth/invitation/decline"]
        assert f"Sign out to continue as {OTHER_EMAIL}" in page.text
        assert only_hidden(page, token)
        assert refused.status_code == 403
        assert "Sign in with the account whose address was invited" in refused.text
        assert 'action="/auth/sign_out"' not in out.text
        assert actions(out) == ["/auth/password/register", "/auth/invitation/decline"]
        assert not await is_signed_in(browser)


async def test_dead_invitation_does_not_block_sign_in_and_sign_out(auth: LocalAuthentication) -> None:
    """With the token of a dead invitation, the user can still sign in and out."""
    async with visit(auth) as browser:
        signed_in = await sign_in(browser, invitation_token="dead")
        out = await browser.post("/auth/sign_out", data={"invitation_token": "dead"})

    assert where(signed_in) == (303, "/account")
    assert "You are signed out" in out.text


async def test_invitation_is_declined(auth: LocalAuthentication) -> None:
    """Anyone with the link can decline; the inviter sees it in the list."""
    async with visit(auth) as browser, visit(auth) as guest:
        token = token_of(auth)
        done = await guest.post("/auth/invitation/decline", data={"invitation_token": token})
        dead = await open_link(guest, token)
        await sign_in(browser)
        page = await browser.get("/invitations")

    assert "You have declined the invitation." in done.text
    assert dead.status_code == 401
    assert '<span class="badge over">Declined</span>' in page.text


async def test_link_without_a_token_is_rejected(auth: LocalAuthentication) -> None:
    """A link without its token is answered with 422 on a page."""
    async with visit(auth) as browser:
        page = await browser.get("/auth/invitation/view")

    assert page.status_code == 422
    assert "<h1>Some fields are not right yet</h1>" in page.text


async def test_script_gets_json(auth: LocalAuthentication) -> None:
    """A script gets the library's JSON answer instead of a page."""
    async with visit(auth, Accept="application/json") as script:
        await sign_in(script)
        listed = await script.get("/auth/invitation/list")
        assert [each["email"] for each in listed.json()["invitations"]] == [OTHER_EMAIL]


async def test_registration_without_an_address_or_a_token_is_rejected(auth: LocalAuthentication) -> None:
    """The answer is 422; neither of the two forms sends such a request."""
    async with visit(auth) as browser:
        assert (await browser.post("/auth/password/register", data={"password": PASSWORD})).status_code == 422
