"""The targets to which a browser may be redirected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.protocol.return_to import safe_return_to

LISTED = frozenset({"https://app.example.net/done", "com.example.app:/signed-in"})


@pytest.mark.parametrize(
    "value",
    [
        "/",
        "/me",
        "/me/",
        "/x?y#z",
        "/x?next=/y&b=//c",
        "/x?next=%2Fy%20z",
        "/x?mail=a@b.example",
        "/x#//evil.example",
        "/a//b",
        "/a%20b",
        "/über",
        "/b%C3%BCcher",
        "/.well-known/change-password",
        "/...",
        "/a..b/.c",
        "/@handle",
        "/a:b",
        "/" + "x" * 2047,
        "https://app.example.net/done",
        "com.example.app:/signed-in",
    ],
)
def test_safe_return_to_keeps(value: str) -> None:
    """RD-1: a local path with query and fragment, and a listed URL, are returned unchanged."""
    assert safe_return_to(value, allowed=LISTED) == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        b"/me",
        ["/me"],
        "",
        "me",
        "./me",
        "../me",
        "?x",
        "#x",
        "https://evil.example",
        "https://evil.example/done",
        "https:evil.example",
        "https:/evil.example",
        "HTTPS://app.example.net/done",
        "https://app.example.net/done/",
        "https://app.example.net/done?x",
        "https://app.example.net.evil.example/done",
        "com.example.app:/other",
        "javascript:alert(1)",
        "data:text/html,x",
        "//evil.example",
        "///evil.example",
        "////evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "\\\\evil.example",
        "/x\\..\\evil",
        "/x?\\evil",
        " //evil.example",
        "/ /evil.example",
        "/\t/evil.example",
        "\t//evil.example",
        "/\n/evil.example",
        "/\r/evil.example",
        "\x00//evil.example",
        "/\x00/evil.example",
        "/\x1f/evil.example",
        "/\x7f",
        "/\x85",
        "/me ",
        "/me\n",
        "/me\r\nSet-Cookie: a=b",
        "/me%0d%0aSet-Cookie:%20a=b",
        "/me?x=%0D%0ASet-Cookie:a=b",
        "/me?x=%00",
        "/%7fme",
        "/%09/evil.example",
        "/%0a/evil.example",
        "/%2f/evil.example",
        "/%2Fevil.example",
        "/%5cevil.example",
        "/%5C%5Cevil.example",
        "/./evil.example",
        "/.//evil.example",
        "/..//evil.example",
        "/x/..//evil.example",
        "/x/../..//evil.example",
        "/%2e//evil.example",
        "/%2E%2e//evil.example",
        "/.%2e//evil.example",
        "/x/.",
        "/x/..",
        "/x/..?y",
        "/\u00a0/evil.example",
        "/\u2028/evil.example",
        "/\u200b/evil.example",
        "/\u202e/evil.example",
        "/\ufeff/evil.example",
        "/\ud800",
        "/" + "x" * 2048,
    ],
    ids=repr,
)
def test_safe_return_to_refuses(value: object) -> None:
    """RD-1, RD-3: a target on another host is rejected, also one that only a browser or a proxy would read so."""
    assert safe_return_to(value, allowed=LISTED) is None


def test_safe_return_to_allows_nothing_else_by_default() -> None:
    """Without a list, only local paths are allowed."""
    assert safe_return_to("https://app.example.net/done") is None
    assert safe_return_to("/me") == "/me"


@given(st.one_of(st.text(), st.text(alphabet="/\\.%29fFeE05cC?#:@ \t\nx").map("/".__add__)))
def test_safe_return_to_is_unchanged_or_none(value: str) -> None:
    """The result is None, or the value itself, which starts with one slash."""
    safe = safe_return_to(value)

    assert safe is None or (safe == value and value[0] == "/" and value[1:2] not in ("/", "\\"))
