"""Passwords: their normal form, the hashing, and the policy for new ones.

NIST SP 800-63B-4 section 3.1.1.2; RFC 8265 section 4.2 (only the normal form, without mapping, folding or trimming).
"""

import re
import unicodedata
from asyncio import timeout
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from hmac import digest as hmac_digest
from inspect import isawaitable
from types import NoneType
from typing import NamedTuple, Protocol, cast, runtime_checkable

import bcrypt
from zxcvbn_rs_py import zxcvbn

from asgi_auth.errors import ConfigurationError, UnavailableError
from asgi_auth.hashing import HashingPool
from asgi_auth.messages import Message
from asgi_auth.protocol.client import client_network
from asgi_auth.protocol.keys import check_secret
from asgi_auth.protocol.password_hashes import (
    MAX_COST,
    StoredHash,
    can_be_verified,
    check_hash,
    marker,
    parse_hash,
)
from asgi_auth.runtime.callables import returned

MAX_PASSWORD_BYTES = 1024

_MISSING = Message("password.missing", "Enter a password.")
_UNUSABLE_CHARACTER = Message("password.character", "The password contains a character that cannot be used.")
_TOO_LONG = Message("password.too_long", "The password is too long.")
_TOO_SHORT = Message(
    "password.too_short", "Use at least {count} character.", "Use at least {count} characters.", count=8
)
_TOO_CLOSE = Message("password.too_close", "This is too close to your own details or to the name of this service.")
_EASY = Message("password.easy", "This password is easy to guess. Add another word or two.")

_MAX_MARKS = 30
_UNUSABLE = re.compile("[\0\ud800-\udfff]")


def normalise_password(text: str) -> bytes:
    """The bytes of a password, the same on every keyboard: its NFC in UTF-8. Nothing is trimmed or folded.

    >>> normalise_password("cafe\\u0301 au lait") == normalise_password("caf\\xe9 au lait")
    True

    Raises:
        ValueError: it is empty, too long, or holds NUL, a lone surrogate or over 30 combining marks in a row. The
            message is for the user.
    """
    if not text:
        raise ValueError(_MISSING)
    if _UNUSABLE.search(text):  # checked here, as the error of the encoder would hold the password
        raise ValueError(_UNUSABLE_CHARACTER)
    # Every form of an NFC of 1,024 bytes has at most 1,536 characters. A longer text need not be normalised.
    if len(text) > 2 * MAX_PASSWORD_BYTES:
        raise ValueError(_TOO_LONG)
    if not text.isascii() and not _is_stream_safe(text):
        raise ValueError(_UNUSABLE_CHARACTER)
    password = unicodedata.normalize("NFC", text).encode()
    if len(password) > MAX_PASSWORD_BYTES:
        raise ValueError(_TOO_LONG)
    return password


def _is_stream_safe(text: str) -> bool:
    """True if at most 30 marks follow each other (UAX 15 section 13). Sorting marks takes quadratic time."""
    marks = 0
    for character in text:
        # Three Tibetan vowels are not marks themselves, but decompose into two marks.
        marks = marks + 1 if unicodedata.combining(character) or character in "\u0f73\u0f75\u0f81" else 0
        if marks > _MAX_MARKS:
            return False
    return True


# --- hashing ---------------------------------------------------------------------------------------------------------


@runtime_checkable
class HashProvider(Protocol):
    """Hashes passwords. Every method except ``cost_of`` and ``can_verify`` may be slow and is called in a thread.
    No method is async: ``Authentication`` rejects an async one.

    Costs are exponents: one more doubles the work.
    """

    @property
    def cost(self) -> int:
        """The cost of new hashes."""
        ...

    @property
    def weak(self) -> bool:
        """True if the cost is acceptable for tests only."""
        ...

    def hash(self, password: bytes) -> str:
        """Return a new hash of *password*, with a random salt."""
        ...

    def verify(self, password: bytes, stored: str) -> bool:
        """True if *stored* is a hash of *password*. Returns False for an unsupported hash. Never raises."""
        ...

    def can_verify(self, stored: str) -> bool:
        """True if ``verify`` returns True for *stored* and the right password. Fast.

        Returns False for another scheme, a cost over the limit or an unknown pepper. ``Accounts.create`` then rejects
        such a hash.
        """
        ...

    def needs_rehash(self, stored: str) -> bool:
        """True if ``hash`` would now make another kind of hash than *stored*, by scheme, cost or pepper."""
        ...

    def cost_of(self, stored: str) -> int | None:
        """The cost of ``verify`` for *stored*, with any password. Returns None if it does no work. Fast."""
        ...

    def level(self, stored: str | None, dearest: int) -> None:
        """After a failed ``verify`` of *stored*, do more work, so that the total is the work of cost *dearest*.

        If *stored* is None, nothing was verified; do all of the work.
        """
        ...


_LABEL = b"asgi_auth password 1"
_DUMMY_PASSWORD = b"no password"
_DUMMY_SALT = b"$2b$%02d$asgiauthdummysaltxxxxO"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bcrypt:
    """bcrypt over base64(HMAC-SHA-384(a public label, password)), so that it uses more than the first 72 bytes.

    The label is public. It makes our hashes differ from plain SHA-384 in leaked lists (password shucking). Plain
    ``$2a$``, ``$2b$`` and ``$2y$`` hashes of other systems are verified unchanged, and hashed again after a sign-in.
    """

    cost: int = 12
    """4 to 15; each step doubles the time, 12 takes about a quarter of a second. Under 10 is for tests only."""
    pepper: str | bytes | Sequence[str | bytes] = field(default=(), repr=False)
    """Keys kept outside the database, newest first: the first hashes, all verify. They must be as strong as a
    ``secret``, and are kept as a tuple of bytes.

    If you lose a key, no password that was hashed with it can be verified.
    """

    def __post_init__(self) -> None:
        """Raises: ConfigurationError: ``cost`` is out of range, or a key of ``pepper`` is weak."""
        if self.cost not in range(4, MAX_COST + 1):
            raise ConfigurationError(f"cost: bcrypt takes 4 to {MAX_COST} here, and 10 or more outside tests")
        keys = () if self.pepper in ((), []) else check_secret(self.pepper, parameter="pepper")
        object.__setattr__(self, "pepper", keys)

    @property
    def _keys(self) -> tuple[bytes, ...]:
        return cast("tuple[bytes, ...]", self.pepper)

    @property
    def weak(self) -> bool:
        """True for a cost under 10, which is for tests only (OWASP Password Storage Cheat Sheet)."""
        return self.cost < 10

    def hash(self, password: bytes) -> str:
        """A new hash of *password*: our marker, then ``$2b$…`` with a random salt."""
        newest = next(iter(self._keys), None)
        return self._marker() + bcrypt.hashpw(_prehash(password, newest), bcrypt.gensalt(self.cost)).decode()

    def verify(self, password: bytes, stored: str) -> bool:
        """True if *stored* is a hash of *password*. Returns False at once for an invalid hash or a cost over 15."""
        parsed = parse_hash(stored)
        if parsed is None:
            return False
        secret = self._secret(password, parsed)
        # bcrypt always runs, so that the time depends on the stored hash only.
        matches = bcrypt.checkpw(_DUMMY_PASSWORD if secret is None else secret, parsed.hash)
        return matches and secret is not None

    def can_verify(self, stored: str) -> bool:
        """True if *stored* is a bcrypt hash of a cost up to 15, without a pepper or with one of ``pepper``."""
        return can_be_verified(stored, [_pepper_id(key) for key in self._keys])

    def needs_rehash(self, stored: str) -> bool:
        """True if *stored* has another scheme, cost or pepper than new hashes."""
        parsed = parse_hash(stored)
        return parsed is None or (parsed.marker, parsed.cost) != (self._marker(), self.cost)

    def cost_of(self, stored: str) -> int | None:
        """The cost of *stored*. Returns None for an invalid hash, or a cost over 15."""
        parsed = parse_hash(stored)
        return None if parsed is None else parsed.cost

    def level(self, stored: str | None, dearest: int) -> None:
        """Do the rest of the work of cost *dearest*: 2^c + (2^c + 2^(c+1) + … + 2^(d-1)) is 2^d."""
        spent = None if stored is None else self.cost_of(stored)
        for cost in (dearest,) if spent is None else range(spent, dearest):
            bcrypt.hashpw(_DUMMY_PASSWORD, _DUMMY_SALT % cost)

    def _marker(self) -> str:
        """The text in front of a new hash."""
        return marker(next(map(_pepper_id, self._keys), None))

    def _secret(self, password: bytes, stored: StoredHash) -> bytes | None:
        """The input for bcrypt if *password* is right. Returns None if *password* cannot be right."""
        if stored.marker is None:
            # bcrypt repeats the password with a NUL up to 72 bytes, so "a" and "a\0a" would be the same password.
            return password if len(password) <= 72 and b"\0" not in password else None
        if stored.pepper_id is None:
            return _prehash(password, None)
        keys = (key for key in self._keys if _pepper_id(key) == stored.pepper_id)
        return next((_prehash(password, key) for key in keys), None)


def _prehash(password: bytes, pepper: bytes | None) -> bytes:
    # base64, because bcrypt stops at a NUL and a raw digest may hold one.
    mac = hmac_digest(_LABEL, password, "sha384")
    return b64encode(mac if pepper is None else hmac_digest(pepper, mac, "sha384"))


def _pepper_id(pepper: bytes) -> str:
    return hmac_digest(pepper, b"asgi_auth pepper id", "sha256").hex()[:16]


# --- policy ----------------------------------------------------------------------------------------------------------

_SCORED = 48
_SCORED_OF_SYMBOLS = 16
_SYMBOLS = frozenset("0123456789@({[<!|$+%")
"""Characters that zxcvbn may read as letters. It tries every combination: 64 of them block Python for 0.2 s."""
_MAX_WORDS = 64
_PART = re.compile(r"[^\W\d_]+|\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordPolicy:
    """The rules for new passwords. A sign-in does not check them. There are no composition rules."""

    minimum_length: int = 8
    """In code points, 8 to 64. NIST SP 800-63B-4 requires 15 if the password is the only factor."""
    minimum_strength: int = 3
    """The minimum zxcvbn score, 0 to 4. A score of 3 needs over 10^8 guesses: nine random characters or a few words."""
    check: Callable[[str], object] | None = None
    """A check of the application, called last. A plain function runs in a thread that hashes passwords; or async.

    It raises ValueError(message for the user) to reject a password. Its result is ignored. An async check that takes
    longer than ten seconds gives a 503; a plain one must limit its own time.
    """

    def __post_init__(self) -> None:
        """Raises: ConfigurationError: a value is out of range."""
        if self.minimum_length not in range(8, 65):
            raise ConfigurationError("minimum_length: 8 to 64 code points")
        if self.minimum_strength not in range(5):
            raise ConfigurationError("minimum_strength: a score of 0 to 4")
        if self.check is not None and not callable(self.check):
            raise ConfigurationError("check must be a function of the password, plain or async")

    def check_password(self, password: str, context: Sequence[str]) -> Awaitable[object] | None:
        """Reject a password that is easy to guess. This takes some milliseconds for every password.

        Args:
            password: A password that ``normalise_password`` accepts, in NFC.
            context: Texts that an attacker tries first: the user's own values, the application's name.

        Returns:
            If ``check`` is async, an awaitable that the caller must await. It may still reject the password.

        Raises:
            ValueError: the password is rejected. The message is for the user.
        """
        if len(password) < self.minimum_length:
            raise ValueError(_TOO_SHORT.given(count=self.minimum_length))
        words = _context_words(context)
        if _length_without(words, password.casefold()) < self.minimum_length:
            raise ValueError(_TOO_CLOSE)
        self._check_strength(password, words)
        answer = self.check and self.check(password)
        return answer if isawaitable(answer) else None

    def _check_strength(self, password: str, words: list[str]) -> None:
        result = zxcvbn(_scored(password), words)
        if int(result.score) < self.minimum_strength:
            raise ValueError(_EASY)


def _scored(password: str) -> str:
    """The beginning of the password, which zxcvbn can score in time. If it is hard to guess, the password is.

    A short beginning could hide a repetition. If the password repeats a text, two rounds of it are therefore scored.
    """
    text = password[: 2 * _period(password)][:_SCORED]
    return text[:_SCORED_OF_SYMBOLS] if len(_SYMBOLS.intersection(text)) > 8 else text


def _period(text: str) -> int:
    """The length of the shortest beginning that *text* repeats. The last round may be cut.

    It takes linear time, by the borders of Knuth, Morris and Pratt.
    """
    borders = [0]
    for char in text[1:]:
        border = borders[-1]
        while border and text[border] != char:
            border = borders[border - 1]
        borders.append(border + (text[border] == char))
    return len(text) - borders[-1]


def _context_words(context: Sequence[str]) -> list[str]:
    """The known texts about the user, as folded words of at least 4 characters; at most 64 of them."""
    words = {word: None for value in context for word in _words_of(value) if len(word) >= 4}
    return list(words)[:_MAX_WORDS]


def _words_of(value: str) -> Iterator[str]:
    """The value, the texts before and after its @, its parts, and its parts joined without separators."""
    beginning = value[:320]  # the longest possible address: RFC 5321 section 4.5.3.1
    folded = unicodedata.normalize("NFC", beginning).encode(errors="replace").decode().casefold()
    parts = _PART.findall(folded)
    yield from (folded, *folded.split("@"), "".join(parts), *parts)


def _length_without(words: Sequence[str], text: str) -> int:
    """How many characters of *text* belong to none of *words*."""
    covered = bytearray(len(text))
    for word in words:
        start = text.find(word)
        while start >= 0:
            end = start + len(word)
            covered[start:end] = b"\1" * len(word)
            start = text.find(word, end)
    return covered.count(0)


# --- service ---------------------------------------------------------------------------------------------------------


CHECK_TIMEOUT = timedelta(seconds=10)
"""The longest time for an async ``PasswordPolicy.check``."""


class Verified(NamedTuple):
    """The result of the verification of a password."""

    valid: bool
    replacement: str | None
    """A new hash to store instead of the verified one, by compare-and-set. None: the stored hash stays."""

    def __repr__(self) -> str:
        return f"Verified(valid={self.valid})"


class Passwords:
    """Sets and verifies passwords, off the event loop. A failure takes the same time for every user."""

    def __init__(self, *, hasher: HashProvider, policy: PasswordPolicy, app_name: str, pool: HashingPool) -> None:
        self._hasher, self._policy, self._app_name, self._pool = hasher, policy, app_name, pool
        self._dearest = hasher.cost

    @property
    def dearest(self) -> int:
        """The cost of every failure: the cost of new hashes, or the highest known cost of stored ones."""
        return self._dearest

    def note_cost(self, cost: int) -> None:
        """Remember that a hash of this cost is stored. A cost over 15 is ignored, as it is never verified."""
        if cost <= MAX_COST:
            self._dearest = max(self._dearest, cost)

    def place(self, client: str | None) -> AbstractContextManager[None]:
        """Reserve a place in the queue for the first hashing in this block.

        Raises:
            OverloadedError: too many passwords wait to be hashed. It is raised before any work is done.
        """
        return self._pool.place(client_network(client))

    async def set(self, password: str, *, context: Sequence[str], client: str | None) -> str:
        """Check *password* by the policy and return the hash to store.

        Args:
            password: The password, as it was entered.
            context: The user's own values. The password must not consist of them.
            client: Address of the client, for the fairness of the queue; None without one.

        Raises:
            ValueError: the policy rejects it. The message is for the user.
            OverloadedError: too many passwords wait to be hashed.
            UnavailableError: the application's own check took too long.
        """
        data, key = normalise_password(password), client_network(client)
        result = await self._pool.run(key, partial(self._set, data, (self._app_name, *context)))
        if isinstance(result, str):
            return result
        await _finish_check(result)
        return await self._pool.run(key, partial(self._hash, data))

    async def check(self, password: str, *, context: Sequence[str], client: str | None) -> None:
        """Check *password* by the policy, without hashing. Arguments and errors as for ``set``."""
        data = normalise_password(password)
        check = partial(self._policy.check_password, data.decode(), (self._app_name, *context))
        if (rest := await self._pool.run(client_network(client), check)) is not None:
            await _finish_check(rest)

    def check_hash(self, stored: str) -> None:
        """Reject a given hash that no password can match. Otherwise remember its cost.

        Raises:
            ValueError: it is not text or cannot be verified. The message has the remedy.
        """
        check_hash(stored, self._can_verify)
        self.note_cost(self._hasher.cost_of(stored) or 0)

    async def verify(self, password: str, stored: str | None, *, client: str | None) -> Verified:
        """Verify *password* against the *stored* hash.

        Args:
            password: The password, as it was entered.
            stored: The hash. None, for an unknown user or one without a password, fails in the same time.
            client: Address of the client, for the fairness of the queue; None without one.

        Raises:
            ValueError: no user can have this password; nothing was hashed. The message is for the user.
            OverloadedError: too many passwords wait to be hashed.
        """
        data = normalise_password(password)
        if stored is not None:
            self.note_cost(self._hasher.cost_of(stored) or 0)
        return await self._pool.run(client_network(client), partial(self._verify, data, stored))

    def _set(self, password: bytes, context: Sequence[str]) -> str | Awaitable[object]:
        """The hash; or the awaitable of an async check, which the event loop must finish before the hashing."""
        check = self._policy.check_password(password.decode(), context)
        return self._hash(password) if check is None else check

    def _hash(self, password: bytes) -> str:
        return returned(self._hasher.hash(password), str, "hasher.hash")

    def _verify(self, password: bytes, stored: str | None) -> Verified:
        if stored is not None and returned(self._hasher.verify(password, stored), bool, "hasher.verify"):
            renew = returned(self._hasher.needs_rehash(stored), bool, "hasher.needs_rehash")
            return Verified(True, self._hash(password) if renew else None)
        level: Callable[..., object] = self._hasher.level
        returned(level(stored, self._dearest), NoneType, "hasher.level")  # a coroutine would do no work
        return Verified(False, None)

    def _can_verify(self, stored: str) -> bool:
        return returned(self._hasher.can_verify(stored), bool, "hasher.can_verify")


async def _finish_check(check: Awaitable[object]) -> None:
    try:
        async with timeout(CHECK_TIMEOUT.total_seconds()):
            await check
    except TimeoutError as exc:
        raise UnavailableError("the check of the password policy took too long") from exc
