"""Where to send a browser after signing in: never to another site (CWE-601; URL Standard section 4.4)."""

import re
import unicodedata

MAX_CHARACTERS = 2048

_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?=/|\Z)", re.IGNORECASE)
_ENCODED_CONTROL = re.compile(r"%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
_ENCODED_SLASH = re.compile(r"%(?:2f|5c)", re.IGNORECASE)


def safe_return_to(value: object, *, allowed: frozenset[str] = frozenset()) -> str | None:
    """*value* if a browser that follows it stays on this host, or if it is exactly a member of *allowed* (RD-1, RD-3).

    A local path is ``/x?y#z``, at most 2048 characters, without white space, control characters, backslashes or dot
    segments, encoded ones included. What is doubtful is refused: the price is the default page.

    >>> safe_return_to("/me?tab=1"), safe_return_to("//evil.example")
    ('/me?tab=1', None)

    Args:
        value: Whatever came in.
        allowed: Whole URLs that the application has listed.

    Returns:
        The text unchanged, or None.
    """
    if not isinstance(value, str) or len(value) > MAX_CHARACTERS:
        return None
    return value if value in allowed or _is_local(value) else None


def _is_local(value: str) -> bool:
    """Browsers drop tab, CR and LF, read a backslash as a slash, and resolve ``.`` and ``%2e`` before they look at
    ``//``; a server in front may decode once more. So none of these may occur, rather than be undone here."""
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
