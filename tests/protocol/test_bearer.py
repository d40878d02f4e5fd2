"""Bearer tokens in headers, challenges."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_auth.errors import MalformedRequestError
from asgi_auth.protocol.bearer import challenge, read_bearer, read_every, shows_bearer


def _authorization(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"localhost"), *((b"authorization", value) for value in values), (b"accept", b"*/*")]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b"Basic dXNlcjpwYXNz"],
        [b"Basic dXNlcjpwYXNz", b"Digest x"],
        [b""],
        [b"Bearertoken"],
        [b"Bearer-v2 x"],
        [b"NotBearer x"],
        [b"Basic x, Bearer y"],
        [b"\x0bBearer"],
    ],
    ids=repr,
)
def test_read_bearer_without_bearer_is_none(values: list[bytes]) -> None:
    """Without a header, or with another scheme, there is no token."""
    assert read_bearer(_authorization(*values)) is None


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer mF_9.B5f-4.1JqM", "mF_9.B5f-4.1JqM"),  # RFC 6750 section 2.1
        (b"bearer a", "a"),
        (b"BEARER a+/~b==", "a+/~b=="),
        (b"Bearer   a", "a"),
        (b" \tBearer a \t", "a"),
        (b"Bearer " + b"x" * 4096, "x" * 4096),
    ],
)
def test_read_bearer_returns_the_token(value: bytes, token: str) -> None:
    """The scheme may be in any case; one or more spaces and a b64token follow."""
    assert token == read_bearer(_authorization(value))


@pytest.mark.parametrize(
    "values",
    [
        [b"Bearer"],
        [b"Bearer "],
        [b"Bearer \t"],
        [b"Bearer\ta"],
        [b"Bearer a b"],
        [b"Bearer a,b"],
        [b"Bearer a, Bearer b"],
        [b"Bearer =a"],
        [b"Bearer a=b"],
        [b'Bearer "a"'],
        [b"Bearer a\n"],
        [b"Bearer a\x00"],
        [b"Bearer \xc3\xa4"],
        [b"Bearer " + b"x" * 4097],
        [b"Bearer " + b"x" * 4096 + b" " * 58],
        [b"Bearer a", b"Bearer a"],
        [b"Bearer a", b"Basic b"],
        [b"Basic b", b"Bearer a"],
        [b"Bearer", b""],
    ],
    ids=repr,
)
def test_read_bearer_refuses(values: list[bytes]) -> None:
    """RP-5, TK-19: two credentials, or an invalid one, are rejected."""
    with pytest.raises(MalformedRequestError):
        read_bearer(_authorization(*values))


@given(st.lists(st.one_of(st.binary(), st.binary().map(b"Bearer ".__add__)), max_size=3))
@example([b"Bearer a"])
@example([b"Bearer a", b"Bearer b"])
def test_read_bearer_never_fails_otherwise(values: list[bytes]) -> None:
    """Any bytes give a token, None or MalformedRequestError."""
    try:
        token = read_bearer(_authorization(*values))
    except MalformedRequestError:
        return
    assert token is None or token.isascii()


@given(st.from_regex(r"[A-Za-z0-9._~+/-]{1,99}={0,2}", fullmatch=True))
def test_read_bearer_round_trip(token: str) -> None:
    """A b64token is returned unchanged."""
    assert token == read_bearer(_authorization(b"Bearer " + token.encode()))


@pytest.mark.parametrize(
    ("realm", "error", "scope", "value"),
    [
        ("app", None, None, 'Bearer realm="app"'),
        ("app", "invalid_token", None, 'Bearer realm="app", error="invalid_token"'),
        (
            "My App",
            "insufficient_scope",
            "read write",
            'Bearer realm="My App", error="insufficient_scope", scope="read write"',
        ),
        ('a"b\\c', None, None, 'Bearer realm="a\\"b\\\\c"'),
        ("a\r\nSet-Cookie: x\x00\x7f", None, None, 'Bearer realm="a??Set-Cookie: x??"'),
        ("Zoë\ud800", None, None, 'Bearer realm="Zo??"'),
    ],
)
def test_challenge_is_quoted(realm: str, error: str | None, scope: str | None, value: str) -> None:
    """TK-20, RD-3: every value is quoted, and no character in it ends the quotes or the line."""
    assert value == challenge(realm=realm, error=error, scope=scope)


@given(st.text())
def test_challenge_is_always_one_line(realm: str) -> None:
    """The challenge is printable ASCII for any name of the application."""
    value = challenge(realm=realm)

    assert value.isascii()
    assert value.isprintable()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([], False),
        ([b"Basic dXNlcjpwYXNz"], False),
        ([b"Bearertoken"], False),
        ([b"Bearer a"], True),
        ([b"bearer"], True),
        ([b"Basic x", b"Bearer two words"], True),
    ],
    ids=repr,
)
def test_shows_bearer_counts_our_scheme_only(values: list[bytes], shown: bool) -> None:
    """CF-1: an invalid token counts, too. Browsers add other schemes, such as Basic, to requests of other sites."""
    assert shows_bearer(_authorization(*values)) == shown


def test_every_readable_token_is_read_once() -> None:
    """TK-19: every readable token is read once, to revoke it; nine different tokens are rejected."""
    eight = [b"Bearer %d" % n for n in range(8)]
    headers = _authorization(*eight, *eight, b"Bearer", b"Basic eDp5", b"Bearer " + b"x" * 4097)
    assert read_every(headers) == list("01234567")
    assert read_every([]) == []
    with pytest.raises(MalformedRequestError):
        read_every([*headers, *_authorization(b"Bearer 8")])


def test_bearer_is_looked_for_at_the_beginning() -> None:
    """DO-4: in a value of megabytes, only the first bytes are searched for the scheme."""
    headers = _authorization(b" " * 64 + b"Bearer a")
    assert read_bearer(headers * 2) is None
    assert not shows_bearer(headers)
