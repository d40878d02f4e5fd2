"""The formats of stored password hashes, ours and those of other systems. This module does not hash.

bcrypt is the only scheme, in the format of OpenBSD: ``$2b$``, a cost of two digits, a salt of 16 bytes and a hash of 23
bytes in its own base64. Our hashes have a marker in front. Schemes of other systems are not supported.
"""

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

MAX_COST = 15
"""The highest cost that is verified, about two seconds. A planted hash must not stop the service."""

_SALT = "[./A-Za-z0-9]{21}[.Oeu]"  # the last character holds two bits; bcrypt rejects others
_HASH = "[./A-Za-z0-9]{30}[.CGKOSWaeimquy26]"  # the last character holds four bits; bcrypt never sets others
_STORED = re.compile(rf"(\{{asgi_auth-1(?::([0-9a-f]{{16}}))?\}})?(\$2[aby]\$([0-9]{{2}})\${_SALT}{_HASH})")
_COST = re.compile(r"\$2[abxy]\$([0-9]{2})\$")


class StoredHash(NamedTuple):
    """A hash that bcrypt can verify."""

    marker: str | None
    """None for a hash of another system."""
    pepper_id: str | None
    """The id of its pepper; None: no pepper."""
    hash: bytes
    """The hash in the format of bcrypt."""
    cost: int
    """4 to ``MAX_COST``."""


def parse_hash(stored: str) -> StoredHash | None:
    """The parts of *stored*. Returns None for another scheme, a malformed hash, or a cost over ``MAX_COST``.

    >>> parse_hash("{asgi_auth-1}$2b$12$" + "." * 53).cost
    12
    >>> parse_hash("bcrypt$$2b$12$" + "." * 53) is None
    True
    """
    match = _STORED.fullmatch(stored)
    if match is None or not 4 <= int(match[4]) <= MAX_COST:
        return None
    return StoredHash(match[1], match[2], match[3].encode(), int(match[4]))


def marker(pepper_id: str | None) -> str:
    """The marker in front of a hash of ours.

    >>> marker(None), marker("0123456789abcdef")
    ('{asgi_auth-1}', '{asgi_auth-1:0123456789abcdef}')
    """
    return "{asgi_auth-1}" if pepper_id is None else f"{{asgi_auth-1:{pepper_id}}}"


def bcrypt_cost(stored: str) -> int | None:
    """The cost of the bcrypt hash in *stored*, with any marker and any cost. Returns None if there is no such hash.

    Stores keep it beside the hash.

    >>> bcrypt_cost("{another marker}$2b$31$…"), bcrypt_cost("$argon2id$v=19$…")
    (31, None)
    """
    match = _COST.search(stored)
    return match and int(match[1])


def can_be_verified(stored: str, pepper_ids: Collection[str] = ()) -> bool:
    """True if a password can match *stored*, given the ids of the known peppers.

    >>> can_be_verified("$2y$12$" + "." * 53), can_be_verified("pbkdf2_sha256$600000$…")
    (True, False)
    """
    parsed = parse_hash(stored)
    return parsed is not None and (parsed.pepper_id is None or parsed.pepper_id in pepper_ids)


def check_hash(stored: object, can_verify: Callable[[str], bool]) -> None:
    """Reject a hash that no password could ever match.

    Raises:
        ValueError: *stored* is not text, or *can_verify* returns False. The message has the remedy, not the hash.
    """
    if not isinstance(stored, str):
        raise ValueError("the password hash must be text")
    if not can_verify(stored):
        raise ValueError("the password hash cannot be verified: leave it out, and let the user reset the password")
