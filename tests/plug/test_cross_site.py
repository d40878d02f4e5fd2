"""Requests that other sites make a browser send change nothing."""

import logging
from itertools import product
from pathlib import Path

import pytest

from asgi_auth.runtime.telling import Telling
from asgi_auth.types import User
from asgi_auth.web.plug import AuthPlug
from tests.asgi import PAGE, ask, post, site, tables
from tests.support import (
    EMAIL,
    LocalAuthentication,
    credentials,
    mailed_token,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

ENDPOINTS = [
    "password/register",
    "password/sign_in",
    "password/sign_in_with_token",
    "password/reset_request",
    "password/reset",
    "sign_out",
]
PAGES = ["password/register", "password/sign_in", "password/reset_request", "password/reset"]
"""Endpoints with a page that a user can open."""

SITES = [None, "same-origin", "none", "same-site", "cross-site", "garbage"]
"""Values of Sec-Fetch-Site, in the order of the columns below."""

VERDICTS: list[tuple[list[str], str]] = [
    ([], "+++--+"),
    (["http://localhost:8000"], "++++++"),
    (["https://app.example.org"], "++++++"),
    (["null"], "-++---"),
    ([""], "-++---"),
    (["https://localhost:8000"], "-++---"),
    (["http://localhost"], "-++---"),
    (["http://localhost:8001"], "-++---"),
    (["http://localhost:8000.evil.example"], "-++---"),
    (["http://evil-localhost:8000"], "-++---"),
    (["HTTP://LOCALHOST:8000"], "-++---"),
    (["http://user@localhost:8000"], "-++---"),
    (["http://localhost:8000", "http://localhost:8000"], "------"),
]
"""Origin, and for each of SITES whether the request is served (+) or refused (-)."""


def _headers(origins: list[str], site: str | None, *more: tuple[str, str]) -> list[tuple[str, str]]:
    fetch = [] if site is None else [("sec-fetch-site", site)]
    return [*(("origin", origin) for origin in origins), *fetch, *more]


async def test_every_endpoint_checks_origin_and_site(tmp_path: Path) -> None:
    """CF-1, CF-2: every combination of Origin and Sec-Fetch-Site at every endpoint, without a session."""
    auth = make_auth(tmp_path, allowed_origins=["https://app.example.org"])
    async with auth.running():
        plug = AuthPlug(auth)
        for origins, verdicts in VERDICTS:
            for index, fetch_site in enumerate(SITES):
                for endpoint in ENDPOINTS:
                    answer = await post(plug, f"/auth/{endpoint}", headers=_headers(origins, fetch_site))
                    served = 200 if endpoint == "sign_out" else 422
                    expected = served if verdicts[index] == "+" else 403
                    assert answer.status == expected, (origins, fetch_site, endpoint)


@pytest.mark.parametrize(
    ("referers", "served"),
    [
        (["http://localhost:8000/sign_in?a=b"], True),
        (["https://app.example.org/"], True),
        (["https://evil.example/"], False),
        (["https://localhost:8000/"], False),
        (["http://localhost:8000.evil.example/"], False),
        (["http://localhost:8000@evil.example/"], False),
        (["null"], False),
        ([""], False),
        (["http://localhost:8000/", "http://localhost:8000/"], False),
    ],
)
async def test_every_endpoint_checks_the_referer(tmp_path: Path, referers: list[str], served: bool) -> None:
    """CF-2: without Origin and Sec-Fetch-Site the Referer decides, with or without a session cookie."""
    auth = make_auth(tmp_path, allowed_origins=["https://app.example.org"])
    async with auth.running():
        for endpoint, cookie in product(ENDPOINTS, (None, "user_session=x")):
            headers = [("referer", referer) for referer in referers]
            answer = await post(AuthPlug(auth), f"/auth/{endpoint}", headers=headers, cookie=cookie)
            expected = 200 if endpoint == "sign_out" else 422
            assert answer.status == (expected if served else 403), (endpoint, cookie)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ([("authorization", "Bearer x")], 422),
        ([("authorization", "Bearer x"), ("cookie", "user_session=x")], 403),
        ([("authorization", "Bearer x"), ("cookie", "user_pending=x")], 403),
        ([("authorization", "Bearer x"), ("cookie", f"user_flow_{'0' * 16}=x")], 403),
        ([("authorization", "Bearer x"), ("cookie", "other=x")], 422),
        ([("authorization", "Basic eDp5")], 403),
        ([("cookie", "user_session=x")], 403),
    ],
)
async def test_bearer_token_without_a_session_cookie_is_not_checked_for_origin(
    plug: AuthPlug[User], more: list[tuple[str, str]], status: int
) -> None:
    """CF-1: a page of another site cannot add a bearer token; but browsers add Basic credentials automatically."""
    headers = _headers(["https://evil.example"], "cross-site", *more)

    assert status == (await post(plug, "/auth/password/sign_in", headers=headers)).status


async def test_cross_site_request_has_no_effect(tmp_path: Path, auth: LocalAuthentication) -> None:
    """CF-1: a cross-site request with valid credentials, cookie and token is rejected and changes nothing."""
    app, (_, token) = site(auth), await register(auth)
    await auth.strategy("password").reset_request({"email": EMAIL})
    before = tables(tmp_path)
    forms = {
        "password/register": registration("new@mail.example.org"),
        "password/sign_in": credentials(),
        "password/reset_request": {"email": EMAIL},
        "password/reset": {"reset_token": mailed_token(auth), **registration()},
        "sign_out": {},
    }
    for endpoint, form in forms.items():
        headers = {"sec-fetch-site": "cross-site", "cookie": f"user_session={token.cookie}"}
        assert (await post(app, f"/auth/{endpoint}", form, headers=headers)).status == 403

    assert tables(tmp_path) == before


FOREIGN = "the page's origin is neither base_url, http://localhost:8000, nor in allowed_origins"
NOT_LOCAL = (
    "with base_url http://localhost:8000 only localhost, names below it and loopback addresses are served; to serve "
    "another name, give "
    "base_url that name, with https"
)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (
            [("origin", "https://www.example.org")],
            f"Origin 'https://www.example.org': {FOREIGN}; if the page is yours, set "
            "allowed_origins=['https://www.example.org']",
        ),
        (
            [("origin", "http://127.0.0.1:8000")],
            f"Origin 'http://127.0.0.1:8000': {FOREIGN}; open the page at http://localhost:8000, or set "
            "base_url='http://127.0.0.1:8000'",
        ),
        (
            [("origin", "http://localhost:5173")],
            f"Origin 'http://localhost:5173': {FOREIGN}; if the page is yours, set "
            "allowed_origins=['http://localhost:5173']",
        ),
        (
            [("origin", "null"), ("referer", "https://a.example/")],
            f"Origin 'null': {FOREIGN}; 'null' is sent by a local file, a sandboxed frame, and a page with "
            "Referrer-Policy: no-referrer",
        ),
        ([("origin", "http://a.example")] * 3, f"Origin 'http://a.example' and 'http://a.example': {FOREIGN}"),
        ([("sec-fetch-site", "same-site")], f"Sec-Fetch-Site 'same-site': {FOREIGN}"),
        ([("referer", "https://a.example/reset?token=secret")], f"Referer 'https://a.example': {FOREIGN}"),
        ([("referer", "secret")], f"Referer '': {FOREIGN}"),
        ([("origin", "https://\n\xe9" + "x" * 200)], f"Origin 'https://\\n\\xe9{'x' * 90}': {FOREIGN}"),
        ([("host", "dev.example:8000")], f"Host 'dev.example:8000': {NOT_LOCAL}"),
        ([("host", "localhost"), ("host", "b.example")], f"Host 'localhost' and 'b.example': {NOT_LOCAL}"),
    ],
    ids=range(11),
)
async def test_refusal_logs_the_origin_or_host(
    plug: AuthPlug[User], caplog: pytest.LogCaptureFixture, headers: list[tuple[str, str]], reason: str
) -> None:
    """HT-1: the log has the rejected value, cut and escaped, and the setting to change."""
    answer = await post(plug, "/auth/password/sign_in", headers=headers)
    what = "password.sign_in" if answer.status == 403 else "a request"

    assert answer.status == (403 if FOREIGN in reason else 421)
    assert caplog.record_tuples[-1] == ("asgi_auth", logging.WARNING, f"{what} was refused: {reason}")


async def test_flood_of_foreign_origins_logs_one_line_a_second(
    plug: AuthPlug[User], caplog: pytest.LogCaptureFixture
) -> None:
    """HT-1: refusals for many origins are counted together, separately for each kind of refusal."""
    seconds = iter([0.0] * 51 + [1.0])
    plug._serving._telling = Telling(clock=lambda: next(seconds))
    for number in range(50):
        await post(plug, "/auth/password/sign_in", headers=[("origin", f"https://{number}.example")])
    for header in ("host", "origin"):
        await post(plug, "/auth/sign_out", headers=[(header, "https://last.example")])

    assert [message.partition(":")[0] for message in caplog.messages[-3:]] == [
        "password.sign_in was refused",
        "a request was refused",
        "sign_out was refused",
    ]
    assert f"'https://last.example': {FOREIGN}" in caplog.messages[-1]
    assert caplog.messages[-1].endswith(" (49 more like it since the last such line)")


async def test_other_methods_are_rejected(tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """CF-3, CF-5, RP-7: every other method gives 405 with Allow, changes nothing, and sets no cookie or CORS header."""
    _, token = await register(auth)
    await auth.strategy("password").reset_request({"email": EMAIL})
    before = tables(tmp_path)
    query = f"reset_token={mailed_token(auth)}&email={EMAIL}&password=x".encode()
    for endpoint in ENDPOINTS:
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "post", "Post", "ODD"):
            answer = await ask(
                plug,
                method,
                f"/auth/{endpoint}",
                query=query,
                headers={"origin": "https://evil.example", "access-control-request-method": "POST"},
                cookie=f"user_session={token.cookie}",
            )
            shown = endpoint in PAGES and method in ("GET", "HEAD")
            assert answer.status == (200 if shown else 405), (endpoint, method)
            allow = "GET, HEAD, POST" if endpoint in PAGES else "POST"
            assert answer["allow"] == (None if shown else allow)
            assert answer["set-cookie"] is None
            assert not [name for name, _ in answer.headers if name.startswith("access-control")]

    assert tables(tmp_path) == before


async def test_override_headers_are_ignored(plug: AuthPlug[User]) -> None:
    """HT-5: no header overrides the method or the path."""
    headers = {"x-http-method-override": "POST", "x-original-url": "/auth/sign_out", "x-rewrite-url": "/auth/sign_out"}

    assert (await ask(plug, "GET", "/auth/sign_out", headers=headers)).status == 405
    assert (await post(plug, "/auth/nothing", headers=headers)).status == 404


async def test_pages_forbid_frames(plug: AuthPlug[User]) -> None:
    """CF-8: the policy of a page forbids frames and scripts, and allows forms only to the same origin."""
    answer = await ask(plug, "GET", "/auth/password/reset", headers=PAGE)
    policy = dict(part.strip().split(" ", 1) for part in str(answer["content-security-policy"]).split(";"))

    assert answer["content-type"] == "text/html; charset=utf-8"
    assert policy["frame-ancestors"] == policy["default-src"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert "script-src" not in policy
