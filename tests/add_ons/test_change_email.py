"""A change of address: permission, pending changes, notices and undo."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.acts import Draft
from asgi_auth.errors import (
    AuthenticationFailedError,
    IdentityTakenError,
    InvalidTokenError,
    NotFreshError,
    OverloadedError,
    RateLimitedError,
    ValidationError,
)
from asgi_auth.events import UserChanged, UserConfirmed
from asgi_auth.hooks import Hook
from asgi_auth.limits import Limit
from asgi_auth.web.plug import AuthPlug
from tests.add_ons.confirming import (
    NEW_EMAIL,
    THIRD_EMAIL,
    actions,
    change_email,
    confirm,
    confirmed,
    confirming,
    links,
    mails,
    sign_in,
    sign_up,
    take,
)
from tests.asgi import BROWSER, JSON, PAGE, ask, post, tables
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    Events,
    LocalAuthentication,
    credentials,
    found_of,
    is_alive,
    mailed_token,
    register,
    registration,
)
from tests.workers import resetting

pytestmark = pytest.mark.anyio

SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
CHANGE = ("email_change", NEW_EMAIL)
UNDO = ("email_changed", EMAIL)


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication with the defaults of the add-on and a listener for events."""
    auth = confirming(tmp_path, add_ons=(Events(),))
    yield auth
    await auth.close()


async def changed(auth: LocalAuthentication, signed_in: Any, email: str = NEW_EMAIL) -> str:
    """Change the address, confirm the new one in the same session and return the undo token."""
    user, token = signed_in
    found = await auth.accounts.get(user.id)
    assert found is not None
    before = found.user.email or ""
    session = (await auth.sessions.load(token.cookie)).session
    await actions(auth).change_email(user, {"email": email, "current_password": PASSWORD}, session=session)
    await confirm(auth, links(auth)["email_change", email], session=session)
    return links(auth)["email_changed", before]


async def undo(auth: LocalAuthentication, token: str) -> Any:
    return await actions(auth).undo({"undo_token": token})


# --- asking ----------------------------------------------------------------------------------------------------------


async def test_change_waits_until_it_is_confirmed(tmp_path: Path, auth: LocalAuthentication) -> None:
    """AC-5: the old address stays in force and gets a notice; the new one gets the link; the row has only the old."""
    user, token = await confirmed(auth)
    result = await change_email(auth, (user, token), NEW_EMAIL)
    assert (result.user.email, result.token) == (EMAIL, None)
    messages = {(opts["purpose"], opts["address"]): (token, dict(opts)) for _, token, opts in take(auth)}
    assert set(messages) == {CHANGE, ("email_change_asked", EMAIL)}
    linked, opts = messages[CHANGE]
    assert opts["url"] == f"http://localhost:8000/auth/confirmation/confirm?confirmation_token={linked}"
    assert opts["expires_at"] == auth.clock() + 3 * DAY
    notice = messages["email_change_asked", EMAIL]
    assert notice[0] is None
    assert NEW_EMAIL not in str(notice)
    assert NEW_EMAIL not in str(tables(tmp_path)["asgi_auth_users"])
    assert await actions(auth).pending(user) == {"email": NEW_EMAIL}
    assert await is_alive(auth, token)
    await sign_in(auth)


async def test_confirmed_change_takes_effect(auth: LocalAuthentication) -> None:
    """AC-5: the new address is in force; only the confirming session survives; the old one gets an undo link."""
    user, here = await confirmed(auth)
    _, there = await sign_in(auth)
    auth.clock.advance(MINUTE)
    await change_email(auth, (user, here), NEW_EMAIL)
    token = links(auth)[CHANGE]
    [listener] = [hook for hook in auth.services.hooks if isinstance(hook, Events)]
    listener.take()
    auth.clock.advance(MINUTE)
    result = await confirm(auth, token, session=here.session)
    assert (result.user.email, result.user.confirmed_at) == (NEW_EMAIL, auth.clock())
    assert await actions(auth).pending(user) is None
    assert [await is_alive(auth, each) for each in (here, there)] == [True, False]
    assert await auth.accounts.find("email", EMAIL) is None
    await sign_in(auth, NEW_EMAIL)
    events = {type(event): event for event in listener.take()}
    told, proven = events[UserChanged], events[UserConfirmed]
    assert isinstance(told, UserChanged)
    assert (told.before, told.was_confirmed, told.reverted) == ({"email": EMAIL}, True, False)
    assert isinstance(proven, UserConfirmed)
    assert not proven.claimed
    [(_, undo_token, opts)] = take(auth)
    assert (opts["purpose"], opts["address"]) == UNDO
    assert opts["url"] == f"http://localhost:8000/auth/confirmation/undo?undo_token={undo_token}"
    assert opts["expires_at"] == auth.clock() + 7 * DAY
    with pytest.raises(InvalidTokenError):
        await confirm(auth, token)


async def test_change_can_be_confirmed_in_another_browser(tmp_path: Path) -> None:
    """The link works in another browser too; with ``sign_in`` it signs the user in there."""
    auth = confirming(tmp_path, sign_in=True)
    await sign_up(auth)
    user, here = await confirm(auth, links(auth)["confirmation", EMAIL])
    await change_email(auth, (user, here), NEW_EMAIL)
    _, there = await confirm(auth, links(auth)[CHANGE])
    assert [await is_alive(auth, each) for each in (here, there)] == [False, True]
    await auth.close()


@pytest.mark.parametrize(("late", "live"), [(-SECOND, True), (timedelta(0), False), (SECOND, False)])
async def test_pending_change_ends_after_its_lifetime(auth: LocalAuthentication, late: timedelta, live: bool) -> None:
    """A change is pending for exactly three days; then it has expired."""
    signed_in = await confirmed(auth)
    await change_email(auth, signed_in, NEW_EMAIL)
    token = links(auth)[CHANGE]
    auth.clock.advance(3 * DAY + late)
    assert (await actions(auth).pending(signed_in[0]) is not None) is live
    if live:
        await confirm(auth, token)
    else:
        with pytest.raises(InvalidTokenError):
            await confirm(auth, token)


async def test_session_must_be_fresh(auth: LocalAuthentication) -> None:
    """AC-5: more than 15 minutes after the sign-in a change is rejected, until the user gives the password again."""
    user, token = await confirmed(auth)
    auth.clock.advance(15 * MINUTE)
    await change_email(auth, (user, token), NEW_EMAIL)
    auth.clock.advance(SECOND)
    with pytest.raises(NotFreshError):
        await change_email(auth, (user, token), THIRD_EMAIL)
    _, token = await auth.strategy("password").reauthenticate({"password": PASSWORD}, session=token.session)
    await change_email(auth, (user, token), THIRD_EMAIL)
    assert await actions(auth).pending(user) == {"email": THIRD_EMAIL}


async def test_current_password_is_required(auth: LocalAuthentication) -> None:
    """AC-5: with a wrong password no change is pending and no mail is sent."""
    user, token = await confirmed(auth)
    for password in (NEW_PASSWORD, "", None, 3, "\ud800", "x" * 1025):
        params = {"email": NEW_EMAIL, "current_password": password}
        with pytest.raises(ValidationError) as refused:
            await actions(auth).change_email(user, params, session=token.session)
        assert list(refused.value.fields) == ["current_password"]
    assert (await actions(auth).pending(user), mails(auth)) == (None, [])


async def test_guesses_at_the_password_are_limited(auth: LocalAuthentication) -> None:
    """RL-6: an account has ten wrong passwords an hour, over all its sessions; correct ones are not counted."""
    signed_in = await confirmed(auth)
    for _ in range(12):
        await change_email(auth, signed_in, NEW_EMAIL)
    user, token = signed_in
    wrong = {"email": NEW_EMAIL, "current_password": NEW_PASSWORD}
    _, other = await auth.strategy("password").sign_in(credentials())
    for number in range(10):
        with pytest.raises(ValidationError):
            await actions(auth).change_email(user, wrong, session=(token, other)[number % 2].session)
    with pytest.raises(RateLimitedError) as refused:
        await change_email(auth, signed_in, NEW_EMAIL)
    assert refused.value.headers == {"Retry-After": "3600"}


async def test_user_without_password_needs_only_a_fresh_session(auth: LocalAuthentication) -> None:
    """Such a user has no password to give."""
    user = await auth.accounts.create({"email": EMAIL}, confirmed=True)
    token = await auth.sign_in(user)
    await actions(auth).change_email(user, {"email": NEW_EMAIL}, session=token.session)
    assert await actions(auth).pending(user) == {"email": NEW_EMAIL}


@pytest.mark.parametrize("email", ["nobody", "", None, 3, "a@b@c.example", "a@x.example,b@x.example"])
async def test_invalid_address_is_rejected(auth: LocalAuthentication, email: Any) -> None:
    """AC-7: an invalid address is rejected before a change is pending."""
    user, token = await confirmed(auth)
    with pytest.raises(ValidationError) as refused:
        await actions(auth).change_email(user, {"email": email, "current_password": PASSWORD}, session=token.session)
    assert list(refused.value.fields) == ["email"]


async def test_same_address_is_no_change(auth: LocalAuthentication) -> None:
    """No change is pending and no mail is sent."""
    signed_in = await confirmed(auth)
    await change_email(auth, signed_in, f" {EMAIL} ")
    assert (await actions(auth).pending(signed_in[0]), mails(auth)) == (None, [])
    assert await is_alive(auth, signed_in[1])


async def test_other_spelling_is_a_change(auth: LocalAuthentication) -> None:
    """AC-6: mail uses the spelling as typed, so that spelling needs a confirmation; the user owns its key already."""
    signed_in = await confirmed(auth)
    auth.clock.advance(MINUTE)  # a link for this key was just mailed
    await change_email(auth, signed_in, EMAIL.upper())
    [(_, address)] = [mail for mail in mails(auth) if mail[0] == "email_change"]
    assert address.startswith("ALICE@")


async def test_taken_address_is_not_revealed(auth: LocalAuthentication) -> None:
    """EN-4: answer, pending change and own notice are the same; the address's owner is told; no link is issued."""
    await confirmed(auth, OTHER_EMAIL)
    signed_in = await confirmed(auth)
    free = await change_email(auth, signed_in, NEW_EMAIL)
    old = links(auth)[CHANGE]
    auth.clock.advance(MINUTE)
    taken = await change_email(auth, signed_in, OTHER_EMAIL)
    assert taken == free
    assert await actions(auth).pending(signed_in[0]) == {"email": OTHER_EMAIL}
    messages = take(auth)
    assert {(opts["purpose"], opts["address"]) for _, _, opts in messages} == {
        ("email_in_use", OTHER_EMAIL),
        ("email_change_asked", EMAIL),
    }
    assert [token for _, token, _ in messages] == [None, None]
    with pytest.raises(InvalidTokenError):
        await confirm(auth, old)


async def test_address_taken_meanwhile_is_rejected(auth: LocalAuthentication) -> None:
    """The user is told, since the mailbox is theirs; nothing changes and the link is not consumed."""
    signed_in = await confirmed(auth)
    await change_email(auth, signed_in, NEW_EMAIL)
    token = links(auth)[CHANGE]
    other = await auth.accounts.create({"email": NEW_EMAIL}, confirmed=True)
    with pytest.raises(IdentityTakenError):
        await confirm(auth, token)
    assert (await found_of(auth)).user == signed_in[0]
    await auth.accounts.delete(other.id)
    await confirm(auth, token)


async def test_newer_change_replaces_the_older(auth: LocalAuthentication) -> None:
    """As soon as the newer link is sent, only that link can be confirmed."""
    signed_in = await confirmed(auth)
    await change_email(auth, signed_in, NEW_EMAIL)
    old = links(auth)[CHANGE]
    await change_email(auth, signed_in, THIRD_EMAIL)
    with pytest.raises(InvalidTokenError):
        await confirm(auth, old)
    result = await confirm(auth, links(auth)["email_change", THIRD_EMAIL])
    assert result.user.email == THIRD_EMAIL


@pytest.mark.parametrize("act", ["reset", "set_password", "revoke_all", "disable"])
async def test_pending_change_ends_with_the_sessions(auth: LocalAuthentication, act: str) -> None:
    """AC-5: a reset ends a pending change, and so does every other act that ends the user's sessions."""
    user, token = await confirmed(auth)
    await change_email(auth, (user, token), NEW_EMAIL)
    linked = links(auth)[CHANGE]
    if act == "reset":
        await auth.strategy("password").reset_request({"email": EMAIL})
        await auth.strategy("password").reset(resetting(mailed_token(auth)))
    elif act == "set_password":
        await auth.accounts.set_password(await found_of(auth), NEW_PASSWORD)
    elif act == "revoke_all":
        await auth.sessions.revoke_all(user.id)
    else:
        await auth.accounts.disable(user.id)
    assert await actions(auth).pending(user) is None
    with pytest.raises(InvalidTokenError):
        await confirm(auth, linked)


async def test_ended_session_cannot_request_a_change(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-16: a request of an ended session is rejected, also if the session ends during the request."""
    user, token = await confirmed(auth)
    params: Mapping[str, Any] = {"email": NEW_EMAIL, "current_password": PASSWORD}
    verify = auth.services.passwords.verify

    async def then_log_out(*args: Any, **options: Any) -> Any:
        verified = await verify(*args, **options)
        await auth.sessions.revoke_all(user.id)
        return verified

    with monkeypatch.context() as patched:
        patched.setattr(auth.services.passwords, "verify", then_log_out)
        with pytest.raises(InvalidTokenError):
            await actions(auth).change_email(user, params, session=token.session)
    for password in (PASSWORD, NEW_PASSWORD):  # the session cannot guess passwords either
        with pytest.raises(InvalidTokenError):
            await actions(auth).change_email(user, {**params, "current_password": password}, session=token.session)
    await auth.accounts.delete(user.id)
    with pytest.raises(InvalidTokenError):
        await actions(auth).change_email(user, params, session=None)
    assert await actions(auth).pending(user) is None


async def test_concurrent_sign_out_prevents_the_change(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-16: nothing is written if the stamp changes after the account was read and before it is changed."""
    user, token = await confirmed(auth)
    renew = auth.sessions.renew_stamp

    async def after_another(work: Any, user_id: str, **options: Any) -> Any:
        await work.accounts.update(user_id, {"stamp": b"another's stamp "})
        return await renew(work, user_id, **options)

    monkeypatch.setattr(auth.sessions, "renew_stamp", after_another)
    with pytest.raises(InvalidTokenError):
        await auth.accounts.change(user, {"username": "alice"}, acting=token.session)
    assert await auth.accounts.find("username", "alice") is None


async def test_overtaken_change_writes_nothing(auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch) -> None:
    """SE-16: if the guarded statement finds another stamp, the whole change is rolled back."""
    user, _ = await confirmed(auth)

    async def overtaken(*args: Any, **options: Any) -> None:
        return None

    monkeypatch.setattr(auth.sessions, "renew_stamp", overtaken)
    with pytest.raises(InvalidTokenError):
        await auth.accounts.change(user, {"username": "alice"})
    assert await auth.accounts.find("username", "alice") is None


async def test_cancelled_change_is_removed(auth: LocalAuthentication) -> None:
    """Its link is invalid, and a resend sends nothing."""
    user, token = await confirmed(auth)
    await change_email(auth, (user, token), NEW_EMAIL)
    linked = links(auth)[CHANGE]
    await actions(auth).cancel(user)
    assert await actions(auth).pending(user) is None
    with pytest.raises(InvalidTokenError):
        await confirm(auth, linked)
    auth.clock.advance(MINUTE)
    await actions(auth).resend({}, user=user)
    assert mails(auth) == []


async def test_pending_change_can_be_resent(auth: LocalAuthentication) -> None:
    """After a minute a new link replaces the old one; the address in force gets no second notice."""
    user, token = await confirmed(auth)
    await change_email(auth, (user, token), NEW_EMAIL)
    old = links(auth)[CHANGE]
    await actions(auth).resend({}, user=user)
    assert mails(auth) == []
    auth.clock.advance(MINUTE)
    await actions(auth).resend({}, user=user)
    new = links(auth)
    assert list(new) == [CHANGE]
    with pytest.raises(InvalidTokenError):
        await confirm(auth, old)
    await confirm(auth, new[CHANGE])
    await auth.accounts.delete(user.id)
    await actions(auth).resend({}, user=user)


async def test_every_spelling_of_an_address_shares_its_mails(auth: LocalAuthentication) -> None:
    """RL-4: spellings in other cases share the mail limit of the address."""
    signed_in = await confirmed(auth)
    for spelling in (NEW_EMAIL, NEW_EMAIL.upper(), NEW_EMAIL.title()):
        await change_email(auth, signed_in, spelling)
    assert [mail for mail in mails(auth) if mail[0] == "email_change"] == [CHANGE]


async def test_sign_out_during_a_resend_invalidates_the_new_link(auth: LocalAuthentication) -> None:
    """AC-5, SE-16: if all sessions end while a link is being resent, the new link is invalid too."""
    user, token = await confirmed(auth)
    await change_email(auth, (user, token), NEW_EMAIL)
    hook: Any = auth.services.hooks[1]
    [record] = await hook._waiting(user.id)
    take(auth)
    auth.clock.advance(MINUTE)
    await auth.sessions.revoke_all(user.id)
    await hook._mails.ask_again(await found_of(auth), record)
    with pytest.raises(InvalidTokenError):
        await confirm(auth, links(auth)[CHANGE])


async def test_failed_mail_keeps_the_older_link(tmp_path: Path) -> None:
    """If the mail with the newer link cannot be sent, the older link stays valid."""
    sent: list[tuple[str | None, Any]] = []

    async def send(user: Any, token: str | None, opts: Any) -> None:
        if opts["address"] == THIRD_EMAIL:
            raise OSError
        sent.append((token, opts))

    auth = confirming(tmp_path, sender=send)
    user = await auth.accounts.create({"email": EMAIL}, confirmed=True)
    for email in (NEW_EMAIL, THIRD_EMAIL):
        await actions(auth).change_email(user, {"email": email}, session=None)
    assert await actions(auth).pending(user) == {"email": THIRD_EMAIL}
    [token] = [token for token, opts in sent if opts["purpose"] == "email_change"]
    assert (await confirm(auth, token or "")).user.email == NEW_EMAIL
    await auth.close()


# --- by the application ----------------------------------------------------------------------------------------------


async def test_change_by_the_application_waits_too(auth: LocalAuthentication) -> None:
    """``accounts.change`` makes the address pending and writes the other fields."""
    user, token = await confirmed(auth)
    same = await auth.accounts.change(user, {"email": NEW_EMAIL, "nickname": "al"}, acting=token.session)
    assert (same.email, dict(same.data)) == (EMAIL, {"nickname": "al"})
    assert await actions(auth).pending(user) == {"email": NEW_EMAIL}
    with pytest.raises(ValidationError):
        await auth.accounts.change(user, {"email": "nobody"})
    with pytest.raises(ValidationError):
        await auth.accounts.change(user, {"email": 3})


async def test_application_may_vouch_for_a_change(auth: LocalAuthentication) -> None:
    """The address is in force at once, confirmed and without an undo link: the user may have lost the old mailbox."""
    user, _ = await confirmed(auth)
    changed = await auth.accounts.change(user, {"email": NEW_EMAIL}, confirmed=True)
    assert (changed.email, changed.confirmed_at) == (NEW_EMAIL, auth.clock())
    assert mails(auth) == []


async def test_auto_confirmed_strategy_changes_the_address_at_once(tmp_path: Path) -> None:
    """The earlier address gets an undo link."""
    auth = confirming(tmp_path, auto_confirm=("provider",))
    user, _ = await confirmed(auth)
    changed = await auth.accounts.change(user, {"email": NEW_EMAIL}, strategy="provider")
    assert (changed.email, changed.confirmed_at) == (NEW_EMAIL, auth.clock())
    assert mails(auth) == [UNDO]
    await auth.close()


async def test_removed_address_can_be_restored(auth: LocalAuthentication) -> None:
    """The address is removed at once; its owner can undo the removal."""
    user, _ = await confirmed(auth)
    await auth.accounts.change(user, {"email": None, "username": "alice"})
    found = await auth.accounts.find("username", "alice")
    assert found is not None
    assert (found.user.email, found.account.confirmed_at) == (None, None)
    assert (await undo(auth, links(auth)[UNDO])).user.email == EMAIL


async def test_change_is_immediate_without_confirm_on_update(tmp_path: Path) -> None:
    """The new address is stored at once, unconfirmed, and gets a confirmation link; the old one gets an undo link."""
    auth = confirming(tmp_path, confirm_on_update=False)
    user, _ = await confirmed(auth)
    changed = await auth.accounts.change(user, {"email": NEW_EMAIL})
    assert (changed.email, changed.confirmed_at) == (NEW_EMAIL, None)
    assert set(mails(auth)) == {UNDO, ("confirmation", NEW_EMAIL)}
    await auth.close()


async def test_unconfirmed_address_gets_no_undo_link(tmp_path: Path) -> None:
    """A user who corrects a mistyped address does not give the account to the reader of the wrong mailbox."""
    auth = confirming(tmp_path, required=False)
    user, token = await register(auth)
    take(auth)
    await change_email(auth, (user, token), NEW_EMAIL)
    assert mails(auth) == [CHANGE]
    auth.clock.advance(MINUTE)
    await actions(auth).resend({}, user=user)
    linked = links(auth)
    assert set(linked) == {CHANGE, ("confirmation", EMAIL)}
    await confirm(auth, linked[CHANGE])
    assert mails(auth) == []
    with pytest.raises(InvalidTokenError):
        await confirm(auth, linked["confirmation", EMAIL])
    await auth.close()


# --- extra fields ----------------------------------------------------------------------------------------------------


async def test_extra_field_waits_for_confirmation(tmp_path: Path) -> None:
    """Each field has its own link; a phone does not identify a user, so sessions survive its change."""
    auth = confirming(tmp_path, monitor_fields=("email", "phone"))
    user, token = await confirmed(auth)
    await auth.accounts.change(user, {"email": NEW_EMAIL, "phone": "+1 555 0100"}, acting=token.session)
    assert await actions(auth).pending(user) == {"email": NEW_EMAIL, "phone": "+1 555 0100"}
    linked = links(auth)
    user, _ = await confirm(auth, linked["phone_change", "+1 555 0100"])
    assert (user.email, dict(user.data)) == (EMAIL, {"phone": "+1 555 0100"})
    assert await is_alive(auth, token)
    user, _ = await confirm(auth, linked[CHANGE])
    assert (user.email, dict(user.data)) == (NEW_EMAIL, {"phone": "+1 555 0100"})
    await auth.accounts.change(user, {"phone": None})
    with pytest.raises(ValidationError):
        await auth.accounts.change(user, {"phone": 5550100})
    await auth.close()


# --- addresses that another hook makes pending -----------------------------------------------------------------------


class Keeping(Hook):
    """Makes an address pending, as an invitation does if a provider names another address."""

    name = "keeping"

    async def prepare(self, draft: Draft) -> Draft:
        invited = EMAIL in draft.fields.values() or "alice" in draft.fields.values()
        kept_back = {"email": NEW_EMAIL} if invited else {}
        return replace(draft, pending={**draft.pending, **kept_back})


@pytest.mark.parametrize("before", [True, False])
async def test_bound_link_requires_a_session_of_its_user(tmp_path: Path, before: bool) -> None:
    """The link is rejected without a session of its user, also for a reader of the mail."""
    also = {"add_ons": (Keeping(),)} if not before else {"also": (KeepingStrategy(),)}
    auth = confirming(tmp_path, required=False, **also)
    _, token = await auth.strategy("password").register(registration())
    linked = links(auth)
    assert set(linked) == {("confirmation", EMAIL), CHANGE}
    other = await auth.accounts.create({"email": OTHER_EMAIL}, confirmed=True)
    stranger = await auth.sign_in(other)
    for session in (None, stranger.session):
        with pytest.raises(AuthenticationFailedError, match="only for its user"):
            await confirm(auth, linked[CHANGE], session=session)
    plug, path = AuthPlug(auth), "/auth/confirmation/confirm"
    params = {"confirmation_token": linked[CHANGE]}
    assert (await post(plug, path, params)).status == 401
    answer = await post(plug, path, params, cookie=f"{auth.site.session_cookie}={token.cookie}", headers=BROWSER)
    assert answer.status == 200
    assert (await found_of(auth, NEW_EMAIL)).account.user_id == token.session.user_id
    await auth.close()


async def test_user_without_address_can_sign_in_to_confirm_a_pending_one(tmp_path: Path) -> None:
    """The user has no address to confirm first, and the bound link requires a session, so the sign-in is allowed."""
    auth = confirming(tmp_path, add_ons=(Keeping(),))
    user = await auth.accounts.create({"username": "alice"}, password=PASSWORD)
    bare = await auth.accounts.create({"username": "bare"}, password=PASSWORD)
    with pytest.raises(AuthenticationFailedError, match="not confirmed"):
        await auth.sign_in(bare)
    token = await auth.sign_in(user)
    linked = links(auth)[CHANGE]
    with pytest.raises(AuthenticationFailedError, match="only for its user"):
        await confirm(auth, linked)
    auth.clock.advance(3 * DAY)
    with pytest.raises(AuthenticationFailedError, match="not confirmed"):
        await auth.sign_in(user)
    auth.clock.advance(-DAY)
    auth.clock.advance(-DAY)
    await actions(auth).resend({}, user=user)
    linked = links(auth)[CHANGE]
    with pytest.raises(AuthenticationFailedError, match="only for its user"):
        await confirm(auth, linked)
    with pytest.raises(InvalidTokenError):  # the session has been idle for too long
        await confirm(auth, linked, session=token.session)
    await confirm(auth, linked, session=(await auth.sign_in(user)).session)
    await sign_in(auth, NEW_EMAIL)
    await auth.close()


async def test_pending_address_alone_allows_no_sign_in(tmp_path: Path) -> None:
    """A user with only a pending change, or with an unconfirmed address beside a pending one, cannot sign in."""
    auth = confirming(tmp_path, add_ons=(Keeping(),))
    bare = await auth.accounts.create({"username": "bare"}, password=PASSWORD)
    await auth.accounts.change(bare, {"email": NEW_EMAIL})
    unproven = await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    for user in (bare, unproven):
        assert await actions(auth).pending(user) == {"email": NEW_EMAIL}
        with pytest.raises(AuthenticationFailedError, match="not confirmed"):
            await auth.sign_in(user)
    await auth.close()


class KeepingStrategy:
    """A strategy with the same hook, which runs before the add-on."""

    name = "keeping"

    def bind(self, services: Any) -> Hook:
        """Called once at start."""
        return Keeping()


# --- undo ------------------------------------------------------------------------------------------------------------


async def test_undo_gives_the_account_back(auth: LocalAuthentication) -> None:
    """AC-5: the old address is in force, confirmed; sessions and password end; the thief's links are invalid."""
    user, token = await confirmed(auth)
    back = await changed(auth, (user, token))
    await auth.strategy("password").reset_request({"email": NEW_EMAIL})
    stolen = mailed_token(auth)
    await change_email(auth, await sign_in(auth, NEW_EMAIL), THIRD_EMAIL)
    pending = links(auth)["email_change", THIRD_EMAIL]
    [listener] = [hook for hook in auth.services.hooks if isinstance(hook, Events)]
    listener.take()
    auth.clock.advance(DAY)
    assert await undo(auth, back) == ((await found_of(auth)).user, None)
    found = await found_of(auth)
    assert (found.account.password_hash, found.account.confirmed_at) == (None, auth.clock())
    assert await auth.sessions.list(user.id) == []
    told = next(event for event in listener.take() if isinstance(event, UserChanged))
    assert (told.before, told.reverted) == ({"email": NEW_EMAIL}, True)
    assert mails(auth) == []
    with pytest.raises(InvalidTokenError):
        await confirm(auth, pending)
    for dead in (stolen, back):
        with pytest.raises(InvalidTokenError):
            await auth.strategy("password").reset(resetting(dead))
    with pytest.raises(InvalidTokenError):
        await undo(auth, back)
    await auth.strategy("password").reset_request({"email": EMAIL})
    await auth.strategy("password").reset(resetting(mailed_token(auth)))
    await sign_in(auth, password=NEW_PASSWORD)


async def test_undo_outlives_a_reset_and_later_changes(auth: LocalAuthentication) -> None:
    """The owner's link survives the thief's reset and second change; its use invalidates the thief's link."""
    user, token = await confirmed(auth)
    owners = await changed(auth, (user, token))
    thiefs = await changed(auth, (user, token), THIRD_EMAIL)
    await auth.strategy("password").reset_request({"email": THIRD_EMAIL})
    await auth.strategy("password").reset(resetting(mailed_token(auth)))
    assert (await undo(auth, owners)).user.email == EMAIL
    with pytest.raises(InvalidTokenError):
        await undo(auth, thiefs)


async def test_undo_by_the_thief_keeps_the_owners_link(auth: LocalAuthentication) -> None:
    """The undo of a later change keeps the undo link of an earlier owner valid."""
    user, token = await confirmed(auth)
    owners = await changed(auth, (user, token))
    thiefs = await changed(auth, (user, token), THIRD_EMAIL)
    assert (await undo(auth, thiefs)).user.email == NEW_EMAIL
    token = await auth.sign_in((await found_of(auth, NEW_EMAIL)).user)
    auth.clock.advance(MINUTE)
    await actions(auth).change_email(user, {"email": THIRD_EMAIL}, session=token.session)
    await confirm(auth, links(auth)["email_change", THIRD_EMAIL])
    again = links(auth)["email_changed", NEW_EMAIL]
    assert (await undo(auth, owners)).user.email == EMAIL
    with pytest.raises(InvalidTokenError):
        await undo(auth, again)


async def test_undo_notice_has_no_quota(auth: LocalAuthentication) -> None:
    """A thief who uses up the mails of an hour cannot suppress the mail to the owner."""
    user, token = await confirmed(auth)
    for number in range(8):
        await change_email(auth, (user, token), f"thief{number}@mail.example.org")
    assert len([1 for purpose, _ in mails(auth) if purpose == "email_change_asked"]) == 5
    assert await changed(auth, (user, token))


@pytest.mark.parametrize(("late", "live"), [(-SECOND, True), (timedelta(0), False), (SECOND, False)])
async def test_undo_ends_after_its_lifetime(auth: LocalAuthentication, late: timedelta, live: bool) -> None:
    """An undo link is valid for exactly seven days."""
    back = await changed(auth, await confirmed(auth))
    auth.clock.advance(7 * DAY + late)
    if live:
        await undo(auth, back)
    else:
        with pytest.raises(InvalidTokenError):
            await undo(auth, back)


async def test_undo_to_a_taken_address_is_rejected(auth: LocalAuthentication) -> None:
    """Nothing is changed or consumed."""
    back = await changed(auth, await confirmed(auth))
    before = await found_of(auth, NEW_EMAIL)
    other = await auth.accounts.create({"email": EMAIL}, confirmed=True)
    with pytest.raises(IdentityTakenError):
        await undo(auth, back)
    assert await found_of(auth, NEW_EMAIL) == before
    await auth.accounts.delete(other.id)
    await undo(auth, back)


@pytest.mark.parametrize("required", [True, False])
async def test_thief_cannot_block_undo_by_registering_the_address(tmp_path: Path, required: bool) -> None:
    """AC-5: another account that has the old address, unconfirmed, loses it, its sessions and its links."""
    auth = confirming(tmp_path, required=required)
    user = await auth.accounts.create({"email": EMAIL}, password=PASSWORD, confirmed=True)
    back = await changed(auth, await sign_in(auth))
    squatter, planted = await auth.strategy("password").register(registration(password=NEW_PASSWORD))
    linked = links(auth)["confirmation", EMAIL]
    assert (await undo(auth, back)).user.id == user.id
    freed = await auth.accounts.get(squatter.id)
    assert freed is not None
    assert (freed.user.email, freed.account.confirmed_at) == (None, None)
    assert mails(auth) == []
    assert planted is None or not await is_alive(auth, planted)
    with pytest.raises(InvalidTokenError):
        await confirm(auth, linked)
    await auth.close()


async def test_undo_does_not_take_the_address_of_a_disabled_account(auth: LocalAuthentication) -> None:
    """An account that an administrator disabled keeps its address, although the address is unconfirmed."""
    back = await changed(auth, await confirmed(auth))
    locked = await auth.accounts.create({"email": EMAIL})
    await auth.accounts.disable(locked.id)
    with pytest.raises(IdentityTakenError):
        await undo(auth, back)
    assert (await found_of(auth)).user.id == locked.id


async def test_undo_is_rejected_for_a_disabled_or_deleted_user(auth: LocalAuthentication) -> None:
    """An undo link does not unlock an account."""
    user, token = await confirmed(auth)
    back = await changed(auth, (user, token))
    await auth.accounts.disable(user.id)
    with pytest.raises(InvalidTokenError):
        await undo(auth, back)
    await auth.accounts.enable(user.id)
    await auth.accounts.delete(user.id)
    with pytest.raises(InvalidTokenError):
        await undo(auth, back)
    for missing in ("", None, 3):
        with pytest.raises(ValidationError):
            await undo(auth, missing)  # type: ignore[arg-type]  # JSON may contain them


# --- over HTTP -------------------------------------------------------------------------------------------------------


async def test_change_over_http(tmp_path: Path, auth: LocalAuthentication) -> None:
    """A change requires a fresh session and the password; opening a link changes nothing, its button does."""
    user, token = await confirmed(auth)
    plug, cookie = AuthPlug(auth), f"{auth.site.session_cookie}={token.cookie}"
    path, form = "/auth/confirmation/change_email", {"email": NEW_EMAIL, "current_password": PASSWORD}
    assert (await post(plug, path, form, headers=JSON)).status == 401
    wrong = await post(plug, path, {**form, "current_password": NEW_PASSWORD}, headers=JSON, cookie=cookie)
    assert (wrong.status, list(wrong.json()["fields"])) == (422, ["current_password"])
    assert (await post(plug, path, form, headers=JSON, cookie=cookie)).status == 200
    linked = links(auth)[CHANGE]
    before = tables(tmp_path)
    page = await ask(
        plug, "GET", "/auth/confirmation/confirm", headers=PAGE, query=f"confirmation_token={linked}".encode()
    )
    assert linked in page.text
    assert tables(tmp_path) == before
    params = {"confirmation_token": linked}
    assert (await post(plug, "/auth/confirmation/confirm", params, cookie=cookie, headers=PAGE)).status == 200
    assert await is_alive(auth, token)
    back = links(auth)[UNDO]
    before = tables(tmp_path)
    for method in ("GET", "HEAD", "OPTIONS"):
        await ask(plug, method, "/auth/confirmation/undo", headers=PAGE, query=f"undo_token={back}".encode())
    assert tables(tmp_path) == before
    assert (await post(plug, "/auth/confirmation/undo", {"undo_token": back}, headers=PAGE)).status == 200
    assert (await found_of(auth)).user.id == user.id
    auth.clock.advance(HOUR)
    stale = await post(plug, path, form, headers=JSON, cookie=cookie)
    assert stale.status == 401


async def test_stale_session_over_http(auth: LocalAuthentication) -> None:
    """The answer is 403 ``not_fresh``."""
    _, token = await confirmed(auth)
    auth.clock.advance(HOUR)
    answer = await post(
        AuthPlug(auth),
        "/auth/confirmation/change_email",
        {"email": NEW_EMAIL, "current_password": PASSWORD},
        headers=JSON,
        cookie=f"{auth.site.session_cookie}={token.cookie}",
    )
    assert (answer.status, answer.json()["code"]) == (403, "not_fresh")


async def test_overload_changes_nothing(auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the password check is overloaded, no change is pending and no attempt is counted."""
    signed_in = await confirmed(auth)

    async def overloaded(*_: Any, **__: Any) -> None:
        raise OverloadedError

    with monkeypatch.context() as patched:
        patched.setattr(auth.services.passwords, "verify", overloaded)
        for _ in range(12):
            with pytest.raises(OverloadedError):
                await change_email(auth, signed_in, NEW_EMAIL)
    assert await actions(auth).pending(signed_in[0]) is None
    await change_email(auth, signed_in, NEW_EMAIL)
    assert await actions(auth).pending(signed_in[0]) == {"email": NEW_EMAIL}


async def test_strangers_do_not_use_up_the_early_warning(auth: LocalAuthentication) -> None:
    """AC-5: registrations and requests of strangers do not suppress the notice about the owner's own change."""
    alice, bob = await confirmed(auth), await confirmed(auth, OTHER_EMAIL)
    for _ in range(8):
        await sign_up(auth, EMAIL, NEW_PASSWORD)
        await change_email(auth, bob, EMAIL)
        auth.clock.advance(timedelta(seconds=61))
    assert Counter(purpose for purpose, address in mails(auth) if address == EMAIL) == {
        "already_registered": 5,
        "email_in_use": 5,
    }
    await change_email(auth, alice, NEW_EMAIL)
    assert mails(auth) == [("email_change", NEW_EMAIL), ("email_change_asked", EMAIL)]


async def test_strangers_do_not_use_up_the_links_of_others(auth: LocalAuthentication) -> None:
    """Notices about an address and links to it are counted separately."""
    alice, bob = await confirmed(auth), await confirmed(auth, OTHER_EMAIL)
    for _ in range(8):
        await change_email(auth, bob, EMAIL)
        auth.clock.advance(timedelta(seconds=61))
    await auth.accounts.delete(alice[0].id)
    mails(auth)
    auth.clock.advance(timedelta(seconds=61))
    await change_email(auth, bob, EMAIL)
    assert ("email_change", EMAIL) in mails(auth)


async def test_resent_change_to_a_taken_address_notifies_its_owner(auth: LocalAuthentication) -> None:
    """The resend of a change to another account's address mails a notice to its owner, and no link."""
    await confirmed(auth)
    bob = await confirmed(auth, OTHER_EMAIL)
    await change_email(auth, bob, EMAIL)
    mails(auth)
    await actions(auth).resend({}, user=bob[0])
    assert mails(auth) == [("email_in_use", EMAIL)]


async def test_failed_notice_is_not_counted(tmp_path: Path) -> None:
    """A failure of the mail server does not use up the limit for notices."""
    down = True
    sent: list[str] = []

    async def send(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        if down and opts["purpose"] == "email_change_asked":
            raise ConnectionError("451")
        sent.append(opts["purpose"])

    auth = confirming(tmp_path, sender=send, mails=Limit(1, DAY))
    user = await auth.accounts.create({"email": EMAIL}, password=PASSWORD, confirmed=True)
    signed_in = await sign_in(auth)
    await change_email(auth, signed_in, NEW_EMAIL)
    down = False
    await change_email(auth, signed_in, THIRD_EMAIL)
    await change_email(auth, signed_in, NEW_EMAIL)
    assert sent.count("email_change_asked") == 1
    assert await actions(auth).pending(user) == {"email": NEW_EMAIL}
    await auth.close()
