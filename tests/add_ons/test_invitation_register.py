"""Registration in every state of an invitation, on every path that creates users, in every mode."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.acts import Draft
from asgi_auth.add_ons import APPLICATION
from asgi_auth.errors import (
    AuthError,
    ConfigurationError,
    FactorRequiredError,
    ForbiddenError,
    IdentityTakenError,
    InvalidTokenError,
    ValidationError,
)
from asgi_auth.events import InvitationAccepted, SignInSucceeded, UserConfirmed, UserCreated
from asgi_auth.strategies import Password
from asgi_auth.types import User
from tests.add_ons.inviting import (
    ROLE,
    Proving,
    Roles,
    invitations,
    invite,
    joining,
    make_inviting,
    member_of,
    refused,
    states,
)
from tests.second_factor import Code
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    Events,
    LocalAuthentication,
    credentials,
    found_of,
    is_alive,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

SUBJECT = "alice-at-provider"

# --- the matrix ------------------------------------------------------------------------------------------------------

Path_ = Callable[[LocalAuthentication, Mapping[str, str]], Awaitable[Any]]


async def by_password(auth: LocalAuthentication, token: Mapping[str, str]) -> Any:
    """Register with the password strategy and a typed address."""
    return await auth.strategy("password").register({**registration(), **token})


async def by_password_alone(auth: LocalAuthentication, token: Mapping[str, str]) -> Any:
    """Register with only the token and a password, as the page does; without a token there is no address."""
    return await auth.strategy("password").register({**registration(""), **token})


async def by_provider(auth: LocalAuthentication, token: Mapping[str, str]) -> Any:
    """Register with a provider that gives the address in another spelling."""
    return await auth.strategy("provider").callback({"subject": SUBJECT, "address": "Alice@MAIL.example.org", **token})


async def by_silent_provider(auth: LocalAuthentication, token: Mapping[str, str]) -> Any:
    """Register with a provider that gives no address."""
    return await auth.strategy("provider").callback({"subject": SUBJECT, **token})


PATHS: dict[str, Path_] = {
    each.__name__: each for each in (by_password, by_password_alone, by_provider, by_silent_provider)
}


async def no_invitation(auth: LocalAuthentication) -> str | None:
    return None


async def pending(auth: LocalAuthentication) -> str | None:
    return await invite(auth, grant=ROLE)


async def expired(auth: LocalAuthentication) -> str | None:
    token = await invite(auth)
    auth.clock.advance(timedelta(days=7))
    return token


async def revoked(auth: LocalAuthentication) -> str | None:
    token = await invite(auth)
    await auth.add_on("invitation").revoke(APPLICATION, (await invitations(auth))[0].id)
    return token


async def declined(auth: LocalAuthentication) -> str | None:
    token = await invite(auth)
    await auth.add_on("invitation").decline({"invitation_token": token})
    return token


async def used(auth: LocalAuthentication) -> str | None:
    token = await invite(auth)
    [record] = await invitations(auth)
    await auth.services.store.invitations.end(record.id, "accepted", now=auth.clock())
    return token


async def superseded(auth: LocalAuthentication) -> str | None:
    token = await invite(auth)
    auth.clock.advance(timedelta(seconds=60))
    await auth.add_on("invitation").resend(APPLICATION, (await invitations(auth))[0].id)
    return token


async def other_address(auth: LocalAuthentication) -> str | None:
    return await invite(auth, OTHER_EMAIL)


STATES = (no_invitation, pending, expired, revoked, declined, used, superseded, other_address)


def expected(state: str, path: str, mode: str) -> type[AuthError] | None:
    """Return the type of the error that a registration raises; None if it succeeds."""
    if state == "no_invitation":
        if mode != "open":
            return ForbiddenError
        return ValidationError if path == "by_password_alone" else None  # there is no address
    if state == "other_address" and path in ("by_password", "by_provider"):
        return ValidationError
    if state in ("pending", "other_address"):
        return ForbiddenError if mode == "closed" else None
    return InvalidTokenError


@pytest.mark.parametrize("mode", ["open", "invite_only", "closed"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_registration_matrix(
    tmp_path: Path, state: Callable[[LocalAuthentication], Awaitable[str | None]], path: str, mode: str
) -> None:
    """IN-1, IN-2: on every path only a valid token for the same address registers; a refusal changes nothing."""
    roles = Roles()
    auth = make_inviting(tmp_path, roles=roles, registration=mode)
    token = await state(auth)
    before = await invitations(auth)
    error = await refused(PATHS[path](auth, {} if token is None else {"invitation_token": token}))

    assert (None if error is None else type(error)) == expected(state.__name__, path, mode)
    invited = error is None and token is not None
    if error is not None or token is None:
        assert await invitations(auth) == before
        assert roles.granted == []
    if error is not None:
        assert await auth.accounts.find("email", EMAIL) is None
        assert await auth.accounts.find("username", SUBJECT) is None
    if invited:
        email = before[0].email
        found = await found_of(auth, email)
        assert (found.user.email, found.account.confirmed_at) == (email, auth.clock())
        assert roles.granted == [(found.user.id, dict(before[0].grant))]
        [record] = await invitations(auth)
        strategy = path.rpartition("_")[2] if path != "by_password_alone" else "password"
        assert (record.status, record.accepted_by, record.accepted_via) == ("accepted", found.user.id, strategy)
    await auth.close()


async def test_registration_by_the_application_needs_no_invitation(tmp_path: Path) -> None:
    """The application itself calls ``accounts.create``, which ignores modes and leaves invitations pending."""
    auth = make_inviting(tmp_path, registration="closed")
    await invite(auth)
    await member_of(auth)

    assert await states(auth) == ["pending"]
    await auth.close()


def test_invite_only_requires_an_add_on_that_invites(tmp_path: Path) -> None:
    """Without such an add-on no user could ever register."""
    with pytest.raises(ConfigurationError, match="registration: 'invite_only' needs"):
        make_auth(tmp_path, registration="invite_only")


async def test_open_registration_accepts_no_invitation(tmp_path: Path) -> None:
    """Rule 12, CVE-2023-48220: a registration without the token, a reset and a confirmation accept no invitation."""
    auth = make_inviting(tmp_path)
    await invite(auth, grant=ROLE)
    await register(auth)
    await auth.strategy("password").reset_request({"email": EMAIL})
    token = auth.sender.messages[-1][1]
    await auth.strategy("password").reset(
        {"reset_token": token, "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    )
    found = await found_of(auth)
    await auth.accounts.confirm(found.user.id)

    assert (await states(auth), (await invitations(auth))[0].accepted_by) == (["pending"], None)
    await auth.close()


@pytest.mark.parametrize("state", [expired, revoked, declined, used, superseded], ids=lambda state: state.__name__)
async def test_reset_accepts_no_invitation(
    tmp_path: Path, state: Callable[[LocalAuthentication], Awaitable[str]]
) -> None:
    """CVE-2023-48220: an invitation's token cannot reset a password, and a reset changes no invitation in any state."""
    auth = make_inviting(tmp_path)
    token = await state(auth)
    await member_of(auth)
    before = await invitations(auth)
    reset = {"reset_token": token, "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    with pytest.raises(InvalidTokenError):
        await auth.strategy("password").reset(reset)
    await auth.strategy("password").reset_request({"email": EMAIL})
    await auth.strategy("password").reset({**reset, "reset_token": str(auth.sender.messages[-1][1])})

    assert await invitations(auth) == before
    await auth.close()


# --- the registered user ---------------------------------------------------------------------------------------------


async def test_registration_with_an_invitation_signs_in_and_emits_events(tmp_path: Path) -> None:
    """One act creates the user, the grant and the events, and then the session."""
    events, roles = Events(), Roles()
    auth = make_inviting(tmp_path, roles=roles, hooks=[events], registration="invite_only")
    token = await invite(auth, grant=ROLE)
    events.take()
    user, access = await auth.strategy("password").register(joining(token))

    assert (user.email, await is_alive(auth, access)) == (EMAIL, True)
    created, accepted, signed_in = events.take()
    assert isinstance(created, UserCreated)
    assert isinstance(accepted, InvitationAccepted)
    assert isinstance(signed_in, SignInSucceeded)
    assert (accepted.user_id, accepted.activity, accepted.user) == (user.id, ("password", "register"), user)
    assert len({created.act_id, accepted.act_id, signed_in.act_id}) == 1
    assert (accepted.invitation.status, accepted.invitation.accepted_by) == ("accepted", user.id)
    assert roles.granted == [(user.id, {"role": "editor"})]
    with pytest.raises(InvalidTokenError):
        await auth.strategy("password").register(joining(token))
    await auth.close()


async def test_grant_comes_from_the_invitation(tmp_path: Path) -> None:
    """IN-2: a role, a scope or an address that the client sends has no effect."""
    roles = Roles()
    auth = make_inviting(tmp_path, roles=roles)
    token = await invite(auth, grant=ROLE, scope="walrus")
    claims = {"role": "owner", "grant": '{"role": "owner"}', "scope": "other", "confirmed_at": "never"}
    user, _ = await auth.strategy("password").register(joining(token, email=" ALICE@mail.example.org", **claims))

    assert (user.email, dict(user.data)) == (EMAIL, {})
    assert roles.granted == [(user.id, {"role": "editor"})]
    assert (await invitations(auth))[0].scope == "walrus"
    await auth.close()


@pytest.mark.parametrize(
    ("email", "message"),
    [
        (OTHER_EMAIL, "This is not the address that was invited."),
        ("no address", "This is not a mail address."),
        ("alice@mail.example.org.evil.example", "This is not the address that was invited."),
    ],
)
async def test_other_address_with_the_token_consumes_nothing(tmp_path: Path, email: str, message: str) -> None:
    """The registration is rejected, and the invitation stays usable."""
    auth = make_inviting(tmp_path)
    token = await invite(auth)
    with pytest.raises(ValidationError) as refusal:
        await auth.strategy("password").register(joining(token, email=email))

    assert refusal.value.fields == {"email": message}
    assert await states(auth) == ["pending"]
    assert (await auth.strategy("password").register(joining(token))).token is not None
    await auth.close()


async def test_address_that_is_not_text_is_rejected(tmp_path: Path) -> None:
    """An application's strategy may pass a JSON value of any type."""
    auth = make_inviting(tmp_path)
    token = await invite(auth)
    hook = auth.services.hooks[-1]
    with pytest.raises(ValidationError):
        await hook.prepare(Draft(act="create", strategy="x", fields={"email": 5}, params={"invitation_token": token}))
    await auth.close()


@pytest.mark.parametrize("password", ["password1", "short"])
async def test_rejected_password_keeps_the_invitation(tmp_path: Path, password: str) -> None:
    """A rejected password does not consume the invitation."""
    auth = make_inviting(tmp_path, registration="invite_only")
    token = await invite(auth)
    with pytest.raises(ValidationError, match="password refused"):
        await auth.strategy("password").register(joining(token, password))

    assert await states(auth) == ["pending"]
    assert (await auth.strategy("password").register(joining(token))).token is not None
    await auth.close()


async def test_refused_grant_rolls_everything_back(tmp_path: Path) -> None:
    """No user is created and the invitation stays pending; the same link works as soon as the application agrees."""
    roles = Roles()
    auth = make_inviting(tmp_path, roles=roles, registration="invite_only")
    token = await invite(auth, grant=ROLE)
    roles.refusal = ForbiddenError("no seat left")
    with pytest.raises(ForbiddenError, match="no seat left"):
        await auth.strategy("password").register(joining(token))

    assert (await auth.accounts.find("email", EMAIL), await states(auth)) == (None, ["pending"])
    roles.refusal = None
    assert (await auth.strategy("password").register(joining(token))).token is not None
    await auth.close()


async def test_invitation_for_one_strategy_is_rejected_by_others(tmp_path: Path) -> None:
    """The application may limit an invitation to some strategies."""
    auth = make_inviting(tmp_path, registration="invite_only")
    token = await invite(auth, strategies=["provider"])
    with pytest.raises(ForbiddenError):
        await auth.strategy("password").register(joining(token))
    user, access = await auth.strategy("provider").callback({"subject": SUBJECT, "invitation_token": token})

    assert (user.email, user.username, access is not None) == (EMAIL, SUBJECT, True)
    await auth.close()


# --- the four cases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hooks", [[], [Proving()]], ids=["without proofs", "with proofs"])
async def test_case_b_does_not_overwrite_an_account(tmp_path: Path, hooks: list[Any]) -> None:
    """IN-3: an invitation's token neither signs in to a confirmed account nor sets its password."""
    auth = make_inviting(tmp_path, hooks=hooks, registration="invite_only")
    user = await member_of(auth)
    token = await invite(auth, grant=ROLE)
    with pytest.raises(IdentityTakenError) as refusal:
        await auth.strategy("password").register(joining(token, NEW_PASSWORD))

    assert refusal.value.fields["email"].endswith("Sign in, then open the link of the mail again.")
    assert await states(auth) == ["pending"]
    assert (await auth.strategy("password").sign_in(credentials())).user == user
    await auth.add_on("invitation").accept(user, {"invitation_token": token})
    assert await states(auth) == ["accepted"]
    await auth.close()


async def test_case_b_does_not_bypass_a_second_factor(tmp_path: Path) -> None:
    """Rule 8: a user with a second factor still needs it; the invitation does not sign in."""
    auth = make_inviting(tmp_path, strategies=[Password(), Code(enrolled=frozenset({EMAIL}))])
    await member_of(auth)
    token = await invite(auth)
    error = await refused(auth.strategy("password").register(joining(token, NEW_PASSWORD)))
    owed = await refused(auth.strategy("password").sign_in(credentials()))

    assert isinstance(error, IdentityTakenError)
    assert isinstance(owed, FactorRequiredError)
    assert owed.factors == ("code",)
    await auth.close()


async def test_case_c_token_claims_the_account(tmp_path: Path) -> None:
    """AC-1: the invited user takes over a stranger's unconfirmed account; its old password and links are invalid."""
    events, roles = Events(), Roles()
    auth = make_inviting(tmp_path, roles=roles, hooks=[Proving(), events])
    stranger = await auth.accounts.create({"email": "ALICE@mail.example.org"}, password="the stranger's own words")
    theirs = credentials(password="the stranger's own words")
    assert await refused(auth.strategy("password").sign_in(theirs)) is not None
    planted = await auth.services.tokens.issue(
        "reset", account=(await found_of(auth)).account, lifetime=timedelta(hours=1), extra_data={"factor": "password"}
    )
    token = await invite(auth, grant=ROLE)
    assert auth.sender.messages[-1][2]["registered"] is False
    events.take()
    user, access = await auth.strategy("password").register(joining(token))

    assert (user.id, user.email, access is not None) == (stranger.id, EMAIL, True)
    assert roles.granted == [(user.id, {"role": "editor"})]
    assert [event.claimed for event in events.take() if isinstance(event, UserConfirmed)] == [True]
    assert (
        await refused(auth.strategy("password").sign_in(credentials(password="the stranger's own words"))) is not None
    )
    reset = {"reset_token": planted.token, "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    assert isinstance(await refused(auth.strategy("password").reset(reset)), InvalidTokenError)
    await auth.close()


async def test_case_c_without_required_confirmation_is_case_b(tmp_path: Path) -> None:
    """If unconfirmed accounts can be used, they belong to their users and cannot be claimed."""
    auth = make_inviting(tmp_path)
    _, access = await register(auth)
    token = await invite(auth)

    assert auth.sender.messages[-1][2]["registered"] is True
    assert isinstance(
        await refused(auth.strategy("password").register(joining(token, NEW_PASSWORD))), IdentityTakenError
    )
    assert await is_alive(auth, access)
    await auth.close()


async def test_other_address_of_a_provider_needs_a_second_mail(tmp_path: Path) -> None:
    """Rule 9: the user has no address yet; the invited address is pending until its mailbox is confirmed."""
    proving, roles = Proving(), Roles()
    auth = make_inviting(tmp_path, roles=roles, hooks=[proving], registration="invite_only")
    token = await invite(auth, grant=ROLE)
    form = {"subject": SUBJECT, "address": OTHER_EMAIL, "invitation_token": token}
    user, _ = await auth.strategy("provider").callback(form)
    found = await auth.accounts.get(user.id)

    assert found is not None
    assert (found.user.email, found.user.username, found.account.confirmed_at) == (None, SUBJECT, None)
    assert proving.pending == [{"email": EMAIL}]
    assert (await states(auth), roles.granted) == (["accepted"], [(user.id, {"role": "editor"})])
    for email in (EMAIL, OTHER_EMAIL):
        assert await auth.accounts.find("email", email) is None
    await auth.close()


async def test_other_address_of_a_provider_does_not_bypass_an_account(tmp_path: Path) -> None:
    """Case B applies too: a user with an account must join with that account."""
    auth = make_inviting(tmp_path, hooks=[Proving()])
    await member_of(auth)
    token = await invite(auth)
    form = {"subject": SUBJECT, "address": OTHER_EMAIL, "invitation_token": token}

    assert isinstance(await refused(auth.strategy("provider").callback(form)), IdentityTakenError)
    assert await states(auth) == ["pending"]
    await auth.close()


async def test_known_identity_signs_in_and_consumes_nothing(tmp_path: Path) -> None:
    """A known user who comes with an invitation is signed in; cases D and E follow from there."""
    auth = make_inviting(tmp_path)
    first: User = (await auth.strategy("provider").callback({"subject": SUBJECT, "address": OTHER_EMAIL})).user
    token = await invite(auth)
    user, _ = await auth.strategy("provider").callback({"subject": SUBJECT, "invitation_token": token})

    assert (user.id, await states(auth)) == (first.id, ["pending"])
    await auth.close()


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "é" * 43])
async def test_invalid_token_is_rejected(tmp_path: Path, token: str) -> None:
    """An empty field means no invitation; an invalid token is rejected, also with open registration."""
    auth = make_inviting(tmp_path)
    error = await refused(auth.strategy("password").register({**registration(), "invitation_token": token}))

    assert type(error) is (type(None) if token == "" else InvalidTokenError)
    await auth.close()


@pytest.mark.parametrize("token", [5, ["a"], {"a": 1}, True])
async def test_token_that_is_not_text_is_rejected(tmp_path: Path, token: object) -> None:
    """JSON may contain a value of any type."""
    auth = make_inviting(tmp_path)
    error = await refused(auth.strategy("password").register({**registration(), "invitation_token": token}))

    assert isinstance(error, ValidationError)
    assert error.fields == {"invitation_token": "This must be text."}
    await auth.close()


async def test_other_tokens_are_rejected(tmp_path: Path) -> None:
    """TK-8: a token of the token store is no invitation, whatever the name of its purpose."""
    auth = make_inviting(tmp_path)
    for purpose in ("reset", "sign_in", "invitation"):
        issued = await auth.tokens.issue(purpose, account=None, lifetime=timedelta(hours=1))
        assert isinstance(await refused(auth.strategy("password").register(joining(issued.token))), InvalidTokenError)
    await auth.close()
