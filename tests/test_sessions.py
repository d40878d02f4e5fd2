"""asgi_auth.sessions: creation, lifetime and end of sessions."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

import pytest
from itsdangerous import Signer

from asgi_auth.acts import Attempt, FactorRequired, Proof
from asgi_auth.errors import AuthenticationFailedError, ConfigurationError, FactorRequiredError, InvalidTokenError
from asgi_auth.events import SessionsRevoked, SignInSucceeded
from asgi_auth.hooks import Hook
from asgi_auth.phases import SignedIn
from asgi_auth.protocol.keys import derive_key
from asgi_auth.sessions import PENDING_FACTOR, SessionOptions
from asgi_auth.store import Work
from asgi_auth.tokens import hash_token
from asgi_auth.types import AccessToken, Client, User
from tests.gate import Gatekeeper
from tests.support import (
    EMAIL,
    OTHER_EMAIL,
    OTHER_SECRET,
    SECRET,
    Events,
    LocalAuthentication,
    found_of,
    is_alive,
    mailed_token,
    make_auth,
    register,
)

pytestmark = pytest.mark.anyio

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def events() -> Events:
    """The events of the test."""
    return Events()


@pytest.fixture
async def auth(tmp_path: Path, events: Events) -> AsyncIterator[LocalAuthentication]:
    """An Authentication with a hook that records its events."""
    auth = make_auth(tmp_path, add_ons=[events])
    yield auth
    await auth.close()


async def proof_of(auth: LocalAuthentication, email: str = EMAIL) -> Proof:
    return Proof(account=(await found_of(auth, email)).account, factor="password", at=auth.clock())


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["idle_lifetime", "lifetime", "remembered_lifetime", "touch_interval", "pending_lifetime"]
)
@pytest.mark.parametrize("value", [timedelta(0), timedelta(seconds=-1), 3600, None], ids=str)
def test_options_are_positive_durations(name: str, value: Any) -> None:
    """Every option must be a positive timedelta; the error names it."""
    with pytest.raises(ConfigurationError, match=f"session: {name} must be a positive timedelta"):
        SessionOptions(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"idle_lifetime": timedelta(days=8)}, "idle_lifetime must not be over lifetime"),
        ({"touch_interval": timedelta(hours=12)}, "touch_interval must be under idle_lifetime"),
    ],
)
def test_options_must_not_contradict_each_other(options: dict[str, timedelta], message: str) -> None:
    """idle_lifetime must not exceed lifetime, and touch_interval must be less than idle_lifetime."""
    with pytest.raises(ConfigurationError, match=message):
        SessionOptions(**options)


def test_options_have_the_documented_defaults() -> None:
    """12 hours idle, 7 days in all, 30 days remembered, stored once a minute, 10 minutes for a second factor."""
    assert SessionOptions() == SessionOptions(
        idle_lifetime=timedelta(hours=12),
        lifetime=timedelta(days=7),
        remembered_lifetime=timedelta(days=30),
        touch_interval=timedelta(minutes=1),
        pending_lifetime=timedelta(minutes=10),
    )


# --- minting ---------------------------------------------------------------------------------------------------------


async def test_mint_stores_the_details_of_the_sign_in(auth: LocalAuthentication, events: Events) -> None:
    """A session has its user, times, factors and the client's label; the event has the same values."""
    user = await auth.accounts.create({"email": EMAIL})
    client = Client(address="192.0.2.1", label="Browser/1.0")
    events.take()
    token = await auth.sign_in(user, client=client)
    session = (await auth.sessions.load(token.cookie)).session
    assert session == token.session
    assert (session.user_id, session.label, session.remembered) == (user.id, "Browser/1.0", False)
    assert (session.created_at, session.last_seen_at) == (NOW, NOW)
    assert (session.idle_expires_at, session.expires_at) == (NOW + timedelta(hours=12), NOW + timedelta(days=7))
    assert session.factors == {"application": NOW}
    [event] = events.take()
    assert isinstance(event, SignInSucceeded)
    assert (event.user_id, event.factor, event.client, event.session) == (user.id, "application", client, session)
    assert event.activity == (None, "sign_in")


async def test_mint_creates_a_new_secret_each_time(auth: LocalAuthentication) -> None:
    """SE-1: every sign-in has its own cookie and id, and ends the earlier session of the browser."""
    user = await auth.accounts.create({"email": EMAIL})
    first = await auth.sign_in(user)
    other_device = await auth.sign_in(user)
    second = await auth.sign_in(user, client=Client(session_hashes=(auth.sessions.cookie_hash(first.cookie),)))
    assert len({first.cookie, other_device.cookie, second.cookie}) == 3
    assert len({first.session.id, other_device.session.id, second.session.id}) == 3
    assert [await is_alive(auth, token) for token in (first, other_device, second)] == [False, True, True]


async def test_mint_ends_the_earlier_session_of_the_browser(auth: LocalAuthentication, events: Events) -> None:
    """SE-1: a sign-in over another user's session ends that session and leaves an event for both."""
    alice = await auth.accounts.create({"email": EMAIL})
    bob = await auth.accounts.create({"email": OTHER_EMAIL})
    first = await auth.sign_in(alice)
    events.take()
    browser = Client(session_hashes=(auth.sessions.cookie_hash(first.cookie),))
    await auth.sign_in(bob, client=browser)
    assert not await is_alive(auth, first)
    revoked, signed_in = events.take()
    assert isinstance(revoked, SessionsRevoked)
    assert (revoked.user_id, revoked.session_id) == (alice.id, first.session.id)
    assert signed_in.user_id == bob.id
    await auth.sign_in(bob, client=browser)
    assert [type(event) for event in events.take()] == [SignInSucceeded]


async def test_mint_refuses_a_disabled_account(auth: LocalAuthentication) -> None:
    """AC-3: a disabled user cannot sign in."""
    user = await auth.accounts.create({"email": EMAIL})
    await auth.accounts.disable(user.id)
    with pytest.raises(AuthenticationFailedError) as refused:
        await auth.sign_in(user)
    assert refused.value.reason == "the account is disabled"


async def test_session_from_an_old_proof_is_invalid(auth: LocalAuthentication) -> None:
    """SE-16: a proof from before a change of the stamp gives no valid cookie or bearer token."""
    user = await auth.accounts.create({"email": EMAIL})
    for change in (auth.sessions.revoke_all, auth.accounts.disable, auth.accounts.enable, auth.accounts.delete):
        proof = await proof_of(auth)
        await change(user.id)
        token = await auth.sessions.mint(SignedIn(user, proof), Client()) if proof.account.disabled_at is None else None
        assert token is None or not await is_alive(auth, token)


async def test_mint_rolls_back_if_the_token_was_consumed(auth: LocalAuthentication) -> None:
    """The token is consumed and the session stored in one transaction."""
    user = await auth.accounts.create({"email": EMAIL})

    async def spend(work: Work[Any]) -> None:
        raise InvalidTokenError("spent")

    with pytest.raises(InvalidTokenError):
        await auth.sessions.mint(SignedIn(user, await proof_of(auth), spend=spend), Client())
    assert await auth.sessions.list(user.id) == []


# --- a factor is missing ---------------------------------------------------------------------------------------------


class Gate(Hook):
    """Requires a code unless it was proven."""

    name = "gate"

    async def admit(self, attempt: Attempt) -> FactorRequired | None:
        return None if "code" in attempt.proof.factors else FactorRequired(("code", "recovery"))


async def test_mint_requires_a_missing_factor(tmp_path: Path) -> None:
    """A sign-in without a required factor gets a token of ten minutes and no session; its own token is consumed."""
    events = Events()
    auth = make_auth(tmp_path, add_ons=[Gate(), events])
    user = await auth.accounts.create({"email": EMAIL})
    spent: list[str] = []

    async def spend(work: Work[Any]) -> None:
        spent.append("spent")

    proof = await proof_of(auth)
    with pytest.raises(FactorRequiredError) as caught:
        await auth.sessions.mint(SignedIn(user, proof, remember=True, registered=True, spend=spend), Client())
    assert caught.value.factors == ("code", "recovery")
    assert spent == ["spent"]
    assert await auth.sessions.list(user.id) == []
    assert [event.name for event in events.take()] == ["user.created", "sign_in.pending"]
    token = caught.value.pending_token
    assert (await auth.tokens.peek(PENDING_FACTOR, token)).expires_at == NOW + timedelta(minutes=10)
    pending = await auth.sessions.pending(token)
    assert (pending.user, pending.proof, pending.factors) == (user, proof, ("code", "recovery"))
    assert (pending.remember, pending.registered) == (True, True)
    complete = await auth.sessions.mint(pending.complete("code", auth.clock()), Client())
    assert await is_alive(auth, complete)
    with pytest.raises(InvalidTokenError):
        await auth.sessions.mint(pending.complete("code", auth.clock()), Client())
    await auth.close()


async def test_pending_keeps_every_factor_in_its_order(tmp_path: Path) -> None:
    """A sign-in with three factors is pending twice; each time the proven factors and their times are known."""
    auth = make_auth(tmp_path, add_ons=[Gate(), Third()])
    user = await auth.accounts.create({"email": EMAIL})
    with pytest.raises(FactorRequiredError) as first:
        await auth.sessions.mint(SignedIn(user, await proof_of(auth)), Client())
    assert first.value.factors == ("code", "recovery", "key")
    pending = await auth.sessions.pending(first.value.pending_token)
    auth.clock.advance(timedelta(minutes=1))
    with pytest.raises(FactorRequiredError) as second:
        await auth.sessions.mint(pending.complete("key", auth.clock()), Client())
    assert second.value.factors == ("code", "recovery")
    proof = (await auth.sessions.pending(second.value.pending_token)).proof
    assert (proof.factor, proof.at, proof.earlier) == ("key", NOW + timedelta(minutes=1), {"password": NOW})
    await auth.close()


@pytest.mark.parametrize("token", [None, "", "x", "A" * 43])
async def test_pending_refuses_an_invalid_token(auth: LocalAuthentication, token: str | None) -> None:
    """TK-8: pending raises InvalidTokenError for a missing, malformed or unknown token."""
    with pytest.raises(InvalidTokenError):
        await auth.sessions.pending(token)


async def test_pending_refuses_a_deleted_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AC-3: a user who was deleted while the sign-in was pending cannot finish it."""
    auth = make_auth(tmp_path, add_ons=[Gate()])
    user = await auth.accounts.create({"email": EMAIL})
    with pytest.raises(FactorRequiredError) as caught:
        await auth.sessions.mint(SignedIn(user, await proof_of(auth)), Client())
    with monkeypatch.context() as patch:
        patch.setattr(auth.services.store.users, "get", _nobody)  # deleted between the two look-ups
        with pytest.raises(InvalidTokenError, match="the user of the pending sign-in is gone"):
            await auth.sessions.pending(caught.value.pending_token)
    await auth.accounts.delete(user.id)
    with pytest.raises(InvalidTokenError):
        await auth.sessions.pending(caught.value.pending_token)
    await auth.close()


async def _nobody(user_id: str) -> None: ...


CLOSED = Gatekeeper(AuthenticationFailedError("closed"))


@pytest.mark.parametrize("add_ons", [[Gate(), CLOSED], [CLOSED, Gate()]], ids=["factor_first", "refusal_first"])
async def test_refusal_wins_over_a_missing_factor(tmp_path: Path, add_ons: list[Hook]) -> None:
    """AC-3: every gate is asked, so a refused user does not learn that the first factor was right."""
    auth = make_auth(tmp_path, add_ons=add_ons)
    user = await auth.accounts.create({"email": EMAIL})
    with pytest.raises(AuthenticationFailedError, match="closed"):
        await auth.sessions.mint(SignedIn(user, await proof_of(auth)), Client())
    await auth.close()


class Third(Hook):
    """Requires a key unless it was proven."""

    name = "third"

    async def admit(self, attempt: Attempt) -> FactorRequired | None:
        return None if "key" in attempt.proof.factors else FactorRequired(("key",))


async def test_pending_sign_in_ends_with_a_change_of_the_account(tmp_path: Path) -> None:
    """A pending sign-in by password ends with revoke_all."""
    auth = make_auth(tmp_path, add_ons=[Gate()])
    user = await auth.accounts.create({"email": EMAIL})
    with pytest.raises(FactorRequiredError) as caught:
        await auth.sessions.mint(SignedIn(user, await proof_of(auth)), Client())
    await auth.sessions.revoke_all(user.id)
    with pytest.raises(InvalidTokenError):
        await auth.sessions.pending(caught.value.pending_token)
    await auth.close()


# --- the cookie ------------------------------------------------------------------------------------------------------


async def test_cookie_with_a_flipped_bit_is_rejected(auth: LocalAuthentication) -> None:
    """SE-2: a valid cookie with any single bit flipped is rejected."""
    _, token = await register(auth)
    await auth.sessions.load(token.cookie)
    flipped = 0
    for position in range(len(token.cookie)):
        for bit in range(8):
            other = chr(ord(token.cookie[position]) ^ (1 << bit))
            with pytest.raises(InvalidTokenError):
                await auth.sessions.load(token.cookie[:position] + other + token.cookie[position + 1 :])
            flipped += 1
    assert flipped == 696
    assert await is_alive(auth, token)


def _signed(secret: str, key: str, subject_name: str = "user", use: str = "session_cookie", **options: Any) -> str:
    settings = {"salt": "asgi_auth.session_cookie", "digest_method": sha256, "key_derivation": "hmac", **options}
    return Signer(derive_key(key.encode(), use, subject_name), **settings).sign(secret).decode()


async def test_cookie_with_another_signature_is_rejected(auth: LocalAuthentication) -> None:
    """SE-2, TK-9: a valid secret that is signed with another key, salt or method is refused before any query."""
    _, token = await register(auth)
    secret = token.cookie.partition(".")[0]
    assert _signed(secret, SECRET) == token.cookie
    forged = [
        _signed(secret, OTHER_SECRET),
        _signed(secret, SECRET, subject_name="admin"),
        _signed(secret, SECRET, use="access_token"),
        _signed(secret, SECRET, salt="itsdangerous.Signer"),
        _signed(secret, SECRET, key_derivation="concat"),
        _signed(secret, SECRET, digest_method=sha1),
        secret,
        f"{secret}.",
        f"{secret}.{'A' * 43}",
        f"{token.cookie}.{token.cookie}",
        f"{token.cookie}=",
        f" {token.cookie}",
        f"{token.cookie}\n",
        "",
        ".",
        "a" * 5000,
        "é" * 87,
        "\ud800" * 87,
    ]
    for cookie in forged:
        with pytest.raises(InvalidTokenError):
            auth.sessions.cookie_hash(cookie)
        assert await auth.sessions.revoke_cookie(cookie) is False


async def test_cookie_of_an_unknown_secret_is_rejected(auth: LocalAuthentication) -> None:
    """SE-2: a cookie that we signed is rejected if the store does not know its secret."""
    await register(auth)
    cookie = _signed("A" * 43, SECRET)
    assert auth.sessions.cookie_hash(cookie) == hash_token("A" * 43)
    with pytest.raises(InvalidTokenError, match="the session is over"):
        await auth.sessions.load(cookie)


async def test_credential_is_rejected_in_another_place(auth: LocalAuthentication) -> None:
    """TK-9: bearer and mail tokens are rejected as cookies; cookies and their secrets as bearer tokens."""
    _, token = await register(auth)
    await auth.strategy("password").reset_request({"email": EMAIL})
    mailed = mailed_token(auth)
    for cookie in (str(token), mailed, _signed(mailed, SECRET), token.session.id, hash_token(token.cookie).hex()):
        with pytest.raises(InvalidTokenError):
            await auth.sessions.load(cookie)
    for bearer in (token.cookie, token.cookie.partition(".")[0], mailed, token.session.id):
        with pytest.raises(InvalidTokenError):
            await auth.sessions.load_bearer(bearer)


async def test_remembered_cookies_are_bounded(auth: LocalAuthentication) -> None:
    """At most 4,096 verified signatures are remembered, and no invalid one."""
    for number in range(4097):
        auth.sessions.cookie_hash(auth.sessions._sign(f"{number:042}A"))
    assert len(auth.sessions._verified) == 4096
    with pytest.raises(InvalidTokenError):
        auth.sessions.cookie_hash(_signed("A" * 43, OTHER_SECRET))
    assert len(auth.sessions._verified) == 4096


async def test_bearer_of_another_user_is_refused(auth: LocalAuthentication) -> None:
    """The user of a bearer token must be the user of its session."""
    _, token = await register(auth)
    other, _ = await register(auth, OTHER_EMAIL)
    session = token.session
    swapped = type(session)(**{**{name: getattr(session, name) for name in session.__slots__}, "user_id": other.id})
    forged, _ = auth.tokens.issue_access(swapped)
    with pytest.raises(InvalidTokenError, match="the session of the access token is over"):
        await auth.sessions.load_bearer(forged)


# --- ends ------------------------------------------------------------------------------------------------------------


async def _alive_after(auth: LocalAuthentication, token: AccessToken, by: timedelta) -> bool:
    auth.clock.advance(by)
    alive = await is_alive(auth, token)
    auth.clock.advance(-by)
    return alive


@pytest.mark.parametrize(("seconds", "alive"), [(-1, True), (0, False), (1, False)])
async def test_session_ends_after_twelve_hours_without_use(
    auth: LocalAuthentication, seconds: int, alive: bool
) -> None:
    """SE-7: after twelve hours without use a session is invalid."""
    _, token = await register(auth)
    assert await _alive_after(auth, token, timedelta(hours=12, seconds=seconds)) is alive


@pytest.mark.parametrize(("seconds", "alive"), [(-1, True), (0, False), (1, False)])
async def test_session_ends_after_seven_days_in_use(auth: LocalAuthentication, seconds: int, alive: bool) -> None:
    """SE-7: a session that is used every six hours is invalid after seven days."""
    _, token = await register(auth)
    for _ in range(27):
        auth.clock.advance(timedelta(hours=6))
        loaded = await auth.sessions.load(token.cookie)
        await auth.sessions.touch(loaded.session)
    assert await _alive_after(auth, token, timedelta(hours=6, seconds=seconds)) is alive


@pytest.mark.parametrize(("seconds", "alive"), [(-1, True), (0, False), (1, False)])
@pytest.mark.parametrize("busy", [False, True])
async def test_remembered_session_ends_after_thirty_days(
    auth: LocalAuthentication, seconds: int, alive: bool, busy: bool
) -> None:
    """SE-7: a remembered session is valid for thirty days, idle or not."""
    user = await auth.accounts.create({"email": EMAIL})
    token = await auth.sign_in(user, remember=True)
    if busy:
        auth.clock.advance(timedelta(days=29))
        await auth.sessions.touch(token.session)
        auth.clock.advance(timedelta(days=-29))
    auth.clock.advance(timedelta(days=30, seconds=seconds))
    try:
        loaded = await auth.sessions.load(token.cookie)
    except InvalidTokenError:
        assert not alive
    else:
        assert alive
        assert loaded.session.remembered


async def test_options_set_the_lifetimes(tmp_path: Path) -> None:
    """SessionOptions set idle and absolute lifetime."""
    options = SessionOptions(idle_lifetime=timedelta(minutes=15), lifetime=timedelta(hours=8))
    auth = make_auth(tmp_path, session=options)
    _, token = await register(auth)
    assert await _alive_after(auth, token, timedelta(minutes=14))
    assert not await _alive_after(auth, token, timedelta(minutes=15))
    assert token.expires_at == NOW + timedelta(hours=8)
    await auth.close()


async def test_session_is_touched_once_a_minute(auth: LocalAuthentication) -> None:
    """A use is stored at most once a minute, and restarts the idle lifetime."""
    _, token = await register(auth)
    due = []
    for seconds in (59, 1, 1):
        auth.clock.advance(timedelta(seconds=seconds))
        due.append(auth.sessions.touch_due((await auth.sessions.load(token.cookie)).session, auth.clock()))
    assert due == [False, True, True]
    await auth.sessions.touch(token.session)
    session = (await auth.sessions.load(token.cookie)).session
    assert session.last_seen_at == NOW + timedelta(seconds=61)
    assert session.idle_expires_at == NOW + timedelta(hours=12, seconds=61)
    assert not auth.sessions.touch_due(session, auth.clock())


async def test_revoked_session_is_invalid_at_once(auth: LocalAuthentication, events: Events) -> None:
    """SE-4: revoke_cookie makes cookie and bearer token invalid; touch does not make them valid again."""
    user, token = await register(auth)
    events.take()
    client = Client(address="192.0.2.1")
    assert await auth.sessions.revoke_cookie(token.cookie, client=client) is True
    assert await auth.sessions.revoke_cookie(token.cookie) is False
    assert [(event.name, event.user_id, event.client) for event in events.take()] == [
        ("sessions.revoked", user.id, client)
    ]
    await auth.sessions.touch(token.session)
    assert not await is_alive(auth, token)
    assert await auth.sessions.list(user.id) == []


async def test_session_is_revoked_by_its_own_user_only(auth: LocalAuthentication, events: Events) -> None:
    """revoke with a user ends only a session of that user; only the first call returns True."""
    alice, token = await register(auth)
    bob, _ = await register(auth, OTHER_EMAIL)
    events.take()
    assert await auth.sessions.revoke(token.session.id, user_id=bob.id) is False
    assert await is_alive(auth, token)
    assert events.take() == []
    assert await auth.sessions.revoke(token.session.id, user_id=alice.id) is True
    assert await auth.sessions.revoke(token.session.id, user_id=alice.id) is False
    assert await auth.sessions.revoke("no such session") is False
    assert not await is_alive(auth, token)
    assert len(events.take()) == 1


async def test_revoke_all_ends_the_sessions_of_one_user(auth: LocalAuthentication) -> None:
    """SE-6: revoke_all ends the user's sessions and mail tokens, and no session of other users."""
    alice, first = await register(auth)
    second = await auth.sign_in(alice)
    _, other = await register(auth, OTHER_EMAIL)
    await auth.strategy("password").reset_request({"email": EMAIL})
    await auth.sessions.revoke_all(alice.id)
    assert [await is_alive(auth, token) for token in (first, second, other)] == [False, False, True]
    with pytest.raises(InvalidTokenError):
        await auth.tokens.peek("reset", mailed_token(auth))
    assert await is_alive(auth, await auth.sign_in(alice))


async def test_revoke_all_can_keep_the_acting_session(auth: LocalAuthentication) -> None:
    """SE-6: revoke_all keeps the session in except_, but only if it belongs to the user."""
    alice, first = await register(auth)
    second = await auth.sign_in(alice)
    _, other = await register(auth, OTHER_EMAIL)
    await auth.sessions.revoke_all(alice.id, except_=first.session)
    assert [await is_alive(auth, token) for token in (first, second, other)] == [True, False, True]
    await auth.sessions.revoke_all(alice.id, except_=other.session)
    assert [await is_alive(auth, token) for token in (first, second, other)] == [False, False, True]


async def test_renew_stamp_requires_the_expected_account(auth: LocalAuthentication, events: Events) -> None:
    """renew_stamp changes the stamp only if the account still has the expected values; else it returns None."""
    user, token = await register(auth)
    events.take()
    account = (await found_of(auth)).account
    async with auth.services.store.transaction() as work:
        assert await auth.sessions.renew_stamp(work, user.id, expected={"stamp": b"other"}) is None
        assert work.events == []
        assert await auth.sessions.renew_stamp(work, "nobody") is None
        other = {"stamp": b"other"}
        assert await auth.sessions.renew_stamp(work, user.id, acting=token.session, expected=other) is None
    assert await is_alive(auth, token)
    async with auth.services.store.transaction() as work:
        renewed = await auth.sessions.renew_stamp(work, user.id, expected={"stamp": account.stamp})
        assert [(event.name, event.user_id) for event in work.events] == [("sessions.revoked", user.id)]
    assert renewed is not None
    assert renewed.stamp != account.stamp
    assert not await is_alive(auth, token)


async def test_new_factor_replaces_the_session(auth: LocalAuthentication, events: Events) -> None:
    """SE-1, SE-5: a new factor gives a new cookie and id; the old cookie and its bearer tokens are invalid."""
    user, old = await register(auth)
    other_device = await auth.sign_in(user)
    events.take()
    auth.clock.advance(timedelta(minutes=5))
    proof = Proof(account=(await found_of(auth)).account, factor="code", at=auth.clock(), earlier=old.session.factors)
    replaced = old.session.id
    new = await auth.sessions.mint(SignedIn(user, proof, replaces=replaced), Client())
    assert new.session.id != old.session.id
    assert new.session.factors == {"password": NOW, "code": NOW + timedelta(minutes=5)}
    assert [await is_alive(auth, token) for token in (old, other_device, new)] == [False, True, True]
    revoked, _ = events.take()
    assert isinstance(revoked, SessionsRevoked)
    assert revoked.session_id == old.session.id


async def test_replaced_session_of_the_browser_is_one_event(auth: LocalAuthentication, events: Events) -> None:
    """If the browser shows the session that is replaced, it is revoked once, with one event."""
    user = await auth.accounts.create({"email": EMAIL})
    old = await auth.sign_in(user, remember=True)
    events.take()
    browser = Client(session_hashes=(auth.sessions.cookie_hash(old.cookie),))
    replaced = old.session.id
    await auth.sessions.mint(SignedIn(user, await proof_of(auth), replaces=replaced), browser)
    assert [event.name for event in events.take()] == ["sessions.revoked", "sign_in.succeeded"]


async def test_list_has_the_valid_sessions_of_one_user(auth: LocalAuthentication) -> None:
    """The list has the valid sessions of the user, the last used one first."""
    alice, first = await register(auth)
    await register(auth, OTHER_EMAIL)
    auth.clock.advance(timedelta(minutes=1))
    second = await auth.sign_in(alice)
    ended = await auth.sign_in(alice)
    await auth.sessions.revoke(ended.session.id)
    assert [session.id for session in await auth.sessions.list(alice.id)] == [second.session.id, first.session.id]
    auth.clock.advance(timedelta(minutes=1))
    await auth.sessions.touch(first.session)
    assert [session.id for session in await auth.sessions.list(alice.id)] == [first.session.id, second.session.id]


@pytest.mark.parametrize(("seconds", "fresh"), [(599, True), (600, True), (601, False)])
async def test_session_is_fresh_for_a_while(auth: LocalAuthentication, seconds: int, fresh: bool) -> None:
    """A session is fresh until the given time after its newest factor."""
    _, token = await register(auth)
    auth.clock.advance(timedelta(seconds=seconds))
    assert auth.sessions.is_fresh(token.session, timedelta(seconds=600)) is fresh


@pytest.mark.parametrize(
    ("factor", "seconds", "fresh"), [("password", 600, True), ("password", 601, False), ("totp", 0, False)]
)
async def test_session_is_fresh_by_a_factor(auth: LocalAuthentication, factor: str, seconds: int, fresh: bool) -> None:
    """is_fresh with a factor looks only at the proof of that factor."""
    _, token = await register(auth)
    auth.clock.advance(timedelta(seconds=seconds))
    assert auth.sessions.is_fresh(token.session, timedelta(seconds=600), factor) is fresh


async def test_session_without_a_proof_of_its_own_is_never_fresh(auth: LocalAuthentication) -> None:
    """SE-10: a remembered session is never fresh, and neither is a session without a proof."""
    user = await auth.accounts.create({"email": EMAIL})
    remembered = (await auth.sign_in(user, remember=True)).session
    fields = {name: getattr(remembered, name) for name in remembered.__slots__}
    unproven = type(remembered)(**{**fields, "remembered": False, "factors": {}})
    assert not auth.sessions.is_fresh(remembered, timedelta(days=1))
    assert not auth.sessions.is_fresh(unproven, timedelta(days=1))


async def test_prune_deletes_ended_sessions(auth: LocalAuthentication) -> None:
    """prune deletes revoked sessions and keeps valid ones."""
    user, token = await register(auth)
    for _ in range(3):
        ended = await auth.sign_in(user)
        await auth.sessions.revoke(ended.session.id)
    auth.clock.advance(timedelta(seconds=1))
    assert await auth.prune() == 3
    assert await is_alive(auth, token)


async def test_loaded_user_is_the_one_of_the_session(auth: LocalAuthentication) -> None:
    """load and load_bearer return the current user of the session."""
    user, token = await register(auth)
    loaded = await auth.sessions.load(token.cookie)
    assert isinstance(loaded.user, User)
    assert loaded.user == user
    assert (await auth.sessions.load_bearer(str(token))).user == user
