"""Keys from the application's secret: RFC 2104 (HMAC) with SHA-256. No salt: the secret is random, not a password."""

import hmac
import unicodedata
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise

from asgi_auth.errors import ConfigurationError

MIN_SECRET_BYTES = 32
"""The output size of SHA-256. RFC 2104 section 3 discourages less; RFC 7518 section 3.2 forbids it for HS256."""

MIN_DISTINCT = 8
"""32 random hexadecimal digits have fewer than 8 different ones in 4 of 10**8 cases, 64 of them never."""

PLACEHOLDERS = (
    "changeme",
    "change-me",
    "change_me",
    "change this",
    "change-this",
    "changethis",
    "secret",
    "password",
    "placeholder",
    "insecure",
    "example",
    "replace-me",
    "replaceme",
    "default",
)  # six letters at least: a shorter word turns up in random base64 by chance


_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})
"""Unicode's general categories of white space, control and format characters (a byte order mark is one of these)."""


def derive_key(secret: bytes, use: str, subject_name: str) -> bytes:
    """The key for one use and one kind of user. Every pair has a different key (TK-9, TK-23).

    Each part has its length in front, so that no two pairs give the same message.

    Args:
        secret: One checked secret.
        use: The use of the key, for example ``session cookie``.
        subject_name: The kind of user.

    Returns:
        32 bytes. Neither the secret nor another key can be computed from them.
    """
    parts = [part.encode() for part in ("asgi_auth", use, subject_name)]
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hmac.digest(secret, message, "sha256")


def keyed_hash(secret: bytes, subject_name: str, use: str, text: str) -> bytes:
    """A keyed hash of 32 bytes. It does not reveal *text* without *secret*, and differs by use and kind of user."""
    return hmac.digest(derive_key(secret, use, subject_name), text.encode("utf-8", "surrogatepass"), "sha256")


def key_id(key: bytes) -> str:
    """A public name for *key* (RFC 7515 section 4.1.4): 16 hexadecimal digits that do not reveal it."""
    return sha256(b"asgi_auth kid" + key).hexdigest()[:16]


def check_secret(secret: str | bytes | Sequence[str | bytes], *, parameter: str = "secret") -> tuple[bytes, ...]:
    """Check the secrets and return them as bytes, newest first.

    Args:
        secret: One secret or several, newest first. Text is encoded as UTF-8. It must not begin or end with white space
            or a control or format character, because an editor on one machine may add it and another may not. Bytes
            are used unchanged.
        parameter: The name of the parameter, for the message.

    Raises:
        ConfigurationError: There is no secret; or one is short, easily guessed or a known placeholder, or has such a
            beginning or end. The message names the parameter and never shows the value.
    """
    secrets = _listed(secret)
    if not secrets:
        raise ConfigurationError(f"{parameter} is empty")
    return tuple(_checked(value, parameter) for value in secrets)


def _listed(secret: object) -> Sequence[object]:
    return secret if isinstance(secret, Sequence) and not isinstance(secret, str | bytes) else (secret,)


def _checked(value: object, parameter: str) -> bytes:
    if isinstance(value, str):
        _check_ends(value, parameter)
        value = value.encode("utf-8", "surrogatepass")
    if not isinstance(value, bytes):
        raise ConfigurationError(f"{parameter} must be text or bytes")
    if problem := _weakness(value):
        raise ConfigurationError(f"{parameter} {problem}; make one with: python -m asgi_auth secret")
    return value


def _check_ends(text: str, parameter: str) -> None:
    ends = {"begins": text[:1], "ends": text[-1:]}
    invisible = [verb for verb, char in ends.items() if char and unicodedata.category(char) in _INVISIBLE]
    if invisible:
        raise ConfigurationError(
            f"{parameter} {' and '.join(invisible)} with white space or a control character, such as a line end: strip "
            "it, or give bytes, which are taken as they are"
        )


def _weakness(value: bytes) -> str | None:
    if not value:
        return "is empty"
    if len(value) < MIN_SECRET_BYTES:
        return f"is shorter than {MIN_SECRET_BYTES} bytes"
    text = value.decode("latin-1").lower()
    if any(word in text for word in PLACEHOLDERS):
        return "contains a placeholder"
    if len(set(value)) < MIN_DISTINCT or _is_repeated(value) or _is_sequence(value):
        return "is too easy to guess"
    return None


def _is_repeated(value: bytes) -> bool:
    """True if *value* repeats a block of at most half its length."""
    return any(value[size:] == value[:-size] for size in range(1, len(value) // 2 + 1))


def _is_sequence(value: bytes) -> bool:
    """True if three steps in four have the same width, as in ``abcd…`` or ``2468…``. Random text never has."""
    steps = Counter(abs(right - left) for left, right in pairwise(value))
    return steps.most_common(1)[0][1] * 4 >= (len(value) - 1) * 3
