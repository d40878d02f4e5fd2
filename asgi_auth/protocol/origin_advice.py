"""Advice for an invalid configured origin: the problem and the remedy."""

import re
from collections.abc import Callable

from asgi_auth.protocol.loopback import is_loopback

_SHOWN = 200
"""The maximum of characters of the value in a message."""
_PARTS = re.compile(r"(?:([^:/?#@]*)://)?(?:(.*)@)?([^/?#]*)(.*)", re.DOTALL)
"""Scheme, user name and password, host and port, the rest; each may be empty."""
_CREDENTIALS = re.compile(r"((?:[^:/?#@]*://)?).*@", re.DOTALL)


def origin_advice(text: str, *, schemes: frozenset[str], is_valid: Callable[[str], bool]) -> str:
    """The problem of *text*, and a valid text to write instead if one can be derived.

    >>> origin_advice("https://example.com/", schemes=frozenset({"https"}), is_valid="https://example.com".__eq__)
    "'https://example.com/' ends with a slash; write 'https://example.com'"

    Args:
        text: The rejected value. The result does not show a password in it.
        schemes: The supported schemes.
        is_valid: Returns True for a text that would be accepted.
    """
    if not text:
        return "the value is empty; if it comes from an environment variable, that one is not set"
    shown = _CREDENTIALS.sub(r"\1…@", text, count=1)
    scheme, _, host, _ = _parts(text)
    better = f"{scheme or _likely_scheme(host)}://{host}"
    remedy = f"; write {better!r}" if text != "null" and is_valid(better) else ""
    return f"{shown[:_SHOWN]!r} {_problem(text, schemes)}{remedy}"


def _parts(text: str) -> tuple[str, str, str, str]:
    found: tuple[str, str, str, str] = _PARTS.findall("".join(filter(_is_visible, text)))[0]
    return found


def _problem(text: str, schemes: frozenset[str]) -> str:
    scheme, user, host, rest = _parts(text)
    problems = {
        "has white space or a control character": not all(map(_is_visible, text)),
        "has a wildcard: name each origin": "*" in text,
        "is the origin of every local file and of every sandboxed frame: serve the page over http": text == "null",
        "has no scheme": not scheme,
        f"has the scheme {scheme!r}, which is not supported": scheme.lower() not in schemes,
        "has a user name or a password": user != "",
        "ends with a slash": rest == "/",
        "has a path, a query or a fragment": rest != "",
        "has an invalid port": re.search(r":[^\]:]*$", host) is not None,
    }
    return next((problem for problem, is_there in problems.items() if is_there), "has an invalid host")


def _is_visible(char: str) -> bool:
    return char.isprintable() and not char.isspace()


def _likely_scheme(host: str) -> str:
    return "http" if is_loopback(re.sub(r":[0-9]*$", "", host).strip("[]")) else "https"
