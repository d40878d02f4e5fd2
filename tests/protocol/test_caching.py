"""Which answers to a request with a cookie caches and browsers may store."""

import pytest

from asgi_auth.errors import ConfigurationError
from asgi_auth.protocol.caching import check_cache_control, is_speculative, keep_private

HTML = (b"content-type", b"text/html; charset=utf-8")
CSS = (b"content-type", b"text/css")
ETAG = (b"etag", b'"abc"')
MODIFIED = (b"last-modified", b"Thu, 26 Nov 2026 10:00:00 GMT")
COOKIE = (b"vary", b"Cookie")


@pytest.mark.parametrize(
    "text",
    [
        "no-store",
        "private",
        "Private",
        "private, no-cache",
        "max-age=0,private",
        "no-cache , no-store",
        "private,max-age=60",
    ],
)
def test_cache_control_that_no_shared_cache_stores_is_accepted(text: str) -> None:
    """SE-15: ``private`` or ``no-store`` is accepted, with directives that restrict it further."""
    assert check_cache_control(text) == text.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no-cache",
        "max-age=60",
        "public",
        "private, public",
        "PUBLIC, private",
        "private, s-maxage=60",
        "no-store, must-understand",
        'private="set-cookie"',
        "private=set-cookie",
        "x-private",
        "private\r\nset-cookie: a=b",
        "private\n",
        "private,",
        "private; max-age=60",
        "privaté",
        None,
        b"private",
    ],
)
def test_cache_control_that_shares_pages_is_refused(text: object) -> None:
    """SE-15, RD-3: a value that lets a shared cache store the answer, and an incomplete value, are rejected."""
    with pytest.raises(ConfigurationError, match="cache_control"):
        check_cache_control(text)


@pytest.mark.parametrize(
    ("headers", "status", "added"),
    [
        ([], 200, [COOKIE, (b"cache-control", b"private")]),
        ([HTML], 200, [COOKIE, (b"cache-control", b"private")]),
        ([HTML, ETAG, MODIFIED], 200, [COOKIE, (b"cache-control", b"private")]),
        ([(b"Content-Type", b" Text/HTML"), ETAG], 200, [COOKIE, (b"cache-control", b"private")]),
        ([(b"content-type", b"application/xhtml+xml"), ETAG], 200, [COOKIE, (b"cache-control", b"private")]),
        ([CSS], 200, [COOKIE, (b"cache-control", b"private")]),
        ([ETAG], 200, [COOKIE, (b"cache-control", b"private")]),
        ([CSS, ETAG], 200, [COOKIE, (b"cache-control", b"private, no-cache")]),
        ([CSS, MODIFIED], 206, [COOKIE, (b"cache-control", b"private, no-cache")]),
        ([(b"Content-Type", b"image/png"), (b"ETag", b'"a"')], 200, [COOKIE, (b"cache-control", b"private, no-cache")]),
        ([ETAG], 304, [COOKIE, (b"cache-control", b"private, no-cache")]),
        ([], 304, [COOKIE, (b"cache-control", b"private, no-cache")]),
        ([HTML, ETAG], 304, [COOKIE, (b"cache-control", b"private")]),
        ([CSS, ETAG, (b"Cache-Control", b"max-age=60")], 200, [COOKIE]),
        ([ETAG, (b"cache-control", b"public, max-age=60")], 304, [COOKIE]),
        ([(b"vary", b"Accept"), (b"cache-control", b"private")], 200, [COOKIE]),
        ([(b"Vary", b"accept, COOKIE"), (b"cache-control", b"private")], 200, []),
        ([(b"vary", b"Cookie"), (b"Vary", b"Accept"), (b"cache-control", b"private")], 200, []),
        ([(b"vary", b"*"), (b"cache-control", b"private")], 200, []),
    ],
)
def test_keep_private_adds_what_is_missing(
    headers: list[tuple[bytes, bytes]], status: int, added: list[tuple[bytes, bytes]]
) -> None:
    """SE-15: pages get the given value, files are validated each time; a value of the application stays."""
    assert keep_private(headers, status=status, cache_control=b"private") == headers + added


@pytest.mark.parametrize(
    ("headers", "speculative"),
    [
        ([], False),
        ([(b"sec-purpose", b"prefetch")], True),
        ([(b"sec-purpose", b"prefetch;prerender")], True),
        ([(b"sec-purpose", b"prefetch; anonymous-client-ip")], True),
        ([(b"accept", b"*/*"), (b"purpose", b"Prefetch")], True),
        ([(b"sec-purpose", b"")], False),
        ([(b"sec-purpose", b"prefetched")], False),
        ([(b"x-purpose", b"prefetch")], False),
    ],
)
def test_is_speculative(headers: list[tuple[bytes, bytes]], speculative: bool) -> None:
    """A prefetch is recognised for each browser that marks it."""
    assert is_speculative(headers) is speculative
