"""The actions of asgi_auth.strategies.password, without HTTP."""

import asyncio
import sqlite3
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import bcrypt
import pytest

from asgi_auth.acts import FactorRequired
from asgi_auth.errors import (
    AuthenticationFailedError,
    ConfigurationError,
    FactorRequiredError,
    ForbiddenError,
    IdentityTakenError,
    InvalidTokenError,
    StoreUnavailableError,
    ValidationError,
)
from asgi_auth.hooks import Hook
from asgi_auth.limits import Limit
from asgi_auth.passwords import Bcrypt, PasswordPolicy
from asgi_auth.phases import Accepted, PhaseRequest, SignedIn, TokenIssued
from asgi_auth.senders import ConsoleSender, MemorySender
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.types import Client, User
from tests.gate import Gatekeeper
from tests.support import (
    EMAIL,
    HASHER,
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

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def with_password(directory: Path, *, add_ons: tuple[Hook, ...] = (), **options: Any) -> LocalAuthentication:
    """Return an Authentication with these options of the strategy."""
    return make_auth(directory, strategies=[Password(**options)], add_ons=add_ons)


def actions(auth: LocalAuthentication) -> Any:
    return auth.strategy("password")


async def end(auth: LocalAuthentication, change: str, user: User) -> None:
    """Make one of the changes that end the sessions and tokens of an account."""
    if change == "set_password":
        await auth.accounts.set_password(await found_of(auth), NEW_PASSWORD)
    elif change == "disable":
        await auth.accounts.disable(user.id)
    elif change == "delete":
        await auth.accounts.delete(user.id)
    else:
        await auth.sessions.revoke_all(user.id)


async def refusal(auth: LocalAuthentication, email: str = EMAIL, password: str = PASSWORD) -> AuthenticationFailedError:
    with pytest.raises(AuthenticationFailedError) as refused:
        await actions(auth).sign_in(credentials(email, password))
    return refused.value


def plant(directory: Path, password_hash: str | None, email: str = EMAIL) -> None:
    """Write a hash as another system, or an attacker, would have left it."""
    with sqlite3.connect(directory / "app.db") as database:
        database.execute(
            "UPDATE asgi_auth_accounts SET password_hash = ? WHERE user_id IN "
            "(SELECT id FROM asgi_auth_users WHERE email_key = ?)",
            (password_hash, email),
        )
    database.close()


# --- options ---------------------------------------------------------------------------------------------------------

NO_SENDER = MemorySender()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identity_field": "phone"}, "identity_field must be 'email' or 'username'"),
        ({"register_fields": "name"}, "register_fields must be a sequence of names"),
        ({"register_fields": ["password"]}, "register_fields: 'password' is reserved by the library"),
        ({"register_fields": ["name", "confirmed_at"]}, "register_fields: 'confirmed_at'"),
        ({"register_fields": {"id": str}}, "register_fields: 'id'"),
        ({"register_fields": ["email"]}, "register_fields: 'email'"),
        ({"register_fields": {"age": "42"}}, r"'age' must have a function, .*: def read\(text: str \| None\)"),
        ({"register_fields": {"age": locals}}, r"'age' must take one argument: def read\(text: str \| None\)"),
        ({"register_fields": ["username"], "identity_field": "username"}, "register_fields: 'username'"),
        (
            {"identity_field": "username", "resettable": Resettable(sender=NO_SENDER)},
            "register_fields must have 'email'",
        ),
        ({"sign_in_token_lifetime": timedelta(0)}, "sign_in_token_lifetime must be a positive timedelta"),
        ({"sign_in_token_lifetime": timedelta(seconds=121)}, "sign_in_token_lifetime must be at most 0:02:00"),
        ({"sign_in_token_lifetime": 60}, "sign_in_token_lifetime must be a positive timedelta"),
        ({"resettable": NO_SENDER}, "resettable must be a Resettable"),
    ],
    ids=str,
)
def test_invalid_options_are_named(options: dict[str, Any], message: str) -> None:
    """The constructor raises ConfigurationError, whose message names the option."""
    with pytest.raises(ConfigurationError, match=message):
        Password(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_lifetime": timedelta(0)}, "resettable.token_lifetime must be a positive timedelta"),
        ({"token_lifetime": timedelta(hours=25)}, "resettable.token_lifetime must be at most 1 day"),
        ({"mails": 5}, r"resettable.mails must be a Limit\(count, window\)"),
        ({"mails": Limit(5, timedelta(hours=2))}, "resettable.mails: its window must not be over token_lifetime"),
        ({"url": "/reset"}, "resettable.url must be an absolute URL"),
        ({"url": "reset"}, "resettable.url must be an absolute URL"),
    ],
    ids=str,
)
def test_invalid_reset_options_are_named(options: dict[str, Any], message: str) -> None:
    """A link's lifetime is at most a day, and its URL must be absolute."""
    with pytest.raises(ConfigurationError, match=message):
        Resettable(sender=NO_SENDER, **options)


def test_options_have_the_documented_defaults() -> None:
    """The defaults: address, repeated password, a minute for sign-in tokens, an hour for links, no sign-in by reset."""
    options, reset = Password(), Resettable(sender=NO_SENDER)
    assert (options.name, options.identity_field, options.repeat_password) == ("password", "email", True)
    assert (options.sign_in_token_lifetime, options.resettable, tuple(options.register_fields)) == (
        timedelta(seconds=60),
        None,
        (),
    )
    assert (reset.token_lifetime, reset.url, reset.sign_in) == (timedelta(hours=1), None, False)
    Password(identity_field="username", register_fields=["email"], resettable=reset)
    Password(identity_field="username", registration_enabled=False, resettable=reset)
    Resettable(sender=NO_SENDER, token_lifetime=timedelta(days=1), url="https://www.example.org/reset")


def test_bind_checks_store_and_sender(tmp_path: Path) -> None:
    """The store must support the identity field, and the sender must suit the base URL."""
    auth = make_auth(tmp_path)
    auth.services.store.users.identity_fields = frozenset({"email"})  # type: ignore[misc]  # a store without user names
    with pytest.raises(ConfigurationError, match="identity_field: the store cannot find users by username"):
        Password(identity_field="username").bind(auth.services)
    with pytest.raises(ConfigurationError, match=r"resettable\.sender: ConsoleSender is for local use"):
        make_auth(
            tmp_path,
            base_url="https://auth.example.org",
            strategies=[Password(resettable=Resettable(sender=ConsoleSender()))],
        )


@pytest.mark.parametrize(
    ("options", "phases"),
    [
        ({}, ["register", "sign_in", "sign_in_with_token", "reauthenticate"]),
        ({"registration_enabled": False}, ["sign_in", "sign_in_with_token", "reauthenticate"]),
        ({"sign_in_enabled": False}, ["register"]),
        (
            {"resettable": Resettable(sender=NO_SENDER)},
            ["register", "sign_in", "sign_in_with_token", "reauthenticate", "reset_request", "reset"],
        ),
        (
            {"registration_enabled": False, "sign_in_enabled": False, "resettable": Resettable(sender=NO_SENDER)},
            ["reset_request", "reset"],
        ),
    ],
    ids=str,
)
def test_only_enabled_phases_have_a_route(tmp_path: Path, options: dict[str, Any], phases: list[str]) -> None:
    """A disabled phase has no route; every route supports only POST, since a GET changes nothing."""
    auth = with_password(tmp_path, **options)
    assert [name for _, name in auth.routes] == phases
    assert {phase.methods for phase in auth.routes.values()} == {frozenset({"POST"})}


def test_phases_name_their_secrets(tmp_path: Path) -> None:
    """A form that is drawn again never contains passwords or tokens from the request."""
    secrets = {name: sorted(phase.secrets) for (_, name), phase in make_auth(tmp_path).routes.items()}
    assert secrets == {
        "register": ["invitation_token", "password", "password_confirmation"],
        "sign_in": ["password", "password_confirmation"],
        "sign_in_with_token": ["token"],
        "reauthenticate": ["password", "password_confirmation"],
        "reset_request": [],
        "reset": ["password", "password_confirmation", "reset_token"],
    }


@pytest.mark.parametrize(
    ("repeat_password", "fields"), [(True, ["password", "password_confirmation"]), (False, ["password"])]
)
def test_reset_has_a_page(tmp_path: Path, repeat_password: bool, fields: list[str]) -> None:
    """The link of the mail opens a form that contains the token and fields for the new password."""
    auth = with_password(tmp_path, repeat_password=repeat_password, resettable=Resettable(sender=NO_SENDER))
    form = auth.routes["password", "reset"].form
    assert form is not None
    assert form.token == "reset_token"
    assert [field.name for field in form.fields] == fields
    assert {(field.type, field.autocomplete) for field in form.fields} == {("password", "new-password")}


def test_registration_form_has_hints_for_a_user_name(tmp_path: Path) -> None:
    """Password managers save the user name, and phones do not change it; other fields have no such hints."""
    auth = with_password(tmp_path, identity_field="username", register_fields=["full_name"])
    form = auth.routes["password", "register"].registers
    assert form is not None
    assert [(field.name, field.autocomplete, field.inputmode) for field in form.fields][:2] == [
        ("username", "username", "text"),
        ("full_name", "on", None),
    ]


# --- register --------------------------------------------------------------------------------------------------------


async def test_register_creates_a_user_and_signs_in(auth: LocalAuthentication) -> None:
    """The new user is signed in and unconfirmed; the stored hash has the library's scheme."""
    user, token = await actions(auth).register(registration(), client=Client(label="Browser/1.0"))
    assert (user.email, user.confirmed_at) == (EMAIL, None)
    assert await is_alive(auth, token)
    assert (token.session.label, token.session.factors) == ("Browser/1.0", {"password": NOW})
    password_hash = (await found_of(auth)).account.password_hash
    assert password_hash is not None
    assert password_hash.startswith("{asgi_auth-1}$2b$04$")


async def test_register_leaves_no_password_in_the_file(auth: LocalAuthentication, tmp_path: Path) -> None:
    """PW-8: equal passwords have different hashes; neither the database file nor its log contains a password."""
    await register(auth)
    await register(auth, OTHER_EMAIL)
    assert (await found_of(auth)).account.password_hash != (await found_of(auth, OTHER_EMAIL)).account.password_hash
    assert PASSWORD.encode() not in _written(tmp_path)


def _written(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.glob("app.db*"))


@pytest.mark.parametrize("value", [None, True, 0, 1.5, [], ["a"], {}, ""], ids=repr)
@pytest.mark.parametrize("name", ["email", "password", "password_confirmation"])
async def test_register_accepts_only_text(auth: LocalAuthentication, name: str, value: Any) -> None:
    """PW-11: each parameter is required and must be text; the error names it, and nothing is created."""
    with pytest.raises(ValidationError) as refused:
        await actions(auth).register({**registration(), name: value})
    assert list(refused.value.fields) == [name]
    assert await auth.accounts.find("email", EMAIL) is None


async def test_register_requires_the_password_twice(tmp_path: Path, auth: LocalAuthentication) -> None:
    """The repetition must be the same, unless ``repeat_password`` is False."""
    with pytest.raises(ValidationError) as refused:
        await actions(auth).register({**registration(), "password_confirmation": PASSWORD + "x"})
    assert list(refused.value.fields) == ["password_confirmation"]
    once = with_password(tmp_path, repeat_password=False)
    user, _ = await actions(once).register(credentials())
    assert user.email == EMAIL


@pytest.mark.parametrize(
    "password",
    ["quartz", "password1234", "alice.mail.example", "nul\0nul quartz lantern", "\ud800 quartz lantern"],
    ids=ascii,
)
async def test_register_rejects_an_invalid_password(auth: LocalAuthentication, password: str) -> None:
    """PW-1, PW-4, PW-5, PW-7: the policy gets the user's own values and rejects the password; nothing is created."""
    with pytest.raises(ValidationError) as refused:
        await actions(auth).register(registration(password=password))
    assert list(refused.value.fields) == ["password"]
    assert await auth.accounts.find("email", EMAIL) is None


@pytest.mark.parametrize("length", [7, 8])
async def test_register_counts_code_points(tmp_path: Path, length: int) -> None:
    """PW-1: eight characters of four bytes count as eight, not as thirty-two or sixteen."""
    auth = make_auth(tmp_path, password_policy=PasswordPolicy(minimum_strength=0))
    password = "🦔🪗🧭🪲🌋🛶🪁🧶"[:length]
    if length == 8:
        user, _ = await actions(auth).register(registration(password=password))
        assert user.email == EMAIL
    else:
        with pytest.raises(ValidationError):
            await actions(auth).register(registration(password=password))
    await auth.close()


async def test_register_ignores_undeclared_fields(auth: LocalAuthentication) -> None:
    """AC-8: a client cannot write the id, a state, a role or a hash."""
    planted = {
        "id": "1",
        "is_admin": "true",
        "role": "admin",
        "username": "root",
        "confirmed_at": "2020-01-01",
        "disabled_at": None,
        "password_hash": "x",
        "stamp": "x",
        "invited": "true",
        "data": {"role": "admin"},
    }
    user, _ = await actions(auth).register({**planted, **registration()})
    assert dict(user.data) == {}
    assert (user.username, user.confirmed_at) == (None, None)
    assert user.id != "1"
    account = (await found_of(auth)).account
    assert account.stamp != b"x"
    assert account.disabled_at is None


async def test_register_keeps_declared_fields(tmp_path: Path) -> None:
    """A declared field is text of at most 254 characters; a missing or empty field is not stored."""
    auth = with_password(tmp_path, register_fields=["name", "city", "plan"])
    user, _ = await actions(auth).register({**registration(), "name": "Alice", "city": "", "role": "admin"})
    assert dict(user.data) == {"name": "Alice"}
    for value in ("x" * 255, ["x"], 7):
        with pytest.raises(ValidationError) as refused:
            await actions(auth).register({**registration(OTHER_EMAIL), "name": value})
        assert list(refused.value.fields) == ["name"]
    await auth.close()


def _read_age(text: str | None) -> int:
    if text is None or not text.isdecimal():
        raise ValueError("must be a number")
    return int(text)


async def _read_plan(text: str | None) -> str:
    await asyncio.sleep(0)
    if text == "platinum":
        raise ValueError("is sold out")
    return text or "basic"


async def test_register_reads_declared_fields_with_functions(tmp_path: Path) -> None:
    """A function, plain or async, converts the sent text for the store, or rejects it with its own message."""
    auth = with_password(tmp_path, register_fields={"age": _read_age, "plan": _read_plan})
    user, _ = await actions(auth).register({**registration(), "age": "42"})
    assert dict(user.data) == {"age": 42, "plan": "basic"}
    with pytest.raises(ValidationError) as refused:
        await actions(auth).register({**registration(OTHER_EMAIL), "plan": "platinum"})
    assert dict(refused.value.fields) == {"age": "must be a number", "plan": "is sold out"}
    await auth.close()


async def _of_text_only(text: str | None) -> str:
    await asyncio.sleep(0)
    return "born " + text  # type: ignore[operator]  # a common mistake


@pytest.mark.parametrize("read", [int, _of_text_only])
async def test_failing_function_of_an_extra_field_is_named(tmp_path: Path, read: Any) -> None:
    """A TypeError, such as ``int`` raises for a missing field, names the field and the right signature."""
    auth = with_password(tmp_path, register_fields={"age": read})
    message = r"^register_fields: the function of 'age' raised TypeError; .* def read\(text: str \| None\), where None "
    with pytest.raises(TypeError, match=message) as raised:
        await actions(auth).register(registration())
    assert isinstance(raised.value.__cause__, TypeError)
    await auth.close()


class CountingHasher(Bcrypt):
    """Records every call of the hasher."""

    hashed: ClassVar[list[bytes]] = []
    verified: ClassVar[list[str]] = []

    def hash(self, password: bytes) -> str:
        self.hashed.append(password)
        return super().hash(password)

    def verify(self, password: bytes, stored: str) -> bool:
        self.verified.append("verify")
        return super().verify(password, stored)

    def level(self, stored: str | None, dearest: int) -> None:
        self.verified.append(f"level {None if stored is None else self.cost_of(stored)} to {dearest}")
        return super().level(stored, dearest)


async def test_register_of_a_taken_address_does_the_same_work(tmp_path: Path) -> None:
    """EN-4: the error for a taken address comes only after the policy and the hash."""
    auth = make_auth(tmp_path, hasher=CountingHasher(cost=4))
    CountingHasher.hashed.clear()
    await register(auth)
    with pytest.raises(IdentityTakenError) as taken:
        await actions(auth).register(registration(EMAIL.upper()))
    assert list(taken.value.fields) == ["email"]
    assert len(CountingHasher.hashed) == 2
    with pytest.raises(ValidationError) as weak:
        await actions(auth).register(registration(password="password1234"))
    assert list(weak.value.fields) == ["password"]
    await auth.close()


async def test_register_of_a_user_who_is_not_admitted_is_accepted(tmp_path: Path) -> None:
    """If a gate rejects the sign-in or the store is down, the user stays registered and gets no token."""
    gate = Gatekeeper()
    auth = make_auth(tmp_path, add_ons=[gate])
    for number, answer in enumerate((AuthenticationFailedError("unconfirmed"), StoreUnavailableError("locked"))):
        gate.answer = answer
        user, token = await actions(auth).register(registration(f"user{number}@mail.example.org"))
        assert token is None
        assert await auth.sessions.list(user.id) == []
    gate.answer = ForbiddenError("not here")
    with pytest.raises(ForbiddenError):
        await actions(auth).register(registration())
    await auth.close()


async def test_register_can_require_a_factor(tmp_path: Path) -> None:
    """A gate may require a factor after a registration, too."""
    gate = Gatekeeper()
    gate.answer = FactorRequired(("code",))
    auth = make_auth(tmp_path, add_ons=[gate])
    with pytest.raises(FactorRequiredError) as caught:
        await actions(auth).register(registration())
    assert caught.value.factors == ("code",)
    assert (await auth.sessions.pending(caught.value.pending_token)).registered
    await auth.close()


async def test_register_obeys_the_mode(tmp_path: Path) -> None:
    """With ``closed`` the registration is rejected before anything is hashed."""
    auth = make_auth(tmp_path, registration="closed", hasher=CountingHasher(cost=4))
    CountingHasher.hashed.clear()
    with pytest.raises(ForbiddenError):
        await actions(auth).register(registration())
    assert CountingHasher.hashed == []
    await auth.close()


# --- sign in ---------------------------------------------------------------------------------------------------------


async def test_right_password_signs_in(auth: LocalAuthentication) -> None:
    """Any spelling of the address and the exact password give a session with the time of the proof."""
    user, _ = await register(auth)
    auth.clock.advance(timedelta(hours=1))
    signed_in, token = await actions(auth).sign_in(
        credentials(" ALICE@mail.example.org "), client=Client(label="Browser/1.0")
    )
    assert signed_in == user
    assert await is_alive(auth, token)
    assert token.session.factors == {"password": NOW + timedelta(hours=1)}
    assert (token.session.label, token.session.remembered) == ("Browser/1.0", False)


@pytest.mark.parametrize(
    ("value", "remembered"), [("true", True), ("on", True), ("1", True), (True, True), ("no", False)]
)
async def test_remember_me_makes_a_remembered_session(auth: LocalAuthentication, value: Any, remembered: bool) -> None:
    """A remembered session lasts thirty days, another one seven."""
    await register(auth)
    _, token = await actions(auth).sign_in({**credentials(), "remember_me": value})
    assert token.session.remembered is remembered
    assert token.session.expires_at == NOW + timedelta(days=30 if remembered else 7)


async def test_sign_in_failures_look_the_same(auth: LocalAuthentication) -> None:
    """EN-1: an unknown or disabled user, a wrong and a missing password give the same error; only the log differs."""
    await register(auth)
    await auth.accounts.create({"email": OTHER_EMAIL})
    disabled, _ = await register(auth, "carol@mail.example.org")
    await auth.accounts.disable(disabled.id)
    refused = [
        await refusal(auth, "nobody@mail.example.org"),
        await refusal(auth, password=NEW_PASSWORD),
        await refusal(auth, OTHER_EMAIL),
        await refusal(auth, "carol@mail.example.org"),
        await refusal(auth, "carol@mail.example.org", NEW_PASSWORD),
    ]
    assert {(type(e), e.code, e.status, e.title, *e.fields, *e.headers) for e in refused} == {
        (AuthenticationFailedError, "authentication_failed", 401, "Access denied")
    }
    assert [error.reason for error in refused] == [
        "unknown user",
        "wrong password",
        "no password",
        "the account is disabled",
        "wrong password",
    ]


async def test_sign_in_failures_cost_the_same(tmp_path: Path) -> None:
    """EN-2: a sign-in without a hash costs a whole one; after a cheap hash the difference in cost is added."""
    auth = make_auth(tmp_path, hasher=CountingHasher(cost=5))
    await register(auth)
    await auth.accounts.create({"email": OTHER_EMAIL})
    plant(tmp_path, HASHER.hash(PASSWORD.encode()))
    CountingHasher.verified.clear()
    for email in ("nobody@mail.example.org", OTHER_EMAIL, EMAIL):
        await refusal(auth, email, NEW_PASSWORD)
    assert CountingHasher.verified == ["level None to 5", "level None to 5", "verify", "level 4 to 5"]
    await auth.close()


@pytest.mark.parametrize("value", [None, True, 0, 1.5, [], ["a"], {}, ""], ids=repr)
@pytest.mark.parametrize("name", ["email", "password"])
async def test_sign_in_accepts_only_text(auth: LocalAuthentication, name: str, value: Any) -> None:
    """PW-11: identity and password are required and must be text."""
    await register(auth)
    with pytest.raises(ValidationError) as refused:
        await actions(auth).sign_in({**credentials(), name: value})
    assert list(refused.value.fields) == [name]


@pytest.mark.parametrize("email", [EMAIL, "nobody@mail.example.org"])
@pytest.mark.parametrize("password", ["a" * 1025, "a" * 5000, "x\0y", "\ud800"], ids=lambda p: f"{p[:3]!a}-{len(p)}")
async def test_sign_in_rejects_impossible_passwords(tmp_path: Path, email: str, password: str) -> None:
    """PW-3, PW-4, PW-5: a password that is too long or malformed is rejected before hashing, for every user."""
    auth = make_auth(tmp_path, hasher=CountingHasher(cost=4))
    await register(auth)
    CountingHasher.verified.clear()
    with pytest.raises(ValidationError) as refused:
        await actions(auth).sign_in(credentials(email, password))
    assert list(refused.value.fields) == ["password"]
    assert CountingHasher.verified == []
    await auth.close()


@pytest.mark.parametrize(
    ("password", "others"),
    [
        (
            "correct horse battery" + "a" * 51 + "X",
            ["correct horse battery" + "a" * 51 + "Y", "correct horse battery" + "a" * 51],
        ),
        ("🦔🪗🧭🪲🌋🛶🪁🧶🎐" * 2 + "tail", ["🦔🪗🧭🪲🌋🛶🪁🧶🎐" * 2 + "tael", "🦔🪗🧭🪲🌋🛶🪁🧶🎐" * 2]),
        (" Quartz  lantern mosaic ", ["Quartz  lantern mosaic", " Quartz lantern mosaic ", " quartz  lantern mosaic "]),
        ("ﬁeldstone ² quartz", ["fieldstone 2 quartz", "fieldstone ² quartz"]),
    ],
    ids=["72 bytes", "emoji", "spaces and case", "compatibility characters"],
)
async def test_sign_in_compares_the_whole_password_unchanged(
    auth: LocalAuthentication, password: str, others: list[str]
) -> None:
    """PW-2, PW-6: a password is not cut, trimmed, folded or mapped."""
    await actions(auth).register(registration(password=password))
    for other in others:
        assert (await refusal(auth, password=other)).reason == "wrong password"
    _, token = await actions(auth).sign_in(credentials(password=password))
    assert await is_alive(auth, token)


async def test_sign_in_accepts_every_unicode_form_of_the_password(auth: LocalAuthentication) -> None:
    """PW-5: composed and decomposed characters give the same password."""
    password = "crème brûlée für Zoë"
    await actions(auth).register(registration(password=unicodedata.normalize("NFC", password)))
    _, token = await actions(auth).sign_in(credentials(password=unicodedata.normalize("NFD", password)))
    assert await is_alive(auth, token)


@pytest.mark.parametrize("stored", [None, "", "x", "$2b$12$short", "$2b$31$" + "a" * 53, "$argon2id$v=19$m=1", "\x00"])
async def test_sign_in_with_an_invalid_hash_fails(
    auth: LocalAuthentication, tmp_path: Path, stored: str | None
) -> None:
    """PW-10: a missing or invalid hash fails like a wrong password, without an absurd cost."""
    await register(auth)
    plant(tmp_path, stored)
    assert (await refusal(auth)).code == "authentication_failed"


@pytest.mark.parametrize(
    "make",
    [
        lambda: bcrypt.hashpw(b"password1", bcrypt.gensalt(4)).decode(),
        lambda: Bcrypt(cost=5).hash(b"password1"),
    ],
    ids=["another system's", "older cost"],
)
async def test_sign_in_replaces_an_old_hash(auth: LocalAuthentication, tmp_path: Path, make: Callable[[], str]) -> None:
    """PW-9, PW-7: a legacy hash is verified once and replaced, even if the policy would reject its password now."""
    user, token = await register(auth)
    plant(tmp_path, make())
    before = await found_of(auth)
    await actions(auth).sign_in(credentials(password="password1"))
    after = await found_of(auth)
    assert after.account.password_hash is not None
    assert after.account.password_hash.startswith("{asgi_auth-1}$2b$04$")
    assert replace(after.account, password_hash=None) == replace(before.account, password_hash=None)
    assert await is_alive(auth, token)
    await actions(auth).sign_in(credentials(password="password1"))
    assert (await found_of(auth)).account == after.account
    assert after.user == user


async def test_sign_in_by_user_name(tmp_path: Path) -> None:
    """With user names the parameter is ``username``, in any spelling; reset mails are sent to the address."""
    sender = MemorySender()
    auth = with_password(
        tmp_path, identity_field="username", register_fields=["email"], resettable=Resettable(sender=sender)
    )
    params = {"username": "Alice", "password": PASSWORD, "password_confirmation": PASSWORD}
    user, _ = await actions(auth).register({**params, "email": EMAIL})
    assert (user.username, user.email, dict(user.data)) == ("Alice", EMAIL, {})
    _, token = await actions(auth).sign_in({"username": "ａＬＩＣＥ", "password": PASSWORD})
    assert await is_alive(auth, token)
    with pytest.raises(ValidationError) as refused:
        await actions(auth).register({**registration(OTHER_EMAIL)})
    assert dict(refused.value.fields) == {"username": "This field is required."}
    with pytest.raises(ValidationError) as refused:
        await actions(auth).register({**params, "username": "bob", "email": "bob"})
    assert list(refused.value.fields) == ["email"]
    await actions(auth).register({**params, "username": "mailless"})
    for name in ("alice", "mailless", "nobody"):
        assert await actions(auth).reset_request({"username": name}) == (None, None)
    assert [opts["address"] for _, _, opts in sender.messages] == [EMAIL]
    await auth.close()


# --- sign-in tokens --------------------------------------------------------------------------------------------------


async def issue_token(auth: LocalAuthentication, **params: Any) -> str:
    user, token = await actions(auth).sign_in({**credentials(), **params}, token_type="sign_in")
    assert user.email == EMAIL
    assert isinstance(token, str)
    return token


async def redeem(auth: LocalAuthentication, token: str) -> Any:
    return await actions(auth).sign_in_with_token({"token": token})


async def test_sign_in_token_is_redeemed_once(auth: LocalAuthentication) -> None:
    """TK-22, TK-10: a token can be redeemed once, keeps the time of the proof, and is no bearer token."""
    user, _ = await register(auth)
    token = await issue_token(auth, remember_me="on")
    with pytest.raises(InvalidTokenError):
        await auth.sessions.load_bearer(token)
    auth.clock.advance(timedelta(seconds=10))
    signed_in, access = await redeem(auth, token)
    assert signed_in == user
    assert await is_alive(auth, access)
    assert access.session.remembered
    assert access.session.factors == {"password": NOW}
    with pytest.raises(InvalidTokenError):
        await redeem(auth, token)


@pytest.mark.parametrize(("seconds", "live"), [(59, True), (60, False), (61, False)])
async def test_sign_in_token_lives_for_a_minute(auth: LocalAuthentication, seconds: int, live: bool) -> None:
    """TK-22: a token expires after sixty seconds."""
    await register(auth)
    token = await issue_token(auth)
    auth.clock.advance(timedelta(seconds=seconds))
    if live:
        assert await is_alive(auth, (await redeem(auth, token)).token)
    else:
        with pytest.raises(InvalidTokenError):
            await redeem(auth, token)


async def test_sign_in_token_signs_in_one_of_ten_racers(auth: LocalAuthentication) -> None:
    """TK-11: of ten concurrent uses of one token one creates a session."""
    user, registered = await register(auth)
    token = await issue_token(auth)
    results = await asyncio.gather(*(redeem(auth, token) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(result, InvalidTokenError) for result in results) == 9
    assert len(await auth.sessions.list(user.id)) == 2
    assert await is_alive(auth, registered)


@pytest.mark.parametrize("change", ["disable", "revoke_all", "delete", "set_password"])
async def test_sign_in_token_ends_with_the_sessions(auth: LocalAuthentication, change: str) -> None:
    """SE-5, SE-6: disabling, sign-out everywhere, deletion and a new password invalidate older tokens."""
    user, _ = await register(auth)
    token = await issue_token(auth)
    await end(auth, change, user)
    with pytest.raises(InvalidTokenError):
        await redeem(auth, token)


async def test_sign_in_token_asks_the_gates_twice(tmp_path: Path) -> None:
    """AC-3: gates are asked at the issue and at the use of a token; a refusal does not consume it, a factor does."""
    gate = Gatekeeper()
    auth = make_auth(tmp_path, add_ons=[gate])
    await register(auth)
    gate.answer = AuthenticationFailedError("unconfirmed")
    with pytest.raises(AuthenticationFailedError, match="unconfirmed"):
        await issue_token(auth)
    gate.answer = None
    token = await issue_token(auth)
    gate.answer = AuthenticationFailedError("unconfirmed")
    with pytest.raises(AuthenticationFailedError, match="unconfirmed"):
        await redeem(auth, token)
    gate.answer = FactorRequired(("code",))
    with pytest.raises(FactorRequiredError):
        await redeem(auth, token)
    with pytest.raises(InvalidTokenError):
        await redeem(auth, token)
    await auth.close()


@pytest.mark.parametrize("value", [None, True, 0, 1.5, [], ["a"], {}, ""], ids=repr)
async def test_sign_in_token_must_be_text(auth: LocalAuthentication, value: Any) -> None:
    """PW-11: a token is required and must be text."""
    with pytest.raises(ValidationError) as refused:
        await actions(auth).sign_in_with_token({"token": value})
    assert list(refused.value.fields) == ["token"]


async def test_strategy_rejects_the_tokens_of_another(tmp_path: Path) -> None:
    """TK-8: two password strategies of one application reject each other's tokens."""
    sender = MemorySender()
    reset = Resettable(sender=sender)
    auth = make_auth(
        tmp_path, sender=sender, strategies=[Password(resettable=reset), Password(name="staff", resettable=reset)]
    )
    await register(auth)
    token, staff = await issue_token(auth), auth.strategy("staff")
    with pytest.raises(InvalidTokenError, match="the token belongs to another strategy"):
        await staff.sign_in_with_token({"token": token})
    await redeem(auth, token)
    await actions(auth).reset_request({"email": EMAIL})
    with pytest.raises(InvalidTokenError, match="the token belongs to another strategy"):
        await staff.reset(new_password(mailed_token(auth)))
    await actions(auth).reset(new_password(mailed_token(auth)))
    await auth.close()


async def test_token_without_a_user_is_rejected(auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is rejected if it has no user or if its user was deleted between two reads."""
    data = {"factor": "password", "at": NOW.isoformat(), "remember": False}
    issued = await auth.tokens.issue("sign_in", account=None, lifetime=timedelta(minutes=1), extra_data=data)
    with pytest.raises(InvalidTokenError, match="the user of the token is gone"):
        await redeem(auth, issued.token)
    await register(auth)
    token = await issue_token(auth)

    async def get(user_id: str) -> None:
        return None

    monkeypatch.setattr(auth.services.store.users, "get", get)
    with pytest.raises(InvalidTokenError, match="the user of the token is gone"):
        await redeem(auth, token)


# --- reset -----------------------------------------------------------------------------------------------------------


def new_password(token: str, password: str = NEW_PASSWORD) -> dict[str, str]:
    return {"reset_token": token, "password": password, "password_confirmation": password}


async def request_reset(auth: LocalAuthentication, email: str = EMAIL) -> str:
    assert await actions(auth).reset_request({"email": email}) == (None, None)
    return mailed_token(auth)


async def test_reset_link_is_mailed_to_the_stored_address(auth: LocalAuthentication) -> None:
    """AC-6, HT-1: the mail uses the registered spelling; its link has the base URL and lasts an hour."""
    user, _ = await register(auth, "Alice@mail.example.org")
    await request_reset(auth, "alice@MAIL.example.org")
    [(recipient, token, opts)] = auth.sender.messages
    assert recipient == user
    assert (opts["purpose"], opts["address"], opts["app_name"]) == ("reset", "Alice@mail.example.org", "localhost")
    assert opts["expires_at"] == NOW + timedelta(hours=1)
    assert opts["url"] == f"http://localhost:8000/auth/password/reset?reset_token={token}"


async def test_reset_link_can_open_the_applications_page(tmp_path: Path) -> None:
    """The option ``url`` replaces the library's page in the link."""
    sender = MemorySender()
    reset = Resettable(sender=sender, url="https://www.example.org/new-password?lang=de")
    auth = make_auth(tmp_path, sender=sender, strategies=[Password(resettable=reset)])
    await register(auth)
    await request_reset(auth)
    url = urlsplit(sender.messages[-1][2]["url"])
    assert (url.netloc, url.path) == ("www.example.org", "/new-password")
    assert parse_qs(url.query) == {"lang": ["de"], "reset_token": [mailed_token(auth)]}
    await auth.close()


async def test_reset_request_gives_the_same_answer_for_every_address(auth: LocalAuthentication) -> None:
    """EN-3: unknown, disabled and known addresses get the same answer; only the known one gets mail."""
    await register(auth)
    disabled, _ = await register(auth, OTHER_EMAIL)
    await auth.accounts.disable(disabled.id)
    answers = [
        await actions(auth).reset_request({"email": email}) for email in (EMAIL, OTHER_EMAIL, "nobody@mail.example.org")
    ]
    assert answers == [(None, None)] * 3
    assert [opts["address"] for _, _, opts in auth.sender.messages] == [EMAIL]


@pytest.mark.parametrize(
    "email",
    [
        None,
        "",
        "alice",
        ["alice@mail.example.org", "mallory@mail.example.org"],
        "alice@mail.example.org,mallory@mail.example.org",
        "alice@mail.example.org\nBcc: mallory@mail.example.org",
        '"Alice" <alice@mail.example.org>',
        {"address": "alice@mail.example.org"},
        "a" * 5000,
    ],
    ids=lambda email: str(email)[:40],
)
async def test_reset_request_requires_one_mailbox(auth: LocalAuthentication, email: Any) -> None:
    """AC-7, PW-11: a value that is not exactly one address is rejected, and no mail is sent."""
    await register(auth)
    with pytest.raises(ValidationError) as refused:
        await actions(auth).reset_request({"email": email})
    assert list(refused.value.fields) == ["email"]
    assert auth.sender.messages == []


async def test_reset_link_replaces_the_older_one(auth: LocalAuthentication) -> None:
    """TK-12: the newer of two links is valid, the older is not."""
    await register(auth)
    older, newer = await request_reset(auth), await request_reset(auth)
    with pytest.raises(InvalidTokenError):
        await actions(auth).reset(new_password(older))
    await actions(auth).reset(new_password(newer))


async def test_failed_reset_mail_keeps_the_older_link(auth: LocalAuthentication) -> None:
    """TK-12: if the mail server fails, the earlier link stays valid."""
    await register(auth)
    older = await request_reset(auth)

    async def fail(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        raise ConnectionError

    auth.sender.send = fail  # type: ignore[method-assign]
    assert await actions(auth).reset_request({"email": EMAIL}) == (None, None)
    del auth.sender.send
    await actions(auth).reset(new_password(older))


async def test_reset_sets_the_password_and_ends_every_session(auth: LocalAuthentication) -> None:
    """SE-5, AC-1, AC-10: the old password, all sessions and tokens are invalid; the reset does not sign in."""
    user, registered = await register(auth)
    other, sign_in_token = await auth.sign_in(user), await issue_token(auth)
    auth.clock.advance(timedelta(minutes=1))
    token = await request_reset(auth)
    changed, nothing = await actions(auth).reset(new_password(token))
    assert nothing is None
    assert (changed.id, changed.confirmed_at) == (user.id, NOW + timedelta(minutes=1))
    assert [await is_alive(auth, each) for each in (registered, other)] == [False, False]
    with pytest.raises(InvalidTokenError):
        await redeem(auth, sign_in_token)
    assert (await refusal(auth)).reason == "wrong password"
    _, fresh = await actions(auth).sign_in(credentials(password=NEW_PASSWORD))
    assert await is_alive(auth, fresh)


async def test_reset_notifies_the_owner_without_a_secret(auth: LocalAuthentication) -> None:
    """AC-10: the address gets a notice without token and link."""
    user, _ = await register(auth)
    await actions(auth).reset(new_password(await request_reset(auth)))
    recipient, token, opts = auth.sender.messages[-1]
    assert (recipient.id, token) == (user.id, None)
    texts = opts["texts"]
    assert {**opts, "texts": None} == {
        "purpose": "password_changed",
        "address": EMAIL,
        "app_name": "localhost",
        "locale": "en",
        "texts": None,
    }
    assert (texts.subject, texts.link, texts.expiry) == ("Your password for localhost was changed", "", "")


async def test_reset_notifies_the_owner_if_the_caller_disconnects(auth: LocalAuthentication) -> None:
    """AC-10: a caller who disconnects during the reset does not prevent the notice to the owner."""
    await register(auth)
    token, commit = await request_reset(auth), auth.services.commit
    task = asyncio.ensure_future(actions(auth).reset(new_password(token)))

    async def hang_up(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        task.cancel()
        await asyncio.sleep(0)
        auth.sender.messages.append((user, token, opts))

    auth.sender.send = hang_up  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await task
    assert commit.jobs is auth.services.commit.jobs
    assert auth.sender.messages[-1][2]["purpose"] == "password_changed"


async def test_reset_of_a_user_without_an_address_sends_no_notice(tmp_path: Path) -> None:
    """A user with a user name may have no address any more."""
    sender = MemorySender()
    strategy = Password(identity_field="username", registration_enabled=False, resettable=Resettable(sender=sender))
    auth = make_auth(tmp_path, sender=sender, strategies=[strategy])
    await auth.accounts.create({"username": "alice"})
    found = await auth.accounts.find("username", "alice")
    assert found is not None
    issued = await auth.tokens.issue(
        "reset", account=found.account, lifetime=timedelta(hours=1), extra_data={"factor": "password"}
    )
    await actions(auth).reset(new_password(issued.token))
    assert sender.messages == []
    await auth.close()


async def test_rejected_password_keeps_reset_token(auth: LocalAuthentication) -> None:
    """TK-10: a rejected password does not consume the token; an accepted one does."""
    await register(auth)
    token = await request_reset(auth)
    refused: list[dict[str, Any]] = [
        new_password(token, "short"),
        new_password(token, "password1234"),
        new_password(token, "alice mail example"),
        {**new_password(token), "password_confirmation": "another one entirely"},
        {**new_password(token), "password": None},
        {**new_password(token), "password": ["a"]},
    ]
    for params in refused:
        with pytest.raises(ValidationError):
            await actions(auth).reset(params)
    await actions(auth).reset(new_password(token))
    with pytest.raises(InvalidTokenError):
        await actions(auth).reset(new_password(token, "third lantern pendulum"))


async def test_invalid_reset_tokens_give_the_same_error(auth: LocalAuthentication) -> None:
    """EN-7: used, expired, forged and replaced tokens, and those of another purpose or a deleted user."""
    user, _ = await register(auth)
    await register(auth, OTHER_EMAIL)
    other_purpose = await issue_token(auth)
    retired = await request_reset(auth)
    used = await request_reset(auth)
    await actions(auth).reset(new_password(used))
    deleted = await request_reset(auth)
    await auth.accounts.delete(user.id)
    expired = await request_reset(auth, OTHER_EMAIL)
    auth.clock.advance(timedelta(hours=1))
    faces = set()
    for token in (used, retired, deleted, expired, other_purpose, "A" * 43, "x", expired + "=", "é" * 43):
        with pytest.raises(InvalidTokenError) as refused:
            await actions(auth).reset(new_password(token))
        error = refused.value
        faces.add((type(error), error.code, error.status, error.title, *error.fields, *error.headers))
    assert faces == {(InvalidTokenError, "invalid_token", 401, "This link or token is no longer valid")}


@pytest.mark.parametrize(("seconds", "live"), [(-1, True), (0, False), (1, False)])
@pytest.mark.parametrize("lifetime", [timedelta(hours=1), timedelta(minutes=10)], ids=str)
async def test_reset_token_ends_with_its_lifetime(
    tmp_path: Path, lifetime: timedelta, seconds: int, live: bool
) -> None:
    """``token_lifetime`` sets the exact lifetime of a link."""
    sender = MemorySender()
    reset = Resettable(sender=sender, token_lifetime=lifetime)
    auth = make_auth(tmp_path, sender=sender, strategies=[Password(resettable=reset)])
    await register(auth)
    token = await request_reset(auth)
    auth.clock.advance(lifetime + timedelta(seconds=seconds))
    if live:
        await actions(auth).reset(new_password(token))
    else:
        with pytest.raises(InvalidTokenError):
            await actions(auth).reset(new_password(token))
    await auth.close()


async def test_reset_of_ten_racers_sets_one_password(auth: LocalAuthentication) -> None:
    """TK-11: of ten concurrent uses of one link one sets the password."""
    await register(auth)
    token = await request_reset(auth)
    passwords = [f"violet harbour pendulum {number}" for number in range(10)]
    results = await asyncio.gather(
        *(actions(auth).reset(new_password(token, password)) for password in passwords), return_exceptions=True
    )
    [won] = [number for number, result in enumerate(results) if not isinstance(result, BaseException)]
    assert all(isinstance(result, InvalidTokenError) for result in results if isinstance(result, BaseException))
    _, access = await actions(auth).sign_in(credentials(password=passwords[won]))
    assert await is_alive(auth, access)


async def test_reset_can_sign_in_if_every_gate_admits(tmp_path: Path) -> None:
    """AC-10: with ``sign_in=True`` a reset signs in; if a gate refuses, the password is set without a session."""
    sender, gate = MemorySender(), Gatekeeper()
    reset = Resettable(sender=sender, sign_in=True)
    auth = make_auth(tmp_path, sender=sender, strategies=[Password(resettable=reset)], add_ons=[gate])
    user, _ = await register(auth)
    _, token = await actions(auth).reset(new_password(await request_reset(auth)))
    assert await is_alive(auth, token)
    assert token.session.factors == {"password": NOW}
    gate.answer = AuthenticationFailedError("unconfirmed")
    changed, nothing = await actions(auth).reset(new_password(await request_reset(auth), PASSWORD))
    assert (changed.id, nothing) == (user.id, None)
    assert await auth.sessions.list(user.id) == []
    gate.answer = FactorRequired(("code",))
    with pytest.raises(FactorRequiredError):
        await actions(auth).reset(new_password(await request_reset(auth)))
    assert await auth.sessions.list(user.id) == []
    await auth.close()


async def test_reset_without_resettable_raises_configuration_error(tmp_path: Path) -> None:
    """The error names the missing option ``resettable``."""
    auth = with_password(tmp_path)
    with pytest.raises(ConfigurationError, match="resettable"):
        await actions(auth).reset(new_password("A" * 43))
    await auth.close()


# --- phases ----------------------------------------------------------------------------------------------------------


async def test_phases_pass_their_parameters_to_the_actions(auth: LocalAuthentication) -> None:
    """Each phase calls its action with the request's parameters and returns an outcome; it does not sign in."""
    client = Client(address="192.0.2.1", label="Browser/1.0")

    async def run(phase: str, params: Mapping[str, Any]) -> Any:
        return await auth.routes["password", phase].handle(PhaseRequest(params=params, client=client))

    registered = await run("register", registration())
    assert isinstance(registered, SignedIn)
    assert registered.registered
    user: User = registered.user
    signed_in = await run("sign_in", {**credentials(), "token_type": "sign_in"})
    assert isinstance(signed_in, SignedIn)
    requested = await run("reset_request", {"email": EMAIL})
    assert isinstance(requested, Accepted)
    assert auth.sender.messages == []
    assert requested.then is not None
    await requested.then()
    issued = await auth.services.store.users.get(user.id)
    assert issued is not None
    redeemed = await run("sign_in_with_token", {"token": await issue_token(auth)})
    assert isinstance(redeemed, SignedIn)
    assert redeemed.spend is not None
    done = await run("reset", new_password(mailed_token(auth)))
    assert isinstance(done, Accepted)
    assert done.user.id == user.id
    assert await auth.sessions.list(user.id) == []


async def test_action_alone_returns_its_outcome(auth: LocalAuthentication) -> None:
    """An action only returns an outcome; the caller signs in or gives out the token."""
    await register(auth)
    bound = Password().bind(auth.services)
    outcome = await bound.sign_in(credentials(), token_type="sign_in")
    assert isinstance(outcome, TokenIssued)
    assert outcome.token not in repr(outcome)
