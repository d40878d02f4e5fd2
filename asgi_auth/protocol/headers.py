"""Header lines as ASGI has them: names in lower case, values as bytes (RFC 9110 section 5)."""

from collections.abc import Iterable, Sequence

from asgi_auth.errors import MalformedRequestError

Headers = Sequence[tuple[bytes, bytes]]

MAX_LINES = 256
"""The maximum of header lines. Most servers accept 100; over HTTP/2 each of 180 cookies may have its own."""
MAX_VALUE_BYTES = 1024
"""The maximum of bytes of a header that is cut, because the rest of it is not used."""

# The last bytes are one more, to show whether the value was cut.
FIRST_BYTES, LAST_BYTES = slice(MAX_VALUE_BYTES), slice(-MAX_VALUE_BYTES - 1, None)


def check_headers(headers: Headers) -> None:
    """Reject a request with too many header lines, before any of them is read.

    Cookies and Authorization have limits of their own. Of every other header the first 1,024 bytes are read, of
    X-Forwarded-For and Forwarded the last.

    Raises:
        MalformedRequestError: There are more than 256 lines.
    """
    if len(headers) > MAX_LINES:
        raise MalformedRequestError("too many header lines")


def header_values(headers: Headers, name: bytes, part: slice = FIRST_BYTES) -> list[str]:
    """Every value of a header, in order. Each is cut to the first 1,024 bytes, or to another *part*."""
    return [value[part].decode("latin-1") for key, value in allowed_lines(headers) if key == name]


def allowed_lines(headers: Headers) -> Iterable[tuple[bytes, bytes]]:
    """The header lines up to the limit. A request that is rejected for more lines still gets a response."""
    return headers[:MAX_LINES]
