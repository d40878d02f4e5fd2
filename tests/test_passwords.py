"""Hashing and verification of passwords, with equal work. The policy is tested in test_password_policy.py."""

import re
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.errors import ConfigurationError, OverloadedError
from asgi_auth.hashing import HashingPool
from asgi_auth.passwords import Bcrypt, PasswordPolicy, Passwords, Verified, normalise_password

GOOD = "correct horse battery"
CONTEXT = ["alice.smith@example.com", "Alice O'Smith"]
NFC, NFD = "caf\u00e9 au lait, deux", "cafe\u0301 au lait, deux"
K1, K2 = b"7eQm-0vZ.walrus:Kx93!tGd_Yb2^Hn4", b"Rc8;otter+Lp61~Wf?Zs0%Vj5&Ta7*Ud3"
PLANTS = ["", "x", "$2b$12$short", "$2b$31$" + "." * 53]
CHEAP = Bcrypt(cost=4)

# Published test strings of crypt_blowfish, jBCrypt and py-bcrypt.
VECTORS = [
    (b"U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    (b"a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
    (b"abc", "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
    (b"abcdefghijklmnopqrstuvwxyz", "$2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC"),
    (b"\xa3", "$2y$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq"),
    (b"Kk4DQuMMfZL9o", "$2b$04$cVWp4XaNU8a4v1uMRum2SO026BWLIoQMD/TXg5uZV.0P.uO8m3YEm"),
]


@pytest.fixture
def pool() -> Iterator[HashingPool]:
    """Threads for one test."""
    pool = HashingPool()
    yield pool
    pool.close()


@pytest.fixture
def passwords(pool: HashingPool) -> Passwords:
    """The service with a low cost for tests."""
    return Passwords(hasher=CHEAP, policy=PasswordPolicy(), app_name="Acme Corp", pool=pool)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The costs of the calls of bcrypt; a stub replaces bcrypt, and no password matches."""
    costs: list[int] = []

    def hashpw(password: bytes, salt: bytes) -> bytes:
        costs.append(int(salt[4:6]))
        return salt[:29] + b"." * 31

    def checkpw(password: bytes, hashed: bytes) -> bool:
        hashpw(password, hashed)
        return False

    monkeypatch.setattr(bcrypt, "hashpw", hashpw)
    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    return costs


def plain(cost: int) -> str:
    """Text in the format of another system's hash."""
    return f"$2b${cost:02}${'.' * 53}"


# --- bcrypt ----------------------------------------------------------------------------------------------------------


def test_bcrypt_stores_a_marked_hash_of_the_default_cost() -> None:
    """PW-8: by default a hash has cost 12, our marker and its own salt, and does not contain the password."""
    one, other = Bcrypt().hash(b"secret words"), Bcrypt().hash(b"secret words")

    assert re.fullmatch(r"\{asgi_auth-1\}\$2[by]\$12\$[./A-Za-z0-9]{53}", one)
    assert re.search(r"\$2[by]\$(1[0-9])\$", one)
    assert one != other
    assert "secret" not in one


def test_bcrypt_verifies_a_hash_of_every_earlier_release() -> None:
    """PW-4: a change of the label of the digest would make every stored hash invalid."""
    stored = "{asgi_auth-1}$2b$04$KYTLZpe28R9qFt2NnhrU7.lIS/D1WtbI3OlnJBOngagzhCgRIHJ8K"

    assert CHEAP.verify(b"correct horse battery", stored)
    assert not CHEAP.verify(b"correct horse batterY", stored)


@pytest.mark.parametrize(("password", "stored"), VECTORS)
def test_bcrypt_verifies_published_vectors(password: bytes, stored: str) -> None:
    """Hashes of other systems are verified, and need a rehash."""
    hasher = Bcrypt(cost=4, pepper=(K1,))

    assert hasher.verify(password, stored)
    assert hasher.can_verify(stored)
    assert not hasher.verify(password + b"x", stored)
    assert hasher.needs_rehash(stored)


@pytest.mark.parametrize("head", ["a" * 72, "\U0001f600" * 18])
def test_bcrypt_verifies_the_whole_password(head: str) -> None:
    """PW-2: bytes after the 72nd are compared, too."""
    stored = CHEAP.hash((head + "X").encode())

    assert [CHEAP.verify((head + tail).encode(), stored) for tail in ("X", "Y", "", "XX")] == [True] + [False] * 3


@pytest.mark.parametrize("tail", [b"X", b"Y", b"\0", b"\0Y"])
def test_bcrypt_never_verifies_a_prefix_with_a_plain_hash(tail: bytes) -> None:
    """PW-2, PW-4: a password over 72 bytes or with NUL matches no plain hash: bcrypt would compare a prefix."""
    head = b"a" * 72
    stored = bcrypt.hashpw(head, bcrypt.gensalt(4)).decode()

    assert CHEAP.verify(head, stored)
    assert not CHEAP.verify(head + tail, stored)


@pytest.mark.parametrize(("known", "shown"), [(b"a", b"a\0a"), (b"no password", b"n" * 73)])
def test_bcrypt_never_accepts_an_equivalent_password(known: bytes, shown: bytes) -> None:
    """PW-4: a repeated key of bcrypt, or the stand-in for an impossible password, matches no plain hash."""
    assert not CHEAP.verify(shown, bcrypt.hashpw(known, bcrypt.gensalt(4)).decode())


def test_marked_hash_without_its_marker_does_not_verify() -> None:
    """PW-4: bcrypt gets a labelled digest, so that a leaked hash of another system does not help (shucking)."""
    stored = CHEAP.hash(b"words")

    assert not CHEAP.verify(b"words", stored.removeprefix("{asgi_auth-1}"))


@pytest.mark.parametrize(
    "stored",
    [
        *PLANTS,
        plain(3),
        plain(16),
        plain(99),
        plain(4) + "\n",
        plain(4)[:-1],
        plain(4).replace("2b", "2x"),
        "{asgi_auth-2}" + plain(4),
        "{asgi_auth-1:}" + plain(4),
        "$2b$04$" + "z" * 53,
        "$2b$0\u0664$" + "." * 53,
        "\ud800",
    ],
)
def test_bcrypt_does_no_work_for_an_invalid_hash(stored: str, work: list[int]) -> None:
    """PW-10: malformed, unknown and absurd stored values do not verify and cause no work."""
    assert not CHEAP.verify(b"x", stored)
    assert not CHEAP.can_verify(stored)
    assert CHEAP.cost_of(stored) is None
    assert CHEAP.needs_rehash(stored)
    assert work == []


@given(st.from_regex(r"(\{asgi_auth-1(:[0-9a-f]{16})?\})?\$2[abxy]\$0[0-9]\$[./A-Za-z0-9]{52,54}") | st.text())
def test_bcrypt_verify_never_raises(stored: str) -> None:
    """PW-10: a wrong password gives False for any stored text."""
    assert CHEAP.verify(b"x", stored.replace("$09$", "$04$").replace("$08$", "$04$")) is False


@pytest.mark.parametrize("cost", [3, 16, 31, -1])
def test_bcrypt_refuses_costs_out_of_range(cost: int) -> None:
    """ConfigurationError if the cost is under 4 or over 15; the message names the parameter."""
    with pytest.raises(ConfigurationError, match="cost"):
        Bcrypt(cost=cost)


def test_bcrypt_is_weak_under_ten() -> None:
    """PW-8: a cost under 10 is weak; it is for tests."""
    assert [Bcrypt(cost=cost).weak for cost in (4, 9, 10, 15)] == [True, True, False, False]


@pytest.mark.parametrize(("cost", "expected"), [(4, False), (5, True)])
def test_bcrypt_needs_rehash_for_another_cost(cost: int, expected: bool) -> None:
    """PW-9: a hash with another cost than the configured one needs a rehash."""
    assert Bcrypt(cost=cost).needs_rehash(CHEAP.hash(b"words")) is expected


@pytest.mark.parametrize("pepper", [K1[:31], (K1, b""), "1" * 32, [K1, K2.hex() + "\n"], "", None])
def test_bcrypt_refuses_weak_peppers(pepper: Any) -> None:
    """ConfigurationError if a key is short, easy to guess or has a line end, as for a secret."""
    with pytest.raises(ConfigurationError, match=r"^pepper "):
        Bcrypt(pepper=pepper)


@pytest.mark.parametrize("pepper", [K2.hex(), [K2.hex()], (K2.hex().encode(),)], ids=["text", "list", "bytes"])
def test_bcrypt_keeps_peppers_as_bytes(pepper: Any) -> None:
    """A pepper is one key or several, text or bytes, like a secret."""
    assert Bcrypt(pepper=pepper) == Bcrypt(pepper=(K2.hex().encode(),))
    assert Bcrypt(pepper=[]) == Bcrypt()


def test_bcrypt_rotates_peppers() -> None:
    """PW-4: (none), [K1], [K2, K1], [K2]: a hash verifies while its key is known; an older key needs a rehash."""
    steps = [Bcrypt(cost=4, pepper=pepper) for pepper in ((), (K1,), (K2, K1), (K2,))]
    hashes = [hasher.hash(b"words") for hasher in steps]

    assert [[hasher.verify(b"words", stored) for stored in hashes] for hasher in steps] == [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, True],
        [True, False, True, True],
    ]
    assert [[hasher.can_verify(stored) for stored in hashes] for hasher in steps] == [
        [hasher.verify(b"words", stored) for stored in hashes] for hasher in steps
    ]
    assert [[hasher.needs_rehash(stored) for stored in hashes] for hasher in steps[1:]] == [
        [True, False, True, True],
        [True, True, False, False],
        [True, True, False, False],
    ]


def test_bcrypt_peppers_the_digest() -> None:
    """A stored hash names its pepper, and does not verify with the name of another pepper or of none."""
    stored = Bcrypt(cost=4, pepper=(K1,)).hash(b"words")
    other = Bcrypt(cost=4, pepper=(K2,)).hash(b"words")
    marker, bare = stored[:30], stored[30:]

    assert re.fullmatch(r"\{asgi_auth-1:[0-9a-f]{16}\}", marker)
    hasher = Bcrypt(cost=4, pepper=(K1, K2))
    assert [hasher.verify(b"words", mark + bare) for mark in (marker, other[:30], "{asgi_auth-1}", "")] == [
        True,
        False,
        False,
        False,
    ]


def test_bcrypt_shows_no_pepper() -> None:
    """The repr does not contain the pepper."""
    assert repr(Bcrypt(pepper=(K1,))) == "Bcrypt(cost=12)"


# --- the service -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_set_and_verify_agree(passwords: Passwords) -> None:
    """PW-5: a password that was set in NFC verifies in NFD; other passwords do not verify."""
    stored = await passwords.set(NFC, context=CONTEXT, client="192.0.2.1")

    assert await passwords.verify(NFD, stored, client="192.0.2.1") == (True, None)
    for other in (NFC.upper(), NFC + " ", NFC[:-1]):
        assert await passwords.verify(other, stored, client=None) == (False, None)


@pytest.mark.anyio
@pytest.mark.parametrize("password", ["", "short", "Acme Corp 2024", "alice.smith@ex", "password1", "abcdefgh\0ijkl"])
async def test_set_refuses_by_the_policy_before_hashing(passwords: Passwords, work: list[int], password: str) -> None:
    """PW-7: the policy knows the application's name and the user's values, and refuses before any hash."""
    with pytest.raises(ValueError, match=r"\.$"):
        await passwords.set(password, context=CONTEXT, client=None)

    assert work == []


@pytest.mark.anyio
async def test_verify_does_not_apply_the_policy(passwords: Passwords) -> None:
    """PW-7: a password that is older than the policy still verifies."""
    assert (await passwords.verify("123", CHEAP.hash(b"123"), client=None)).valid


@pytest.mark.anyio
@pytest.mark.parametrize("password", ["a" * 4096, "abcdefghijklmno\0AAA", "\ud800 is half a character", ""])
@pytest.mark.parametrize("known", [True, False])
async def test_verify_refuses_impossible_passwords_before_hashing(
    passwords: Passwords, work: list[int], password: str, known: bool
) -> None:
    """PW-3: a password that cannot be set is refused without work, for known and unknown users alike."""
    with pytest.raises(ValueError, match="password"):
        await passwords.verify(password, plain(4) if known else None, client=None)

    assert work == []


@pytest.mark.anyio
async def test_verify_replaces_an_older_hash(pool: HashingPool) -> None:
    """PW-9: a valid password with an older hash gives a new hash, which needs no rehash."""
    passwords = Passwords(hasher=Bcrypt(cost=5), policy=PasswordPolicy(), app_name="", pool=pool)
    for older in (CHEAP.hash(b"words"), bcrypt.hashpw(b"words", bcrypt.gensalt(4)).decode()):
        valid, replacement = await passwords.verify("words", older, client=None)

        assert valid
        assert replacement is not None
        assert replacement.startswith("{asgi_auth-1}$2b$05$")
        assert await passwords.verify("words", replacement, client=None) == (True, None)
        assert await passwords.verify("wrong", older, client=None) == (False, None)


def test_verified_shows_no_hash() -> None:
    """The repr of the result does not contain the hash."""
    assert repr(Verified(True, "$2b$…")) == "Verified(valid=True)"


@pytest.mark.anyio
@pytest.mark.parametrize("stored", [None, *PLANTS])
async def test_verify_fails_for_absent_and_invalid_hashes(pool: HashingPool, stored: str | None) -> None:
    """PW-10: with an absent, malformed or absurd hash, verify fails with the work of one real hash."""
    passwords = Passwords(hasher=Bcrypt(), policy=PasswordPolicy(), app_name="Acme", pool=pool)
    began = time.process_time()

    assert await passwords.verify("x", stored, client=None) == (False, None)

    assert time.process_time() - began < 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("stored", "costs"),
    [
        (None, [10]),
        ("", [10]),
        ("x", [10]),
        (plain(31), [10]),
        (plain(16), [10]),
        (plain(10), [10]),
        (plain(9), [9, 9]),
        (plain(7), [7, 7, 8, 9]),
        ("{asgi_auth-1}" + plain(8), [8, 8, 9]),
        ("{asgi_auth-1:0123456789abcdef}" + plain(8), [8, 8, 9]),
    ],
)
@pytest.mark.parametrize("password", ["wrong", "w" * 73])
async def test_verify_does_equal_work_for_every_failure(
    pool: HashingPool, work: list[int], stored: str | None, costs: list[int], password: str
) -> None:
    """EN-2: an unknown, malformed or cheap hash, or one with an unknown pepper, costs as much as the dearest one."""
    passwords = Passwords(hasher=Bcrypt(cost=6), policy=PasswordPolicy(), app_name="", pool=pool)
    passwords.note_cost(10)

    assert await passwords.verify(password, stored, client=None) == (False, None)

    assert work == costs
    assert sum(2**cost for cost in work) == 2**10


@pytest.mark.anyio
async def test_verify_learns_the_dearest_cost(pool: HashingPool, work: list[int]) -> None:
    """EN-2: an unknown user costs as much as the dearest known hash, up to 15, and never less than a new one."""
    passwords = Passwords(hasher=Bcrypt(cost=6), policy=PasswordPolicy(), app_name="", pool=pool)
    seen = [passwords.dearest]
    for cost in (5, 8, 7, 16):
        passwords.note_cost(cost)
        seen.append(passwords.dearest)
    await passwords.verify("x", plain(9), client=None)
    await passwords.verify("x", None, client=None)

    assert seen == [6, 6, 8, 8, 8]
    assert work == [9, 9]


@pytest.mark.anyio
async def test_verify_takes_equal_time_for_every_failure(pool: HashingPool) -> None:
    """EN-2: an unknown user and an older hash take the CPU time of a hash with the dearest cost."""
    passwords = Passwords(hasher=Bcrypt(cost=8), policy=PasswordPolicy(), app_name="", pool=pool)
    cases = [Bcrypt(cost=8).hash(b"words"), Bcrypt(cost=5).hash(b"words"), None]
    times: list[list[float]] = [[], [], []]
    for _ in range(9):
        for case, taken in zip(cases, times, strict=True):
            began = time.process_time()
            await passwords.verify("wrong", case, client=None)
            taken.append(time.process_time() - began)

    reference, older, unknown = map(median, times)
    assert 0.8 < older / reference < 1.25
    assert 0.8 < unknown / reference < 1.25


@pytest.mark.anyio
async def test_full_pool_raises_overloaded_error(monkeypatch: pytest.MonkeyPatch, passwords: Passwords) -> None:
    """DO-2: set and verify raise the pool's OverloadedError, and pass the client as the key."""
    keys: list[str | None] = []

    async def refuse(self: HashingPool, key: str | None, function: object) -> None:
        keys.append(key)
        raise OverloadedError

    monkeypatch.setattr(HashingPool, "run", refuse)

    with pytest.raises(OverloadedError):
        await passwords.set(GOOD, context=(), client="192.0.2.1")
    with pytest.raises(OverloadedError):
        await passwords.verify(GOOD, None, client="192.0.2.2")
    assert keys == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize("mark", ["\u0301", "\u0344", "\u0f73"], ids=ascii)
def test_password_with_a_long_run_of_marks_is_refused(mark: str) -> None:
    """DO-4: 30 combining marks in a row are accepted, 31 are refused: the time to sort them is quadratic."""
    assert normalise_password(f"a{mark * 30}b{mark * 30}")
    with pytest.raises(ValueError, match="cannot be used"):
        normalise_password(f"a{mark * 31}")
