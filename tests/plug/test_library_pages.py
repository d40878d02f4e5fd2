"""The pages that the plug serves if the application has no own pages."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from asgi_auth.add_ons import Confirmation, Invitation
from asgi_auth.errors import ConfigurationError
from asgi_auth.passwords import PasswordPolicy
from asgi_auth.senders import MemorySender
from asgi_auth.strategies import Password, Resettable
from asgi_auth.types import User
from asgi_auth.web.plug import AuthPlug
from tests.asgi import JSON, PAGE, Answer, ask, execute, post
from tests.support import (
    EMAIL,
    OTHER_EMAIL,
    PASSWORD,
    LocalAuthentication,
    credentials,
    found_of,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

SIGN_IN = "/auth/password/sign_in"
REGISTER = "/auth/password/register"
ACCOUNT = "/auth/account"
CHANGE_EMAIL = "/auth/confirmation/change_email"
TOKENS = ("reset_token", "invitation_token", "confirmation_token")


def anybody(*_: Any) -> bool:
    """A policy: every user may invite."""
    return True


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication with every part that has pages; a sign-in does not require a confirmed address."""
    sender = MemorySender()
    made = make_auth(
        tmp_path,
        sender=sender,
        strategies=[Password(resettable=Resettable(sender=sender))],
        add_ons=[Confirmation(sender=sender, required=False), Invitation(sender=sender, may_invite=anybody)],
        app_name="Zoo",
    )
    async with made.running():
        yield made


@pytest.fixture
def plug(auth: LocalAuthentication) -> AuthPlug[User]:
    """The library's plug without changes."""
    return AuthPlug(auth)


async def cookie_of(auth: LocalAuthentication, email: str = EMAIL) -> str:
    """Register *email* and return the Cookie header of its session."""
    _, token = await register(auth, email)
    return f"{auth.site.session_cookie}={token.cookie}"


def token_of(auth: LocalAuthentication, purpose: str) -> str:
    """Return the token of the newest mail of this purpose."""
    return str([token for _, token, opts in auth.sender.messages if opts["purpose"] == purpose][-1])


def link_of(activity: str, answer: Answer) -> bool:
    """Return whether a page links to *activity*."""
    return f'href="/auth/{activity}"' in answer.text


@pytest.mark.parametrize(
    "path", ["password/register", "password/sign_in", "password/reset_request", "confirmation/resend"]
)
async def test_pages_without_a_session_link_to_each_other(plug: AuthPlug[User], path: str) -> None:
    """Each page has its own form and links to the other pages; the application needs no code."""
    page = await ask(plug, "GET", f"/auth/{path}", headers=PAGE)
    others = {"password/register", "password/sign_in", "password/reset_request", "confirmation/resend"} - {path}

    assert (page.status, f'action="/auth/{path}"' in page.text) == (200, True)
    assert all(link_of(other, page) for other in others)
    assert not link_of(path, page)


@pytest.mark.parametrize(
    "path", ["account", "confirmation/change_email", "password/reauthenticate", "invitation/invite"]
)
async def test_pages_of_users_redirect_to_the_sign_in(plug: AuthPlug[User], path: str) -> None:
    """Without a session a browser is sent to the sign-in with ``return_to``; a program gets 401."""
    page = await ask(plug, "GET", f"/auth/{path}", headers=PAGE)
    program = await ask(plug, "GET", f"/auth/{path}", headers=JSON)

    assert (page.status, page["location"]) == (303, f"{SIGN_IN}?return_to={quote(f'/auth/{path}', safe='')}")
    assert page["www-authenticate"] is None
    assert (program.status, program.json()["code"]) == (401, "authentication_failed")


async def test_sign_in_redirects_to_return_to(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """The form keeps ``return_to``, also after a refusal; a foreign URL is ignored (RD-1)."""
    await register(auth)
    page = await ask(plug, "GET", SIGN_IN, query=b"return_to=/auth/account", headers=PAGE)
    wrong = await post(plug, SIGN_IN, {**credentials(password="wrong"), "return_to": ACCOUNT}, headers=PAGE)
    right = await post(plug, SIGN_IN, {**credentials(), "return_to": ACCOUNT}, headers=PAGE)
    away = await post(plug, SIGN_IN, {**credentials(), "return_to": "https://evil.example"}, headers=PAGE)

    for answer in (page, wrong):
        assert '<input type="hidden" name="return_to" value="/auth/account">' in answer.text
    assert (wrong.status, f'value="{EMAIL}"' in wrong.text, "wrong" in wrong.text) == (401, True, True)
    assert (right.status, right["location"], right["set-cookie"] is None) == (303, ACCOUNT, False)
    assert (away.status, "<h1>Access granted</h1>" in away.text, link_of("account", away)) == (200, True, True)


async def test_account_page_shows_user_and_actions(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """The page shows the user, the possible actions, the state of the address and a pending change."""
    cookie = await cookie_of(auth)
    page = await ask(plug, "GET", ACCOUNT, headers=PAGE, cookie=cookie)
    assert (page.status, f"You are signed in as {EMAIL}." in page.text) == (200, True)
    assert f"{EMAIL} is not confirmed yet." in page.text
    assert link_of("confirmation/change_email", page)
    assert link_of("invitation/invite", page)
    assert 'action="/auth/confirmation/resend"' in page.text
    assert 'action="/auth/sign_out"' in page.text

    form = {"email": OTHER_EMAIL, "current_password": PASSWORD}
    await post(plug, CHANGE_EMAIL, form, headers=PAGE, cookie=cookie)
    waiting = await ask(plug, "GET", ACCOUNT, headers=PAGE, cookie=cookie)
    assert f"{EMAIL} stays your address until {OTHER_EMAIL} is confirmed." in waiting.text
    assert 'action="/auth/confirmation/cancel"' in waiting.text
    program = await ask(plug, "GET", ACCOUNT, headers=JSON, cookie=cookie)
    assert program.json()["name"] == EMAIL


async def test_account_page_offers_no_finished_action(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """A confirmed account has no button to resend a link; the page to invite opens without another proof."""
    cookie = await cookie_of(auth)
    form = {"confirmation_token": token_of(auth, "confirmation")}
    await post(plug, "/auth/confirmation/confirm", form, headers=PAGE, cookie=cookie)
    page = await ask(plug, "GET", ACCOUNT, headers=PAGE, cookie=cookie)
    invite = await ask(plug, "GET", "/auth/invitation/invite", headers=PAGE, cookie=cookie)

    assert (f"{EMAIL} is confirmed." in page.text, "/auth/confirmation/resend" in page.text) == (True, False)
    assert (invite.status, "<h1>Invite people</h1>" in invite.text) == (200, True)


async def test_account_page_without_an_address_shows_only_a_pending_one(tmp_path: Path) -> None:
    """The page does not mention an address until one is pending."""
    sender = MemorySender()
    made = make_auth(
        tmp_path,
        sender=sender,
        strategies=[Password(identity_field="username")],
        add_ons=[Confirmation(sender=sender, required=False)],
    )
    async with made.running():
        user, token = await made.strategy("password").register(
            {"username": "alice", "password": PASSWORD, "password_confirmation": PASSWORD}
        )
        cookie, plug = f"{made.site.session_cookie}={token.cookie}", AuthPlug(made)
        nothing = await ask(plug, "GET", ACCOUNT, headers=PAGE, cookie=cookie)
        await made.add_on("confirmation").change_email(
            user, {"email": EMAIL, "current_password": PASSWORD}, session=token.session
        )
        waiting = await ask(plug, "GET", ACCOUNT, headers=PAGE, cookie=cookie)
        gone = await made.add_on("confirmation").account(user)
        await made.accounts.delete(user.id)

        assert "Your address" not in nothing.text
        assert f"{EMAIL} waits to be confirmed." in waiting.text
        assert gone.title == "Your address"
        assert await made.add_on("confirmation").account(user) is None


async def test_confirmation_page_names_the_address(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """The page names the address of a registration and of a change."""
    cookie = await cookie_of(auth)
    first = token_of(auth, "confirmation")
    await post(plug, CHANGE_EMAIL, {"email": OTHER_EMAIL, "current_password": PASSWORD}, headers=PAGE, cookie=cookie)
    change = token_of(auth, "email_change")
    path = "/auth/confirmation/confirm"
    of_first = await ask(plug, "GET", path, query=f"confirmation_token={first}".encode(), headers=PAGE)
    of_change = await ask(plug, "GET", path, query=f"confirmation_token={change}".encode(), headers=PAGE)

    assert f"You confirm {EMAIL} for your account." in of_first.text
    assert f"{OTHER_EMAIL} becomes the address of the account that asked for this." in of_change.text


async def test_user_without_a_password_is_not_asked_for_it(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """For such a user the form to change the address has no field for the current password."""
    user = await auth.accounts.create({"email": EMAIL})
    token = await auth.sign_in(user)
    page = await ask(plug, "GET", CHANGE_EMAIL, headers=PAGE, cookie=f"{auth.site.session_cookie}={token.cookie}")

    assert (page.status, 'name="email"' in page.text, "current_password" in page.text) == (200, True, False)


async def test_stale_session_is_redirected_to_reauthentication_and_back(
    auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """The page has the user name for password managers; the right password leads back to the change."""
    cookie = await cookie_of(auth)
    auth.clock.advance(auth.session_options.idle_lifetime / 2)
    stale = await ask(plug, "GET", CHANGE_EMAIL, headers=PAGE, cookie=cookie)
    path, _, query = str(stale["location"]).partition("?")
    page = await ask(plug, "GET", path, query=query.encode(), headers=PAGE, cookie=cookie)
    wrong = await post(plug, path, {"password": "wrong", "return_to": CHANGE_EMAIL}, headers=PAGE, cookie=cookie)
    right = await post(plug, path, {"password": PASSWORD, "return_to": CHANGE_EMAIL}, headers=PAGE, cookie=cookie)

    assert (stale.status, path) == (303, "/auth/password/reauthenticate")
    for answer in (page, wrong):
        assert f'value="{EMAIL}" autocomplete="username" dir="auto" readonly' in answer.text
    assert (wrong.status, "The password is wrong." in wrong.text) == (401, True)
    assert (right.status, right["location"]) == (303, CHANGE_EMAIL)


async def test_all_problems_are_reported_at_once(plug: AuthPlug[User]) -> None:
    """One answer reports address, password and repetition; the address stays in its field."""
    form = {"email": "no address", "password": "short", "password_confirmation": "other"}
    answer = await post(plug, REGISTER, form, headers=PAGE)

    assert answer.status == 422
    for text in ("This is not a mail address.", "Use at least 8 characters.", "The two passwords are not the same."):
        assert text in answer.text
    assert 'value="no address"' in answer.text
    assert "short" not in answer.text


async def test_async_check_of_the_policy_runs_too(tmp_path: Path) -> None:
    """The check runs even if another field is invalid."""

    async def leaked(password: str) -> None:
        raise ValueError("This password is known to thieves.")

    made = make_auth(tmp_path, password_policy=PasswordPolicy(check=leaked))
    async with made.running():
        answer = await post(AuthPlug(made), REGISTER, {**registration(), "email": "x"}, headers=JSON)

    assert answer.json()["fields"] == {
        "email": "This is not a mail address.",
        "password": "This password is known to thieves.",
    }


@pytest.mark.parametrize("mode", ["invite_only", "closed"])
async def test_closed_registration_has_no_page(tmp_path: Path, mode: Any) -> None:
    """No other page links to it."""
    sender = MemorySender()
    made = make_auth(tmp_path, sender=sender, registration=mode, add_ons=[Invitation(sender=sender)])
    async with made.running():
        page = await ask(AuthPlug(made), "GET", SIGN_IN, headers=PAGE)
        none = await ask(AuthPlug(made), "GET", REGISTER, headers=PAGE)

    assert not link_of("password/register", page)
    assert none.status == 405


async def test_sign_out_shows_a_page_or_redirects(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """The page links to the sign-in; with ``return_to`` the client is redirected."""
    page = await post(plug, "/auth/sign_out", headers=PAGE, cookie=await cookie_of(auth))
    on = await post(plug, "/auth/sign_out", {"return_to": "/"}, headers=PAGE)

    assert ("<h1>You are signed out</h1>" in page.text, link_of("password/sign_in", page)) == (True, True)
    assert (on.status, on["location"]) == (303, "/")


async def test_outage_is_reported_above_the_form(
    tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """FT-1: the form keeps the entered values; without a form a page reports the outage."""
    cookie = await cookie_of(auth)
    await execute(tmp_path, "ALTER TABLE asgi_auth_sessions RENAME TO gone")
    form = await post(plug, SIGN_IN, credentials(), headers=PAGE)
    button = await post(plug, "/auth/sign_out", headers=PAGE, cookie=cookie)
    await execute(tmp_path, "ALTER TABLE gone RENAME TO asgi_auth_sessions")

    assert (form.status, form["retry-after"], f'value="{EMAIL}"' in form.text) == (503, "1", True)
    assert (button.status, "<h1>The service is busy at the moment</h1>" in button.text) == (503, True)


@pytest.mark.parametrize("path", ["account", "password/reset", "invitation/view", "confirmation/confirm"])
async def test_page_gives_503_if_the_store_is_down(
    tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User], path: str
) -> None:
    """FT-1: a GET that needs the store gives 503, keeps the cookie, and works again afterwards."""
    cookie, query = await cookie_of(auth), "&".join(f"{name}={'A' * 43}" for name in TOKENS).encode()
    for table in ("sessions", "tokens", "invitations"):
        await execute(tmp_path, f"ALTER TABLE asgi_auth_{table} RENAME TO gone_{table}")
    answer = await ask(plug, "GET", f"/auth/{path}", query=query, headers=PAGE, cookie=cookie)
    for table in ("sessions", "tokens", "invitations"):
        await execute(tmp_path, f"ALTER TABLE gone_{table} RENAME TO asgi_auth_{table}")
    again = await ask(plug, "GET", f"/auth/{path}", query=query, headers=PAGE, cookie=cookie)

    assert (answer.status, answer["retry-after"], answer["set-cookie"]) == (503, "1", None)
    assert "The service is busy at the moment" in answer.text
    assert again.status == (200 if path == "account" else 401)


@pytest.mark.parametrize("name", ["email", "return_to", "invitation_token", "reset_token", "confirmation_token"])
@pytest.mark.parametrize("value", [5, True, None, ["x"], {"a": "b"}, "a" * 20_000, "\0", "a\r\nb", "<b>", "\u202e"])
@pytest.mark.parametrize("path", ["password/register", "password/sign_in", "password/reset", "sign_out"])
async def test_no_value_breaks_a_page(plug: AuthPlug[User], path: str, name: str, value: Any) -> None:
    """RP-8: a value of any type or length is rejected or ignored, and never becomes markup."""
    answer = await ask(plug, "POST", f"/auth/{path}", json={name: value}, headers=PAGE)

    assert answer.status in (200, 303, 401, 422)
    assert "<b>" not in answer.text


async def test_limited_button_says_how_long_to_wait(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """A button has no form that could be drawn again, so a page gives the time."""
    cookie = await cookie_of(auth)
    await post(plug, "/auth/invitation/invite", {"email": OTHER_EMAIL}, headers=PAGE, cookie=cookie)
    [invitation] = await auth.add_on("invitation").list((await found_of(auth)).user)
    answer = await post(plug, "/auth/invitation/resend", {"id": invitation.id}, headers=PAGE, cookie=cookie)

    assert (answer.status, answer["retry-after"]) == (429, "60")
    assert "Too many attempts. Try again in 60 seconds." in answer.text


async def test_unknown_address_links_to_the_start(plug: AuthPlug[User]) -> None:
    """The page of the 404 has a link to the start page."""
    answer = await ask(plug, "GET", "/auth/nowhere/x", headers=PAGE)
    assert (answer.status, '<li><a href="/">Start page</a></li>' in answer.text) == (404, True)


async def test_invited_user_signs_in_on_the_page_of_the_invitation(
    auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """A wrong password keeps inviter, address and Decline on the page; the right one shows the invitation again."""
    inviter = await auth.accounts.create({"email": OTHER_EMAIL})
    await register(auth)
    await auth.add_on("invitation").invite(inviter, EMAIL)
    token = token_of(auth, "invitation")
    page = await ask(plug, "GET", "/auth/invitation/view", query=f"invitation_token={token}".encode(), headers=PAGE)
    form = {**credentials(), "invitation_token": token}
    wrong = await post(plug, SIGN_IN, {**form, "password": "wrong"}, headers=PAGE)
    right = await post(plug, SIGN_IN, form, headers=PAGE)

    for answer in (page, wrong):
        assert f"{OTHER_EMAIL} has invited {EMAIL} to Zoo." in answer.text
        assert 'action="/auth/invitation/decline"' in answer.text
        assert f'action="{SIGN_IN}"' in answer.text
    assert (wrong.status, f'value="{EMAIL}"' in wrong.text) == (401, True)
    assert (right.status, right["set-cookie"] is None, f"has invited {EMAIL}" in right.text) == (200, False, True)


async def test_answers_use_the_language_of_the_browser(plug: AuthPlug[User]) -> None:
    """Pages and problem details are translated; pages in right-to-left languages have ``dir="rtl"``."""
    german = await ask(plug, "GET", SIGN_IN, headers={**PAGE, "accept-language": "de-AT,en;q=0.5"})
    arabic = await ask(plug, "GET", SIGN_IN, headers={**PAGE, "accept-language": "ar"})
    program = await ask(plug, "POST", SIGN_IN, json={}, headers={"accept-language": "fr"})

    assert ('<html lang="de" dir="ltr">' in german.text, "<h1>Anmelden</h1>" in german.text) == (True, True)
    assert '<html lang="ar" dir="rtl">' in arabic.text
    assert program.json()["fields"]["email"] == "Ce champ est obligatoire."


async def test_mail_uses_the_language_of_the_request(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """The sender gets the language and the translated texts."""
    await post(plug, REGISTER, registration(), headers={**PAGE, "accept-language": "nl"})
    opts = auth.sender.messages[-1][2]

    assert (opts["locale"], opts["texts"].subject) == ("nl", "Bevestig je e-mailadres voor Zoo")


def test_pages_are_checked_at_start(tmp_path: Path) -> None:
    """A value that is not a ``Pages`` object raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="pages must be a Pages"):
        make_auth(tmp_path, pages="pages")
