"""Invited users who register by a provider, and ``Confirmation`` if the provider names a different address."""

from datetime import timedelta
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from asgi_auth.add_ons import Confirmation, Invitation
from asgi_auth.errors import IdentityTakenError
from asgi_auth.senders import MemorySender
from tests.add_ons.inviting import (
    ROLE,
    Roles,
    by_staff,
    invite,
    joining,
    make_inviting,
    member_of,
    refused,
    states,
)
from tests.asgi import PAGE, Answer, ask, post, site
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    LocalAuthentication,
    credentials,
    found_of,
    mailed_token,
    registration,
)

pytestmark = pytest.mark.anyio

SUBJECT = "alice-at-provider"


@pytest.fixture
def app(auth: LocalAuthentication) -> ASGIApp:
    """The plug and both middlewares."""
    return site(auth)


async def come(app: ASGIApp, **form: str) -> Answer:
    """Call the provider's callback."""
    return await post(app, "/auth/provider/callback", {"subject": SUBJECT, **form}, headers=PAGE)


def cookie_of(auth: LocalAuthentication, answer: Answer) -> str:
    """Return the Cookie header after a sign-in."""
    return f"{auth.site.session_cookie}={answer.cookie(auth.site.session_cookie)}"


async def test_other_address_works_from_invitation_to_reset(
    auth: LocalAuthentication, app: ASGIApp, roles: Roles
) -> None:
    """Rule 9, over HTTP: the second mail's link works only for the new user, also in a later session, and once.

    Before, no mail reaches the user by the invited address; afterwards the account is like any other with it.
    """
    token = await invite(auth, grant=ROLE)
    joined = await come(app, address=OTHER_EMAIL, invitation_token=token)
    first = cookie_of(auth, joined)
    [found] = [await auth.accounts.find("username", SUBJECT)]
    assert found is not None
    assert (joined.status, found.user.email, found.account.confirmed_at) == (200, None, None)
    assert (await states(auth), roles.granted) == (["accepted"], [(found.user.id, {"role": "editor"})])
    link, mails = {"confirmation_token": mailed_token(auth, parameter="confirmation_token")}, len(auth.sender.messages)
    for email in (EMAIL, OTHER_EMAIL):
        await post(app, "/auth/password/reset_request", {"email": email}, headers=PAGE)
    assert len(auth.sender.messages) == mails

    page = await ask(app, "GET", "/auth/confirmation/confirm", query=b"confirmation_token=x", headers=PAGE)
    strange = await post(app, "/auth/confirmation/confirm", link, headers=PAGE)
    assert (page.status, strange.status) == (401, 401)
    await post(app, "/auth/sign_out", headers=PAGE, cookie=first)
    stale = await post(app, "/auth/confirmation/confirm", link, headers=PAGE, cookie=first)
    assert stale.status == 401
    auth.clock.advance(timedelta(days=1))
    later = cookie_of(auth, await come(app, address=OTHER_EMAIL))
    done = await post(app, "/auth/confirmation/confirm", link, headers=PAGE, cookie=later)
    again = await post(app, "/auth/confirmation/confirm", link, headers=PAGE, cookie=later)
    proven = await found_of(auth)
    assert (done.status, again.status) == (200, 401)
    assert (proven.user.id, proven.account.confirmed_at) == (found.user.id, auth.clock())

    await post(app, "/auth/password/reset_request", {"email": EMAIL}, headers=PAGE)
    form = {"reset_token": mailed_token(auth), "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    assert (await post(app, "/auth/password/reset", form, headers=PAGE)).status == 200
    user, access = await auth.strategy("password").sign_in(credentials(password=NEW_PASSWORD))
    second = {"invitation_token": await invite(auth, scope="team")}
    cookie = f"{auth.site.session_cookie}={access.cookie}"
    assert (await post(app, "/auth/invitation/accept", second, headers=PAGE, cookie=cookie)).status == 200
    assert (user.id, [owner for owner, _ in roles.granted]) == (found.user.id, [found.user.id] * 2)


async def test_same_address_needs_no_second_mail(auth: LocalAuthentication, app: ASGIApp) -> None:
    """The token has proven the mailbox, in any spelling that the provider uses."""
    token = await invite(auth)
    mails = len(auth.sender.messages)
    joined = await come(app, address="ALICE@Mail.Example.org", invitation_token=token)
    found = await found_of(auth)

    assert (joined.status, found.user.username, found.user.email) == (200, SUBJECT, EMAIL)
    assert (found.account.confirmed_at, len(auth.sender.messages)) == (auth.clock(), mails)


async def test_another_address_beside_an_unconfirmed_account_is_rejected(
    auth: LocalAuthentication, app: ASGIApp, roles: Roles
) -> None:
    """Another account has the invited address, unconfirmed: no second mail is possible, so nothing is consumed.

    A strategy that takes the invited address can still claim the account with the token (case C).
    """
    await auth.strategy("password").register(registration(EMAIL, "planted by a stranger"))
    token = await invite(auth, grant=ROLE)
    answer = await come(app, address=OTHER_EMAIL, invitation_token=token)

    assert (answer.status, await states(auth), roles.granted) == (422, ["pending"], [])
    assert await auth.accounts.find("username", SUBJECT) is None
    assert (await come(app, invitation_token=token)).status == 200
    assert (await found_of(auth)).user.username == SUBJECT


@pytest.mark.parametrize("order", [1, -1])
async def test_trusted_provider_proves_only_its_own_address(tmp_path: Path, order: int) -> None:
    """``auto_confirm`` applies only to the provider's own address, in any order of the add-ons."""
    sender = MemorySender()
    confirmation = Confirmation(sender=sender, auto_confirm=["provider"])
    add_ons = [confirmation, Invitation(sender=sender, may_invite=by_staff)][::order]
    auth = make_inviting(tmp_path, sender=sender, add_ons=add_ons)
    token = await invite(auth)
    await auth.strategy("provider").callback({"subject": SUBJECT, "address": OTHER_EMAIL, "invitation_token": token})
    found = await auth.accounts.find("username", SUBJECT)

    assert found is not None
    assert (found.user.email, found.account.confirmed_at) == (None, None)
    assert auth.sender.messages[-1][2]["purpose"] == "email_change"
    await auth.close()


async def test_case_c_rejects_a_disabled_account(auth: LocalAuthentication, roles: Roles) -> None:
    """IN-4: an invitation does not admit the user of an unconfirmed account that is disabled."""
    user = await member_of(auth, confirmed=False)
    await auth.accounts.disable(user.id)
    token = await invite(auth, grant=ROLE)
    view = await auth.add_on("invitation").view({"invitation_token": token})
    error = await refused(auth.strategy("password").register(joining(token)))

    assert view.data["to_do"] == "sign_in"
    assert isinstance(error, IdentityTakenError)
    assert error.reason == "the invited address is taken"
    assert (await states(auth), roles.granted) == (["pending"], [])


async def test_case_c_removes_a_planted_name(auth: LocalAuthentication) -> None:
    """AC-1, the non-verifying provider: a stranger's user name no longer leads to the claimed account."""
    await auth.accounts.create({"email": EMAIL, "username": "mallory"})
    token = await invite(auth, grant=ROLE)
    user, access = await auth.strategy("password").register(joining(token, PASSWORD))
    stranger, session = await auth.strategy("provider").callback({"subject": "mallory"})

    assert (user.email, user.username, access is not None) == (EMAIL, None, True)
    assert (stranger.id == user.id, session) == (False, None)


async def test_unreadable_address_of_a_provider_needs_a_second_mail(auth: LocalAuthentication, app: ASGIApp) -> None:
    """If the provider's address is malformed, the invited address is pending, as if the provider named another one."""
    token = await invite(auth)
    joined = await come(app, address="no address", invitation_token=token)
    found = await auth.accounts.find("username", SUBJECT)

    assert joined.status == 200
    assert found is not None
    assert (found.user.email, found.account.confirmed_at) == (None, None)
