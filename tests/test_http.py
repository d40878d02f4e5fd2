"""Reading requests and writing answers."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import Message

from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    BodyTooLargeError,
    ForbiddenError,
    InvalidTokenError,
    MalformedRequestError,
    MediaTypeError,
    MisdirectedRequestError,
    SlowRequestError,
    ValidationError,
)
from asgi_auth.phases import Browser
from asgi_auth.protocol.body import parse_query
from asgi_auth.protocol.headers import check_headers
from asgi_auth.types import CookieKind
from asgi_auth.web.answers import add_security_headers, clear_site_data, problem, reason_headers, wants_json, wants_page
from asgi_auth.web.bodies import ClientGone, read_body, unless_gone
from asgi_auth.web.browser import CookieBrowser, drop_cookie, keep_cookie
from asgi_auth.web.clients import client_of
from tests.asgi import FORM_TYPE, make_scope, silence
from tests.support import make_auth, register

SOON = timedelta(seconds=10)


async def _read(body: list[bytes] | None, *headers: tuple[str, str], limit: int = 64, timeout: timedelta = SOON) -> Any:
    """Read *body*, given in chunks. None: the client disconnects. An empty list: no data ever arrives."""
    messages: Iterator[Message] = iter(
        [{"type": "http.disconnect"}]
        if body is None
        else [{"type": "http.request", "body": part, "more_body": n < len(body)} for n, part in enumerate(body, 1)]
    )

    async def receive() -> Message:
        message = next(messages, None)
        return await silence() if message is None else message

    return await read_body(Request(make_scope("POST", "/", headers), receive), limit=limit, timeout=timeout)


FORM = ("content-type", FORM_TYPE)
JSON = ("content-type", "application/json")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        ([b"a=1&b=%C3%A9"], [FORM], {"a": "1", "b": "é"}),
        ([b"a=", b"1"], [FORM], {"a": "1"}),
        ([b'{"a": [1]}'], [JSON], {"a": [1]}),
        ([b""], [], {}),
        ([b"", b""], [("content-type", "text/plain")], {}),
        ([b"a" * 64], [FORM, ("content-length", "64")], {"a" * 64: ""}),
        ([b"a=1"], [FORM, ("content-length", "x")], {"a": "1"}),
    ],
)
async def test_read_body_parses_forms_and_json(
    body: list[bytes], headers: list[tuple[str, str]], expected: Any
) -> None:
    """Forms and JSON are read in any number of chunks; an empty body requires no media type."""
    assert expected == await _read(body, *headers)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "headers", "error"),
    [
        ([], [FORM, ("content-length", "65")], BodyTooLargeError),
        ([], [FORM, ("content-length", "9" * 500)], BodyTooLargeError),
        ([b"a" * 65], [FORM], BodyTooLargeError),
        ([b"a" * 40, b"a" * 40, b""], [FORM], BodyTooLargeError),
        ([b"a=1"], [], MediaTypeError),
        ([b"a=1"], [FORM, FORM], MediaTypeError),
        ([b"{}"], [("content-type", "text/plain")], MediaTypeError),
        ([b"{}"], [("content-type", "application/json; charset=latin-1")], MediaTypeError),
        ([b"{"], [JSON], MalformedRequestError),
        ([b"a=1&a=1"], [FORM], MalformedRequestError),
        (None, [FORM], ClientGone),
    ],
)
async def test_read_body_rejects_invalid_bodies(
    body: list[bytes] | None, headers: list[tuple[str, str]], error: type[Exception]
) -> None:
    """RP-1, RP-2: a body over the limit is refused before reading or as soon as it passes the limit, chunked or not."""
    with pytest.raises(error):
        await _read(body, *headers)


@pytest.mark.anyio
async def test_read_body_times_out() -> None:
    """RP-9: an incomplete body gets 408; the request does not hang."""
    with pytest.raises(SlowRequestError):
        await _read([], FORM, timeout=timedelta(microseconds=1))


def test_parse_query_is_strict() -> None:
    """RP-4: a repeated name and an invalid encoding are rejected."""
    assert parse_query(b"a=1&b=%20") == {"a": "1", "b": " "}
    for query in (b"a=1&a=2", b"a=%ff", b"a=%"):
        with pytest.raises(MalformedRequestError):
            parse_query(query)


# --- disconnected clients -------------------------------------------------------------------------------------------


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.anyio
async def test_unless_gone_stops_the_work_of_a_disconnected_client() -> None:
    """DO-2: the work is cancelled and has ended before ClientGone is raised."""
    ended = []

    async def work() -> None:
        try:
            await _forever()
        finally:
            ended.append(True)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        await unless_gone(receive, work())

    assert ended == [True]


@pytest.mark.anyio
async def test_unless_gone_survives_a_receive_that_repeats_the_body() -> None:
    """A middleware may answer every receive() with the body at once; the work still completes."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def work() -> str:
        for _ in range(9):
            await asyncio.sleep(0)
        return "done"

    assert await unless_gone(receive, work()) == "done"


@pytest.mark.anyio
async def test_unless_gone_passes_errors_on() -> None:
    """Errors of the work and of receive() are raised."""

    async def broken() -> Message:
        raise RuntimeError("no more messages")

    async def refuse() -> None:
        raise ForbiddenError

    with pytest.raises(RuntimeError):
        await unless_gone(broken, _forever())
    with pytest.raises(ForbiddenError):
        await unless_gone(silence, refuse())


@pytest.mark.anyio
async def test_unless_gone_passes_a_cancellation_on() -> None:
    """A cancellation ends the work: a server that shuts down does not wait for a client."""

    task = asyncio.ensure_future(unless_gone(silence, _forever()))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


# --- hosts and clients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:1",
        "LOCALHOST",
        "app.localhost",
        "a.b.localhost:8000",
        "App.LOCALHOST",
        "127.0.0.1:8000",
        "127.9.9.9",
        "[::1]:8000",
        "testserver",
    ],
)
def test_check_host_accepts_local_names(tmp_path: Path, host: str) -> None:
    """A local instance accepts local host names, with every port."""
    make_auth(tmp_path).site.check_host([(b"host", host.encode())])


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.example"],
        ["localhost.evil.example"],
        ["evillocalhost"],
        ["app.testserver"],
        ["localhost@evil.example"],
        [""],
        ["192.0.2.1"],
        ["[::2]"],
        ["a", "a"],
    ],
)
def test_check_host_rejects_other_names(tmp_path: Path, hosts: list[str]) -> None:
    """HT-1: an attacker's host name that resolves to 127.0.0.1 is rejected."""
    with pytest.raises(MisdirectedRequestError):
        make_auth(tmp_path).site.check_host([(b"host", host.encode()) for host in hosts])


def test_check_host_names_a_missing_host(tmp_path: Path) -> None:
    """HT-1: an HTTP/1.0 request may have no Host; the error says that it is missing."""
    with pytest.raises(MisdirectedRequestError, match="Host is missing: with base_url http://localhost:8000 only"):
        make_auth(tmp_path).site.check_host([])


def test_check_host_accepts_every_name_on_https(tmp_path: Path) -> None:
    """With https, the certificate protects the name."""
    make_auth(tmp_path, base_url="https://app.example.org").site.check_host([(b"host", b"other")])


@pytest.mark.anyio
async def test_client_of_reads_the_transport(tmp_path: Path) -> None:
    """HT-2: without trusted proxies, the address is the peer's; only our own cookie gives the session."""
    auth = make_auth(tmp_path)
    _, token = await register(auth)
    headers = {"x-forwarded-for": "203.0.113.9", "user-agent": "Browser\x07 1", "origin": "null"}
    client = client_of(make_scope("GET", "/", {**headers, "cookie": f"user_session={token.cookie}"}), auth)
    nobody = client_of(make_scope("GET", "/", {"cookie": "user_session=forged"}, client=None), auth)
    await auth.close()

    assert (client.address, client.label, client.browser) == ("192.0.2.1", "Browser 1", True)
    assert client.session_hashes == (auth.sessions.cookie_hash(token.cookie),)
    assert (nobody.address, nobody.label, nobody.browser, nobody.session_hashes) == (None, "", False, ())


def test_client_of_trusts_listed_proxies(tmp_path: Path) -> None:
    """HT-2: the address is the right-most hop that is not a trusted proxy."""
    auth = make_auth(tmp_path, trusted_proxies=["192.0.2.0/24"])
    scope = make_scope("GET", "/", {"x-forwarded-for": "198.51.100.1, 203.0.113.9"})

    assert client_of(scope, auth).address == "203.0.113.9"


@pytest.mark.parametrize(("header", "address"), [("x-forwarded-for", "203.0.113.9"), ("forwarded", "203.0.113.8")])
def test_client_of_trusts_only_the_configured_header(tmp_path: Path, header: str, address: str) -> None:
    """HT-2: only the configured header is read, because a proxy passes the other one on as the client sent it."""
    auth = make_auth(tmp_path, trusted_proxies=["192.0.2.1"], forwarded_header=header)
    both = {"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.8"}
    (other,) = both.keys() - {header}

    assert client_of(make_scope("GET", "/", both), auth).address == address
    assert client_of(make_scope("GET", "/", {other: both[other]}), auth).address == "192.0.2.1"


@pytest.mark.parametrize("client", [None, ("", "0")])
def test_client_of_trusts_the_peer_on_a_socket(tmp_path: Path, client: Any) -> None:
    """HT-2: with ``unix`` trusted, the peer on a UNIX socket is trusted; servers give it no address or an empty one."""
    scope = {**make_scope("GET", "/", {"x-forwarded-for": "203.0.113.9"}), "client": client, "server": None}

    assert client_of(scope, make_auth(tmp_path, trusted_proxies=["unix"])).address == "203.0.113.9"
    assert client_of(scope, make_auth(tmp_path)).address is None
    assert (
        client_of({**scope, "server": ("192.0.2.1", 80)}, make_auth(tmp_path, trusted_proxies=["unix"])).address is None
    )


# --- cookies of the steps of a sign-in ------------------------------------------------------------------------------

HOUR = timedelta(hours=1)
PENDING, FLOW = "user_pending", "user_flow_{:016x}"


def _browser(directory: Path, cookie: str = "") -> CookieBrowser:
    return CookieBrowser([(b"cookie", cookie.encode("latin-1"))], make_auth(directory).site)


def _written(browser: CookieBrowser) -> list[str]:
    """The Set-Cookie headers of an answer."""
    response = Response()
    browser.apply(response)
    return response.headers.getlist("set-cookie")


@pytest.mark.parametrize("value", ["", "1; user_pending=1", '"1"', "\xff", "x" * 5000])
def test_browser_ignores_unreadable_cookies(tmp_path: Path, value: str) -> None:
    """SE-8, RP-10: an empty, repeated or unreadable cookie is ignored; it can still be removed by its name."""
    browser = _browser(tmp_path, f"{PENDING}={value}")
    assert (browser.read("pending"), list(browser.read_all("pending"))) == (None, [])
    browser.drop("pending")
    assert [line.partition("=")[0] for line in _written(browser)] == [PENDING]


@pytest.mark.parametrize(
    "name", ["pending", "user_pending_0123456789abcdef", "user_flow", "user_theme", "admin_pending"]
)
def test_browser_reads_only_its_own_cookies(tmp_path: Path, name: str) -> None:
    """SE-8: a cookie with another name belongs to another application; it is neither read nor removed."""
    browser = _browser(tmp_path, f"{name}=1")
    kinds: tuple[CookieKind, ...] = ("pending", "flow", "challenge")
    assert [browser.read(kind) for kind in kinds] == [None] * 3
    browser.drop_sign_in()
    assert _written(browser) == []


def test_browser_has_one_pending_sign_in(tmp_path: Path) -> None:
    """A newer pending cookie replaces the older one; it can be read at once and removed again."""
    browser = _browser(tmp_path, f"{PENDING}=old")
    browser.keep("pending", "new", lifetime=HOUR)
    assert list(browser.read_all("pending")) == ["new"]
    assert _written(browser) == [f"{PENDING}=new; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"]
    browser.drop("pending")
    assert browser.read("pending") is None
    assert [line.partition(";")[0] for line in _written(browser)] == [f"{PENDING}="]


def test_browser_keeps_twenty_of_a_kind(tmp_path: Path) -> None:
    """SE-3, OA-19: twenty flows are kept; one more removes the oldest. A flow that is kept again counts only once."""
    cookies = [f"{FLOW.format(number)}=flow{number}" for number in range(20)]
    browser = _browser(tmp_path, "; ".join(cookies))
    browser.keep("flow", "newest", lifetime=HOUR)
    browser.keep("flow", "newest", lifetime=HOUR)
    browser.keep("challenge", "other", lifetime=HOUR)
    assert list(browser.read_all("flow")) == [*(f"flow{number}" for number in range(1, 20)), "newest"]
    assert browser.read("flow") is None  # only the flow itself can identify its cookie
    dropped = [line for line in _written(browser) if "Max-Age=0" in line]
    assert [line.partition("=")[0] for line in dropped] == [FLOW.format(0)]


def test_browser_drops_one_value(tmp_path: Path) -> None:
    """A finished flow is removed, the flows of other tabs stay."""
    browser = _browser(tmp_path, f"{FLOW.format(1)}=a; {FLOW.format(2)}=b")
    browser.drop("flow", "a")
    browser.drop("flow", "unknown")
    assert browser.read("flow") == "b"
    assert len(_written(browser)) == 1


def test_browser_bounds_the_bytes_of_a_kind(tmp_path: Path) -> None:
    """DO-4: the oldest value is removed, because a server that refuses large headers would lock the user out."""
    browser = _browser(tmp_path)
    for number in range(9):
        browser.keep("flow", f"{number}{'x' * 3999}", lifetime=HOUR)
    assert [value[0] for value in browser.read_all("flow")] == ["5", "6", "7", "8"]


@pytest.mark.parametrize(("value", "lifetime"), [("a b", HOUR), ("a;b", HOUR), ("a", timedelta(milliseconds=999))])
def test_browser_rejects_invalid_cookies(tmp_path: Path, value: str, lifetime: timedelta) -> None:
    """RD-3: a value that a cookie cannot hold is rejected at once, so that a step fails before it does its work."""
    browser = _browser(tmp_path)
    with pytest.raises(ValueError, match="cookie"):
        browser.keep("flow", value, lifetime=lifetime)
    assert _written(browser) == []


def test_browser_hides_the_session_cookie(tmp_path: Path) -> None:
    """SE-3: a step can neither read nor remove the session cookie."""
    browser = _browser(tmp_path, "user_session=secret; user_pending_=x; user_session_=y")
    assert browser.read(cast("Any", "session")) is None
    browser.drop(cast("Any", "session"))
    browser.drop_sign_in()
    assert (browser.read("pending"), _written(browser)) == (None, [])


def test_browser_without_http_stores_nothing() -> None:
    """An action that keeps a cookie can be called without HTTP; then nothing is stored."""
    browser = Browser()
    browser.keep("flow", "a", lifetime=HOUR)
    browser.drop("flow")
    assert (browser.read("flow"), browser.read_all("flow")) == (None, ())


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "content_type", "json", "page"),
    [
        (None, None, False, False),
        (None, "application/json", True, False),
        (None, "Application/JSON ; charset=utf-8", True, False),
        (None, "application/jsonp", False, False),
        ("*/*", "application/json", True, False),
        ("text/html", "application/json", False, True),
        ("application/json", FORM_TYPE, True, False),
        ("application/json, text/html;q=0.5", None, True, False),
        ("text/html, application/json;q=0.9", None, False, True),
        ("text/plain", None, False, False),
    ],
)
def test_wants_json_and_wants_page_follow_the_headers(
    accept: str | None, content_type: str | None, json: bool, page: bool
) -> None:
    """JSON if Accept prefers it, or if the body is JSON and Accept contains no text; a page if Accept contains HTML."""
    headers = {"accept": accept, "content-type": content_type}
    scope = make_scope("POST", "/", {name: value for name, value in headers.items() if value is not None})

    assert (json, page) == (wants_json(scope), wants_page(scope))


def test_problem_as_json_has_code_and_fields() -> None:
    """RD-4: RFC 9457, with a stable code and a message for each field, without the reason."""
    response = problem(ValidationError("secret", fields={"email": "This field is required."}), json=True)

    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code == 422
    assert response.body == (
        b'{"type":"about:blank","title":"Some fields are not right yet","status":422,"code":"validation_failed",'
        b'"fields":{"email":"This field is required."}}'
    )


def test_problem_as_text_has_title_and_fields() -> None:
    """The text has the title and a line for each field; a 401 is always ``Access denied``."""
    response = problem(
        ValidationError(fields={"email": "This field is required.", "password": "This text is too long."}), json=False
    )

    assert response.body == (
        b"Some fields are not right yet\nemail: This field is required.\npassword: This text is too long."
    )
    assert problem(InvalidTokenError("expired"), json=False).body == b"Access denied"


@pytest.mark.parametrize(
    ("reason", "authorization", "expected"),
    [
        (AuthenticationFailedError(), None, 'Bearer realm="App"'),
        (AuthenticationFailedError(), "Bearer x", 'Bearer realm="App"'),
        (InvalidTokenError(), None, 'Bearer realm="App"'),
        (InvalidTokenError(), "Basic eDp5", 'Bearer realm="App"'),
        (InvalidTokenError(), "Bearer x", 'Bearer realm="App", error="invalid_token"'),
        (MalformedRequestError(), "Bearer x", 'Bearer realm="App", error="invalid_request"'),
        (MalformedRequestError(), None, None),
        (ForbiddenError(), "Bearer x", None),
    ],
)
def test_reason_headers_contain_the_challenge(
    reason: AuthError, authorization: str | None, expected: str | None
) -> None:
    """TK-20: the challenge has an error only if the request has a bearer token; other schemes are ignored."""
    scope = make_scope("GET", "/", {} if authorization is None else {"authorization": authorization})

    assert expected == reason_headers(reason, scope, realm="App").get("WWW-Authenticate")


def test_reason_headers_keep_the_headers_of_the_reason() -> None:
    """Headers of the reason, such as Retry-After, are kept."""
    reason = ForbiddenError(headers={"Retry-After": "7"})

    assert reason_headers(reason, make_scope("GET", "/"), realm="") == {"Retry-After": "7"}


def test_security_headers_replace_all_but_a_pages_policy() -> None:
    """TK-21, CF-8: no-store, nosniff, same-origin referrer, no frames; only a page's own policy is kept."""
    nothing, own = "default-src 'none'; frame-ancestors 'none'", "default-src 'self'"
    responses: list[tuple[Response, str]] = [
        (PlainTextResponse("", headers={"cache-control": "public, max-age=9"}), nothing),
        (Response(status_code=204), nothing),
        (HTMLResponse("<p>"), "frame-ancestors 'none'"),
        (HTMLResponse("<p>", headers={"content-security-policy": own}), own),
    ]
    for response, policy in responses:
        add_security_headers(response)
        assert response.headers.getlist("cache-control") == ["no-store"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "same-origin"
        assert response.headers["content-security-policy"] == policy


def test_clear_site_data_keeps_the_applications_values() -> None:
    """The values of all headers are merged into one header, each value once."""
    response = PlainTextResponse("")
    for value in ('"cookies", "cache"', '"storage"'):
        response.headers.append("Clear-Site-Data", value)
    for _ in range(2):
        clear_site_data(response, '"prefetchCache"', '"cache"')

    assert response.headers.getlist("clear-site-data") == ['"cookies", "cache", "storage", "prefetchCache"']


def test_keep_cookie_and_drop_cookie_leave_other_cookies_alone() -> None:
    """SE-3: each name has one Set-Cookie header, the last one; the application's own cookies are kept."""
    response = PlainTextResponse("")
    response.set_cookie("theirs", "1")
    keep_cookie(response, "ours", "a", secure=True, max_age=9)
    keep_cookie(response, "ours", "b", secure=True)
    kept = response.headers.getlist("set-cookie")
    drop_cookie(response, "ours", secure=True)

    assert kept[1:] == ["ours=b; Path=/; HttpOnly; SameSite=Lax; Secure"]
    assert kept[0].startswith("theirs=1;")
    assert response.headers.getlist("set-cookie")[1:] == [
        "ours=; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    ]


# --- limits ---------------------------------------------------------------------------------------------------------


def test_number_of_header_lines_is_limited() -> None:
    """DO-4: 256 header lines are accepted; one more is refused, and the answer depends only on the first 256."""
    scope = make_scope("GET", "/", [("x", "")] * 255)
    check_headers(scope["headers"])
    scope["headers"].append((b"accept", b"application/json"))
    with pytest.raises(MalformedRequestError):
        check_headers(scope["headers"])
    assert not wants_json(scope)


def test_long_headers_are_cut(tmp_path: Path) -> None:
    """DO-4: only the first 1,024 bytes of User-Agent are read, and the last ones of X-Forwarded-For."""
    auth = make_auth(tmp_path, trusted_proxies=["192.0.2.0/24"])
    hops = ",".join(["198.51.100.1", *["192.0.2.9"] * 200_000, "203.0.113.9"])
    scope = make_scope("GET", "/", {"user-agent": " " * 1023 + "Browser", "x-forwarded-for": hops})
    client = client_of(scope, auth)
    assert (client.label, client.address) == ("B", "203.0.113.9")


@pytest.mark.parametrize("size", [16 * 1024, 16 * 1024 + 1])
def test_size_of_a_query_is_limited(size: int) -> None:
    """DO-4: a query may have up to 16 KiB."""
    query = b"a=" + b"x" * (size - 2)
    if size > 16 * 1024:
        with pytest.raises(MalformedRequestError):
            parse_query(query)
    else:
        assert len(parse_query(query)["a"]) == size - 2
