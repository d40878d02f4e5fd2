"""Header lines as ASGI has them: names in lower case, values as bytes (RFC 9110 section 5)."""

from collections.abc import Iterable, Sequence

from asgi_auth.errors import MalformedRequestError

Headers = Sequence[tuple[bytes, bytes]]

MAX_LINES = 256
"""Header lines of a request: most servers stop at 100, and over HTTP/2 each of a browser's 180 cookies may have one."""
MAX_VALUE_BYTES = 1024
"""Of a header whose value is cut, because the rest of it is nothing that we look for."""

# The last ones have a byte more, so that it can be told whether there were any before.
FIRST_BYTES, LAST_BYTES = slice(MAX_VALUE_BYTES), slice(-MAX_VALUE_BYTES - 1, None)


def check_headers(headers: Headers) -> None:
    """Refuse more header lines than any client of ours sends, before one of them is looked at.

    Cookies and Authorization have limits of their own, where they are read; of every other header the first 1,024 bytes
    count, of X-Forwarded-For and Forwarded the last.

    Raises:
        MalformedRequestError: There are more than 256.
    """
    if len(headers) > MAX_LINES:
        raise MalformedRequestError("too many header lines")


def header_values(headers: Headers, name: bytes, part: slice = FIRST_BYTES) -> list[str]:
    """Every value of a header, in order, of each the first 1,024 bytes or another *part*."""
    return [value[part].decode("latin-1") for key, value in allowed_lines(headers) if key == name]


def allowed_lines(headers: Headers) -> Iterable[tuple[bytes, bytes]]:
    """The header lines, as many as are allowed: a request that is refused for having more still gets an answer."""
    return headers[:MAX_LINES]
