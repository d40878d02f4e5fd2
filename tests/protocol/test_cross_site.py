"""Origins, Fetch Metadata, websocket handshakes."""

from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_auth.errors import ConfigurationError
from asgi_auth.protocol.cross_site import is_cross_site, parse_origin, websocket_allowed

OURS = "https://app.example.com"
LISTED = "https://spa.example.net:8443"
ALLOWED = frozenset({OURS, LISTED})


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://example.com", "https://example.com"),
        ("HTTPS://Example.COM", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("http://example.com:80", "http://example.com"),
        ("https://example.com:80", "https://example.com:80"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:08000", "http://localhost:8000"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
        ("http://[2001:DB8::A]", "http://[2001:db8::a]"),
        ("https://faß.de", "https://xn--fa-hia.de"),
        ("https://BÜCHER.example", "https://xn--bcher-kva.example"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://my_host-1.example", "https://my_host-1.example"),
        ("https://" + "a" * 63 + ".example", "https://" + "a" * 63 + ".example"),
    ],
)
def test_parse_origin_gives_what_browsers_send(text: str, origin: str) -> None:
    """RFC 6454 section 6.2: an origin is in lower case, with A-labels and without a default port."""
    assert origin == parse_origin(text, parameter="base_url")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "*",
        "example.com",
        "//example.com",
        "https:example.com",
        "https://",
        "https://:443",
        "ftp://example.com",
        "https://example.com/",
        "https://example.com/path",
        "https://example.com?x",
        "https://example.com#x",
        "https://user@example.com",
        "https://user:pass@example.com",
        "https://example.com:",
        "https://example.com:0",
        "https://example.com:65536",
        "https://example.com:1234567",
        "https://example.com:x",
        "https://example.com:８０",
        "https://exam ple.com",
        " https://example.com",
        "https://example.com\n",
        "https://example..com",
        "https://example.com.",
        "https://.example.com",
        "https://-example.com",
        "https://*.example.com",
        "https://a%2eb",
        "https://a\\b",
        "https://1.2.3.256",
        "https://1.2.3",
        "https://[::1",
        "https://[::g]",
        "https://[1.2.3.4]",
        "https://℀.example",
        "https://xn--a-ä.example",
        "https://\ud800.example",
        "https://" + "a" * 64 + ".example",
        "https://" + "a." * 126 + "example",
    ],
    ids=repr,
)
def test_parse_origin_refuses(text: str) -> None:
    """A value that is not only scheme, host and port is rejected; the error names the parameter."""
    with pytest.raises(ConfigurationError, match="base_url"):
        parse_origin(text, parameter="base_url")


EXTENSION = "chrome-extension://abcdefghijklmnopabcdefghijklmnop"
ADD_ON = "moz-extension://2c127fa4-62c7-7e4f-90e5-472b45eecfdc"


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("capacitor://localhost", "capacitor://localhost"),
        ("ionic://localhost", "ionic://localhost"),
        ("tauri://localhost", "tauri://localhost"),
        ("Capacitor://LocalHost", "capacitor://localhost"),
        ("capacitor://my-app.example.org", "capacitor://my-app.example.org"),
        (EXTENSION, EXTENSION),
        (ADD_ON, ADD_ON),
        (ADD_ON.upper(), ADD_ON),
        ("HTTPS://Example.com:443", "https://example.com"),
    ],
)
def test_parse_origin_takes_apps_and_extensions_where_asked(text: str, origin: str) -> None:
    """RFC 6454 section 4: the origin of a page in an app shell or an extension is its scheme and its host."""
    assert origin == parse_origin(text, parameter="allowed_origins", apps=True)


@pytest.mark.parametrize(
    "text",
    [
        "capacitor://",
        "capacitor:localhost",
        "capacitor://localhost/",
        "capacitor://localhost/index.html",
        "capacitor://localhost:8100",
        "capacitor://localhost?x",
        "capacitor://localhost#x",
        "capacitor://user@localhost",
        "capacitor://*",
        "capacitor://*.example.org",
        "capacitor://.localhost",
        "capacitor://-localhost",
        "capacitor://a..b",
        "capacitor://localhost\n",
        " capacitor://localhost",
        "capacitor://" + "a" * 254,
        "capacitor://bücher",
        "chrome-extension://*",
        EXTENSION[:-1],
        EXTENSION + "a",
        EXTENSION[:-1] + "q",
        EXTENSION + "/",
        "moz-extension://add-on",
        ADD_ON.replace("-62c7", "62c7"),
        ADD_ON + "0",
        "extension://" + "a" * 32,
        "file://",
        "file://localhost",
        "data://x",
        "javascript://localhost",
        "ws://localhost",
        "ftp://localhost",
        "htps://localhost",
        "null",
        "*",
        "",
    ],
    ids=repr,
)
def test_parse_origin_refuses_what_is_no_origin_of_an_app(text: str) -> None:
    """Each scheme has hosts of its own form. Nothing follows the host. Other schemes are refused."""
    with pytest.raises(ConfigurationError, match=r"^allowed_origins: .* must be .* capacitor, ionic, tauri, chrome"):
        parse_origin(text, parameter="allowed_origins", apps=True)


@pytest.mark.parametrize("text", ["capacitor://localhost", "tauri://localhost", EXTENSION, ADD_ON])
def test_parse_origin_knows_http_only_by_default(text: str) -> None:
    """The application itself is served by http or https."""
    with pytest.raises(ConfigurationError, match=r"^base_url: .* must be scheme://host or .* with http or https\)$"):
        parse_origin(text, parameter="base_url")


RULE = "must be scheme://host or scheme://host:port with http or https"


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("http://localhost:8000/", "'http://localhost:8000/' ends with a slash; write 'http://localhost:8000'"),
        (
            "https://a.example/app",
            "'https://a.example/app' has a path, a query or a fragment; write 'https://a.example'",
        ),
        ("https://a.example?x", "'https://a.example?x' has a path, a query or a fragment; write 'https://a.example'"),
        ("https://a.example\n", r"'https://a.example\n' has white space or a control character; write 'https://a.exam"),
        ("https://a.example\x00", r"'https://a.example\x00' has white space or a control character; write 'https://a."),
        ("*", "'*' has a wildcard: name each origin ("),
        ("https://*.a.example", "'https://*.a.example' has a wildcard: name each origin ("),
        ("null", "'null' is the origin of every local file"),
        ("localhost:8000", "'localhost:8000' has no scheme; write 'http://localhost:8000'"),
        ("[::1]:8000", "'[::1]:8000' has no scheme; write 'http://[::1]:8000'"),
        ("a.example", "'a.example' has no scheme; write 'https://a.example'"),
        ("ftp://a.example", "'ftp://a.example' has the scheme 'ftp', which is not supported ("),
        (
            "https://me:hidden@a.example",
            "'https://…@a.example' has a user name or a password; write 'https://a.example'",
        ),
        ("https://a.example:0", "'https://a.example:0' has an invalid port ("),
        ("https://a..example", "'https://a..example' has an invalid host ("),
        ("", "the value is empty; if it comes from an environment variable, that one is not set ("),
        (None, "the value is empty; if it comes from an environment variable, that one is not set ("),
    ],
    ids=repr,
)
def test_invalid_origin_is_shown_with_the_rule_and_the_remedy(text: Any, advice: str) -> None:
    """The message shows the value, what is wrong with it, what to write, and the rule; never a password."""
    with pytest.raises(ConfigurationError) as raised:
        parse_origin(text, parameter="base_url")

    assert raised.value.reason.startswith(f"base_url: {advice}")
    assert RULE in raised.value.reason
    assert "hidden" not in raised.value.reason


def test_app_origin_with_a_slash_is_shown_with_the_remedy() -> None:
    """The origins of apps get the same advice where they are supported."""
    advice = "'capacitor://localhost/' ends with a slash; write 'capacitor://localhost' "
    with pytest.raises(ConfigurationError, match=f"^allowed_origins: {advice}"):
        parse_origin("capacitor://localhost/", parameter="allowed_origins", apps=True)


def test_origin_that_is_no_text_is_shown() -> None:
    """The error shows a value that is not text, such as a number or a URL object."""
    with pytest.raises(ConfigurationError, match=r"^base_url must be text, such as 'https://example.com', not 8000$"):
        parse_origin(8000, parameter="base_url")  # type: ignore[arg-type]


def test_listed_app_passes() -> None:
    """Pages of a listed app may send requests; those of another app may not."""
    allowed = ALLOWED | {"capacitor://localhost"}
    judge = partial(is_cross_site, "POST", sec_fetch_site="cross-site", referers=[], allowed=allowed)

    assert not judge(origins=["capacitor://localhost"], authorization=False, own_cookie=True)
    assert judge(origins=["ionic://localhost"], authorization=False, own_cookie=True)
    assert websocket_allowed(["capacitor://localhost"], allowed)


@given(st.one_of(st.text(), st.text().map("https://".__add__)))
@example("https://app.example.com")
@example("app.example.com")
def test_parse_origin_never_fails_otherwise(text: str) -> None:
    """Any text gives an origin or ConfigurationError; parsing an origin again returns the same."""
    try:
        origin = parse_origin(text, parameter="p")
    except ConfigurationError:
        return
    assert origin == parse_origin(origin, parameter="p")


FOREIGN = [
    "null",
    "",
    "https://evil.example",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.evil.example",
    "https://evilapp.example.com",
    "https://APP.example.com",
    "https://u@app.example.com",
    "https://app.example.com/",
]

# (Origin headers, Sec-Fetch-Site, refused)
TABLE: list[tuple[list[str], str | None, bool]] = [
    ([], None, False),
    ([], "", False),
    ([], "garbage", False),
    ([], "Cross-Site", False),
    ([], "same-origin", False),
    ([], "none", False),
    ([], "same-site", True),
    ([], "cross-site", True),
    *(([origin], site, False) for origin in (OURS, LISTED) for site in (None, "garbage", "same-origin", "none")),
    *(([origin], site, False) for origin in (OURS, LISTED) for site in ("same-site", "cross-site")),
    *(([origin], site, True) for origin in FOREIGN for site in (None, "", "garbage", "same-site", "cross-site")),
    *(([origin], site, False) for origin in FOREIGN for site in ("same-origin", "none")),
    *(([OURS, OURS], site, True) for site in (None, "garbage", "same-origin", "none", "same-site", "cross-site")),
    ([OURS, "https://evil.example"], "same-origin", True),
]


@pytest.mark.parametrize(("origins", "site", "refused"), TABLE)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "get", ""])
@pytest.mark.parametrize(("authorization", "own_cookie"), [(False, False), (False, True), (True, True)])
def test_is_cross_site_judges(
    method: str, origins: list[str], site: str | None, refused: bool, authorization: bool, own_cookie: bool
) -> None:
    """CF-1, CF-2: the table of all combinations, with and without a cookie."""
    assert refused is is_cross_site(
        method,
        origins=origins,
        sec_fetch_site=site,
        referers=[],
        authorization=authorization,
        own_cookie=own_cookie,
        allowed=ALLOWED,
    )


# (Referer headers, refused where nothing else tells)
REFERERS: list[tuple[list[str], bool]] = [
    ([], False),
    *(([f"{origin}{rest}"], False) for origin in (OURS, LISTED) for rest in ("", "/", "/a?b", "?b", "#c")),
    *(([referer], True) for referer in FOREIGN if referer != "https://app.example.com/"),
    *(([f"{origin}/{OURS}/"], True) for origin in FOREIGN[2:9]),
    (["https://app.example.com\\@evil.example/"], True),
    (["https://app.example.com:443/"], True),
    (["https://app.example.com."], True),
    ([" https://app.example.com/"], True),
    (["//app.example.com/"], True),
    (["/a"], True),
    (["about:blank"], True),
    ([f"{OURS}/", f"{OURS}/"], True),
    ([f"{OURS}/", "https://evil.example/"], True),
]


@pytest.mark.parametrize(("origins", "site", "refused"), TABLE)
def test_is_cross_site_asks_the_referer_last(origins: list[str], site: str | None, refused: bool) -> None:
    """CF-2: all combinations with a Referer, which counts only without an Origin and a known Sec-Fetch-Site."""
    decided = bool(origins) or site in ("same-origin", "none", "same-site", "cross-site")
    for referers, foreign in REFERERS:
        verdict = is_cross_site(
            "POST",
            origins=origins,
            sec_fetch_site=site,
            referers=referers,
            authorization=False,
            own_cookie=True,
            allowed=ALLOWED,
        )
        assert verdict is (refused if decided else foreign), referers


@pytest.mark.parametrize(("origins", "site", "_"), TABLE)
def test_is_cross_site_does_not_judge_safe_methods(origins: list[str], site: str | None, _: bool) -> None:
    """CF-3: GET, HEAD and OPTIONS change nothing."""
    for method in ("GET", "HEAD", "OPTIONS"):
        assert not is_cross_site(
            method,
            origins=origins,
            sec_fetch_site=site,
            referers=["https://evil.example/"],
            authorization=False,
            own_cookie=True,
            allowed=ALLOWED,
        )


@pytest.mark.parametrize(("origins", "site", "_"), TABLE)
def test_is_cross_site_does_not_judge_bearers_without_cookie(origins: list[str], site: str | None, _: bool) -> None:
    """Another site cannot make a browser send Authorization."""
    assert not is_cross_site(
        "POST",
        origins=origins,
        sec_fetch_site=site,
        referers=["https://evil.example/"],
        authorization=True,
        own_cookie=False,
        allowed=ALLOWED,
    )


@pytest.mark.parametrize(
    ("origins", "fine"),
    [
        ([], False),
        ([OURS], True),
        ([LISTED], True),
        ([OURS, OURS], False),
        *(([origin], False) for origin in FOREIGN),
    ],
)
def test_websocket_allowed(origins: list[str], fine: bool) -> None:
    """WS-1: a handshake needs exactly one Origin, which must be listed."""
    assert fine is websocket_allowed(origins, ALLOWED)
