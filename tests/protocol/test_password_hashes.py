"""Which stored hashes are supported."""

import re

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.protocol.password_hashes import bcrypt_cost, can_be_verified, check_hash, marker, parse_hash

BARE = "$2b$12$" + "." * 53
PEPPER_ID = "0123456789abcdef"


def test_parse_hash_takes_one_of_another_system_as_it_is() -> None:
    """The three prefixes of sound implementations, at every cost from 4 to 15."""
    for prefix in ("2a", "2b", "2y"):
        for cost in range(4, 16):
            stored = f"${prefix}${cost:02}${'.' * 53}"

            assert parse_hash(stored) == (None, None, stored.encode(), cost)


def test_parse_hash_takes_ours_apart() -> None:
    """The marker says whether the hash has a pepper, and which one."""
    assert parse_hash(marker(None) + BARE) == ("{asgi_auth-1}", None, BARE.encode(), 12)
    peppered = "{asgi_auth-1:0123456789abcdef}"
    assert marker(PEPPER_ID) == peppered
    assert parse_hash(peppered + BARE) == (peppered, PEPPER_ID, BARE.encode(), 12)


@pytest.mark.parametrize("damage", ["cut", "longer", "a line end", "stray bits of the salt", "stray bits of the hash"])
def test_parse_hash_rejects_what_was_damaged(damage: str) -> None:
    """PW-10: bcrypt never verifies a hash that lacks a character or has bits that it does not set."""
    sound = bcrypt.hashpw(b"words", bcrypt.gensalt(4)).decode()
    damaged = {
        "cut": sound[:-1],
        "longer": sound + ".",
        "a line end": sound + "\n",
        "stray bits of the salt": f"{sound[:28]}z{sound[29:]}",
        "stray bits of the hash": f"{sound[:-1]}{chr(ord(sound[-1]) + 1)}",
    }[damage]

    assert parse_hash(sound) is not None
    assert parse_hash(damaged) is None


@given(st.binary(max_size=72).filter(lambda password: b"\0" not in password), st.sampled_from([b"2a", b"2b"]))
def test_parse_hash_takes_whatever_bcrypt_makes(password: bytes, prefix: bytes) -> None:
    """Every hash that bcrypt makes is valid: its last characters have the bits that bcrypt sets."""
    stored = bcrypt.hashpw(password, bcrypt.gensalt(4, prefix)).decode()

    assert can_be_verified(stored)
    assert bcrypt_cost(stored) == 4


def test_can_be_verified_asks_for_the_pepper() -> None:
    """PW-10: a hash with an unknown pepper cannot be verified."""
    peppered = marker(PEPPER_ID) + BARE

    assert [can_be_verified(peppered, known) for known in ((), ["f" * 16], ["f" * 16, PEPPER_ID])] == [
        False,
        False,
        True,
    ]
    assert can_be_verified(BARE, ["f" * 16])


@pytest.mark.parametrize(
    "stored", ["", "words", "$2b$12$", "$2x$12$" + "." * 53, "$2b$16$" + "." * 53, "bcrypt$" + BARE]
)
def test_can_be_verified_knows_what_is_not_supported(stored: str) -> None:
    """PW-10: other schemes, prefixes of other systems, and too high costs are not supported."""
    assert not can_be_verified(stored)


@pytest.mark.parametrize("stored", [None, b"words", BARE.encode(), 17], ids=repr)
def test_check_hash_rejects_what_is_not_text(stored: object) -> None:
    """The bytes that the bcrypt package returns are rejected before the hasher is asked."""
    with pytest.raises(ValueError, match=re.escape("the password hash must be text")):
        check_hash(stored, lambda _: True)


def test_check_hash_asks_the_hasher() -> None:
    """The hasher decides; the message does not repeat the value, which may be a password."""
    check_hash("words", lambda stored: stored == "words")
    with pytest.raises(ValueError, match="cannot be verified: leave it out") as refused:
        check_hash("words", lambda _: False)

    assert "words" not in str(refused.value)
