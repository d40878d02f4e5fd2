"""asgi_auth.tokens: an access token must be signed by us, a single-purpose token must be in the store."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.errors import InvalidTokenError
from asgi_auth.protocol.keys import derive_key, key_id
from asgi_auth.store import ScopedStore
from asgi_auth.stores import SQLiteStore
from asgi_auth.testing import FakeClock
from asgi_auth.tokens import Tokens, hash_token, new_stamp
from asgi_auth.types import Account, Session, User
from tests.support import BASE_URL, OTHER_SECRET, SECRET, LocalAuthentication, register

pytestmark = pytest.mark.anyio

NOW = datetime(2030, 1, 1, tzinfo=UTC)
EPOCH = 1893456000  # that instant
KEY = derive_key(SECRET.encode(), "access_token", "user")
KID = key_id(KEY)
HEADER: dict[str, Any] = {"alg": "HS256", "kid": KID, "typ": "JWT"}
CLAIMS: dict[str, Any] = {
    "iss": "http://localhost:8000",
    "aud": "http://localhost:8000/user",
    "sub": "user?id=u1",
    "sid": "s1",
    "jti": "j1",
    "iat": EPOCH,
    "nbf": EPOCH,
    "exp": EPOCH + 3600,
    "purpose": "access",
}
SESSION = Session(
    id="s1",
    user_id="u1",
    stamp=b"",
    created_at=NOW,
    last_seen_at=NOW,
    idle_expires_at=NOW + timedelta(hours=12),
    expires_at=NOW + timedelta(days=7),
)


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the test."""
    return FakeClock(NOW)


@pytest.fixture
def tokens(tmp_path: Path, clock: FakeClock) -> Tokens[User]:
    """Tokens with a store that is never opened: access tokens do not use it."""
    return make_tokens(SQLiteStore(tmp_path / "unused.db").scope("user"), clock)


def make_tokens(
    store: ScopedStore[User], clock: FakeClock, *secrets: str, base_url: str = BASE_URL, subject_name: str = "user"
) -> Tokens[User]:
    keys = tuple(secret.encode() for secret in secrets or (SECRET,))
    return Tokens(store, keys=keys, base_url=base_url, subject_name=subject_name, clock=clock, telling=None)


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def sign(
    header: dict[str, Any] | bytes, payload: dict[str, Any] | bytes, key: bytes = KEY, digest: str = "sha256"
) -> str:
    """A JWT with any header and payload, signed by hand."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    message = ".".join(map(encode, parts))
    return f"{message}.{encode(hmac.digest(key, message.encode(), digest))}"


def forge(**changes: Any) -> str:
    """A token with a valid signature and changed claims; None removes a claim."""
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return sign(HEADER, claims)


def refuses(tokens: Tokens[User], token: str) -> bool:
    try:
        tokens.verify_access(token)
    except InvalidTokenError:
        return True
    return False


# --- valid tokens ----------------------------------------------------------------------------------------------------


def test_access_token_has_exactly_the_documented_claims(tokens: Tokens[User]) -> None:
    """TK-18: an access token has ids, times and its purpose, no personal data, and fits in 4 KiB."""
    token, expires_at = tokens.issue_access(SESSION)
    assert len(token) < 1024
    assert jwt.get_unverified_header(token) == HEADER
    claims = jwt.decode(token, options={"verify_signature": False})
    assert {**claims, "jti": "j1", "exp": EPOCH + 3600} == CLAIMS
    assert claims["exp"] == EPOCH + 7 * 24 * 3600
    assert expires_at == NOW + timedelta(days=7)
    assert tokens.verify_access(token)[:2] == ("s1", "u1")


def test_access_token_made_by_hand_is_valid(tokens: Tokens[User]) -> None:
    """The unchanged token of forge is valid, so each forgery below fails only for its change."""
    assert tokens.verify_access(forge()) == ("s1", "u1", EPOCH, EPOCH + 3600)
    assert tokens.verify_access(sign({"alg": "HS256", "kid": KID}, CLAIMS)) == ("s1", "u1", EPOCH, EPOCH + 3600)
    assert tokens.verify_access(forge(extra="ignored")).session_id == "s1"


def test_access_token_ends_with_its_session_and_after_seven_days(tokens: Tokens[User], clock: FakeClock) -> None:
    """A bearer token ends with its session, and after seven days at the latest."""
    clock.advance(timedelta(days=3, microseconds=250))
    assert tokens.issue_access(SESSION)[1] == NOW + timedelta(days=7)
    long = Session(**{**_fields(SESSION), "expires_at": NOW + timedelta(days=30)})
    assert tokens.issue_access(long)[1] == NOW + timedelta(days=10)


def _fields(session: Session) -> dict[str, Any]:
    return {name: getattr(session, name) for name in Session.__slots__}


def test_access_tokens_are_unique(tokens: Tokens[User]) -> None:
    """Two tokens of one session in one second differ: each has its own jti."""
    assert len({tokens.issue_access(SESSION)[0] for _ in range(100)}) == 100


# --- invalid tokens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", None, "HS384", "HS512", "RS256", "hs256", 1, ["HS256"]], ids=repr
)
def test_access_token_has_one_algorithm(tokens: Tokens[User], alg: object) -> None:
    """TK-1, TK-2: only HS256 is accepted; other algorithms are refused with and without a signature."""
    header = {"kid": KID, **({} if alg is None else {"alg": alg})}
    signed = sign(header, CLAIMS)
    assert refuses(tokens, signed)
    assert refuses(tokens, signed.rpartition(".")[0] + ".")
    assert refuses(tokens, signed.rpartition(".")[0])


@pytest.mark.parametrize("digest", ["sha384", "sha512"])
def test_access_token_of_another_hash_is_refused(tokens: Tokens[User], digest: str) -> None:
    """TK-1: a signature with another hash or another length is refused."""
    header = {**HEADER, "alg": {"sha384": "HS384", "sha512": "HS512"}[digest]}
    assert refuses(tokens, sign(header, CLAIMS, digest=digest))
    assert refuses(tokens, sign(HEADER, CLAIMS, digest=digest))


@pytest.mark.parametrize(
    "kid",
    [
        None,
        "",
        "0" * 16,
        KID.upper(),
        KID + " ",
        "../../dev/null",
        "' OR 1=1--",
        "https://evil.example.org/key",
        "x" * 10_000,
        "x" * 2_000,
        0,
        1,
        True,
        [],
        [KID],
        {},
        "\x00",
    ],
    ids=lambda kid: f"{str(kid)[:20]!r}-{type(kid).__name__}-{len(str(kid))}",
)
@pytest.mark.parametrize("key", [KEY, b"", b"\x00" * 32])
def test_access_token_with_another_kid_is_refused(tokens: Tokens[User], kid: object, key: bytes) -> None:
    """TK-3: kid only selects one of our own keys; any other kid is refused, whichever key signed."""
    header = {"alg": "HS256", **({} if kid is None else {"kid": kid})}
    assert refuses(tokens, sign(header, CLAIMS, key=key))


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["x"], "x": 1},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"b64": True},
        {"b64": False, "crit": ["b64"]},
        {"jku": "http://127.0.0.1:9/keys"},
        {"x5u": "http://127.0.0.1:9/cert"},
        {"x5c": ["MII"]},
        {"jwk": {"kty": "oct", "k": encode(KEY)}},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
        {"cty": "JWT"},
    ],
    ids=str,
)
def test_access_token_with_foreign_header_is_refused(tokens: Tokens[User], header: dict[str, Any]) -> None:
    """TK-3, TK-4: a header parameter that we do not write is refused, even with a valid signature."""
    assert refuses(tokens, sign({**HEADER, **header}, CLAIMS))


def test_access_token_requires_our_key(tokens: Tokens[User]) -> None:
    """TK-9: a token signed with the secret itself, or a key of another use, kind of user or application, is refused."""
    others = [
        SECRET.encode(),
        derive_key(SECRET.encode(), "session_cookie", "user"),
        derive_key(SECRET.encode(), "access_token", "admin"),
        derive_key(OTHER_SECRET.encode(), "access_token", "user"),
    ]
    for key in others:
        assert refuses(tokens, sign(HEADER, CLAIMS, key=key))
        assert refuses(tokens, sign({**HEADER, "kid": key_id(key)}, CLAIMS, key=key))


@pytest.mark.parametrize("claim", list(CLAIMS))
def test_access_token_requires_every_claim(tokens: Tokens[User], claim: str) -> None:
    """TK-6: each claim is required and must not be null."""
    assert refuses(tokens, forge(**{claim: None}))
    assert refuses(tokens, sign(HEADER, {**CLAIMS, claim: None}))


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "sid", "jti", "purpose"])
@pytest.mark.parametrize("value", [0, 1, -1, 1.5, True, False, [], ["x"], {}, {"x": 1}], ids=repr)
def test_access_token_text_claims_must_be_text(tokens: Tokens[User], claim: str, value: object) -> None:
    """TK-6: a text claim of another type is refused."""
    assert refuses(tokens, forge(**{claim: value}))
    assert refuses(tokens, forge(**{claim: [CLAIMS[claim]]}))


@pytest.mark.parametrize("claim", ["iat", "nbf", "exp"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        str(EPOCH + 3600),
        EPOCH + 3600.0,
        True,
        False,
        -1,
        [],
        [EPOCH],
        {},
        253_402_300_800,
        10**30,
        "10000-01-01",
        float("inf"),
        float("nan"),
    ],
    ids=repr,
)
def test_access_token_times_must_be_integers(tokens: Tokens[User], claim: str, value: object) -> None:
    """TK-6: a time is a whole number of seconds before the year 10000; text, fractions and booleans are refused."""
    assert refuses(tokens, forge(**{claim: value}))


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" * 400, "1" * 2900, "1893459600.0", "1893459600e0"])
def test_access_token_times_with_extreme_json_numbers_are_refused(tokens: Tokens[User], number: str) -> None:
    """TK-6: JSON numbers that are no valid integers are refused with InvalidTokenError, not an error of Python."""
    payload = json.dumps({**CLAIMS, "exp": 0}).replace('"exp": 0', f'"exp": {number}').encode()
    assert refuses(tokens, sign(HEADER, payload))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("aud", "http://localhost:8000/admin"),
        ("aud", "http://localhost:8000/user/"),
        ("aud", "http://localhost:8000"),
        ("aud", "HTTP://localhost:8000/user"),
        ("aud", ["http://localhost:8000/user"]),
        ("aud", ["http://localhost:8000/user", "http://localhost:8000/admin"]),
        ("iss", "http://localhost:80000"),
        ("iss", "http://localhost:8000/"),
        ("iss", "http://localhost:800"),
        ("iss", "http://localhost:8000.evil.example.org"),
        ("iss", "https://localhost:8000"),
        ("iss", ["http://localhost:8000"]),
        ("sub", "admin?id=u1"),
        ("sub", "u1"),
        ("sub", "User?id=u1"),
        ("purpose", "Access"),
        ("purpose", "access "),
        ("purpose", "sign_in"),
        ("purpose", "reset"),
        ("purpose", "pending_factor"),
        ("purpose", "user"),
    ],
)
def test_access_token_of_another_application_is_refused(tokens: Tokens[User], claim: str, value: object) -> None:
    """TK-7, TK-8: issuer, audience, kind of user and purpose are compared exactly."""
    assert refuses(tokens, forge(**{claim: value}))


GOOD = forge()
HEAD, BODY, SIGNATURE = GOOD.split(".")


MALFORMED = [
    "",
    ".",
    "..",
    "...",
    HEAD,
    f"{HEAD}.{BODY}",
    f"{HEAD}.{BODY}.",
    f".{BODY}.{SIGNATURE}",
    f"{HEAD}..{SIGNATURE}",
    f"{GOOD}.{SIGNATURE}",
    f"{GOOD}.x.y",
    f" {GOOD}",
    f"{GOOD} ",
    f"{GOOD}\n",
    f"{HEAD} .{BODY}.{SIGNATURE}",
    f"{GOOD}=",
    f"{GOOD}==",
    f"{HEAD}=.{BODY}.{SIGNATURE}",
    f"{GOOD}?",
    f"{GOOD}\ud800",
    f"{GOOD}é",
    f"{HEAD}.{BODY}.é{SIGNATURE[1:]}",
    GOOD.replace("-", "+").replace("_", "/") + "/",
    f"{HEAD}.{BODY}.{SIGNATURE[:-1]}",
    f"{HEAD}.{BODY}.{'A' * 43}",
    json.dumps({"protected": HEAD, "payload": BODY, "signature": SIGNATURE}),
    json.dumps({"payload": BODY, "signatures": [{"protected": HEAD, "signature": SIGNATURE}]}),
    sign(b"[]", CLAIMS),
    sign(b'"text"', CLAIMS),
    sign(b"null", CLAIMS),
    sign(b"{", CLAIMS),
    sign(b"\xff\xfe", CLAIMS),
    sign(HEADER, b"[]"),
    sign(HEADER, b"null"),
    sign(HEADER, b"{"),
    sign(HEADER, b"\xff"),
    sign(HEADER, b"[" * 100_000),
    sign(HEADER, b"[" * 2_900),
    sign(HEADER, b'{"a":' * 570),
    sign(b"[" * 2_900, b"{}"),
    sign({**HEADER, "typ": "x" * 1_000_000}, CLAIMS),
    "a" * 1_000_000,
]


@pytest.mark.parametrize("token", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_access_token_is_refused(tokens: Tokens[User], token: str) -> None:
    """TK-5, TK-13: a token has one serialisation; any other text is refused with InvalidTokenError."""
    tokens.verify_access(GOOD)
    assert refuses(tokens, token)


def test_access_token_has_one_spelling_of_its_signature(tokens: Tokens[User]) -> None:
    """TK-13: the unused bits of the last base64 character must be zero."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = [char for char in alphabet if not refuses(tokens, GOOD[:-1] + char)]
    assert accepted == [GOOD[-1]]


def test_access_token_of_4096_bytes_is_the_longest(tokens: Tokens[User]) -> None:
    """TK-18: a longer token is refused."""
    sizes = {len(token): token for token in (forge(extra="x" * count) for count in range(2650, 2800))}
    longest = max(size for size in sizes if size <= 4096)
    shortest = min(size for size in sizes if size > 4096)
    assert not refuses(tokens, sizes[longest])
    assert refuses(tokens, sizes[shortest])


@given(st.text(max_size=200))
def test_access_token_verification_never_crashes_on_text(text: str) -> None:
    """TK-5: any text is refused with InvalidTokenError."""
    tokens = make_tokens(SQLiteStore("unused.db").scope("user"), FakeClock(NOW))
    assert refuses(tokens, text)
    assert refuses(tokens, f"{HEAD}.{encode(text.encode('utf-8', 'replace'))}.{SIGNATURE}")


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "refused"), [(3599, False), (3600, True), (3601, True)])
def test_access_token_ends_at_exp(tokens: Tokens[User], clock: FakeClock, seconds: int, refused: bool) -> None:
    """A token is valid until the second before exp, remembered or not (RFC 7519 section 4.1.4)."""
    seen = forge(jti="seen")
    tokens.verify_access(seen)
    clock.advance(timedelta(seconds=seconds))
    assert refuses(tokens, GOOD) is refused
    assert refuses(tokens, seen) is refused


@pytest.mark.parametrize("claim", ["nbf", "iat"])
@pytest.mark.parametrize(("ahead", "refused"), [(29, False), (30, False), (31, True)])
def test_access_token_from_the_future_is_refused(tokens: Tokens[User], claim: str, ahead: int, refused: bool) -> None:
    """nbf and iat may be at most 30 seconds ahead of the clock (RFC 7519 section 4.1.5)."""
    assert refuses(tokens, forge(**{claim: EPOCH + ahead})) is refused


def test_reason_names_the_time_difference(tokens: Tokens[User], clock: FakeClock) -> None:
    """The reason in the log separates a wrong clock from an expired token; the client's title is the same."""
    ahead, ended = forge(iat=EPOCH + 31, nbf=EPOCH), forge(exp=EPOCH)
    with pytest.raises(InvalidTokenError) as not_yet:
        tokens.verify_access(ahead)
    clock.advance(timedelta(hours=1))
    with pytest.raises(InvalidTokenError) as expired:
        tokens.verify_access(ended)

    assert not_yet.value.reason == "access token begins in 31 s, by the clock that issued it"
    assert expired.value.reason == "access token expired 3600 s ago"
    assert not_yet.value.title == expired.value.title == InvalidTokenError.title


def test_access_token_times_are_checked_at_every_use(tokens: Tokens[User], clock: FakeClock) -> None:
    """A remembered token is refused after the clock was set back by more than 30 seconds."""
    tokens.verify_access(GOOD)
    clock.advance(timedelta(seconds=-31))
    assert refuses(tokens, GOOD)


# --- remembered tokens -----------------------------------------------------------------------------------------------


def test_remembered_tokens_are_bounded(tokens: Tokens[User]) -> None:
    """At most 4,096 tokens are remembered; the oldest is forgotten first."""
    issued = [tokens.issue_access(SESSION)[0] for _ in range(4097)]
    for token in issued:
        tokens.verify_access(token)
    assert len(tokens._verified) == 4096
    known = [tokens._verified.get(token) is not None for token in (issued[0], issued[1], issued[4096])]
    assert known == [False, True, True]


def test_refused_tokens_are_not_remembered(tokens: Tokens[User], clock: FakeClock) -> None:
    """Only a token that passed every check, including its times, is remembered."""
    assert refuses(tokens, forge(exp=EPOCH))
    assert refuses(tokens, forge(nbf=EPOCH + 100))
    assert refuses(tokens, GOOD[:-1])
    assert not tokens._verified


def test_changed_copy_of_a_remembered_token_is_refused(tokens: Tokens[User]) -> None:
    """Look-ups use a hash of the whole token, so a changed copy of a remembered token is refused."""
    tokens.verify_access(GOOD)
    for position in range(len(GOOD)):
        for bit in (1, 2, 128):
            altered = GOOD[:position] + chr(ord(GOOD[position]) ^ bit) + GOOD[position + 1 :]
            assert refuses(tokens, altered), position
    assert len(tokens._verified) == 1


# --- keys ------------------------------------------------------------------------------------------------------------


def test_access_token_rotation_takes_three_steps(tmp_path: Path, clock: FakeClock) -> None:
    """TK-16: a token that was issued while both keys were known is valid without the older key; an older one is not."""
    store = SQLiteStore(tmp_path / "unused.db").scope("user")
    steps = [make_tokens(store, clock, *secrets) for secrets in ((SECRET,), (OTHER_SECRET, SECRET), (OTHER_SECRET,))]
    first, second, _third = (step.issue_access(SESSION)[0] for step in steps)
    assert [refuses(step, first) for step in steps] == [False, False, True]
    assert [refuses(step, second) for step in steps] == [True, False, False]


# --- single-purpose tokens -------------------------------------------------------------------------------------------


async def test_tokens_are_random_and_stored_as_hashes(auth: LocalAuthentication, tmp_path: Path) -> None:
    """TK-17: 1,000 tokens are unique, have 256 bits and no common prefix; the database has hashes, not tokens."""
    user, _ = await register(auth)
    found = await auth.accounts.get(user.id)
    assert found is not None
    issued = [auth.tokens.make("reset", account=found.account, lifetime=timedelta(hours=1)) for _ in range(1000)]
    assert len({one.token for one in issued}) == 1000
    assert {len(one.token) for one in issued} == {43}
    assert len({one.token[:4] for one in issued}) > 990
    async with auth.services.store.transaction() as work:
        for one in issued[:20]:
            await work.tokens.insert(one.record)
    written = _read_all(tmp_path)
    assert all(one.record.token_hash in written for one in issued[:20])
    assert not any(one.token.encode() in written for one in issued)


def _read_all(directory: Path) -> bytes:
    """The bytes of the database and its log."""
    return b"".join(path.read_bytes() for path in directory.glob("app.db*"))


async def test_token_is_valid_once_for_one_purpose(auth: LocalAuthentication) -> None:
    """TK-8, TK-10: peek does not change a token, consume ends it, and another purpose does not find it."""
    user, _ = await register(auth)
    found = await auth.accounts.get(user.id)
    assert found is not None
    issued = await auth.tokens.issue("reset", account=found.account, lifetime=timedelta(hours=1), extra_data={"a": 1})
    for _ in range(2):
        record = await auth.tokens.peek("reset", issued.token)
        assert (record.user_id, record.stamp, dict(record.extra_data)) == (user.id, found.account.stamp, {"a": 1})
    with pytest.raises(InvalidTokenError, match="no live sign_in token"):
        await auth.tokens.peek("sign_in", issued.token)
    async with auth.services.store.transaction() as work:
        with pytest.raises(InvalidTokenError):
            await auth.tokens.consume(work, "sign_in", issued.token)
        assert (await auth.tokens.consume(work, "reset", issued.token)).user_id == user.id
        with pytest.raises(InvalidTokenError):
            await auth.tokens.consume(work, "reset", issued.token)
    with pytest.raises(InvalidTokenError):
        await auth.tokens.peek("reset", issued.token)


async def test_token_without_a_user_has_no_stamp(auth: LocalAuthentication) -> None:
    """A token without a user has no stamp, and retire_older does nothing for it."""
    older = await auth.tokens.issue("invitation", account=None, lifetime=timedelta(days=7))
    newer = await auth.tokens.issue("invitation", account=None, lifetime=timedelta(days=7))
    await auth.tokens.retire_older(newer.record)
    record = await auth.tokens.peek("invitation", older.token)
    assert (record.user_id, record.stamp) == (None, None)


async def test_newer_token_retires_the_older_of_its_purpose(auth: LocalAuthentication) -> None:
    """TK-12: retire_older ends older tokens of the same purpose and user; other tokens stay valid."""
    user, _ = await register(auth)
    found = await auth.accounts.get(user.id)
    assert found is not None
    hour = timedelta(hours=1)
    old, other, new = [await auth.tokens.issue(p, account=found.account, lifetime=hour) for p in ("a", "b", "a")]
    await auth.tokens.retire_older(new.record)
    with pytest.raises(InvalidTokenError):
        await auth.tokens.peek("a", old.token)
    assert (await auth.tokens.peek("b", other.token)).purpose == "b"
    assert (await auth.tokens.peek("a", new.token)).purpose == "a"


@pytest.mark.parametrize(("seconds", "live"), [(59, True), (60, False), (61, False)])
async def test_token_ends_with_its_lifetime(auth: LocalAuthentication, seconds: int, live: bool) -> None:
    """A token is valid until the last second of its lifetime, for peek and consume alike."""
    issued = await auth.tokens.issue("invitation", account=None, lifetime=timedelta(seconds=60))
    auth.clock.advance(timedelta(seconds=seconds))
    for act in (_peek, _consume):
        try:
            await act(auth, issued.token)
        except InvalidTokenError:
            assert not live
        else:
            assert live


async def _peek(auth: LocalAuthentication, token: str) -> None:
    await auth.tokens.peek("invitation", token)


async def _consume(auth: LocalAuthentication, token: str) -> None:
    async with auth.services.store.transaction() as work:
        await auth.tokens.consume(work, "invitation", token)


@pytest.mark.parametrize(
    "token", ["", "x", "A" * 42, "A" * 44, "é" * 43, "A" * 42 + "B", "A" * 42 + "=", "\ud800" * 43]
)
async def test_malformed_token_is_refused_without_a_query(
    auth: LocalAuthentication, token: str, tmp_path: Path
) -> None:
    """A malformed token causes no query: peek does not open the store."""
    with pytest.raises(InvalidTokenError):
        await auth.tokens.peek("reset", token)
    assert not (tmp_path / "app.db").exists()
    async with auth.services.store.transaction() as work:
        with pytest.raises(InvalidTokenError):
            await auth.tokens.consume(work, "reset", token)


async def test_changed_token_is_refused(auth: LocalAuthentication) -> None:
    """A token that was changed in any character, shortened or extended is refused."""
    issued = await auth.tokens.issue("invitation", account=None, lifetime=timedelta(hours=1))
    token = issued.token
    changed = [token[:i] + chr(ord(token[i]) ^ 1) + token[i + 1 :] for i in range(43)]
    for other in (*changed, token[:-1], token[1:], token + "A", token + "=", " " + token, hash_token(token).hex()[:43]):
        with pytest.raises(InvalidTokenError):
            await auth.tokens.peek("invitation", other)
    await auth.tokens.peek("invitation", token)


def test_stamps_are_random() -> None:
    """A stamp has 128 random bits."""
    stamps = {new_stamp() for _ in range(1000)}
    assert len(stamps) == 1000
    assert {len(stamp) for stamp in stamps} == {16}


def test_subject_is_the_uri_form_of_a_user(tokens: Tokens[User]) -> None:
    """The subject of a user is ``user?id=…``."""
    assert tokens.subject("u1") == "user?id=u1"


async def test_token_is_invalid_once_its_account_has_another_stamp(auth: LocalAuthentication) -> None:
    """TK-12: tokens with the old stamp are invalid, even if they were issued after the change from an older look-up."""
    user, _ = await register(auth)
    found = await auth.accounts.get(user.id)
    assert found is not None
    early = await auth.tokens.issue("reset", account=found.account, lifetime=timedelta(hours=1))
    await auth.sessions.revoke_all(user.id)
    late = await auth.tokens.issue("reset", account=found.account, lifetime=timedelta(hours=1))
    for issued in (early, late):
        with pytest.raises(InvalidTokenError):
            await auth.tokens.peek("reset", issued.token)


def test_token_contains_nothing_of_the_account(tokens: Tokens[User]) -> None:
    """The token is random; only its record has the user and the stamp."""
    account = Account(user_id="u1", stamp=b"s" * 16)
    issued = tokens.make("reset", account=account, lifetime=timedelta(hours=1))
    assert issued.record.token_hash == hashlib.sha256(issued.token.encode()).digest()
    assert (issued.record.user_id, issued.record.stamp) == ("u1", b"s" * 16)
