"""Who may register: every state of an invitation, on every path that makes users, in every mode."""

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
    """The password strategy; without a token an address has to be typed."""
    return await auth.strategy("password").register({**registration(), **token})


async def by_password_alone(auth: LocalAuthentication, token: Mapping[str, str]) -> Any:
    """Nothing but the token and a password, as on the page; without a token there is no address."""
    return await auth.strategy("password").register({**registration(""), **token})


async def by_provider(auth: LocalAuthentication, token: Mapping[str, str]) -> Any:
    """A provider that says the address, in another spelling."""
    return await auth.strategy("provider").callback({"subject": SUBJECT, "address": "Alice@MAIL.example.org", **token})


async def by_silent_provider(auth: LocalAuthentication, token: Mapping[str, str]) -> Any:
    """A provider that knows no address."""
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
    """What a registration is refused with."""
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
    """IN-1, IN-2: only a live token of this very address opens the door, on every path; a refusal changes nothing."""
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
    """``accounts.create`` is nobody's side door: it is the application, and leaves invitations alone."""
    auth = make_inviting(tmp_path, registration="closed")
    await invite(auth)
    await member_of(auth)

    assert await states(auth) == ["pending"]
    await auth.close()


def test_invite_only_needs_an_add_on_that_invites(tmp_path: Path) -> None:
    """A door that nobody could open is a mistake."""
    with pytest.raises(ConfigurationError, match="registration: 'invite_only' needs"):
        make_auth(tmp_path, registration="invite_only")


async def test_open_registration_leaves_an_invitation_alone(tmp_path: Path) -> None:
    """Rule 12, CVE-2023-48220: neither a registration without the token, a reset, nor a confirmation accepts one."""
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
    """CVE-2023-48220: the token of an invitation resets nothing, and a reset revives none, whatever its state."""
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


# --- what is registered ----------------------------------------------------------------------------------------------


async def test_registering_with_an_invitation_signs_in_and_is_told(tmp_path: Path) -> None:
    """One transaction: the user, what was granted and the events; then the session."""
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


async def test_what_is_granted_comes_from_the_invitation(tmp_path: Path) -> None:
    """IN-2: a role, a scope or an address that the client sends is nobody's word."""
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
async def test_another_address_beside_the_token_consumes_nothing(tmp_path: Path, email: str, message: str) -> None:
    """422, and the invitation goes on to work."""
    auth = make_inviting(tmp_path)
    token = await invite(auth)
    with pytest.raises(ValidationError) as refusal:
        await auth.strategy("password").register(joining(token, email=email))

    assert refusal.value.fields == {"email": message}
    assert await states(auth) == ["pending"]
    assert (await auth.strategy("password").register(joining(token))).token is not None
    await auth.close()


async def test_another_address_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A strategy of an application's may hand on what JSON has."""
    auth = make_inviting(tmp_path)
    token = await invite(auth)
    hook = auth.services.hooks[-1]
    with pytest.raises(ValidationError):
        await hook.prepare(Draft(act="create", strategy="x", fields={"email": 5}, params={"invitation_token": token}))
    await auth.close()


@pytest.mark.parametrize("password", ["password1", "short"])
async def test_a_refused_password_leaves_the_invitation_usable(tmp_path: Path, password: str) -> None:
    """A new password that will not do costs nothing."""
    auth = make_inviting(tmp_path, registration="invite_only")
    token = await invite(auth)
    with pytest.raises(ValidationError, match="password refused"):
        await auth.strategy("password").register(joining(token, password))

    assert await states(auth) == ["pending"]
    assert (await auth.strategy("password").register(joining(token))).token is not None
    await auth.close()


async def test_a_refused_grant_rolls_everything_back(tmp_path: Path) -> None:
    """No user, no session, no accepted invitation; once the application agrees, the same link works."""
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


async def test_an_invitation_for_one_strategy_is_for_no_other(tmp_path: Path) -> None:
    """The application may say by what one registers."""
    auth = make_inviting(tmp_path, registration="invite_only")
    token = await invite(auth, strategies=["provider"])
    with pytest.raises(ForbiddenError):
        await auth.strategy("password").register(joining(token))
    user, access = await auth.strategy("provider").callback({"subject": SUBJECT, "invitation_token": token})

    assert (user.email, user.username, access is not None) == (EMAIL, SUBJECT, True)
    await auth.close()


# --- the four cases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hooks", [[], [Proving()]], ids=["without proofs", "with proofs"])
async def test_case_b_an_account_is_not_overwritten(tmp_path: Path, hooks: list[Any]) -> None:
    """IN-3: the token of an invitation neither signs in nor sets a password of a confirmed account."""
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


async def test_case_b_no_way_around_a_second_factor(tmp_path: Path) -> None:
    """Rule 8: who has a second factor is still asked for it; the invitation gets nobody in."""
    auth = make_inviting(tmp_path, strategies=[Password(), Code(enrolled=frozenset({EMAIL}))])
    await member_of(auth)
    token = await invite(auth)
    error = await refused(auth.strategy("password").register(joining(token, NEW_PASSWORD)))
    owed = await refused(auth.strategy("password").sign_in(credentials()))

    assert isinstance(error, IdentityTakenError)
    assert isinstance(owed, FactorRequiredError)
    assert owed.factors == ("code",)
    await auth.close()


async def test_case_c_proof_of_the_mailbox_gives_the_account(tmp_path: Path) -> None:
    """AC-1: a stranger registered the address before; what they planted is dead, the account is the invited one's."""
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


async def test_case_c_without_proofs_is_case_b(tmp_path: Path) -> None:
    """Where anybody may use an unproven account, it is not empty: nothing of it is taken over."""
    auth = make_inviting(tmp_path)
    _, access = await register(auth)
    token = await invite(auth)

    assert auth.sender.messages[-1][2]["registered"] is True
    assert isinstance(
        await refused(auth.strategy("password").register(joining(token, NEW_PASSWORD))), IdentityTakenError
    )
    assert await is_alive(auth, access)
    await auth.close()


async def test_a_providers_other_address_waits_for_a_second_mail(tmp_path: Path) -> None:
    """Rule 9: the user has no address yet, and the invited one is put off until its mailbox is proven."""
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


async def test_a_providers_other_address_does_not_pass_by_an_account(tmp_path: Path) -> None:
    """Case B holds for it, too: who has an account joins with that."""
    auth = make_inviting(tmp_path, hooks=[Proving()])
    await member_of(auth)
    token = await invite(auth)
    form = {"subject": SUBJECT, "address": OTHER_EMAIL, "invitation_token": token}

    assert isinstance(await refused(auth.strategy("provider").callback(form)), IdentityTakenError)
    assert await states(auth) == ["pending"]
    await auth.close()


async def test_an_identity_that_is_known_signs_in_and_spends_nothing(tmp_path: Path) -> None:
    """Who comes with an invitation, but is a user already, is signed in as that: what follows is case D or E."""
    auth = make_inviting(tmp_path)
    first: User = (await auth.strategy("provider").callback({"subject": SUBJECT, "address": OTHER_EMAIL})).user
    token = await invite(auth)
    user, _ = await auth.strategy("provider").callback({"subject": SUBJECT, "invitation_token": token})

    assert (user.id, await states(auth)) == (first.id, ["pending"])
    await auth.close()


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "é" * 43])
async def test_a_token_that_is_none(tmp_path: Path, token: str) -> None:
    """An empty field is no invitation; garbage is a dead one, also where registration is open."""
    auth = make_inviting(tmp_path)
    error = await refused(auth.strategy("password").register({**registration(), "invitation_token": token}))

    assert type(error) is (type(None) if token == "" else InvalidTokenError)
    await auth.close()


@pytest.mark.parametrize("token", [5, ["a"], {"a": 1}, True])
async def test_a_token_that_is_no_text(tmp_path: Path, token: object) -> None:
    """JSON may hold anything."""
    auth = make_inviting(tmp_path)
    error = await refused(auth.strategy("password").register({**registration(), "invitation_token": token}))

    assert isinstance(error, ValidationError)
    assert error.fields == {"invitation_token": "This must be text."}
    await auth.close()


async def test_no_other_token_is_an_invitation(tmp_path: Path) -> None:
    """TK-8: a token of another purpose, also of the same name, leads nowhere."""
    auth = make_inviting(tmp_path)
    for purpose in ("reset", "sign_in", "invitation"):
        issued = await auth.tokens.issue(purpose, account=None, lifetime=timedelta(hours=1))
        assert isinstance(await refused(auth.strategy("password").register(joining(issued.token))), InvalidTokenError)
    await auth.close()
