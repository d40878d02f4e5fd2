"""Invitations without HTTP: every step of the state machine, every policy and every limit."""

import logging
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.add_ons import APPLICATION, Invitation
from asgi_auth.errors import (
    ConfigurationError,
    ForbiddenError,
    InvalidTokenError,
    RateLimitedError,
    StoreUnavailableError,
    ValidationError,
)
from asgi_auth.events import ActAccepted, InvitationAccepted, InvitationEnded, InvitationSent
from asgi_auth.limits import Limit
from asgi_auth.senders import MemorySender
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password
from asgi_auth.types import EMPTY, User
from tests.add_ons.inviting import (
    ADMIN,
    ROLE,
    Proving,
    Roles,
    admin_of,
    invitations,
    invite,
    joining,
    make_inviting,
    member_of,
    newest_token,
    refused,
    states,
)
from tests.support import (
    EMAIL,
    OTHER_EMAIL,
    Events,
    LocalAuthentication,
    credentials,
    is_alive,
    make_auth,
)

pytestmark = pytest.mark.anyio

A_MINUTE, A_WEEK = timedelta(seconds=60), timedelta(days=7)


@pytest.fixture
def events() -> Events:
    """A listener that records events."""
    return Events()


@pytest.fixture
async def auth(tmp_path: Path, events: Events, roles: Roles) -> AsyncIterator[LocalAuthentication]:
    """An Authentication whose admin may invite."""
    auth = make_inviting(tmp_path, roles=roles, hooks=[events])
    yield auth
    await auth.close()


def shown(token: str) -> dict[str, str]:
    return {"invitation_token": token}


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lifetime": timedelta(0)}, "lifetime must be a positive timedelta"),
        ({"lifetime": timedelta(days=7, seconds=1)}, "lifetime must be at most 7 days"),
        ({"lifetime": 3600}, "lifetime must be a positive timedelta"),
        ({"resend_after": timedelta(seconds=-1)}, "resend_after must be a positive timedelta"),
        ({"extends_to": timedelta(days=6)}, "extends_to must not be under lifetime"),
        ({"forget_after": timedelta(0)}, "forget_after must be a positive timedelta"),
        ({"sent_at_most": 0}, "sent_at_most must be a positive number"),
        ({"sent_at_most": True}, "sent_at_most must be a positive number"),
        ({"per_inviter": 5}, "per_inviter must be a Limit"),
        ({"per_address": None}, "per_address must be a Limit"),
        ({"may_invite": True}, "may_invite must be a function"),
        ({"may_invite": lambda inviter: True}, "may_invite must take"),
        ({"may_invite": dict.fromkeys}, "may_invite must take"),
        ({"may_revoke": "admin"}, "may_revoke must be a function"),
        ({"grant": {"role": "editor"}}, "grant must be a function"),
        ({"url": "/join"}, "url must be an absolute URL"),
    ],
)
def test_invalid_option_is_rejected(options: dict[str, Any], message: str) -> None:
    """IN-1: the constructor raises an error that names the option; the lifetime must be limited."""
    with pytest.raises(ConfigurationError, match=f"invitation.{message}"):
        Invitation(sender=MemorySender(), **options)


def test_unsuitable_add_on_is_rejected(tmp_path: Path) -> None:
    """A second add-on for invitations and an invalid sender are rejected."""
    two = [Invitation(sender=MemorySender()), Invitation(sender=MemorySender(), name="other")]
    with pytest.raises(ConfigurationError, match="another add-on already opens the registration"):
        make_auth(tmp_path, add_ons=two)
    with pytest.raises(ConfigurationError, match=r"invitation.sender"):
        make_auth(tmp_path, add_ons=[Invitation(sender=5)])  # type: ignore[arg-type]  # invalid on purpose


def test_store_without_invitations_is_rejected(tmp_path: Path) -> None:
    """The error is raised at start and names the missing part."""

    class Bare:
        """A store from before the library had invitations."""

        def __init__(self, scoped: Any) -> None:
            self.users, self.accounts = scoped.users, scoped.accounts
            self.sessions, self.tokens, self.counters = scoped.sessions, scoped.tokens, scoped.counters

    class BareStore(SQLiteStore):
        def scope(self, subject_name: str) -> Any:
            return Bare(super().scope(subject_name))

    with pytest.raises(ConfigurationError, match="keeps no invitations: invitation needs them"):
        make_inviting(tmp_path, store=BareStore(tmp_path / "app.db"))


def test_store_without_addresses_is_rejected(tmp_path: Path) -> None:
    """Invitations are sent to addresses, so the store must find users by address."""

    class NameStore(SQLiteStore):
        def scope(self, subject_name: str) -> Any:
            scoped: Any = super().scope(subject_name)
            scoped.users.identity_fields = frozenset({"username"})
            return scoped

    with pytest.raises(ConfigurationError, match="invitation: the store cannot find users by email"):
        make_inviting(tmp_path, store=NameStore(tmp_path / "app.db"), strategies=[Password(identity_field="username")])


# --- invite ----------------------------------------------------------------------------------------------------------


async def test_invite_mails_a_link_and_stores_a_row(auth: LocalAuthentication, events: Events) -> None:
    """The mail's options are as documented; the address is stored as typed and compared by its key."""
    admin = await admin_of(auth)
    events.take()
    user, token = await auth.add_on("invitation").invite(admin, " Alice@MAIL.example.org", grant={"role": "editor"})
    [(recipient, secret, opts)] = auth.sender.messages
    [record] = await invitations(auth)

    assert (user, token, recipient) == (None, None, None)
    assert {name: value for name, value in opts.items() if name != "texts"} == {
        "locale": "en",
        "purpose": "invitation",
        "address": "Alice@mail.example.org",
        "app_name": "localhost",
        "url": f"http://localhost:8000/auth/invitation/view?invitation_token={secret}",
        "expires_at": auth.clock() + A_WEEK,
        "inviter": ADMIN,
        "scope": None,
        "registered": False,
    }
    assert (record.email, record.email_key) == ("Alice@mail.example.org", EMAIL)
    assert (record.status, record.version, record.grant, record.inviter_id) == ("pending", 1, ROLE, admin.id)
    assert (record.sent_count, record.delivery, record.expires_at) == (1, "sent", auth.clock() + A_WEEK)
    [sent] = events.take()
    assert isinstance(sent, InvitationSent)
    assert (sent.user_id, sent.invitation.id) == (admin.id, record.id)


async def test_invite_by_the_application_asks_no_policy(auth: LocalAuthentication) -> None:
    """``APPLICATION`` invites without a policy, and the mail names no inviter."""
    await auth.add_on("invitation").invite(APPLICATION, EMAIL, grant={"role": "owner"}, scope="walrus")
    opts = auth.sender.messages[-1][2]

    assert (opts["inviter"], opts["scope"]) == (None, "walrus")
    assert (await invitations(auth))[0].inviter_id is None


async def test_invite_tells_the_sender_whether_an_account_exists(auth: LocalAuthentication) -> None:
    """IN-3: the mail to a registered address may say "sign in to join"; the inviter's answer is the same."""
    user = await member_of(auth)
    known = await auth.add_on("invitation").invite(await admin_of(auth), EMAIL)
    unknown = await auth.add_on("invitation").invite(await admin_of(auth), OTHER_EMAIL)

    assert known == unknown == (None, None)
    assert [(to, opts["registered"]) for to, _, opts in auth.sender.messages] == [(user, True), (None, False)]
    assert (await auth.strategy("password").sign_in(credentials())).user == user


@pytest.mark.parametrize(
    ("may_invite", "allowed"),
    [
        (None, False),
        (lambda inviter, address, grant: True, True),
        (lambda inviter, address, grant: address == EMAIL and grant == ROLE, True),
        (lambda inviter, address, grant, scope: scope == "walrus", True),
        (lambda inviter, address, grant, scope=None: scope == "other", False),
        (lambda inviter, address, grant: None, False),
    ],
    ids=["nobody", "everybody", "by grant", "by scope", "by default", "nothing"],
)
async def test_invite_asks_the_policy(tmp_path: Path, may_invite: Any, allowed: bool) -> None:
    """IN-3: only the application's policy allows an invitation; it gets the grant and the address of the mail."""
    auth = make_inviting(tmp_path, invitation={"may_invite": may_invite})
    act = auth.add_on("invitation").invite(await admin_of(auth), "alice@MAIL.example.org", grant=ROLE, scope="walrus")
    error = await refused(act)

    assert (error is None, len(await invitations(auth)), len(auth.sender.messages)) == (allowed, *[int(allowed)] * 2)
    assert error is None or isinstance(error, ForbiddenError)
    await auth.close()


async def test_invite_asks_an_async_policy(tmp_path: Path) -> None:
    """A policy may be plain or async; a coroutine that is not awaited would count as true."""

    async def nobody(inviter: User, address: str, grant: Mapping[str, Any]) -> bool:
        return False

    auth = make_inviting(tmp_path, invitation={"may_invite": nobody})
    assert isinstance(await refused(auth.add_on("invitation").invite(await admin_of(auth), EMAIL)), ForbiddenError)
    await auth.close()


@pytest.mark.parametrize(
    ("address", "options", "field"),
    [
        ("no address", {}, "email"),
        ("a@x.example, b@x.example", {}, "email"),
        ('"quoted"@x.example', {}, "email"),
        (["a@x.example"], {}, "email"),
        (None, {}, "email"),
        (EMAIL, {"grant": "editor"}, "grant"),
        (EMAIL, {"grant": ["editor"]}, "grant"),
        (EMAIL, {"scope": ""}, "scope"),
        (EMAIL, {"scope": "x" * 201}, "scope"),
        (EMAIL, {"scope": "a\nBcc: b"}, "scope"),
        (EMAIL, {"grant": {"role": object()}}, "role"),
        (EMAIL, {"strategies": "password"}, "strategies"),
        (EMAIL, {"strategies": ["password", 1]}, "strategies"),
        (EMAIL, {"strategies": 1}, "strategies"),
    ],
)
async def test_invite_rejects_invalid_parameters(
    auth: LocalAuthentication, address: Any, options: dict[str, Any], field: str
) -> None:
    """AC-7: an invalid address, grant, scope or strategy is rejected; nothing is stored or mailed."""
    error = await refused(auth.add_on("invitation").invite(APPLICATION, address, **options))

    assert isinstance(error, ValidationError)
    assert list(error.fields) == [field]
    assert (await invitations(auth), auth.sender.messages) == ([], [])


async def test_invite_rejects_a_grant_without_a_function_for_it(tmp_path: Path) -> None:
    """Without the option ``grant`` the invitation could not give what it promises."""
    auth = make_inviting(tmp_path, invitation={"grant": None})
    error = await refused(auth.add_on("invitation").invite(APPLICATION, EMAIL, grant=ROLE))

    assert isinstance(error, ValidationError)
    assert error.fields == {"grant": "This is not supported here."}
    token = await invite(auth, grant={})
    await auth.strategy("password").register(joining(token))
    assert await states(auth) == ["accepted"]
    await auth.close()


async def test_invite_is_limited_per_inviter(tmp_path: Path) -> None:
    """IN-3: an inviter is limited over all addresses until the window has passed. The application is not counted."""
    auth = make_inviting(tmp_path, invitation={"per_inviter": Limit(2, timedelta(hours=1))})
    add_on, admin = auth.add_on("invitation"), await admin_of(auth)
    for name in ("a", "b"):
        await add_on.invite(admin, f"{name}@mail.example.org")
    error = await refused(add_on.invite(admin, "c@mail.example.org"))
    await add_on.invite(APPLICATION, "d@mail.example.org")
    auth.clock.advance(timedelta(hours=1))
    await add_on.invite(admin, "c@mail.example.org")

    assert isinstance(error, RateLimitedError)
    assert error.headers == {"Retry-After": "3600"}
    assert sorted(each.email[0] for each in await invitations(auth)) == ["a", "b", "c", "d"]
    await auth.close()


async def test_invite_is_limited_per_address(tmp_path: Path) -> None:
    """An address has one limit over all scopes and spellings; repeated mails count too."""
    auth = make_inviting(tmp_path, invitation={"per_address": Limit(3, timedelta(days=1))})
    add_on = auth.add_on("invitation")
    await add_on.invite(APPLICATION, EMAIL)
    await add_on.invite(APPLICATION, "ALICE@mail.example.org", scope="walrus")
    auth.clock.advance(A_MINUTE)
    await add_on.invite(APPLICATION, EMAIL)

    assert isinstance(await refused(add_on.invite(APPLICATION, EMAIL, scope="other")), RateLimitedError)
    assert len(auth.sender.messages) == 3
    await auth.close()


async def test_failed_mail_is_not_counted_for_an_address(tmp_path: Path) -> None:
    """A failure of the mail server does not use up the limit of the address."""
    auth = make_inviting(tmp_path, invitation={"sender": broken, "per_address": Limit(1, timedelta(days=1))})
    for _ in range(2):
        await auth.add_on("invitation").invite(APPLICATION, EMAIL)
        auth.clock.advance(A_MINUTE)

    assert [(each.sent_count, each.delivery) for each in await invitations(auth)] == [(2, "failed")]
    await auth.close()


async def test_concurrent_second_invitation_is_not_counted_for_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two concurrent invitations to one scope one is stored; the other sends no mail and is not counted."""
    auth = make_inviting(tmp_path, invitation={"per_address": Limit(2, timedelta(days=1))})
    add_on = auth.add_on("invitation")
    await add_on.invite(APPLICATION, EMAIL)

    async def find(*_: Any, **__: Any) -> None:
        """Find nothing, as if the first invitation were not committed yet."""

    with monkeypatch.context() as patch:
        patch.setattr(auth.services.store.invitations, "find", find)
        await add_on.invite(APPLICATION, EMAIL)
    await add_on.invite(APPLICATION, EMAIL, scope="walrus")

    assert [opts["scope"] for _, _, opts in auth.sender.messages] == [None, "walrus"]
    await auth.close()


async def test_mail_is_not_counted_for_an_address_if_the_store_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-1: a failure of the database between answer and mail does not use up the limit of the address."""
    auth = make_inviting(tmp_path, invitation={"per_address": Limit(1, timedelta(days=1))})
    add_on = auth.add_on("invitation")

    async def find(*_: Any) -> None:
        raise StoreUnavailableError("sqlite: SQLITE_IOERR")

    with monkeypatch.context() as patch:
        patch.setattr(auth.services.store.users, "find", find)
        await add_on.invite(APPLICATION, EMAIL)
    await add_on.invite(APPLICATION, EMAIL, scope="walrus")

    assert [opts["scope"] for _, _, opts in auth.sender.messages] == ["walrus"]
    await auth.close()


async def broken(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
    """A sender that always fails."""
    raise OSError("no mail server")


# --- another mail ----------------------------------------------------------------------------------------------------


async def test_resend_makes_a_new_link(auth: LocalAuthentication) -> None:
    """Rule 4: the version rises, the old link's error names the newer mail, the new link has a whole lifetime."""
    old = await invite(auth, grant=ROLE)
    auth.clock.advance(A_MINUTE)
    [before] = await invitations(auth)
    await auth.add_on("invitation").resend(await admin_of(auth), before.id)
    [after] = await invitations(auth)
    error = await refused(auth.add_on("invitation").view(shown(old)))

    assert newest_token(auth) != old
    assert (after.version, after.sent_count, after.grant) == (2, 2, ROLE)
    assert (after.last_sent_at, after.expires_at) == (auth.clock(), auth.clock() + A_WEEK)
    assert isinstance(error, InvalidTokenError)
    assert error.fields == {"invitation_token": "A newer invitation was sent. Open the link of the newest mail."}
    assert (await auth.add_on("invitation").view(shown(newest_token(auth)))).data["to_do"] == "register"


async def test_resend_is_rejected_within_a_minute(auth: LocalAuthentication) -> None:
    """``Retry-After`` gives the remaining time; the rejected attempt changes nothing."""
    token = await invite(auth)
    [record] = await invitations(auth)
    auth.clock.advance(timedelta(seconds=59, milliseconds=500))
    for act in (
        auth.add_on("invitation").resend(APPLICATION, record.id),
        auth.add_on("invitation").invite(await admin_of(auth), EMAIL),
    ):
        error = await refused(act)
        assert isinstance(error, RateLimitedError)
        assert error.headers == {"Retry-After": "1"}

    assert await invitations(auth) == [record]
    assert newest_token(auth) == token


async def test_resends_are_limited(tmp_path: Path) -> None:
    """The number of mails is limited, and the lifetime never exceeds ``extends_to``."""
    options = {"sent_at_most": 3, "extends_to": timedelta(days=8), "per_address": Limit(9, timedelta(days=1))}
    auth = make_inviting(tmp_path, invitation=options)
    await invite(auth)
    [record] = await invitations(auth)
    for _ in range(2):
        auth.clock.advance(timedelta(days=1))
        await auth.add_on("invitation").resend(APPLICATION, record.id)
    [after] = await invitations(auth)
    auth.clock.advance(timedelta(days=1))
    error = await refused(auth.add_on("invitation").resend(APPLICATION, record.id))

    assert after.expires_at == record.created_at + timedelta(days=8)
    assert isinstance(error, RateLimitedError)
    assert error.headers == {"Retry-After": str(5 * 86400)}
    await auth.close()


@pytest.mark.parametrize("state", ["accepted", "revoked", "declined"])
async def test_resend_and_revoke_reject_an_ended_invitation(auth: LocalAuthentication, state: Any) -> None:
    """An invitation that was accepted, revoked or declined keeps its state."""
    await invite(auth)
    [record] = await invitations(auth)
    await auth.services.store.invitations.end(record.id, state, now=auth.clock())
    auth.clock.advance(A_MINUTE)
    for verb in ("resend", "revoke"):
        assert isinstance(
            await refused(getattr(auth.add_on("invitation"), verb)(APPLICATION, record.id)), ValidationError
        )

    assert await states(auth) == [state]


async def test_resend_and_revoke_reject_an_expired_invitation(auth: LocalAuthentication) -> None:
    """The invitation expires to the second; inviting again creates a new row and marks the old one as expired."""
    await invite(auth)
    [record] = await invitations(auth)
    auth.clock.advance(A_WEEK)

    assert isinstance(await refused(auth.add_on("invitation").resend(APPLICATION, record.id)), ValidationError)
    assert isinstance(await refused(auth.add_on("invitation").revoke(APPLICATION, record.id)), ValidationError)
    await invite(auth)
    assert await states(auth) == ["pending", "expired"]


async def test_resend_is_rejected_if_the_inviter_may_not_invite_any_more(auth: LocalAuthentication) -> None:
    """Rule 10: a resend by any caller revokes the invitation."""
    await invite(auth)
    [record] = await invitations(auth)
    auth.clock.advance(A_MINUTE)
    await auth.accounts.disable((await admin_of(auth)).id)

    assert isinstance(await refused(auth.add_on("invitation").resend(APPLICATION, record.id)), ForbiddenError)
    [after] = await invitations(auth)
    assert (after.status, after.reason, after.ended_by) == ("revoked", "inviter_lost_authority", None)


async def test_inviting_again_sends_a_mail_with_the_new_grant(
    auth: LocalAuthentication, roles: Roles, events: Events
) -> None:
    """Rule 4: the row gets a new version, and the old link is invalid: a valid link never changes its grant."""
    old = await invite(auth, grant=ROLE)
    auth.clock.advance(A_MINUTE)
    new = await invite(auth, grant={"role": "viewer"})
    [record] = await invitations(auth)

    assert (record.version, record.grant) == (2, {"role": "viewer"})
    assert [event.invitation.version for event in events.take() if isinstance(event, InvitationSent)] == [1, 2]
    assert isinstance(await refused(auth.strategy("password").register(joining(old))), InvalidTokenError)
    await auth.strategy("password").register(joining(new))
    assert [data for _, data in roles.granted] == [{"role": "viewer"}]


async def test_inviting_again_without_a_grant_grants_nothing(auth: LocalAuthentication) -> None:
    """A second invitation without a grant does not keep the first one's grant."""
    await invite(auth, grant=ROLE)
    auth.clock.advance(A_MINUTE)
    await invite(auth)

    assert (await invitations(auth))[0].grant == {}


async def test_inviting_again_for_other_strategies_creates_a_new_row(auth: LocalAuthentication) -> None:
    """The strategies of a row never change either."""
    await invite(auth)
    await invite(auth, strategies=["provider"])
    first, second = await invitations(auth)

    assert {(each.status, each.reason, each.strategies) for each in (first, second)} == {
        ("pending", None, ("provider",)),
        ("revoked", "superseded", ()),
    }


async def test_scopes_are_independent(auth: LocalAuthentication) -> None:
    """An address may have invitations to several teams and to the application itself."""
    tokens = [await invite(auth, scope=scope) for scope in (None, "walrus", "heron")]
    await auth.strategy("password").register(joining(tokens[1]))

    assert {each.scope: each.status for each in await invitations(auth)} == {
        None: "pending",
        "walrus": "accepted",
        "heron": "pending",
    }


# --- revoke, list ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reason", "kept"), [(None, "revoked"), ("left the team", "left the team")])
async def test_revoke_takes_effect_at_once(
    auth: LocalAuthentication, events: Events, reason: str | None, kept: str
) -> None:
    """IN-1: the link is invalid; the row has the actor and the reason."""
    token, admin = await invite(auth), await admin_of(auth)
    [record] = await invitations(auth)
    events.take()
    await auth.add_on("invitation").revoke(admin, record.id, reason=reason)
    [after] = await invitations(auth)
    [ended] = events.take()

    assert (after.status, after.reason, after.ended_by, after.ended_at) == ("revoked", kept, admin.id, auth.clock())
    assert isinstance(ended, InvitationEnded)
    assert (ended.user_id, ended.invitation) == (admin.id, after)
    for act in (
        auth.add_on("invitation").view(shown(token)),
        auth.add_on("invitation").decline(shown(token)),
        auth.add_on("invitation").accept(await member_of(auth), shown(token)),
    ):
        assert isinstance(await refused(act), InvalidTokenError)


@pytest.mark.parametrize("verb", ["resend", "revoke"])
async def test_only_the_inviter_manages_an_invitation(auth: LocalAuthentication, verb: str) -> None:
    """Another user's invitation gives the same error as an unknown one."""
    other = await member_of(auth, OTHER_EMAIL)
    await invite(auth)
    [record] = await invitations(auth)
    auth.clock.advance(A_MINUTE)
    act = getattr(auth.add_on("invitation"), verb)
    errors = [await refused(act(other, each)) for each in (record.id, "no such", record.id.replace("-", "0"))]

    assert [type(error) for error in errors] == [ForbiddenError] * 3
    assert len({error.reason for error in errors if error}) == 1
    assert await invitations(auth) == [record]


@pytest.mark.parametrize("reason", ["", "x" * 201, "a\x00b"])
async def test_revoke_rejects_an_invalid_reason(auth: LocalAuthentication, reason: str) -> None:
    """A reason must be short printable text."""
    await invite(auth)
    [record] = await invitations(auth)
    error = await refused(auth.add_on("invitation").revoke(APPLICATION, record.id, reason=reason))

    assert isinstance(error, ValidationError)
    assert (list(error.fields), await states(auth)) == (["reason"], ["pending"])


@pytest.mark.parametrize("is_async", [False, True])
async def test_may_revoke_allows_other_users(tmp_path: Path, is_async: bool) -> None:
    """The policy gets the actor and the invitation."""
    seen = []

    def plain(actor: User, invitation: Any) -> bool:
        seen.append((actor.email, invitation.email))
        return True

    async def later(actor: User, invitation: Any) -> bool:
        return plain(actor, invitation)

    auth = make_inviting(tmp_path, invitation={"may_revoke": later if is_async else plain})
    other = await member_of(auth, OTHER_EMAIL)
    await invite(auth)
    [record] = await invitations(auth)
    await auth.add_on("invitation").revoke(other, record.id)

    assert (seen, (await invitations(auth))[0].ended_by) == ([(OTHER_EMAIL, EMAIL)], other.id)
    await auth.close()


async def test_list_has_the_inviters_own_invitations(auth: LocalAuthentication) -> None:
    """The list is in pages, newest first; the application sees all invitations; the repr has no token and no grant."""
    add_on, admin = auth.add_on("invitation"), await admin_of(auth)
    for name in ("a", "b", "c"):
        auth.clock.advance(timedelta(seconds=1))
        await add_on.invite(admin, f"{name}@mail.example.org", grant={"role": "secret-role"})
    await add_on.invite(APPLICATION, "d@mail.example.org", scope="walrus")
    own = await add_on.list(admin)
    token = newest_token(auth)

    assert [each.email[0] for each in own] == ["c", "b", "a"]
    assert [each.email[0] for each in await add_on.list(admin, before=own[0], limit=1)] == ["b"]
    assert {each.email[0] for each in await add_on.list(APPLICATION)} == {"a", "b", "c", "d"}
    assert [each.email[0] for each in await add_on.list(APPLICATION, scope="walrus")] == ["d"]
    assert await add_on.list(await member_of(auth)) == []
    assert "secret-role" not in repr(own)
    assert token not in repr(own)


async def test_list_shows_expired_invitations_as_expired(auth: LocalAuthentication) -> None:
    """The list shows the state before and after a sweep marks the row."""
    await invite(auth)
    auth.clock.advance(A_WEEK)
    add_on = auth.add_on("invitation")

    assert [each.status for each in await add_on.list(APPLICATION)] == ["expired"]
    assert await add_on.list(APPLICATION, status="pending") == []
    await auth.prune()
    assert [each.status for each in await add_on.list(APPLICATION, status="expired")] == ["expired"]


# --- view, decline, accept -------------------------------------------------------------------------------------------


async def test_view_gives_the_next_step(auth: LocalAuthentication) -> None:
    """The view gives the next step in each case, and the full address, so that no user registers with a wrong one."""
    token, add_on = await invite(auth, scope="walrus"), auth.add_on("invitation")
    view = await add_on.view(shown(token))
    assert view.data == {
        "scope": "walrus",
        "inviter": ADMIN,
        "email": EMAIL,
        "expires_at": "2030-01-08T00:00:00+00:00",
        "to_do": "register",
    }
    admin = await admin_of(auth)
    assert (await add_on.view(shown(token), user=admin)).data["to_do"] == "switch_account"
    user = await member_of(auth, confirmed=False)
    assert (await add_on.view(shown(token))).data["to_do"] == "sign_in"
    assert (await add_on.view(shown(token), user=user)).data["to_do"] == "confirm"
    await auth.accounts.confirm(user.id)
    assert (await add_on.view(shown(token), user=user)).data["to_do"] == "accept"
    await auth.accounts.disable(user.id)
    assert (await add_on.view(shown(token), user=user)).data["to_do"] == "switch_account"
    await auth.accounts.delete(user.id)
    assert (await add_on.view(shown(token), user=user)).data["to_do"] == "switch_account"
    assert token not in repr(view)


async def test_view_offers_registration_if_the_account_is_unconfirmed(tmp_path: Path) -> None:
    """Case C: the reader of the mail is not asked to sign in to a stranger's account."""
    auth = make_inviting(tmp_path, hooks=[Proving()])
    await member_of(auth, confirmed=False)
    view = await auth.add_on("invitation").view(shown(await invite(auth)))

    assert (view.data["to_do"], view.registers) == ("register", True)
    await auth.close()


async def test_view_says_that_registration_is_closed(tmp_path: Path) -> None:
    """With ``closed`` no user can register; an existing account can still accept."""
    auth = make_inviting(tmp_path, registration="closed")
    token = await invite(auth)
    assert (await auth.add_on("invitation").view(shown(token))).data["to_do"] == "closed"
    user = await member_of(auth)
    assert (await auth.add_on("invitation").view(shown(token))).data["to_do"] == "sign_in"
    await auth.add_on("invitation").accept(user, shown(token))
    assert await states(auth) == ["accepted"]
    await auth.close()


async def test_view_names_no_deleted_inviter(auth: LocalAuthentication) -> None:
    """The view has no inviter; only the use of the invitation shows that it is invalid."""
    token = await invite(auth)
    await auth.accounts.delete((await admin_of(auth)).id)

    assert (await auth.add_on("invitation").view(shown(token))).data["inviter"] is None


async def test_decline_ends_the_invitation(auth: LocalAuthentication, events: Events) -> None:
    """Every holder of the token may decline; afterwards the token is invalid."""
    token = await invite(auth)
    events.take()
    await auth.add_on("invitation").decline(shown(token))
    [ended] = events.take()

    assert isinstance(ended, InvitationEnded)
    assert (ended.user_id, ended.invitation.status, ended.invitation.reason) == (None, "declined", None)
    assert isinstance(await refused(auth.add_on("invitation").decline(shown(token))), InvalidTokenError)
    assert isinstance(await refused(auth.strategy("password").register(joining(token))), InvalidTokenError)


async def test_accept_grants_without_a_sign_in(auth: LocalAuthentication, events: Events, roles: Roles) -> None:
    """Case D: the account with the confirmed address accepts; a second acceptance changes nothing."""
    user = await member_of(auth)
    token = await invite(auth, grant=ROLE)
    events.take()
    for _ in range(2):
        assert await auth.add_on("invitation").accept(user, shown(token)) == (user, None)

    accepted, again = events.take()
    assert isinstance(accepted, InvitationAccepted)
    assert isinstance(again, ActAccepted)
    assert (accepted.user_id, accepted.invitation.accepted_via, again.user_id) == (user.id, None, user.id)
    [record] = await invitations(auth)
    assert (record.status, record.accepted_by, record.accepted_via) == ("accepted", user.id, None)
    assert roles.granted == [(user.id, {"role": "editor"})]
    assert await auth.sessions.list(user.id) == []
    other = await member_of(auth, OTHER_EMAIL)
    assert isinstance(await refused(auth.add_on("invitation").accept(other, shown(token))), InvalidTokenError)


async def test_accept_after_registration_changes_nothing(auth: LocalAuthentication) -> None:
    """Rule 7: a user who clicks twice gets a success and no second session."""
    token = await invite(auth)
    user, access = await auth.strategy("password").register(joining(token))

    assert await auth.add_on("invitation").accept(user, shown(token)) == (user, None)
    assert len(await auth.sessions.list(user.id)) == 1
    assert await is_alive(auth, access)


@pytest.mark.parametrize("verb", ["accept", "view"])
async def test_accept_requires_a_confirmed_address(auth: LocalAuthentication, roles: Roles, verb: str) -> None:
    """CVE-2026-53514: an unconfirmed account with the address cannot accept; its view says to confirm first."""
    user = await member_of(auth, confirmed=False)
    token = await invite(auth)
    if verb == "view":
        assert (await auth.add_on("invitation").view(shown(token), user=user)).data["to_do"] == "confirm"
        return
    error = await refused(auth.add_on("invitation").accept(user, shown(token)))

    assert isinstance(error, ForbiddenError)
    assert error.fields == {"account": "Sign in with the account whose address was invited and has been confirmed."}
    assert (roles.granted, await states(auth)) == ([], ["pending"])


@pytest.mark.parametrize("act", ["other", "disabled", "deleted", "without address", "moved away"])
async def test_accept_requires_the_invited_account(auth: LocalAuthentication, roles: Roles, act: str) -> None:
    """IN-4: another user, a disabled or deleted account and an account that moved to another address are rejected."""
    token = await invite(auth, grant=ROLE)
    if act == "without address":
        user = await auth.accounts.create({"username": "alice"}, confirmed=True)
    else:
        user = await member_of(auth, OTHER_EMAIL if act == "other" else EMAIL)
    if act == "disabled":
        await auth.accounts.disable(user.id)
    if act == "deleted":
        await auth.accounts.delete(user.id)
    if act == "moved away":
        await auth.accounts.change(user, {"email": "new@mail.example.org"}, confirmed=True)
    error = await refused(auth.add_on("invitation").accept(user, shown(token)))

    assert isinstance(error, ForbiddenError)
    assert (await states(auth), roles.granted) == (["pending"], [])
    assert EMAIL not in str(error.fields)


async def test_accept_uses_the_current_address(auth: LocalAuthentication) -> None:
    """Rule 11: the account that has the address now can accept."""
    token = await invite(auth)
    user = await member_of(auth, OTHER_EMAIL)
    await auth.accounts.change(user, {"email": EMAIL}, confirmed=True)
    await auth.add_on("invitation").accept(user, shown(token))

    assert await states(auth) == ["accepted"]


async def test_refused_accept_rolls_back(auth: LocalAuthentication, roles: Roles) -> None:
    """The application's error reaches the caller, and the invitation stays pending."""
    user, token = await member_of(auth), await invite(auth)
    roles.refusal = ValidationError("no seat", fields={"seat": "This name is taken. Choose another one."})

    assert await refused(auth.add_on("invitation").accept(user, shown(token))) is roles.refusal
    assert (await states(auth), (await invitations(auth))[0].accepted_by) == (["pending"], None)


@pytest.mark.parametrize("parameter", ["view", "decline"])
async def test_token_is_required(auth: LocalAuthentication, parameter: str) -> None:
    """The error names the field."""
    error = await refused(getattr(auth.add_on("invitation"), parameter)({}))

    assert isinstance(error, ValidationError)
    assert error.fields == {"invitation_token": "This field is required."}


@pytest.mark.parametrize(("seconds", "alive"), [(-1, True), (0, False), (1, False)])
async def test_expiry_is_to_the_second(auth: LocalAuthentication, seconds: int, alive: bool) -> None:
    """CVE-2025-64708: the time of use decides; no sweep is required."""
    token = await invite(auth)
    auth.clock.advance(A_WEEK + timedelta(seconds=seconds))

    assert (await refused(auth.add_on("invitation").view(shown(token))) is None) is alive
    assert (await refused(auth.strategy("password").register(joining(token))) is None) is alive


# --- upkeep, mail, log -----------------------------------------------------------------------------------------------


async def test_prune_removes_address_and_grant(auth: LocalAuthentication) -> None:
    """Rule 14: long after its end, a row has only a digest of the address, which can still be compared."""
    await invite(auth, grant=ROLE)
    auth.clock.advance(A_WEEK)
    await auth.prune()
    [expired] = await invitations(auth)
    auth.clock.advance(timedelta(days=90, seconds=1))
    await auth.prune()
    [forgotten] = await invitations(auth)

    assert (expired.status, expired.ended_at, expired.email) == ("expired", expired.expires_at, EMAIL)
    assert (forgotten.email, forgotten.grant, forgotten.status) == ("", EMPTY, "expired")
    assert forgotten.email_key == auth.services.digest("invitation", EMAIL).hex()
    assert await auth.prune() == 0


async def test_failed_mail_is_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The row shows the failure; the invitation stays valid. The log has no secret."""
    sent: list[str] = []

    def failing(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        sent.append(str(token))
        raise OSError(f"no mail server for {token} {opts['address']}")

    # A local instance would show the traceback of the sender.
    auth = make_inviting(tmp_path, invitation={"sender": failing}, base_url="https://auth.example.org")
    with caplog.at_level(logging.DEBUG):
        await auth.add_on("invitation").invite(APPLICATION, EMAIL, grant={"role": "secret-role"})
    [record] = await invitations(auth)

    assert (record.status, record.delivery) == ("pending", "failed")
    assert not [text for text in (*sent, EMAIL, "secret-role") if text in caplog.text]
    assert (await auth.strategy("password").register(joining(sent[0]))).token is not None
    await auth.close()


@pytest.mark.parametrize(
    ("name", "shown_name"), [("A" * 300, "A" * 100), ("Eve\r\nBcc: x@y.example\u202e", "EveBcc: x@y.example"), ("", "")]
)
async def test_inviters_name_is_cut_and_cleaned(tmp_path: Path, name: str, shown_name: str) -> None:
    """CVE-2022-31127: the name is short, without line ends or control characters; HTML mails must escape it."""

    class Named(User):
        @property
        def display_name(self) -> str:
            return name

    auth = make_inviting(tmp_path)
    await admin_of(auth)
    users = auth.services.store.users
    get = users.get

    async def named(user_id: str) -> Any:
        found = await get(user_id)
        assert found is not None
        user = Named(id=found.user.id, email=found.user.email if name else None, created_at=found.user.created_at)
        return found._replace(user=user)

    users.get = named  # type: ignore[method-assign]  # like a store with the application's user class
    await auth.add_on("invitation").invite(await admin_of(auth), EMAIL)

    assert auth.sender.messages[-1][2]["inviter"] == shown_name
    await auth.close()
