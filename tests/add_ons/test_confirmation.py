"""Confirmation of a new account: required confirmations, sign-in, links and limits of mails."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.acts import Attempt, Draft, Proof
from asgi_auth.add_ons import Confirmation
from asgi_auth.errors import (
    AuthenticationFailedError,
    ConfigurationError,
    IdentityTakenError,
    InvalidTokenError,
    OverloadedError,
    ValidationError,
)
from asgi_auth.events import UserConfirmed
from asgi_auth.hooks import Hook
from asgi_auth.limits import Limit
from asgi_auth.passwords import Bcrypt
from asgi_auth.senders import MemorySender
from asgi_auth.stores import PostgresStore
from asgi_auth.strategies.password import Password
from asgi_auth.types import Account, Client
from asgi_auth.web.plug import AuthPlug
from tests import postgres
from tests.add_ons.confirming import (
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
from tests.asgi import JSON, PAGE, ask, post, tables
from tests.support import (
    EMAIL,
    HASHER,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    Events,
    LocalAuthentication,
    credentials,
    found_of,
    is_alive,
    mailed_token,
    make_auth,
    registration,
)

pytestmark = pytest.mark.anyio

NO_SENDER = MemorySender()
FIRST = ("confirmation", EMAIL)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication with the defaults of the add-on and a listener for events."""
    auth = confirming(tmp_path, add_ons=(Events(),))
    yield auth
    await auth.close()


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor_fields": "email"}, "monitor_fields must be a sequence"),
        ({"monitor_fields": 3}, "monitor_fields must be a sequence"),
        ({"monitor_fields": [3]}, "monitor_fields must be a sequence"),
        ({"monitor_fields": ()}, "there must be one"),
        ({"monitor_fields": ("email", "email")}, "the same field twice"),
        ({"monitor_fields": ("email", "username")}, "by a user name"),
        ({"monitor_fields": ("phone",)}, r"required: monitor_fields must have 'email'"),
        ({"auto_confirm": "password"}, "auto_confirm must be a sequence"),
        ({"lifetime": timedelta(0)}, "lifetime must be a positive timedelta"),
        ({"resend_after": -SECOND}, "resend_after must be"),
        ({"undo_lifetime": 7}, "undo_lifetime must be"),
        ({"change_fresh": None}, "change_fresh must be"),
        ({"mails": 5}, "mails must be a Limit"),
        ({"url": "/confirm"}, "url must be an absolute URL"),
        ({"undo_url": "confirm.example"}, "undo_url must be an absolute URL"),
    ],
    ids=str,
)
def test_confirmation_checks_its_options(options: dict[str, Any], message: str) -> None:
    """An invalid option raises ConfigurationError, whose message names the option."""
    with pytest.raises(ConfigurationError, match=message):
        Confirmation(sender=NO_SENDER, **options)


def test_two_add_ons_cannot_confirm_the_same_field(tmp_path: Path) -> None:
    """Several add-ons with different fields work together; two with the same field would mail everything twice."""
    by_phone = Confirmation(sender=NO_SENDER, name="phone", monitor_fields=("phone",), required=False)
    auth = make_auth(tmp_path, add_ons=[Confirmation(sender=NO_SENDER), by_phone])
    assert [name for name, _ in auth.routes if name != "password"] == ["confirmation"] * 5 + ["phone"] * 3
    twice = replace(by_phone, monitor_fields=("email", "phone"), name="twice")
    with pytest.raises(ConfigurationError, match="'phone' has 'phone' already"):
        make_auth(tmp_path, add_ons=[by_phone, twice])


def test_confirmation_requires_a_store_that_finds_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot find users by address is rejected."""
    auth = make_auth(tmp_path)
    monkeypatch.setattr(type(auth.services.store.users), "identity_fields", frozenset({"username"}))
    with pytest.raises(ConfigurationError, match="cannot find users by email"):
        make_auth(tmp_path, strategies=[Password(identity_field="username")], add_ons=[Confirmation(sender=NO_SENDER)])


@pytest.mark.parametrize(
    ("options", "proves"),
    [
        ({}, True),
        ({"required": False}, False),
        ({"confirm_on_create": False}, False),
        ({"monitor_fields": ("phone",), "required": False}, False),
    ],
    ids=str,
)
def test_confirmation_says_whether_it_proves_addresses(tmp_path: Path, options: dict[str, Any], proves: bool) -> None:
    """``proves_addresses`` is true only if the add-on requests and requires a confirmation of the address."""
    _, hook = confirming(tmp_path, **options).services.hooks
    assert hook.proves_addresses is proves


def test_change_email_exists_only_if_changes_wait(tmp_path: Path) -> None:
    """With ``confirm_on_update=False`` there is no phase ``change_email``."""
    phases = {phase for name, phase in confirming(tmp_path, confirm_on_update=False).routes if name == "confirmation"}
    assert phases == {"confirm", "resend", "cancel", "undo"}


# --- create and admit ------------------------------------------------------------------------------------------------


async def test_registration_is_accepted_and_mails_a_link(auth: LocalAuthentication) -> None:
    """The account is unconfirmed and not signed in; the mail has a link and the time at which it expires."""
    user = await sign_up(auth)
    assert (user.email, user.confirmed_at) == (EMAIL, None)
    [(mailed_user, token, opts)] = take(auth)
    assert mailed_user == user
    assert token is not None
    assert {name: value for name, value in opts.items() if name != "texts"} == {
        "locale": "en",
        "purpose": "confirmation",
        "address": EMAIL,
        "app_name": "localhost",
        "url": f"http://localhost:8000/auth/confirmation/confirm?confirmation_token={token}",
        "expires_at": auth.clock() + 3 * DAY,
    }


async def test_unconfirmed_user_cannot_sign_in(auth: LocalAuthentication) -> None:
    """AC-2: every way of signing in is rejected as with a wrong password, until the user confirms."""
    user = await sign_up(auth)
    for _ in range(2):
        with pytest.raises(AuthenticationFailedError, match="not confirmed"):
            await sign_in(auth)
        with pytest.raises(AuthenticationFailedError, match="not confirmed"):
            await auth.strategy("password").sign_in(credentials(), token_type="sign_in")
        with pytest.raises(AuthenticationFailedError, match="not confirmed"):
            await auth.sign_in(user)
    assert (await confirm(auth, links(auth)[FIRST])).user.confirmed_at == auth.clock()
    _, token = await sign_in(auth)
    assert await is_alive(auth, token)


@pytest.mark.parametrize("proof", [None, False, "", 0, True, "2030-01-01"])
async def test_only_a_confirmation_time_admits(auth: LocalAuthentication, proof: Any) -> None:
    """CVE-2026-85500: an absent or empty value, or a value of another type, does not confirm an account."""
    account = replace(Account(user_id="1", stamp=b"s"), confirmed_at=proof)
    user = await auth.accounts.create({"email": EMAIL})
    attempt = Attempt(user=user, proof=Proof(account=account, factor="password", at=auth.clock()), client=Client())
    hook = auth.services.hooks[1]
    with pytest.raises(AuthenticationFailedError):
        await hook.admit(attempt)
    proven = replace(attempt, proof=replace(attempt.proof, account=replace(account, confirmed_at=auth.clock())))
    assert await hook.admit(proven) is None


async def test_unconfirmed_user_can_sign_in_if_not_required(tmp_path: Path) -> None:
    """With ``required=False`` the user is signed in, and the link is mailed nevertheless."""
    auth = confirming(tmp_path, required=False)
    _, token = await auth.strategy("password").register(registration())
    assert await is_alive(auth, token)
    assert mails(auth) == [FIRST]
    await auth.close()


async def test_vouched_addresses_get_no_link(tmp_path: Path, auth: LocalAuthentication) -> None:
    """Addresses that the application or a listed strategy vouches for get no link; other addresses get one."""
    await auth.accounts.create({"email": EMAIL}, confirmed=True)
    assert mails(auth) == []
    await auth.accounts.create({"email": OTHER_EMAIL})
    assert mails(auth) == [("confirmation", OTHER_EMAIL)]
    trusting = confirming(tmp_path, auto_confirm=("password",))
    _, token = await trusting.strategy("password").register(registration("carol@mail.example.org"))
    assert await is_alive(trusting, token)
    assert mails(trusting) == []
    await trusting.close()


async def test_account_without_an_address_is_not_mailed(auth: LocalAuthentication) -> None:
    """The account has no address to confirm, so a resend sends nothing."""
    user = await auth.accounts.create({"username": "alice"}, password=PASSWORD)
    await actions(auth).resend({}, user=user)
    assert mails(auth) == []


async def test_no_link_is_mailed_without_confirm_on_create(tmp_path: Path) -> None:
    """No link is mailed until the user asks for one; extra fields are stored at once."""
    auth = confirming(tmp_path, confirm_on_create=False, monitor_fields=("email", "phone"))
    user = await sign_up(auth, phone="+1 555 0100")
    assert dict(user.data) == {"phone": "+1 555 0100"}
    assert mails(auth) == []
    await actions(auth).resend({"email": EMAIL})
    assert mails(auth) == [FIRST]
    await auth.close()


class Vouching(Hook):
    """Runs after every other hook and removes the confirmation of a draft whose client is in doubt."""

    name = "vouching"

    async def prepare(self, draft: Draft) -> Draft:
        return replace(draft, confirmed_at=None if draft.client.label == "doubt" else draft.confirmed_at)


async def test_link_depends_on_the_stored_account(tmp_path: Path) -> None:
    """If a later hook removes the confirmation, the address gets a link."""
    auth = confirming(tmp_path, add_ons=(Vouching(),), auto_confirm=("password",))
    await auth.strategy("password").register(registration(), client=Client(label="doubt"))
    assert mails(auth) == [FIRST]
    await auth.close()


# --- confirm ---------------------------------------------------------------------------------------------------------


async def test_confirmation_claims_the_account(auth: LocalAuthentication) -> None:
    """AC-1: the stamp is new, hooks are told, earlier reset links are invalid, and the account keeps its password."""
    await sign_up(auth)
    await auth.strategy("password").reset_request({"email": EMAIL})
    reset = mailed_token(auth)
    before = (await found_of(auth)).account
    [listener] = [hook for hook in auth.services.hooks if isinstance(hook, Events)]
    listener.take()
    assert (await confirm(auth, links(auth)[FIRST])).token is None
    after = (await found_of(auth)).account
    assert after.stamp != before.stamp
    assert after.password_hash == before.password_hash
    assert [event.claimed for event in listener.take() if isinstance(event, UserConfirmed)] == [True]
    with pytest.raises(InvalidTokenError):
        await auth.strategy("password").reset(
            {"reset_token": reset, "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
        )


async def test_link_works_once(auth: LocalAuthentication) -> None:
    """TK-10: a used token, a token that was never issued and a missing token are rejected."""
    await sign_up(auth)
    token = links(auth)[FIRST]
    await confirm(auth, token)
    for used in (token, "x" * 43, "x", token[:-1]):
        with pytest.raises(InvalidTokenError):
            await confirm(auth, used)
    for missing in ("", None, 3, [token]):
        with pytest.raises(ValidationError):
            await confirm(auth, missing)  # type: ignore[arg-type]  # JSON may contain them


@pytest.mark.parametrize(("late", "live"), [(-SECOND, True), (timedelta(0), False), (SECOND, False)])
async def test_link_ends_after_its_lifetime(auth: LocalAuthentication, late: timedelta, live: bool) -> None:
    """A link is valid for exactly three days."""
    await sign_up(auth)
    token = links(auth)[FIRST]
    auth.clock.advance(3 * DAY + late)
    if live:
        await confirm(auth, token)
    else:
        with pytest.raises(InvalidTokenError):
            await confirm(auth, token)
    assert ((await found_of(auth)).account.confirmed_at is not None) is live


async def test_link_confirms_only_its_own_address(tmp_path: Path, auth: LocalAuthentication) -> None:
    """AC-4: a link for an address that the account no longer has is rejected, even if the stamp is the same."""
    await sign_up(auth)
    token = links(auth)[FIRST]
    found = await found_of(auth)
    await auth.services.store.users.update(found.user.id, {"email": OTHER_EMAIL}, {"email": OTHER_EMAIL})
    before = tables(tmp_path)
    with pytest.raises(InvalidTokenError, match="another address"):
        await confirm(auth, token)
    assert tables(tmp_path) == before


@pytest.mark.parametrize("act", ["disable", "delete", "change", "revoke_all", "set_password", "confirm"])
async def test_link_becomes_invalid_if_the_account_changes(auth: LocalAuthentication, act: str) -> None:
    """AC-4, SE-16: every change of the account invalidates the link; so does a confirmation by the application."""
    user = await sign_up(auth)
    token = links(auth)[FIRST]
    if act == "change":
        await auth.accounts.change(user, {"email": OTHER_EMAIL}, confirmed=True)
    elif act == "set_password":
        await auth.accounts.set_password(await found_of(auth), NEW_PASSWORD)
    elif act == "revoke_all":
        await auth.sessions.revoke_all(user.id)
    else:
        await getattr(auth.accounts, act)(user.id)
    with pytest.raises(InvalidTokenError):
        await confirm(auth, token)


async def test_user_deleted_meanwhile_is_not_confirmed(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the user is deleted after the token was read and before it is used, the token is rejected."""
    user = await sign_up(auth)
    token, peek = links(auth)[FIRST], auth.tokens.peek

    async def then_delete(purpose: str, value: str) -> Any:
        record = await peek(purpose, value)
        await auth.accounts.delete(user.id)
        return record

    monkeypatch.setattr(auth.tokens, "peek", then_delete)
    with pytest.raises(InvalidTokenError, match="the user of the token is gone"):
        await confirm(auth, token)


async def test_confirmation_can_sign_in(tmp_path: Path) -> None:
    """With ``sign_in=True`` the user gets a session from the confirmation."""
    auth = confirming(tmp_path, sign_in=True)
    await sign_up(auth)
    _, token = await confirm(auth, links(auth)[FIRST])
    assert await is_alive(auth, token)
    assert token.session.factors == {"confirmation": auth.clock()}
    await auth.close()


async def test_confirmation_keeps_only_the_users_own_session(tmp_path: Path) -> None:
    """The confirming session survives and the user's other sessions end; another user's session is not touched."""
    auth = confirming(tmp_path, required=False, sign_in=True)
    _, here = await auth.strategy("password").register(registration())
    _, there = await sign_in(auth)
    _, other = await auth.strategy("password").register(registration(OTHER_EMAIL))
    assert (await confirm(auth, links(auth)[FIRST], session=here.session)).token is None
    assert [await is_alive(auth, token) for token in (here, there, other)] == [True, False, True]
    await actions(auth).resend({"email": OTHER_EMAIL})
    auth.clock.advance(timedelta(minutes=2))
    await actions(auth).resend({"email": OTHER_EMAIL})
    _, token = await confirm(auth, links(auth)["confirmation", OTHER_EMAIL], session=here.session)
    assert token.session.user_id == other.session.user_id
    assert [await is_alive(auth, token) for token in (here, other)] == [True, False]
    await auth.close()


# --- extra fields ----------------------------------------------------------------------------------------------------


async def test_extra_field_is_pending_until_confirmed(tmp_path: Path) -> None:
    """A new account gets the field only when its own link is confirmed; the address has a separate link."""
    auth = confirming(tmp_path, monitor_fields=("email", "phone"))
    user = await sign_up(auth, phone="+1 555 0100", nickname="al")
    assert dict(user.data) == {"nickname": "al"}
    assert await actions(auth).pending(user) == {"phone": "+1 555 0100"}
    linked = links(auth)
    assert set(linked) == {FIRST, ("phone_change", "+1 555 0100")}
    user, _ = await confirm(auth, linked["phone_change", "+1 555 0100"])
    assert dict(user.data) == {"phone": "+1 555 0100", "nickname": "al"}
    assert user.confirmed_at is None
    assert await actions(auth).pending(user) is None
    await confirm(auth, linked[FIRST])
    await auth.close()


async def test_vouched_extra_field_is_stored_at_once(tmp_path: Path) -> None:
    """A field that the application or a strategy in ``auto_confirm`` vouches for needs no confirmation."""
    options: dict[str, Any] = {"monitor_fields": ("phone",), "required": False}
    auth = confirming(tmp_path, **options)
    user = await auth.accounts.create({"email": EMAIL, "phone": "1"}, confirmed=True)
    assert dict(user.data) == {"phone": "1"}
    trusting = confirming(tmp_path, auto_confirm=("password",), **options)
    user, _ = await trusting.strategy("password").register({**registration(OTHER_EMAIL), "phone": "2"})
    assert (dict(user.data), user.confirmed_at, mails(trusting)) == ({"phone": "2"}, None, [])
    await auth.close()
    await trusting.close()


async def test_add_ons_for_address_and_field_are_independent(tmp_path: Path) -> None:
    """Each add-on has its own links, limits and phases, and rejects the links of the other."""
    sender = MemorySender()
    by_phone = Confirmation(sender=sender, name="phone", monitor_fields=("phone",), required=False)
    auth = confirming(tmp_path, sender=sender, add_ons=(by_phone,))  # type: ignore[arg-type]  # as applications do
    user = await sign_up(auth, phone="+1 555 0100")
    linked = links(auth)
    for name, key in (("phone", FIRST), ("confirmation", ("phone_change", "+1 555 0100"))):
        with pytest.raises(InvalidTokenError):
            await auth.add_on(name).confirm({"confirmation_token": linked[key]})
    auth.clock.advance(timedelta(minutes=1))
    await auth.add_on("phone").resend({"email": EMAIL}, user=user)
    again = links(auth)
    assert list(again) == [("phone_change", "+1 555 0100")]
    user, _ = await auth.add_on("phone").confirm({"confirmation_token": again["phone_change", "+1 555 0100"]})
    assert dict(user.data) == {"phone": "+1 555 0100"}
    with pytest.raises(ValidationError):
        await auth.add_on("phone").resend({"email": EMAIL})
    await auth.close()


# --- resend ----------------------------------------------------------------------------------------------------------


async def test_resend_makes_a_new_link(auth: LocalAuthentication) -> None:
    """The new link is mailed; the older link is invalid as soon as the mail is sent."""
    await sign_up(auth)
    old = links(auth)[FIRST]
    auth.clock.advance(timedelta(minutes=1))
    assert await actions(auth).resend({"email": EMAIL.upper()}) == (None, None)
    new = links(auth)[FIRST]
    with pytest.raises(InvalidTokenError):
        await confirm(auth, old)
    await confirm(auth, new)


async def test_resend_waits_between_mails(auth: LocalAuthentication) -> None:
    """Within a minute of a link no other one is mailed, in any spelling of the address (RL-4); no error is raised."""
    await sign_up(auth)
    take(auth)
    auth.clock.advance(timedelta(seconds=59))
    for spelling in (EMAIL, EMAIL.upper(), f" {EMAIL}"):
        await actions(auth).resend({"email": spelling})
    assert mails(auth) == []
    auth.clock.advance(SECOND)
    for _ in range(3):
        await actions(auth).resend({"email": EMAIL})
    assert mails(auth) == [FIRST]


async def test_resend_has_a_quota(auth: LocalAuthentication) -> None:
    """RL-6: one address gets five mails an hour, over all kinds of mail; the answers stay the same."""
    await sign_up(auth)
    for _ in range(50):
        assert await actions(auth).resend({"email": EMAIL}) == (None, None)
        auth.clock.advance(timedelta(minutes=1))
    assert mails(auth) == [FIRST] * 5
    auth.clock.advance(timedelta(minutes=10))
    await actions(auth).resend({"email": EMAIL})
    assert mails(auth) == [FIRST]


async def test_resend_mails_only_unconfirmed_users(auth: LocalAuthentication) -> None:
    """Unknown, confirmed and disabled addresses get no mail. A malformed address raises ValidationError."""
    await confirmed(auth)
    user = await sign_up(auth, OTHER_EMAIL)
    take(auth)
    await auth.accounts.disable(user.id)
    auth.clock.advance(timedelta(hours=1))
    for email in (EMAIL, OTHER_EMAIL, "nobody@mail.example.org"):
        assert await actions(auth).resend({"email": email}) == (None, None)
    assert mails(auth) == []
    for malformed in ("nobody", "", 3):
        with pytest.raises(ValidationError):
            await actions(auth).resend({"email": malformed})


async def test_failed_mail_is_not_counted(tmp_path: Path) -> None:
    """A mail that cannot be sent is not counted, starts no pause and invalidates no link."""
    mail = MemorySender()
    failing: list[bool] = []

    async def send(user: Any, token: Any, opts: Any) -> None:
        if failing:
            raise OSError
        await mail.send(user, token, opts)

    auth = confirming(tmp_path, sender=send, mails=Limit(2, timedelta(hours=1)))
    auth.sender = mail
    await sign_up(auth)
    token = links(auth)[FIRST]
    auth.clock.advance(timedelta(minutes=1))
    failing.append(True)
    for _ in range(5):
        await actions(auth).resend({"email": EMAIL})
    failing.clear()
    await actions(auth).resend({"email": EMAIL})
    assert mails(auth) == [FIRST]
    auth.clock.advance(timedelta(minutes=1))
    await actions(auth).resend({"email": EMAIL})
    assert mails(auth) == []
    with pytest.raises(InvalidTokenError):
        await confirm(auth, token)  # the second mail, which was sent, replaced it
    await auth.close()


# --- a taken address -------------------------------------------------------------------------------------------------


async def test_registration_of_a_confirmed_address_notifies_its_owner(auth: LocalAuthentication) -> None:
    """EN-4: the answer is as usual; the owner gets notices without a link, at most five an hour; nothing changes."""
    await confirmed(auth)
    auth.clock.advance(timedelta(hours=1))
    before = await found_of(auth)
    for _ in range(7):
        result = await auth.strategy("password").register(registration(password=NEW_PASSWORD))
        assert result == (None, None)
    messages = take(auth)
    assert [(opts["purpose"], opts["address"], token) for _, token, opts in messages] == [
        ("already_registered", EMAIL, None)
    ] * 5
    assert all("url" not in opts for _, _, opts in messages)
    assert await found_of(auth) == before


async def test_registration_of_a_disabled_address_sends_nothing(auth: LocalAuthentication) -> None:
    """The registration is accepted, and no mail is sent."""
    user, _ = await confirmed(auth)
    await auth.accounts.disable(user.id)
    assert await auth.strategy("password").register(registration()) == (None, None)
    assert mails(auth) == []


async def test_second_registration_with_the_same_password_keeps_it(auth: LocalAuthentication) -> None:
    """A user who lost the mail registers again, gets another mail and signs in with the same password."""
    await sign_up(auth)
    auth.clock.advance(timedelta(minutes=1))
    assert await auth.strategy("password").register(registration()) == (None, None)
    assert mails(auth) == [FIRST, FIRST]
    await actions(auth).resend({"email": EMAIL})
    auth.clock.advance(timedelta(minutes=1))
    await actions(auth).resend({"email": EMAIL})
    await confirm(auth, links(auth)[FIRST])
    await sign_in(auth)


async def test_uncompared_passwords_count_as_different(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an overload prevents the comparison, the link is mailed, and its confirmation removes the password."""
    await sign_up(auth)
    auth.clock.advance(timedelta(minutes=1))

    async def overloaded(*_: Any, **__: Any) -> None:
        raise OverloadedError

    with monkeypatch.context() as patched:
        patched.setattr(auth.services.passwords, "verify", overloaded)
        await auth.strategy("password").register(registration())
    await confirm(auth, links(auth)[FIRST])
    assert (await found_of(auth)).account.password_hash is None


async def test_taken_address_is_told_if_confirmation_is_not_required(tmp_path: Path) -> None:
    """If a registration signs in at once, a taken address raises an error, as without the add-on."""
    auth = confirming(tmp_path, required=False)
    await auth.strategy("password").register(registration())
    with pytest.raises(ValidationError, match="identity taken"):
        await auth.strategy("password").register(registration())
    await auth.close()


async def test_links_of_others_do_not_use_up_the_mails_of_an_address(auth: LocalAuthentication) -> None:
    """A stranger's changes to an address do not use up the mails that its owner needs to register."""
    stranger = await confirmed(auth, OTHER_EMAIL)
    for _ in range(5):
        await change_email(auth, stranger, EMAIL)
        auth.clock.advance(timedelta(minutes=1))
    assert mails(auth).count(("email_change", EMAIL)) == 5
    await change_email(auth, stranger, EMAIL)
    assert ("email_change", EMAIL) not in mails(auth)
    await sign_up(auth)
    assert mails(auth) == [FIRST]


async def test_field_with_an_at_sign_is_not_an_address(tmp_path: Path) -> None:
    """Another contact field may contain an @; it still gets its own kind of link."""
    auth = confirming(tmp_path, monitor_fields=("email", "nickname"))
    user, _ = await confirmed(auth)
    await auth.accounts.change(user, {"nickname": "@alice"})
    assert mails(auth) == [("nickname_change", "@alice")]
    await auth.close()


@pytest.mark.parametrize("rival", [False, True])
async def test_second_unconfirmed_address_keeps_the_password(tmp_path: Path, rival: bool) -> None:
    """An earlier confirmation is no rival, nor is a registration of the address while it was confirmed."""
    auth = confirming(tmp_path, confirm_on_update=False)
    user, token = await confirmed(auth)
    if rival:
        await auth.strategy("password").register(registration(password=NEW_PASSWORD))
    for address in (OTHER_EMAIL, EMAIL):
        auth.clock.advance(timedelta(minutes=1))
        await auth.accounts.change(user, {"email": address}, acting=token.session)
        await confirm(auth, links(auth)["confirmation", address], session=token.session)
        await sign_in(auth, address)
    await auth.close()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_user_names_are_public(tmp_path: Path, database: str) -> None:
    """EN-4: the answer reveals a taken user name, whether or not the address is taken; it never reveals the address.

    The databases differ in which of the two conflicts they report first.
    """
    sender = MemorySender()
    named = Password(identity_field="username", register_fields=("email",))
    parts: dict[str, Any] = {"strategies": [named], "add_ons": [Confirmation(sender=sender)]}
    async with AsyncExitStack() as stack:
        if database == "postgresql":
            parts["store"] = PostgresStore(await stack.enter_async_context(postgres.database()))
        await _check_user_names(make_auth(tmp_path, sender=sender, **parts))


async def _check_user_names(auth: LocalAuthentication) -> None:

    async def come(username: str, email: str) -> Any:
        params = {**registration(email), "username": username}
        return await auth.strategy("password").register(params)

    assert (await come("alice", EMAIL)).token is None
    for email in (EMAIL, OTHER_EMAIL):
        with pytest.raises(IdentityTakenError) as refused:
            await come("alice", email)
        assert list(refused.value.fields) == ["username"]
    assert await come("bob", EMAIL) == (None, None)
    await auth.close()


async def test_taken_address_is_told_if_no_add_on_confirms_addresses(tmp_path: Path) -> None:
    """EN-4: an add-on for another field does not conceal that an address is taken, and counts nothing."""
    auth = confirming(tmp_path, monitor_fields=("phone",), required=False)
    await auth.strategy("password").register(registration())
    with pytest.raises(IdentityTakenError):
        await auth.strategy("password").register(registration())
    assert auth.sender.messages == []
    assert tables(tmp_path)["asgi_auth_counters"] == []
    await auth.close()


async def test_taken_address_is_accepted_if_its_owner_was_deleted(auth: LocalAuthentication) -> None:
    """If the address has no owner any more after the conflict, the registration is still accepted."""
    hook = auth.services.hooks[1]
    account = Account(user_id="", stamp=b"")
    draft = Draft(act="create", strategy="password", fields={"email": EMAIL})
    assert await hook.taken(draft, account)
    await hook._watching._answer_rival(draft, "0")  # type: ignore[attr-defined]  # the job's user was deleted too
    assert mails(auth) == []


async def test_former_owner_of_an_address_gets_no_notice(auth: LocalAuthentication) -> None:
    """If the account lost its address between the conflict and the notice, no mail is sent."""
    hook: Any = auth.services.hooks[1]
    user = await auth.accounts.create({"email": EMAIL, "username": "alice"}, confirmed=True)
    draft = Draft(act="create", strategy="password", fields={"email": EMAIL})
    await auth.accounts.change(user, {"email": None}, confirmed=True)
    mails(auth)
    await hook._watching._answer_rival(draft, user.id)
    assert mails(auth) == []


# --- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_opening_a_link_changes_nothing(tmp_path: Path, auth: LocalAuthentication, method: str) -> None:
    """GHSA-3988-q8q7-p787, CF-3: a scanner that follows the link confirms nothing and changes no row."""
    await sign_up(auth)
    token = links(auth)[FIRST]
    before = tables(tmp_path)
    query = f"confirmation_token={token}".encode()
    for _ in range(3):
        answer = await ask(AuthPlug(auth), method, "/auth/confirmation/confirm", headers=PAGE, query=query)
        assert answer.status == (405 if method == "OPTIONS" else 200)
    assert tables(tmp_path) == before
    await confirm(auth, token)


async def test_page_confirms_with_its_button(auth: LocalAuthentication) -> None:
    """The page has the token in a hidden field; its POST confirms; a second POST fails and says what to do next."""
    await sign_up(auth)
    token, plug, path = links(auth)[FIRST], AuthPlug(auth), "/auth/confirmation/confirm"
    page = await ask(plug, "GET", path, headers=PAGE, query=f"confirmation_token={token}".encode())
    assert f'name="confirmation_token" value="{token}"' in page.text
    assert (await post(plug, path, {"confirmation_token": token}, headers=PAGE)).status == 200
    again = await post(plug, path, {"confirmation_token": token}, headers=PAGE)
    assert again.status == 401
    assert "try to sign in" in again.text
    assert (await post(plug, path, {}, headers=JSON)).status == 422


async def test_phases_over_http(auth: LocalAuthentication) -> None:
    """A signed-in user resends and cancels without parameters; otherwise resend needs an address, cancel a session."""
    plug = AuthPlug(auth)
    assert (await post(plug, "/auth/confirmation/resend", {"email": EMAIL})).status == 200
    assert (await post(plug, "/auth/confirmation/resend")).status == 422
    assert (await post(plug, "/auth/confirmation/cancel")).status == 401
    _, token = await confirmed(auth)
    cookie = f"{auth.site.session_cookie}={token.cookie}"
    for phase in ("resend", "cancel"):
        assert (await post(plug, f"/auth/confirmation/{phase}", cookie=cookie, headers=JSON)).json() == {
            "status": "accepted"
        }


async def test_no_secret_is_shown(auth: LocalAuthentication, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the log nor the repr of an event contains a token or a pending address."""
    [listener] = [hook for hook in auth.services.hooks if isinstance(hook, Events)]
    user, token = await confirmed(auth)
    params = {"email": OTHER_EMAIL, "current_password": PASSWORD}
    await actions(auth).change_email(user, params, session=token.session)
    linked = links(auth)["email_change", OTHER_EMAIL]
    with pytest.raises(InvalidTokenError):
        await confirm(auth, linked[::-1])
    shown = caplog.text + "".join(repr(event) for event in listener.take())
    assert linked not in shown
    assert OTHER_EMAIL not in shown


async def test_same_password_with_another_hash_cost_counts_as_the_same(tmp_path: Path) -> None:
    """The comparison of passwords works across hashers."""
    auth = confirming(tmp_path, options={"hasher": HASHER})
    await sign_up(auth)
    dearer = confirming(tmp_path, sender=auth.sender, options={"hasher": Bcrypt(cost=5)})
    dearer.clock.advance(timedelta(minutes=1))
    await dearer.strategy("password").register(registration())
    await confirm(dearer, links(auth)[FIRST])
    assert (await found_of(auth)).account.password_hash is not None
    await auth.close()
    await dearer.close()


async def test_reset_claims_an_unconfirmed_account(auth: LocalAuthentication) -> None:
    """AC-1: a reset proves the mailbox: it confirms the account; earlier links are invalid."""
    await sign_up(auth)
    first = links(auth)[FIRST]
    await auth.strategy("password").reset_request({"email": EMAIL})
    await auth.strategy("password").reset(
        {"reset_token": mailed_token(auth), "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    )
    await sign_in(auth, password=NEW_PASSWORD)
    with pytest.raises(InvalidTokenError):
        await confirm(auth, first)


def test_resettable_is_not_required(tmp_path: Path) -> None:
    """The add-on works with a strategy that has no reset."""
    auth = make_auth(tmp_path, strategies=[Password()], add_ons=[Confirmation(sender=NO_SENDER)])
    assert ("password", "reset") not in auth.routes
