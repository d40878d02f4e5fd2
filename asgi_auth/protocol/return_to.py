"""The target of a redirect after a sign-in, never on another site (CWE-601; URL Standard section 4.4)."""

import re
import unicodedata

MAX_CHARACTERS = 2048

_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?=/|\Z)", re.IGNORECASE)
_ENCODED_CONTROL = re.compile(r"%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
_ENCODED_SLASH = re.compile(r"%(?:2f|5c)", re.IGNORECASE)


def safe_return_to(value: object, *, allowed: frozenset[str] = frozenset()) -> str | None:
    """Return *value* if it is a safe local path, or if it is exactly a member of *allowed* (RD-1, RD-3).

    A local path is ``/x?y#z``, at most 2048 characters, without white space, control characters, backslashes or dot
    segments, encoded ones included. A doubtful value is rejected, and the user gets the default page.

    >>> safe_return_to("/me?tab=1"), safe_return_to("//evil.example")
    ('/me?tab=1', None)

    Args:
        value: The value that the client sent.
        allowed: Whole URLs that the application allows.

    Returns:
        The text unchanged, or None.
    """
    if not isinstance(value, str) or len(value) > MAX_CHARACTERS:
        return None
    return value if value in allowed or _is_local(value) else None


def _is_local(value: str) -> bool:
    """Browsers drop tab, CR and LF, read a backslash as a slash, and resolve ``.`` and ``%2e`` before they read ``//``.
    A server in front may decode once more. All of these are therefore rejected and not corrected."""
    path = re.split(r"[?#]", value, maxsplit=1)[0]
    return (
        path.startswith("/")
        and not path.startswith("//")
        and "\\" not in value
        and not any(unicodedata.category(character)[0] in "CZ" for character in value)
        and not _ENCODED_CONTROL.search(value)
        and not _ENCODED_SLASH.search(path)
        and not _DOT_SEGMENT.search(path)
    )
