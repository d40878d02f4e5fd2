"""Caching of responses that depend on a cookie: RFC 9111 section 5.2, Clear-Site-Data, Sec-Purpose.

Of RFC 9111 it implements the response directives only. It ignores the Cache-Control of a request.
"""

import re
from collections.abc import Iterable, Sequence

from asgi_auth.errors import ConfigurationError

PREFETCHED = ('"prefetchCache"', '"prerenderCache"')
"""The values of Clear-Site-Data for pages that a browser fetched or rendered in advance."""
CACHED = '"cache"'
"""The value of Clear-Site-Data for the browser's whole cache of the origin."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIRECTIVES = re.compile(rf"{_TOKEN}(?:={_TOKEN})?(?: *, *{_TOKEN}(?:={_TOKEN})?)*")
_SHARING = re.compile(r"(?:public|s-maxage|must-understand)\b", re.IGNORECASE)
_PRIVATE = re.compile(r"(?:^|,) *(?:private|no-store) *(?:,|$)", re.IGNORECASE)

_READ = frozenset({b"cache-control", b"content-type", b"etag", b"last-modified", b"vary"})
_REVALIDATED = b"private, no-cache"
_PAGES = (b"text/html", b"application/xhtml+xml")
_NOT_MODIFIED = 304


def check_cache_control(text: object) -> bytes:
    """The value of a Cache-Control header that keeps a response out of every shared cache.

    >>> check_cache_control("private, max-age=60")
    b'private, max-age=60'

    Args:
        text: Directives as in RFC 9111 section 5.2, without quoted strings: ``private="…"`` keeps only some headers
            private.

    Raises:
        ConfigurationError: Neither ``private`` nor ``no-store`` is among them. Or ``public``, ``s-maxage`` or
            ``must-understand`` is: with these a shared cache may store the response. Or *text* is malformed.
    """
    if not isinstance(text, str) or not _DIRECTIVES.fullmatch(text):
        raise ConfigurationError("cache_control must be the directives of a Cache-Control header, such as 'private'")
    if not _PRIVATE.search(text) or any(_SHARING.match(item.strip()) for item in text.split(",")):
        raise ConfigurationError(
            "cache_control must have 'private' or 'no-store', and none of 'public', 's-maxage' and 'must-understand': "
            "a shared cache would give the page of one user to another"
        )
    return text.encode("ascii")


def keep_private(
    headers: Iterable[tuple[bytes, bytes]], *, status: int, cache_control: bytes
) -> list[tuple[bytes, bytes]]:
    """Add ``Vary``, and ``Cache-Control`` if missing, to the headers of a response that depends on a cookie.

    A file gets ``private, no-cache``: the browser stores it and asks each time whether it has changed. A file is a
    response that has a validator (RFC 9110 section 8.8) and is not a page. A 304 without a type is also for a file:
    with ``no-store`` the browser would discard the stored file.

    Args:
        headers: The headers of the response, with names in any case.
        status: The status of the response.
        cache_control: The ``Cache-Control`` of any other response.
    """
    kept = list(headers)
    read: dict[bytes, bytes] = {}
    for name, value in kept:  # no comprehension: it would cost a call at every response
        lowered = name.lower()
        if lowered in _READ:
            read[lowered] = value
    if b"vary" not in read or not _varies_by_cookie(kept):
        kept.append((b"vary", b"Cookie"))
    if b"cache-control" not in read:
        is_validated = status == _NOT_MODIFIED or b"etag" in read or b"last-modified" in read
        is_file = is_validated and _is_no_page(read.get(b"content-type"), status)
        kept.append((b"cache-control", _REVALIDATED if is_file else cache_control))
    return kept


def _varies_by_cookie(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    names = b",".join(value for name, value in headers if name.lower() == b"vary").lower().split(b",")
    return any(name.strip() in (b"cookie", b"*") for name in names)


def _is_no_page(kind: bytes | None, status: int) -> bool:
    if kind is None:  # a browser guesses the type and may show it as a page
        return status == _NOT_MODIFIED
    return not kind.lstrip().lower().startswith(_PAGES)


def is_speculative(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """True if a browser requests a page in advance, which the user may never open.

    >>> is_speculative([(b"sec-purpose", b"prefetch;prerender")])
    True

    Args:
        headers: As in an ASGI scope. ``Sec-Purpose`` (Fetch section 3.7) or, of older browsers, ``Purpose``.
    """
    return any(
        value.partition(b";")[0].strip().lower() == b"prefetch"
        for name, value in headers
        if name in (b"sec-purpose", b"purpose")
    )
