"""Attacks with an invitation, one test for each."""

import string
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.acts import Draft
from asgi_auth.add_ons import APPLICATION, Confirmation, Invitation
from asgi_auth.errors import (
    AuthenticationFailedError,
    ForbiddenError,
    InvalidTokenError,
    ValidationError,
)
from asgi_auth.hooks import Hook
from asgi_auth.senders import MemorySender
from asgi_auth.types import AnonymousUser, User
from tests.add_ons.inviting import (
    ADMIN,
    ROLE,
    Roles,
    admin_of,
    by_staff,
    invitations,
    invite,
    joining,
    make_inviting,
    member_of,
    newest_token,
    refused,
    states,
)
from tests.asgi import PAGE, ask, post, site
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    LocalAuthentication,
    credentials,
    found_of,
    is_alive,
    mailed_token,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

HERE = "/auth/invitation"
PLANTED = "planted by a stranger"


# --- the lure --------------------------------------------------------------------------------------------------------


async def test_lure_into_the_attackers_session_grants_nothing(auth: LocalAuthentication, roles: Roles) -> None:
    """IN-4: the victim opens the link in a browser with the attacker's cookie; the attacker gets no grant."""
    app, attacker = site(auth), await member_of(auth, OTHER_EMAIL)
    cookie = f"{auth.site.session_cookie}={(await auth.sign_in(attacker)).cookie}"
    token = await invite(auth, grant=ROLE)
    query = f"invitation_token={token}".encode()
    page = await ask(app, "GET", f"{HERE}/view", query=query, headers=PAGE, cookie=cookie)
    answer = await post(app, f"{HERE}/accept", {"invitation_token": token}, headers=PAGE, cookie=cookie)

    assert (page.status, "You are signed in with another account." in page.text, "Accept" in page.text) == (
        200,
        True,
        False,
    )
    assert (answer.status, roles.granted, await states(auth)) == (403, [], ["pending"])
    done = await post(app, "/auth/password/register", joining(token), headers=PAGE, cookie=cookie)
    assert done.status == 200
    assert roles.granted == [((await found_of(auth)).user.id, {"role": "editor"})]
    assert await auth.sessions.list(attacker.id) == []  # the victim's session has replaced it


async def test_lure_into_an_account_with_the_victims_address_grants_nothing(tmp_path: Path, roles: Roles) -> None:
    """CVE-2026-53514: the attacker's account has the victim's address, unconfirmed; the browser has its cookie."""
    auth = make_inviting(tmp_path, roles=roles)
    planted, access = await register(auth)
    token = await invite(auth, grant=ROLE)
    app, cookie = site(auth), f"{auth.site.session_cookie}={access.cookie}"
    answer = await post(app, f"{HERE}/accept", {"invitation_token": token}, headers=PAGE, cookie=cookie)

    assert (answer.status, roles.granted, await states(auth)) == (403, [], ["pending"])
    assert (await auth.accounts.get(planted.id)) is not None
    await auth.close()


async def test_lure_with_another_invitation_shows_its_address(auth: LocalAuthentication, roles: Roles) -> None:
    """A user who gets the invitation of another address sees the full address and cannot register another one."""
    token = await invite(auth, OTHER_EMAIL)
    view = await auth.add_on("invitation").view({"invitation_token": token})
    error = await refused(auth.strategy("password").register(joining(token, email=EMAIL)))

    assert view.data["email"] == OTHER_EMAIL
    assert isinstance(error, ValidationError)
    assert error.fields == {"email": "This is not the address that was invited."}
    assert roles.granted == []


# --- pre-hijacking: case C -------------------------------------------------------------------------------------------


async def test_case_c_invalidates_all_credentials_of_a_stranger(tmp_path: Path, roles: Roles) -> None:
    """AC-1: a password, a session, a reset link and a confirmation link from before the claim are invalid."""
    before = make_auth(tmp_path)
    await before.accounts.create({"email": EMAIL}, password=PLANTED)
    _, session = await before.strategy("password").sign_in(credentials(password=PLANTED))
    await before.strategy("password").reset_request({"email": EMAIL})
    reset_token = mailed_token(before)
    sender = MemorySender()
    auth = make_inviting(tmp_path, roles=roles, sender=sender, hooks=[Confirmation(sender=sender)])
    await auth.add_on("confirmation").resend({"email": EMAIL})
    link = mailed_token(auth, parameter="confirmation_token")
    token = await invite(auth, grant=ROLE)
    assert await is_alive(auth, session)
    user, access = await auth.strategy("password").register(joining(token))

    assert await is_alive(auth, access)
    assert not await is_alive(auth, session)
    assert [each.id for each in await auth.sessions.list(user.id)] == [access.session.id]
    reset = {"reset_token": reset_token, "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    for act in (
        auth.strategy("password").sign_in(credentials(password=PLANTED)),
        auth.strategy("password").reset(reset),
        auth.add_on("confirmation").confirm({"confirmation_token": link}),
    ):
        assert isinstance(await refused(act), AuthenticationFailedError)
    assert (await auth.strategy("password").sign_in(credentials())).user.id == user.id
    await before.close()
    await auth.close()


async def test_case_c_later_registration_by_a_stranger_has_no_effect(auth: LocalAuthentication) -> None:
    """A stranger registers the address after the mail was sent; the invited user still gets the account."""
    token = await invite(auth, grant=ROLE)
    await auth.strategy("password").register(registration(EMAIL, PLANTED))
    user, access = await auth.strategy("password").register(joining(token))

    assert (user.email, access is not None, await states(auth)) == (EMAIL, True, ["accepted"])
    assert isinstance(
        await refused(auth.strategy("password").sign_in(credentials(password=PLANTED))), AuthenticationFailedError
    )


async def test_case_c_refused_grant_claims_nothing(auth: LocalAuthentication, roles: Roles) -> None:
    """The refusal rolls back the claim of the account, too."""
    await auth.strategy("password").register(registration(EMAIL, PLANTED))
    token = await invite(auth)
    before = await found_of(auth)
    roles.refusal = ForbiddenError("no seat left")

    assert await refused(auth.strategy("password").register(joining(token))) is roles.refusal
    assert await found_of(auth) == before


async def test_other_address_of_a_provider_needs_a_second_proof(auth: LocalAuthentication) -> None:
    """Rule 9: the new user gets the invited address only by the second mail, in a session of their own."""
    token = await invite(auth)
    form = {"subject": "alice", "address": OTHER_EMAIL, "invitation_token": token}
    user, access = await auth.strategy("provider").callback(form)
    assert (user.email, access is not None) == (None, True)
    link = mailed_token(auth, parameter="confirmation_token")
    assert auth.sender.messages[-1][2]["address"] == EMAIL
    before = len(auth.sender.messages)
    await auth.strategy("password").reset_request({"email": EMAIL})
    await auth.strategy("password").reset_request({"email": OTHER_EMAIL})
    assert len(auth.sender.messages) == before

    confirm = auth.add_on("confirmation").confirm
    assert isinstance(await refused(confirm({"confirmation_token": link})), AuthenticationFailedError)
    await confirm({"confirmation_token": link}, session=access.session)
    found = await found_of(auth)
    assert (found.user.id, found.account.confirmed_at) == (user.id, auth.clock())


# --- to invite again -------------------------------------------------------------------------------------------------


async def test_reinvite_does_not_change_the_grant_of_an_old_link(auth: LocalAuthentication, roles: Roles) -> None:
    """Rule 4: the policy decides about the new grant; the link of the earlier mail becomes invalid."""
    admin, add_on = await admin_of(auth), auth.add_on("invitation")
    old = await invite(auth, grant={"role": "viewer"})
    auth.clock.advance(timedelta(minutes=1))
    assert isinstance(await refused(add_on.invite(admin, EMAIL, grant={"role": "owner"})), ForbiddenError)
    assert [(each.grant, each.version) for each in await invitations(auth)] == [({"role": "viewer"}, 1)]
    await add_on.invite(admin, EMAIL, grant=ROLE)
    assert isinstance(await refused(auth.strategy("password").register(joining(old))), InvalidTokenError)
    await auth.strategy("password").register(joining(newest_token(auth)))

    assert [data for _, data in roles.granted] == [{"role": "editor"}]


async def test_reinvite_by_another_inviter_changes_and_reveals_nothing(tmp_path: Path) -> None:
    """Rule 4, IN-3: without ``may_revoke`` the first invitation stays; the answer is the usual one."""
    auth = make_inviting(tmp_path, invitation={"may_invite": lambda *_: True})
    other, token = await member_of(auth, OTHER_EMAIL), await invite(auth, grant=ROLE)
    before = await invitations(auth)
    answers = [
        await auth.add_on("invitation").invite(other, email, grant={"role": "owner"})
        for email in (EMAIL, "nobody@mail.example.org")
    ]

    assert answers[0] == answers[1]
    assert [each for each in await invitations(auth) if each.email == EMAIL] == list(before)
    assert len(auth.sender.messages) == 2
    assert (await auth.add_on("invitation").view({"invitation_token": token})).data["inviter"] == ADMIN
    await auth.close()


async def test_reinvite_by_another_inviter_uses_their_own_authority(tmp_path: Path, roles: Roles) -> None:
    """Rule 4: with ``may_revoke`` the first invitation is revoked and a new one created; no grant is inherited."""
    policies = {"may_invite": lambda *_: True, "may_revoke": lambda actor, invitation: True}
    auth = make_inviting(tmp_path, roles=roles, invitation=policies)
    other, old = await member_of(auth, OTHER_EMAIL), await invite(auth, grant=ROLE)
    await auth.add_on("invitation").invite(other, EMAIL, grant={"role": "viewer"})
    kept = {each.status: (each.inviter_id, each.reason, each.ended_by) for each in await invitations(auth)}

    assert kept == {"revoked": ((await admin_of(auth)).id, "superseded", other.id), "pending": (other.id, None, None)}
    assert isinstance(await refused(auth.strategy("password").register(joining(old))), InvalidTokenError)
    await auth.strategy("password").register(joining(newest_token(auth)))
    assert [data for _, data in roles.granted] == [{"role": "viewer"}]
    await auth.close()


async def test_reinvite_does_not_move_a_token_to_another_address(auth: LocalAuthentication) -> None:
    """CVE-2026-32700: the address cannot change; another spelling uses the same row and the stored address."""
    await invite(auth)
    auth.clock.advance(timedelta(minutes=1))
    await invite(auth, "ALICE@mail.example.org")
    [record] = await invitations(auth)

    assert (record.email, record.version) == (EMAIL, 2)
    assert {opts["address"] for _, _, opts in auth.sender.messages} == {EMAIL}


# --- authority -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["register", "accept"])
@pytest.mark.parametrize("how", ["disabled", "deleted", "demoted"])
async def test_invitation_is_revoked_if_the_inviter_lost_authority(
    tmp_path: Path, roles: Roles, how: str, path: str
) -> None:
    """Rule 10: the use asks the policy again and revokes the invitation; the error is that of any invalid token."""
    trusted = True

    async def policy(inviter: User, address: str, grant: Any) -> bool:
        return trusted and by_staff(inviter, address, grant)

    auth = make_inviting(tmp_path, roles=roles, invitation={"may_invite": policy})
    user = await member_of(auth) if path == "accept" else None
    token, admin = await invite(auth, grant=ROLE), await admin_of(auth)
    trusted = how != "demoted"
    if how != "demoted":
        await getattr(auth.accounts, {"disabled": "disable", "deleted": "delete"}[how])(admin.id)
    shown = {"invitation_token": token}
    for _ in range(2):
        act = (
            auth.strategy("password").register(joining(token))
            if user is None
            else auth.add_on("invitation").accept(user, shown)
        )
        error = await refused(act)
        assert (type(error), error.fields if error else None) == (InvalidTokenError, {})

    [record] = await invitations(auth)
    assert (record.status, record.reason, record.ended_by) == ("revoked", "inviter_lost_authority", None)
    assert roles.granted == []
    await auth.close()


class Meanwhile(Hook):
    """Runs ``act`` after an invitation was read and before the transaction that accepts it."""

    name = "meanwhile"
    act: Callable[[], Awaitable[Any]]

    async def prepare(self, draft: Draft) -> Draft:
        if "invitation_token" in draft.params:
            await self.act()
        return draft


@pytest.mark.parametrize("how", ["disable", "delete"])
async def test_inviter_is_checked_again_in_the_accepting_transaction(tmp_path: Path, roles: Roles, how: str) -> None:
    """Rule 10: if the inviter is disabled or deleted while the password is hashed, the attempt is rolled back."""
    hook, sender = Meanwhile(), MemorySender()
    invitation = Invitation(sender=sender, may_invite=by_staff, grant=roles)
    auth = make_inviting(tmp_path, roles=roles, sender=sender, add_ons=[invitation, hook])
    token, admin = await invite(auth, grant=ROLE), await admin_of(auth)

    hook.act = partial(getattr(auth.accounts, how), admin.id)
    error = await refused(auth.strategy("password").register(joining(token)))

    assert (type(error), await states(auth), roles.granted) == (InvalidTokenError, ["pending"], [])
    assert await auth.accounts.find("email", EMAIL) is None
    await auth.close()


@pytest.mark.parametrize("nobody", [None, AnonymousUser()])
async def test_none_and_anonymous_are_not_the_application(auth: LocalAuthentication, nobody: Any) -> None:
    """IN-3: ``auth.user(request)`` is None without a session; None and ``AnonymousUser`` are rejected."""
    await invite(auth)
    [record] = await invitations(auth)
    add_on = auth.add_on("invitation")
    acts = (
        add_on.invite(nobody, OTHER_EMAIL),
        add_on.resend(nobody, record.id),
        add_on.revoke(nobody, record.id),
        add_on.list(nobody),
    )
    for act in acts:
        assert isinstance(await refused(act), ForbiddenError)
    assert await invitations(auth) == [record]


async def test_invitation_by_the_application_needs_no_policy(auth: LocalAuthentication, roles: Roles) -> None:
    """No policy is asked, neither when the invitation is created nor when it is used."""
    await auth.add_on("invitation").invite(APPLICATION, EMAIL, grant={"role": "owner"})
    await auth.strategy("password").register(joining(newest_token(auth)))

    assert [data for _, data in roles.granted] == [{"role": "owner"}]


# --- the token -------------------------------------------------------------------------------------------------------


async def test_every_changed_token_is_invalid(auth: LocalAuthentication) -> None:
    """CVE-2026-1529: the token contains no data that could be edited, and every changed token is rejected."""
    token = await invite(auth, grant=ROLE)
    alphabet = string.ascii_letters + string.digits + "-_"
    assert not [text for text in (EMAIL, "editor", "alice") if text in token]
    for position in range(len(token)):
        other = alphabet[(alphabet.index(token[position]) + 1) % len(alphabet)]
        edited = token[:position] + other + token[position + 1 :]
        assert isinstance(await refused(auth.strategy("password").register(joining(edited))), InvalidTokenError)
    for edited in (token + "A", token[:-1], token.swapcase(), f" {token}", f"{token}=", token.encode().hex()):
        assert isinstance(await refused(auth.strategy("password").register(joining(edited))), InvalidTokenError)

    assert await states(auth) == ["pending"]


async def test_id_of_an_invitation_is_no_token(auth: LocalAuthentication) -> None:
    """The id in the inviter's list cannot be used to register."""
    await invite(auth)
    [record] = await invitations(auth)

    assert isinstance(await refused(auth.strategy("password").register(joining(record.id))), InvalidTokenError)


async def test_token_of_an_invitation_has_no_other_use(auth: LocalAuthentication) -> None:
    """TK-8: sign-in, reset, confirmation and undo reject the token."""
    await member_of(auth)
    token = await invite(auth)
    new = {"password": PASSWORD, "password_confirmation": PASSWORD}
    for act in (
        auth.strategy("password").sign_in_with_token({"token": token}),
        auth.strategy("password").reset({"reset_token": token, **new}),
        auth.add_on("confirmation").confirm({"confirmation_token": token}),
        auth.add_on("confirmation").undo({"undo_token": token}),
    ):
        assert isinstance(await refused(act), InvalidTokenError)


async def test_token_of_another_kind_of_user_is_rejected(tmp_path: Path) -> None:
    """SE-12: one ``Authentication`` rejects the tokens of another, even with the same database and secret."""
    users, staff = make_inviting(tmp_path), make_inviting(tmp_path, subject_name="staff")
    token = await invite(users)

    assert isinstance(await refused(staff.strategy("password").register(joining(token))), InvalidTokenError)
    assert (await invitations(staff), await states(users)) == ([], ["pending"])
    await users.close()
    await staff.close()
