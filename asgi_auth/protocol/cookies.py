"""Cookies: RFC 6265bis sections 4.1.1 (syntax), 4.1.3 (name prefixes) and 4.2.1 (the Cookie header).

The names of our cookies are in ``site``.
"""

from collections import Counter
from collections.abc import Iterable

from asgi_auth.errors import MalformedRequestError

MAX_VALUE_BYTES = 4096
"""RFC 6265bis section 5.6: browsers store no longer value."""

MAX_COPIES = 8
"""The maximum of values of one name that are read to revoke sessions. A sibling domain may plant some."""

MAX_BYTES = 64 * 1024
MAX_COOKIES = 300
"""The maximum of all cookies. Browsers keep up to 180 for a site; most servers accept 8 to 64 KiB of headers."""

# cookie-octet, without quotes, which we never write
_COOKIE_OCTETS = bytes({*range(0x21, 0x7F)} - {*b'",;\\'})
_LONG_AGO = "Thu, 01 Jan 1970 00:00:00 GMT"


def cookie_name(subject_name: str, kind: str, *, secure: bool) -> str:
    """``__Host-user_session`` if the site uses https, ``user_session`` on http.

    With the prefix, browsers reject a cookie of this name from a sibling domain or over http (RFC 6265bis section
    4.1.3.2).
    """
    return f"{'__Host-' if secure else ''}{subject_name}_{kind}"


def read_cookie(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The value of the cookie called *name*, which is case-sensitive.

    >>> read_cookie([(b"cookie", b"theme=dark; user_session=abc")], b"user_session")
    'abc'

    Args:
        headers: As in an ASGI scope: names in lower case.
        name: The whole name, prefix included.

    Returns:
        The value, possibly empty; None if there is no such cookie.

    Raises:
        MalformedRequestError: The name occurs twice, in one header or several. One of them may be planted, and the
            order does not show which (SE-8). Or the value is over 4096 bytes or has other octets than cookie-octets. Or
            there are over 64 KiB of cookies, or over 300.
    """
    pairs = _pairs(headers, name)
    if not pairs:
        return None
    if len(pairs) > 1:
        raise MalformedRequestError("a cookie was sent twice")
    value = pairs[0][1]
    if len(value) > MAX_VALUE_BYTES or value.translate(None, _COOKIE_OCTETS):  # inlined to save a call
        raise MalformedRequestError("a cookie value is not made of cookie-octets")
    return value.decode("ascii")


def read_cookies(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Every valid cookie that was sent once. A cookie that was sent twice is ignored (SE-8).

    Raises:
        MalformedRequestError: There are over 64 KiB of cookies, or over 300.
    """
    pairs = _pairs(headers)
    times = Counter(name for name, _ in pairs)
    readable = ((name, value) for name, value in pairs if times[name] == 1 and _is_readable(value))
    return {name.decode("latin-1"): value.decode("ascii") for name, value in readable}


def read_every(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """Every valid value of the cookie called *name*, once each. Use them only to revoke, never to sign in.

    Raises:
        MalformedRequestError: There are more than 8 different values, as each costs work. Or there are over 64 KiB of
            cookies, or over 300.
    """
    sent = dict.fromkeys(value for _, value in _pairs(headers, name))
    values = [value.decode("ascii") for value in sent if _is_readable(value)]
    if len(values) > MAX_COPIES:
        raise MalformedRequestError("a cookie was sent too often")
    return values


def cookie_names(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The name of every cookie, once each, also of an invalid or repeated one.

    Raises:
        MalformedRequestError: There are over 64 KiB of cookies, or over 300.
    """
    return list(dict.fromkeys(name.decode("latin-1") for name, _ in _pairs(headers)))


def _pairs(headers: Iterable[tuple[bytes, bytes]], wanted: bytes | None = None) -> list[tuple[bytes, bytes]]:
    """Every cookie, or those called *wanted*. Each limit is checked before the work that it bounds.

    It is one loop without generators or further functions, because every request runs it.
    """
    found: list[tuple[bytes, bytes]] = []
    size = count = 0
    for header, line in headers:
        if header == b"cookie":
            size += len(line)
            if size > MAX_BYTES:
                raise MalformedRequestError("the cookies are too large")
            if wanted is None or wanted in line:
                pairs = line.split(b";", MAX_COOKIES)
                count += len(pairs)
                if count > MAX_COOKIES:
                    raise MalformedRequestError("there are too many cookies")
                for pair in pairs:
                    name, equals, value = pair.partition(b"=")
                    name = name.strip(b" \t")
                    if equals and (wanted is None or name == wanted):
                        found.append((name, value.strip(b" \t")))
    return found


def _is_readable(value: bytes) -> bool:
    return len(value) <= MAX_VALUE_BYTES and not value.translate(None, _COOKIE_OCTETS)


def set_cookie(name: str, value: str, *, secure: bool, max_age: int | None = None) -> str:
    """The value of a Set-Cookie header: for this host only, not for scripts, not with cross-site requests (SE-3).

    >>> set_cookie("__Host-user_session", "abc", secure=True)
    '__Host-user_session=abc; Path=/; HttpOnly; SameSite=Lax; Secure'

    Args:
        name: From :func:`cookie_name`.
        value: cookie-octets only.
        secure: True if the site uses https.
        max_age: Seconds; None for a cookie that ends with the browser session.

    Raises:
        ValueError: The value has other octets, which could split the header (RD-3).
    """
    if value.encode("utf-8", "surrogatepass").translate(None, _COOKIE_OCTETS):
        raise ValueError("a cookie value must be made of cookie-octets")
    lifetime = "" if max_age is None else f"; Max-Age={max_age}"
    return f"{name}={value}; Path=/; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}{lifetime}"


def delete_cookie(name: str, *, secure: bool) -> str:
    """The Set-Cookie value that deletes the cookie. For a ``__Host-`` name browsers require the same attributes."""
    return f"{set_cookie(name, '', secure=secure, max_age=0)}; Expires={_LONG_AGO}"
