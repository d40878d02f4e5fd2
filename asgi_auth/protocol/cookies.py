"""Cookies: RFC 6265bis sections 4.1.1 (syntax), 4.1.3 (name prefixes) and 4.2.1 (the Cookie header).

What ours are called is in ``site``.
"""

from collections import Counter
from collections.abc import Iterable

from asgi_auth.errors import MalformedRequestError

MAX_VALUE_BYTES = 4096
"""RFC 6265bis section 5.6: browsers keep no more."""

MAX_COPIES = 8
"""Values of one name that are read to take rights away. A browser has one; a sibling domain may plant a few more."""

MAX_BYTES = 64 * 1024
MAX_COOKIES = 300
"""All that a request has. Browsers keep up to 180 for a site, and most servers take 8 to 64 KiB of headers."""

# cookie-octet; no quotes: we never write them
_COOKIE_OCTETS = bytes({*range(0x21, 0x7F)} - {*b'",;\\'})
_LONG_AGO = "Thu, 01 Jan 1970 00:00:00 GMT"


def cookie_name(subject_name: str, kind: str, *, secure: bool) -> str:
    """``__Host-user_session`` where the site is served over https, ``user_session`` on http.

    The prefix makes browsers refuse a cookie of that name from a sibling domain or over http (RFC 6265bis section
    4.1.3.2).
    """
    return f"{'__Host-' if secure else ''}{subject_name}_{kind}"


def read_cookie(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The value of the cookie called *name*, exactly so spelt.

    >>> read_cookie([(b"cookie", b"theme=dark; user_session=abc")], b"user_session")
    'abc'

    Args:
        headers: As in an ASGI scope: names in lower case.
        name: The whole name, prefix included.

    Returns:
        The value, possibly empty; None if there is no such cookie.

    Raises:
        MalformedRequestError: The name occurs twice, in one header or several: one of them may be planted, and the
            order does not tell which (SE-8). Or the value is over 4096 bytes or has other octets than cookie-octets. Or
            there are over 64 KiB of cookies, or over 300.
    """
    pairs = _pairs(headers, name)
    if not pairs:
        return None
    if len(pairs) > 1:
        raise MalformedRequestError("a cookie was sent twice")
    value = pairs[0][1]
    if len(value) > MAX_VALUE_BYTES or value.translate(None, _COOKIE_OCTETS):  # a call less in every request
        raise MalformedRequestError("a cookie value is not made of cookie-octets")
    return value.decode("ascii")


def read_cookies(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Every cookie that was sent once and is readable; of one that was sent twice nothing is believed (SE-8).

    Raises:
        MalformedRequestError: There are over 64 KiB of cookies, or over 300.
    """
    pairs = _pairs(headers)
    times = Counter(name for name, _ in pairs)
    readable = ((name, value) for name, value in pairs if times[name] == 1 and _is_readable(value))
    return {name.decode("latin-1"): value.decode("ascii") for name, value in readable}


def read_every(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """Every readable value of the cookie called *name*, once each, to take rights away and never to give them.

    Raises:
        MalformedRequestError: There are more than 8 different ones, each of which would cost something. Or there are
            over 64 KiB of cookies, or over 300.
    """
    sent = dict.fromkeys(value for _, value in _pairs(headers, name))
    values = [value.decode("ascii") for value in sent if _is_readable(value)]
    if len(values) > MAX_COPIES:
        raise MalformedRequestError("a cookie was sent too often")
    return values


def cookie_names(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The name of every cookie that was sent, once each, also of one that is unreadable or was sent twice.

    Raises:
        MalformedRequestError: There are over 64 KiB of cookies, or over 300.
    """
    return list(dict.fromkeys(name.decode("latin-1") for name, _ in _pairs(headers)))


def _pairs(headers: Iterable[tuple[bytes, bytes]], wanted: bytes | None = None) -> list[tuple[bytes, bytes]]:
    """Every cookie, or those called *wanted*; each limit is asked before the work that it bounds.

    One loop, without generators and further functions, because every request comes here.
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
        secure: Whether the site is served over https.
        max_age: Seconds; None for a cookie that ends with the browser session.

    Raises:
        ValueError: The value holds something else; a header built from it could be split (RD-3).
    """
    if value.encode("utf-8", "surrogatepass").translate(None, _COOKIE_OCTETS):
        raise ValueError("a cookie value must be made of cookie-octets")
    lifetime = "" if max_age is None else f"; Max-Age={max_age}"
    return f"{name}={value}; Path=/; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}{lifetime}"


def delete_cookie(name: str, *, secure: bool) -> str:
    """The Set-Cookie value that removes it: the same attributes, or a browser would refuse a ``__Host-`` name."""
    return f"{set_cookie(name, '', secure=secure, max_age=0)}; Expires={_LONG_AGO}"
