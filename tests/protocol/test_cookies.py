"""Cookies: read, set, delete."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_auth.errors import MalformedRequestError
from asgi_auth.protocol.cookies import (
    cookie_name,
    cookie_names,
    delete_cookie,
    read_cookie,
    read_cookies,
    read_every,
    set_cookie,
)

NAME = b"__Host-user_session"


def _cookies(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"localhost"), *((b"cookie", value) for value in values)]


def test_cookie_name_has_the_prefix_on_https_only() -> None:
    """SE-3: browsers refuse the prefix without Secure."""
    assert cookie_name("user", "session", secure=True) == "__Host-user_session"
    assert cookie_name("admin", "device", secure=False) == "admin_device"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b"theme=dark"],
        [b"__Host-user_session"],
        [b"x__Host-user_session=a"],
        [b"__Host-user_session2=a"],
        [b"__host-user_session=a"],
        [b"user_session=a"],
        [b"theme=__Host-user_session"],
        [b"=__Host-user_session"],
        [b"\xff;;; ;=;__Host-user_session"],
    ],
    ids=repr,
)
def test_read_cookie_without_it_is_none(values: list[bytes]) -> None:
    """There is no cookie if it is absent, has another spelling, or only appears inside other text."""
    assert read_cookie(_cookies(*values), NAME) is None


@pytest.mark.parametrize(
    ("values", "value"),
    [
        ([b"__Host-user_session=abc.DEF-1_2"], "abc.DEF-1_2"),
        ([b"a=b; __Host-user_session=abc; c=d"], "abc"),
        ([b"a=b;__Host-user_session=abc;c=d"], "abc"),
        ([b"a=b", b"__Host-user_session=abc"], "abc"),
        ([b"__Host-user_session=a=b=="], "a=b=="),
        ([b" __Host-user_session \t=\t abc \t"], "abc"),
        ([b"__Host-user_session="], ""),
        ([b"\xff\x00=\xfe; __Host-user_session=abc; nonsense"], "abc"),
        ([b"; ".join(b"c%d=v" % i for i in range(200)) + b"; __Host-user_session=abc"], "abc"),
        ([b"__Host-user_session=" + b"x" * 4096], "x" * 4096),
    ],
)
def test_read_cookie_returns_the_value(values: list[bytes], value: str) -> None:
    """RP-10: the cookie is found among invalid ones, in one header or several."""
    assert value == read_cookie(_cookies(*values), NAME)


@pytest.mark.parametrize(
    "values",
    [
        [b"__Host-user_session=att; __Host-user_session=vic"],
        [b"__Host-user_session=vic; __Host-user_session=att"],
        [b"__Host-user_session=vic; __Host-user_session=vic"],
        [b"__Host-user_session=att", b"__Host-user_session=vic"],
        [b"__Host-user_session=; __Host-user_session=vic"],
        [b'__Host-user_session="quoted"'],
        [b'__Host-user_session="\\101"'],
        [b"__Host-user_session=a b"],
        [b"__Host-user_session=a,b"],
        [b"__Host-user_session=a\\b"],
        [b"__Host-user_session=\xc3\xa4"],
        [b"__Host-user_session=a\x00"],
        [b"__Host-user_session=a\n"],
        [b"__Host-user_session=" + b"x" * 4097],
    ],
    ids=repr,
)
def test_read_cookie_refuses(values: list[bytes]) -> None:
    """SE-8, RP-10: a cookie that was sent twice, or a value that the library never sets, is rejected."""
    with pytest.raises(MalformedRequestError):
        read_cookie(_cookies(*values), NAME)


@given(st.lists(st.one_of(st.binary(), st.binary().map((NAME + b"=").__add__)), max_size=3))
@example([NAME + b"=a"])
@example([NAME + b"=a", NAME + b"=b"])
def test_read_cookie_never_fails_otherwise(values: list[bytes]) -> None:
    """Any bytes give a value, None or MalformedRequestError."""
    try:
        value = read_cookie(_cookies(*values), NAME)
    except MalformedRequestError:
        return
    assert value is None or value.isascii()


@pytest.mark.parametrize(
    ("secure", "max_age", "header"),
    [
        (True, None, "n=v; Path=/; HttpOnly; SameSite=Lax; Secure"),
        (False, None, "n=v; Path=/; HttpOnly; SameSite=Lax"),
        (True, 60, "n=v; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=60"),
        (False, 0, "n=v; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"),
    ],
)
def test_set_cookie_attributes(secure: bool, max_age: int | None, header: str) -> None:
    """SE-3: Path=/, HttpOnly, SameSite=Lax, Secure on https, never Domain."""
    assert header == set_cookie("n", "v", secure=secure, max_age=max_age)


@pytest.mark.parametrize("value", ["a b", "a;b", "a\r\nX: y", '"', "ä", "\ud800", "\x00"], ids=repr)
def test_set_cookie_refuses_what_would_split_the_header(value: str) -> None:
    """RD-3: a value cannot add an attribute or a header line."""
    with pytest.raises(ValueError, match="cookie-octets"):
        set_cookie("n", value, secure=True)


def test_delete_cookie_has_the_same_attributes() -> None:
    """SE-3: a deletion has the same attributes, and both Max-Age and a date."""
    assert delete_cookie("n", secure=True) == (
        "n=; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    )


@given(st.from_regex(r"[A-Za-z0-9._=-]{0,99}", fullmatch=True))
def test_cookie_round_trip(value: str) -> None:
    """A value that was set is read unchanged."""
    sent = set_cookie("n", value, secure=True).partition(";")[0]

    assert value == read_cookie(_cookies(sent.encode()), b"n")


def test_read_cookies_believes_nothing_that_was_sent_twice() -> None:
    """SE-8: only readable cookies that were sent once are returned, from one header or several."""
    headers = _cookies(b"a=1; twice=1; odd=\xff; =nameless; junk", b' b = 2 ;twice=1; quoted="x"; big=' + b"x" * 4097)

    assert read_cookies(headers) == {"a": "1", "b": "2", "": "nameless"}
    assert read_cookies(_cookies()) == {}


def test_every_value_of_a_name() -> None:
    """The readable values of exactly this name are returned in order, from every header."""
    headers = [(b"cookie", b"a=1; b=2; a=\xff; aa=3"), (b"x", b"a=4"), (b"cookie", b"a = 5;a")]

    assert read_every(headers, b"a") == ["1", "5"]
    assert read_every([], b"a") == []


def test_read_every_has_each_value_once_and_at_most_eight() -> None:
    """SE-8: copies are one value; nine different readable values are rejected."""
    eight = [f"{n}" for n in range(8)]
    headers = _cookies(*(f"a={value}; a={value}".encode() for value in (*eight, "unread,able")))
    assert read_every(headers, b"a") == eight
    with pytest.raises(MalformedRequestError):
        read_every([*headers, *_cookies(b"a=9")], b"a")


def test_cookies_are_measured_before_they_are_read() -> None:
    """DO-4, RP-10: all headers together may have 64 KiB and 300 cookies."""
    large = _cookies(b"a=1;b=" + b"x" * 32762, b"x" * 32768)
    many = _cookies(b";".join([b"b=1"] * 150), b";".join([*([b"b=1"] * 149), b"a=1"]))
    for headers in (large, many):
        assert read_cookie(headers, b"a") == read_cookies(headers)["a"] == "1"
        assert sorted(cookie_names(headers)) == ["a", "b"]
    for headers in (large + _cookies(b"x"), many + _cookies(b"b")):
        for read in (read_cookies, cookie_names):
            with pytest.raises(MalformedRequestError):
                read(headers)
    for headers in (large + _cookies(b"x"), _cookies(b"a=1;" * 301)):
        for read_one in (read_cookie, read_every):
            with pytest.raises(MalformedRequestError, match="cookies"):
                read_one(headers, b"a")


def test_other_cookies_are_not_counted_where_ours_is_not_among_them() -> None:
    """A request without our cookie is anonymous; other cookies are not counted."""
    assert read_cookie(_cookies(b"b=1;" * 301), b"a") is None


def test_cookie_names_has_what_nothing_else_reads() -> None:
    """Unreadable and repeated cookies have a name, too; text without an equals sign has none."""
    assert cookie_names(_cookies(b"a=1; a=2; odd=\xff; junk", b" b = 2")) == ["a", "odd", "b"]
