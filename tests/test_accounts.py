"""asgi_auth.accounts: the only module that writes users."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from asgi_auth.accounts import as_of
from asgi_auth.acts import Draft
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    ForbiddenError,
    IdentityTakenError,
    InvalidTokenError,
    ValidationError,
)
from asgi_auth.events import PasswordSet, UserChanged, UserConfirmed, UserCreated
from asgi_auth.hooks import Hook
from asgi_auth.store import Work
from asgi_auth.stores import SQLiteStore
from asgi_auth.types import Client
from tests.support import (
    EMAIL,
    HASHER,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    DigestHasher,
    Events,
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

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Invitations(Events):
    """Records events and admits a registration with the code 7."""

    name = "invitations"
    opens_registration = True

    async def prepare(self, draft: Draft) -> Draft:
        return replace(draft, invited=draft.params.get("invitation") == "7")


@pytest.fixture
def events() -> Invitations:
    """An add-on that records the events of the test."""
    return Invitations()


@pytest.fixture
async def auth(tmp_path: Path, events: Invitations) -> AsyncIterator[LocalAuthentication]:
    """An Authentication whose events are recorded."""
    auth = make_auth(tmp_path, add_ons=[events])
    yield auth
    await auth.close()


async def can_sign_in(auth: LocalAuthentication, password: str, email: str = EMAIL) -> bool:
    try:
        await auth.strategy("password").sign_in(credentials(email, password))
    except AuthenticationFailedError:
        return False
    return True


# --- create ----------------------------------------------------------------------------------------------------------


async def test_hook_that_returns_no_draft_is_named(tmp_path: Path) -> None:
    """If ``prepare`` of a hook returns None, the error names the hook."""

    class Forgetful(Hook):
        name = "forgetful"

        async def prepare(self, draft: Draft) -> Draft:
            return None  # type: ignore[return-value]  # the mistake

    auth = make_auth(tmp_path, add_ons=[Forgetful()])
    with pytest.raises(TypeError, match=r"Forgetful\.prepare returned NoneType"):
        await auth.accounts.create({"email": EMAIL})
    await auth.close()


async def test_create_stores_the_given_fields(auth: LocalAuthentication, events: Invitations) -> None:
    """A created user has the given address, name and extra fields and a new id; one event is emitted."""
    fields = {"email": " Alice@Mail.example.ORG ", "username": "Alice", "plan": "gold", "seats": 3}
    user = await auth.accounts.create(fields, password=PASSWORD)
    assert (user.email, user.username, dict(user.data)) == (
        "Alice@mail.example.org",
        "Alice",
        {"plan": "gold", "seats": 3},
    )
    assert (user.created_at, user.confirmed_at) == (NOW, None)
    assert len(user.id) == 36
    assert auth.accounts.user_id(user) == user.id
    [event] = events.take()
    assert isinstance(event, UserCreated)
    assert (event.user_id, event.user, event.at) == (user.id, user, NOW)
    assert (event.activity, event.actor) == ((None, "create"), None)
    assert await can_sign_in(auth, PASSWORD)


async def test_create_can_confirm_the_address(auth: LocalAuthentication) -> None:
    """The application may create a user with a confirmed address."""
    user = await auth.accounts.create({"email": EMAIL}, confirmed=True)
    assert user.confirmed_at == NOW
    found = await auth.accounts.get(user.id)
    assert found is not None
    assert (found.user, found.account.confirmed_at, found.account.password_hash) == (user, NOW, None)


async def test_created_users_are_found_by_every_spelling(auth: LocalAuthentication) -> None:
    """AC-6, RL-4: case, spaces and Unicode form do not matter; the look-up returns the user as stored."""
    user = await auth.accounts.create({"email": "Zoë@Mail.example.org", "username": "Zoë"})
    for spelling in ("zoë@mail.example.org", " ZOË@MAIL.EXAMPLE.ORG\t", "Zoe\u0308@mail.example.org"):
        assert (await found_of(auth, spelling)).user == user
    for spelling in ("zoë", "ZOË", " Zoe\u0308 "):
        found = await auth.accounts.find("username", spelling)
        assert found is not None
        assert found.user == user
    assert await auth.accounts.find("email", OTHER_EMAIL) is None
    assert await auth.accounts.get("nobody") is None


@pytest.mark.parametrize(
    ("fields", "problems"),
    [
        ({}, ["email"]),
        ({"email": None}, ["email"]),
        ({"plan": "gold"}, ["email"]),
        ({"email": ""}, ["email"]),
        ({"email": "alice"}, ["email"]),
        ({"email": "alice@mail.example.org,bob@mail.example.org"}, ["email"]),
        ({"email": "alice@mail.example.org\r\nBcc: bob@mail.example.org"}, ["email"]),
        ({"email": '"Alice" <alice@mail.example.org>'}, ["email"]),
        ({"email": ["alice@mail.example.org"]}, ["email"]),
        ({"email": 7}, ["email"]),
        ({"username": True}, ["username"]),
        ({"username": "a b"}, ["username"]),
        ({"email": "alice", "username": "a b"}, ["email", "username"]),
        ({"email": EMAIL, "plan": "\ud800"}, ["plan"]),
        ({"email": EMAIL, "plan": 1j}, ["plan"]),
    ],
    ids=str,
)
async def test_create_names_invalid_fields(
    auth: LocalAuthentication, fields: dict[str, Any], problems: list[str]
) -> None:
    """AC-7, PW-11: the error names each invalid field of any type, and nothing is created."""
    with pytest.raises(ValidationError) as refused:
        await auth.accounts.create(fields)
    assert sorted(refused.value.fields) == problems
    assert await auth.accounts.find("email", EMAIL) is None


@pytest.mark.parametrize(
    ("password", "message"),
    [
        ("short", "Use at least 8 characters."),
        ("", "Enter a password."),
        ("password1234", "This password is easy to guess."),
        ("alice mail example", "This is too close to your own details"),
        ("localhost localhost", "This is too close to your own details"),
        ("nul\0nul quartz lantern", "The password contains a character that cannot be used."),
        ("\ud800 quartz lantern", "The password contains a character that cannot be used."),
        ("é" * 513, "The password is too long."),
    ],
    ids=ascii,
)
async def test_create_rejects_passwords_with_a_reason(auth: LocalAuthentication, password: str, message: str) -> None:
    """PW-1, PW-3 to PW-5, PW-7: a password must have valid characters and be hard to guess."""
    with pytest.raises(ValidationError) as refused:
        await auth.accounts.create({"email": EMAIL}, password=password)
    assert refused.value.fields["password"].startswith(message)


async def test_create_rejects_a_password_that_is_not_text(auth: LocalAuthentication) -> None:
    """PW-11: a password is text."""
    not_text: Any = 12345678
    with pytest.raises(ValidationError) as refused:
        await auth.accounts.create({"email": EMAIL}, password=not_text)
    assert dict(refused.value.fields) == {"password": "This must be text."}


async def test_create_accepts_a_hash_instead_of_a_password(auth: LocalAuthentication) -> None:
    """A hash of another system is stored unchanged and signs in. A hash together with a password is an error."""
    imported = bcrypt.hashpw(b"password1", bcrypt.gensalt(4)).decode()
    with pytest.raises(TypeError, match="not both"):
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD, password_hash=imported)
    await auth.accounts.create({"email": EMAIL}, password_hash=imported)
    assert (await found_of(auth)).account.password_hash == imported
    assert await can_sign_in(auth, "password1")


UNSUPPORTED = {
    "django": "pbkdf2_sha256$600000$c2FsdA$jRyV2vDWw5YC2sTvoqC2QWbZ7UxVyjYmX5TqGgkCrD4=",
    "django bcrypt": "bcrypt$$2b$10$IqzC8iDzJ3h8m8uT5cWcbe8sP1vQp0mC5O5sJ1x0lq5rTg1m0q5Wm",
    "django bcrypt of a digest": "bcrypt_sha256$$2b$10$IqzC8iDzJ3h8m8uT5cWcbe8sP1vQp0mC5O5sJ1x0lq5rTg1m0q5Wm",
    "argon2": "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$2T0XyG8UZ3bqkrXyzJmJm0S3XvR1p0pYk0sYxjv0Q0E",
    "werkzeug": "scrypt:32768:8:1$salt$6f1ed002ab5595859014ebf0951522d9",
    "a faulty bcrypt": "$2x$10$IqzC8iDzJ3h8m8uT5cWcbe8sP1vQp0mC5O5sJ1x0lq5rTg1m0q5Wm",
    "too dear": "$2b$16$IqzC8iDzJ3h8m8uT5cWcbe8sP1vQp0mC5O5sJ1x0lq5rTg1m0q5Wm",
    "a lost pepper": "{asgi_auth-1:0123456789abcdef}$2b$10$IqzC8iDzJ3h8m8uT5cWcbe8sP1vQp0mC5O5sJ1x0lq5rTg1m0q5Wm",
    "plain text": "a walrus in orbit",
    "empty": "",
    "bytes": b"$2b$10$IqzC8iDzJ3h8m8uT5cWcbe8sP1vQp0mC5O5sJ1x0lq5rTg1m0q5Wm",
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
async def test_create_and_register_reject_a_hash_that_cannot_be_verified(
    auth: LocalAuthentication, events: Invitations, kind: str
) -> None:
    """PW-10: the call with the hash fails, no user is created, and the message does not contain the hash."""
    password_hash: Any = UNSUPPORTED[kind]
    draft = Draft(act="create", strategy="password", fields={"email": EMAIL})
    for call in (
        auth.accounts.create({"email": EMAIL}, password_hash=password_hash),
        auth.services.registrations.register(draft, password=None, password_hash=password_hash),
    ):
        with pytest.raises(ValidationError) as refused:
            await call
        assert list(refused.value.fields) == ["password_hash"]
        assert "Iqz" not in str(dict(refused.value.fields)) + refused.value.reason
    assert await auth.accounts.find("email", EMAIL) is None
    assert events.seen == []


async def test_create_accepts_hashes_that_the_applications_hasher_verifies(tmp_path: Path) -> None:
    """The application's hasher decides which hashes are supported: its own format, and not bcrypt."""
    auth = make_auth(tmp_path, hasher=DigestHasher())
    async with auth.running():
        with pytest.raises(ValidationError):
            await auth.accounts.create({"email": EMAIL}, password_hash=HASHER.hash(PASSWORD.encode()))
        await auth.accounts.create({"email": EMAIL}, password_hash=DigestHasher().hash(PASSWORD.encode()))
        assert await can_sign_in(auth, PASSWORD)
        assert not await can_sign_in(auth, NEW_PASSWORD)


async def test_create_rejects_fields_that_the_store_does_not_support(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store without user names rejects a user name."""
    monkeypatch.setattr(auth.services.store.users, "identity_fields", frozenset({"email"}))
    with pytest.raises(ValidationError) as refused:
        await auth.accounts.create({"email": EMAIL, "username": "alice"})
    assert dict(refused.value.fields) == {"username": "This is not supported here."}


@pytest.mark.parametrize("taken", ["email", "username"])
async def test_create_rejects_taken_identities(auth: LocalAuthentication, taken: str) -> None:
    """Addresses and names are unique; the error names the taken field, and nothing is written."""
    first = {"email": EMAIL, "username": "alice"}
    second = {**{"email": OTHER_EMAIL, "username": "bob"}, taken: first[taken].upper()}
    await auth.accounts.create(first)
    with pytest.raises(IdentityTakenError) as refused:
        await auth.accounts.create(second)
    assert list(refused.value.fields) == [taken]
    other = "username" if taken == "email" else "email"
    assert await auth.accounts.find(other, second[other]) is None


async def test_twenty_registrations_of_one_address_create_one_user(auth: LocalAuthentication) -> None:
    """AC-9: of many concurrent calls, one creates the user; the others learn that the address is taken."""
    results = await asyncio.gather(*(auth.accounts.create({"email": EMAIL}) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, IdentityTakenError) for result in results) == 19


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("a@faß.de", "a@fass.de", False),
        ("strauß@mail.example.org", "strauss@mail.example.org", False),
        ("ı@mail.example.org", "i@mail.example.org", False),
        ("ø@mail.example.org", "o@mail.example.org", False),
        ("a.b@mail.example.org", "ab@mail.example.org", False),
        ("a+b@mail.example.org", "a@mail.example.org", False),
        ("Ä@mail.example.org", "ä@mail.example.org", True),
        ("a@MÜNCHEN.example.org", "A@münchen.example.org", True),
        ("a@xn--mnchen-3ya.example.org", "a@münchen.example.org", True),
        ("e\u0301@mail.example.org", "é@mail.example.org", True),
        ("k@mail.example.org", "\u212a@mail.example.org", True),  # the Kelvin sign is a K in NFC
    ],
)
async def test_spellings_share_an_account_and_look_alikes_do_not(
    auth: LocalAuthentication, first: str, second: str, same: bool
) -> None:
    """AC-6: spellings of one mailbox are one account, look-alikes are two; mail is sent to the stored address."""
    user = await auth.accounts.create({"email": first})
    if same:
        with pytest.raises(IdentityTakenError):
            await auth.accounts.create({"email": second})
    else:
        await auth.accounts.create({"email": second})
    await auth.strategy("password").reset_request({"email": second})
    [(recipient, _, opts)] = auth.sender.messages
    assert (recipient == user) is same
    assert opts["address"] == recipient.email


@pytest.mark.parametrize(
    "address", ["\ufb01@mail.example.org", "\u00aalice@mail.example.org", "\uff41@mail.example.org"]
)
async def test_addresses_that_mail_systems_read_differently_are_rejected(
    auth: LocalAuthentication, address: str
) -> None:
    """AC-6: registration and look-up both reject a compatibility character before the @."""
    for act in (auth.accounts.create({"email": address}), auth.accounts.find("email", address)):
        with pytest.raises(ValidationError) as refused:
            await act
        assert list(refused.value.fields) == ["email"]


@pytest.mark.parametrize("address", ["a@company.test", "a@localhost", "a@host.local", "a@x.invalid"])
async def test_special_use_domains_are_accepted_on_loopback_only(tmp_path: Path, address: str) -> None:
    """AC-6: only a local instance accepts domains that no public mail server has."""
    local = make_auth(tmp_path)
    public = make_auth(tmp_path, base_url="https://auth.example.org", subject_name="member")
    assert (await local.accounts.create({"email": address})).email == address
    with pytest.raises(ValidationError):
        await public.accounts.create({"email": address})
    await local.close()
    await public.close()


# --- registration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "invitation", "created"),
    [
        ("open", "", True),
        ("open", "7", True),
        ("invite_only", "", False),
        ("invite_only", "7", True),
        ("closed", "", False),
        ("closed", "7", False),
    ],
)
async def test_registration_follows_its_mode(tmp_path: Path, mode: str, invitation: str, created: bool) -> None:
    """The mode decides whether strangers may register; the application may always create users."""
    auth = make_auth(tmp_path, registration=mode, add_ons=[Invitations()])
    params = {**registration(), "invitation": invitation}
    if created:
        user, _ = await auth.strategy("password").register(params)
        assert user.email == EMAIL
    else:
        with pytest.raises(ForbiddenError) as refused:
            await auth.strategy("password").register(params)
        assert refused.value.reason == f"registration is {mode}"
        assert await auth.accounts.find("email", EMAIL) is None
    assert (await auth.accounts.create({"email": OTHER_EMAIL})).email == OTHER_EMAIL
    await auth.close()


async def test_register_requires_the_identity_of_the_strategy(auth: LocalAuthentication) -> None:
    """If a strategy signs users in by name, a registration requires a name; other fields cannot replace it."""
    draft = Draft(act="create", strategy="password", fields={"email": EMAIL})
    with pytest.raises(ValidationError) as refused:
        await auth.services.registrations.register(draft, password=None, required="username")
    assert dict(refused.value.fields) == {"username": "This field is required."}
    found = await auth.services.registrations.register(draft, password=None, required="email")
    assert found is not None
    assert found.user.email == EMAIL


# --- change ----------------------------------------------------------------------------------------------------------


async def test_change_of_other_fields_ends_no_session(auth: LocalAuthentication, events: Invitations) -> None:
    """A change of extra fields keeps sessions, mail tokens and the confirmation, even if it repeats the address."""
    user = await auth.accounts.create({"email": EMAIL, "plan": "gold"}, confirmed=True)
    token = await auth.sign_in(user)
    await auth.strategy("password").reset_request({"email": EMAIL})
    events.take()
    client = Client(address="192.0.2.1")
    changed = await auth.accounts.change(user, {"plan": "silver", "email": EMAIL}, client=client, strategy="profile")
    assert (changed.email, changed.confirmed_at, dict(changed.data)) == (EMAIL, NOW, {"plan": "silver"})
    assert await is_alive(auth, token)
    await auth.tokens.peek("reset", mailed_token(auth))
    [event] = events.take()
    assert isinstance(event, UserChanged)
    assert (event.user, event.client, event.draft.strategy, event.draft.user) == (changed, client, "profile", user)
    assert event.activity == (None, "change")


@pytest.mark.parametrize(
    ("fields", "confirmed_at"),
    [
        ({"email": "alice@new.example.org"}, None),
        ({"email": "ALICE@mail.example.org"}, None),
        ({"email": None}, None),
        ({"username": "alicia"}, NOW),
        ({"username": None}, NOW),
    ],
    ids=str,
)
async def test_change_of_identity_ends_other_sessions_and_tokens(
    auth: LocalAuthentication, fields: dict[str, Any], confirmed_at: datetime | None
) -> None:
    """TK-12, SE-5, AC-3: a changed or removed address or name ends the other sessions and every mail token."""
    user = await auth.accounts.create({"email": EMAIL, "username": "alice"}, confirmed=True)
    acting, other = await auth.sign_in(user), await auth.sign_in(user)
    await auth.strategy("password").reset_request({"email": EMAIL})
    changed = await auth.accounts.change(user, fields, acting=acting.session)
    assert changed.confirmed_at == confirmed_at
    assert {name: getattr(changed, name) for name in fields} == fields
    assert [await is_alive(auth, token) for token in (acting, other)] == [True, False]
    with pytest.raises(InvalidTokenError):
        await auth.tokens.peek("reset", mailed_token(auth))


async def test_change_by_an_ended_session_is_rejected(auth: LocalAuthentication) -> None:
    """SE-16: a session that ended during the request cannot change the address and is not revived."""
    user, token = await register(auth)
    await auth.sessions.revoke_all(user.id)
    with pytest.raises(InvalidTokenError):
        await auth.accounts.change(user, {"email": OTHER_EMAIL}, acting=token.session)
    assert (await found_of(auth)).user == user
    assert not await is_alive(auth, token)


async def test_change_by_another_user_ends_all_sessions(auth: LocalAuthentication) -> None:
    """Only the user's own acting session survives the change; the administrator's session is not affected."""
    user, token = await register(auth)
    _, administrator = await register(auth, OTHER_EMAIL)
    await auth.accounts.change(user, {"email": "alice@new.example.org"}, acting=administrator.session)
    assert [await is_alive(auth, each) for each in (token, administrator)] == [False, True]


async def test_rejected_change_writes_nothing(auth: LocalAuthentication) -> None:
    """A taken or invalid address changes nothing and ends no session. The error for a deleted user says so."""
    user, token = await register(auth)
    await auth.accounts.create({"email": OTHER_EMAIL})
    with pytest.raises(IdentityTakenError):
        await auth.accounts.change(user, {"email": OTHER_EMAIL})
    with pytest.raises(ValidationError):
        await auth.accounts.change(user, {"email": "alice"})
    assert await is_alive(auth, token)
    assert (await found_of(auth)).user == user
    await auth.accounts.delete(user.id)
    for fields in ({"plan": "gold"}, {"email": "alice@new.example.org"}):
        with pytest.raises(ValidationError, match="the user is gone"):
            await auth.accounts.change(user, fields)


async def test_change_that_races_with_a_deletion_writes_nothing(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the user is deleted between two statements of a change, nothing is written."""
    user, token = await register(auth)

    async def update(*args: object) -> None:
        return None

    monkeypatch.setattr(type(auth.services.store.users), "update", update)
    with pytest.raises(ValidationError, match="the user is gone"):
        await auth.accounts.change(user, {"username": "alicia"})
    assert await is_alive(auth, token)


# --- passwords -------------------------------------------------------------------------------------------------------


async def test_set_password_ends_all_but_the_acting_session(auth: LocalAuthentication, events: Invitations) -> None:
    """SE-5, TK-12: a new password ends the other sessions, the mail tokens and the old password."""
    user, acting = await register(auth)
    other = await auth.sign_in(user)
    await auth.strategy("password").reset_request({"email": EMAIL})
    events.take()
    client = Client(address="192.0.2.1")
    changed = await auth.accounts.set_password(
        await found_of(auth), NEW_PASSWORD, acting=acting.session, client=client, strategy="profile"
    )
    assert changed.user == user
    assert [await is_alive(auth, token) for token in (acting, other)] == [True, False]
    assert [await can_sign_in(auth, password) for password in (PASSWORD, NEW_PASSWORD)] == [False, True]
    with pytest.raises(InvalidTokenError):
        await auth.tokens.peek("reset", mailed_token(auth))
    _, event, *_rest = events.take()
    assert isinstance(event, PasswordSet)
    assert (event.user_id, event.client, event.activity) == (user.id, client, (None, "set_password"))


async def test_set_password_requires_an_unchanged_account(auth: LocalAuthentication) -> None:
    """SE-16: if the account was changed or deleted since the proof began, the password is not set."""
    user, _ = await register(auth)
    before = await found_of(auth)
    await auth.sessions.revoke_all(user.id)
    stolen = await auth.sign_in(user)
    with pytest.raises(InvalidTokenError):
        await auth.accounts.set_password(before, NEW_PASSWORD)
    assert await is_alive(auth, stolen)
    assert await can_sign_in(auth, PASSWORD)
    now = await found_of(auth)
    await auth.accounts.delete(user.id)
    with pytest.raises(InvalidTokenError):
        await auth.accounts.set_password(now, NEW_PASSWORD)


async def test_rejected_password_changes_nothing(auth: LocalAuthentication) -> None:
    """TK-10: a rejected password consumes no token and ends no session."""
    _, token = await register(auth)
    spent: list[str] = []

    async def spend(work: Work[Any]) -> None:
        spent.append("spent")

    with pytest.raises(ValidationError) as refused:
        await auth.accounts.set_password(await found_of(auth), "alice mail example", spend=spend)
    assert list(refused.value.fields) == ["password"]
    assert spent == []
    assert await is_alive(auth, token)
    await auth.accounts.set_password(await found_of(auth), NEW_PASSWORD, spend=spend)
    assert spent == ["spent"]


@pytest.mark.parametrize("confirmed", [False, True])
async def test_first_proof_of_the_mailbox_claims_the_account(
    auth: LocalAuthentication, events: Invitations, confirmed: bool
) -> None:
    """AC-1: a mailed token confirms an account that was never confirmed; the event says that it was claimed."""
    user = await auth.accounts.create({"email": EMAIL}, confirmed=confirmed)
    planted = await auth.sign_in(user)
    events.take()
    auth.clock.advance(timedelta(hours=1))
    changed = await auth.accounts.set_password(await found_of(auth), NEW_PASSWORD, proves_mailbox=True)
    then = NOW if confirmed else NOW + timedelta(hours=1)
    assert changed.account.confirmed_at == changed.user.confirmed_at == then
    assert not await is_alive(auth, planted)
    claims = [event for event in events.take() if isinstance(event, UserConfirmed)]
    assert [(claim.user_id, claim.claimed) for claim in claims] == ([] if confirmed else [(user.id, True)])


async def test_rehash_replaces_only_the_hash_that_was_verified(auth: LocalAuthentication) -> None:
    """PW-9: compare-and-set: a hash of an old password never overwrites a newer hash."""
    user = await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    verified = (await found_of(auth)).account
    await auth.accounts.rehash(verified, "newer hash")
    assert (await found_of(auth)).account == replace(verified, password_hash="newer hash")
    await auth.accounts.rehash(verified, "late hash")
    assert (await found_of(auth)).account.password_hash == "newer hash"
    await auth.sessions.revoke_all(user.id)
    await auth.accounts.rehash(replace(verified, password_hash="newer hash"), "late hash")
    assert (await found_of(auth)).account.password_hash == "newer hash"


async def test_failed_rehash_is_logged_and_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """PW-9: if the database is locked, the re-hash is skipped and logged without an error."""
    auth = make_auth(tmp_path, store=SQLiteStore(tmp_path / "app.db", busy_timeout=timedelta(0)))
    await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    account = (await found_of(auth)).account
    other = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await auth.accounts.rehash(account, "newer hash")
    other.close()
    assert "a password could not be re-hashed" in caplog.text
    assert (await found_of(auth)).account == account
    await auth.close()


# --- states ----------------------------------------------------------------------------------------------------------


async def test_confirm_works_once(auth: LocalAuthentication, events: Invitations) -> None:
    """The application confirms the address; the first call sets the time, and no session ends."""
    user, token = await register(auth)
    events.take()
    assert await auth.accounts.confirm(user.id) is True
    auth.clock.advance(timedelta(hours=1))
    assert await auth.accounts.confirm(user.id) is False
    assert await auth.accounts.confirm("nobody") is False
    assert (await found_of(auth)).user.confirmed_at == NOW
    assert await is_alive(auth, token)
    [event] = events.take()
    assert isinstance(event, UserConfirmed)
    assert (event.user_id, event.claimed) == (user.id, False)


async def test_disable_ends_access_at_once(auth: LocalAuthentication, events: Invitations) -> None:
    """SE-6, TK-15, AC-3: disabling ends the user's sessions, bearer and mail tokens for good, and no other user's."""
    user, token = await register(auth)
    _, other = await register(auth, OTHER_EMAIL)
    await auth.strategy("password").reset_request({"email": EMAIL})
    events.take()
    assert await auth.accounts.disable(user.id) is True
    assert await auth.accounts.disable(user.id) is False
    assert await auth.accounts.disable("nobody") is False
    assert [event.name for event in events.take()] == ["sessions.revoked", "user.disabled"]
    assert [await is_alive(auth, each) for each in (token, other)] == [False, True]
    assert not await can_sign_in(auth, PASSWORD)
    with pytest.raises(InvalidTokenError):
        await auth.tokens.peek("reset", mailed_token(auth))
    events.take()
    assert await auth.accounts.enable(user.id) is True
    assert [event.name for event in events.take()] == ["sessions.revoked", "user.enabled"]
    assert not await is_alive(auth, token)
    with pytest.raises(InvalidTokenError):
        await auth.tokens.peek("reset", mailed_token(auth))
    assert await can_sign_in(auth, PASSWORD)


async def test_enable_of_an_enabled_user_does_nothing(auth: LocalAuthentication, events: Invitations) -> None:
    """Enabling an enabled or an unknown user changes nothing and ends no session."""
    user, token = await register(auth)
    events.take()
    assert await auth.accounts.enable(user.id) is False
    assert await auth.accounts.enable("nobody") is False
    assert events.take() == []
    assert await is_alive(auth, token)


async def test_delete_ends_sessions_and_tokens(auth: LocalAuthentication, events: Invitations) -> None:
    """TK-15: deletion ends the user's sessions and tokens; the address can be registered again."""
    user, token = await register(auth)
    await auth.strategy("password").reset_request({"email": EMAIL})
    events.take()
    assert await auth.accounts.delete(user.id) is True
    assert await auth.accounts.delete(user.id) is False
    assert [(event.name, event.user_id) for event in events.take()] == [("user.deleted", user.id)]
    assert not await is_alive(auth, token)
    with pytest.raises(InvalidTokenError):
        await auth.tokens.peek("reset", mailed_token(auth))
    again, _ = await register(auth)
    assert again.id != user.id


async def test_deleted_user_cannot_be_signed_in(auth: LocalAuthentication) -> None:
    """The application cannot sign in a user whose account was deleted after the object was loaded."""
    user, _ = await register(auth)
    await auth.accounts.delete(user.id)
    with pytest.raises(AuthError, match="the user is gone"):
        await auth.sign_in(user)


async def test_user_is_given_as_object_or_id(auth: LocalAuthentication) -> None:
    """Accounts and sessions accept both; the error for a deleted user is the same for both."""
    user, token = await register(auth)
    for named in (user, user.id):
        found = await auth.accounts.get(named)
        assert found is not None
        assert found.user.id == user.id
        changed = await auth.accounts.change(named, {"plan": str(named is user)})
        assert changed.data["plan"] == str(named is user)
        assert [await auth.accounts.disable(named), await auth.accounts.enable(named)] == [True, True]
        assert await auth.accounts.confirm(named) is (named is user)
        assert await auth.sessions.list(named) == []
        await auth.sign_in(user)
        assert len(await auth.sessions.list(named)) == 1
        await auth.sessions.revoke_all(named)
        assert await auth.sessions.list(named) == []
    assert [await auth.accounts.delete(named) for named in (user, user.id)] == [True, False]
    assert await auth.accounts.get(user) is None
    for named in (user, user.id):
        with pytest.raises(ValidationError, match="the user is gone"):
            await auth.accounts.change(named, {"plan": "gold"})
    assert not await is_alive(auth, token)


async def test_account_as_of_a_token_has_the_tokens_stamp(auth: LocalAuthentication) -> None:
    """``as_of`` gives the account the stamp that the token copied; without one, a stamp that no account has."""
    await register(auth)
    account = (await found_of(auth)).account
    assert as_of(account, b"older") == replace(account, stamp=b"older")
    assert as_of(account, None).stamp == b""
