"""Invalid requests are rejected and leave no trace."""

import asyncio
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from asgi_auth.errors import ConfigurationError
from asgi_auth.types import AccessToken, Activity, User
from asgi_auth.web.plug import AuthPlug
from tests.asgi import BROWSER, FORM_TYPE, JSON, PAGE, ask, post, seen_user, silence, site, start, tables
from tests.support import (
    BASE_URL,
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    LocalAuthentication,
    credentials,
    found_of,
    is_alive,
    mailed_token,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

TYPES: list[Any] = [None, True, 0, 1.5, [], ["a"], {}]


async def _phases(auth: LocalAuthentication) -> dict[str, dict[str, str]]:
    """Return valid parameters for every phase that has parameters."""
    _, token = await auth.strategy("password").sign_in(credentials(), token_type="sign_in")
    await auth.strategy("password").reset_request({"email": EMAIL})
    new = {"password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    return {
        "register": registration(OTHER_EMAIL),
        "sign_in": credentials(),
        "sign_in_with_token": {"token": token},
        "reset_request": {"email": EMAIL},
        "reset": {"reset_token": mailed_token(auth), **new},
    }


async def test_values_that_are_not_text_are_rejected(
    tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """PW-11: every field of every phase rejects values that are not text; nothing is stored or consumed."""
    await register(auth)
    phases = await _phases(auth)
    before = tables(tmp_path)
    for phase, params in phases.items():
        for field in params:
            for value in TYPES:
                answer = await ask(plug, "POST", f"/auth/password/{phase}", json={**params, field: value})
                assert (answer.status, list(answer.json()["fields"])) == (422, [field]), (phase, field, value)

    assert tables(tmp_path) == before


async def test_privileged_fields_are_ignored(tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """AC-8: undeclared fields are never stored."""
    privileged = {
        "id": "root",
        "is_admin": True,
        "confirmed_at": 1,
        "password_hash": "x",
        "stamp": "y",
        "data": {"a": 1},
    }
    answer = await ask(plug, "POST", "/auth/password/register", json={**registration(), **privileged})
    (user,) = tables(tmp_path)["asgi_auth_users"]

    assert answer.status == 200
    assert "root" not in user
    assert "{}" in user


@pytest.mark.parametrize("length", [73, 1024, 1025, 4096, 60_000])
async def test_long_password_gives_the_same_answer_for_every_user(
    auth: LocalAuthentication, plug: AuthPlug[User], length: int
) -> None:
    """PW-3: known and unknown users get the same answer, with a hash (up to 1,024 bytes) or a rejection before it."""
    await register(auth)
    answers = [
        await post(plug, "/auth/password/sign_in", credentials(email, "x" * length)) for email in (EMAIL, OTHER_EMAIL)
    ]

    assert answers[0] == answers[1]
    assert answers[0].status == (401 if length <= 1024 else 422)


# --- bodies ----------------------------------------------------------------------------------------------------------


async def test_huge_body_is_rejected_early(plug: AuthPlug[User]) -> None:
    """RP-1: a body of 100 MiB, announced or in chunks, gives 413; memory stays below a megabyte."""
    announced = await ask(plug, "POST", "/auth/sign_out", headers={"content-length": "104857600"}, whole=False)
    tracemalloc.start()
    streamed = await ask(plug, "POST", "/auth/sign_out", chunks=[b"x" * 65_536] * 1600)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (announced.status, streamed.status) == (413, 413)
    assert peak < 1_000_000


BAD_JSON = {
    "bad UTF-8": b'{"email": "\xff"}',
    "nesting": b'{"email": ' + b"[" * 30_000,
    "a long integer": b'{"email": ' + b"9" * 5000 + b"}",
    "not a number": b'{"email": NaN}',
    "infinite": b'{"email": 1e999}',
    "half a character": b'{"email": "\\ud800"}',
    "no object": b'["email"]',
    "a text": b'"email"',
    "a mark": b'\xef\xbb\xbf{"email": "a"}',
    "UTF-16": '{"email": "a"}'.encode("utf-16"),
    "a key twice": b'{"email": "a", "email": "b"}',
    "more behind": b'{"email": "a"} {}',
    "a comment": b'{"email": "a" /* b */}',
    "2^63": b'{"email": 9223372036854775808}',
}


@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON)
async def test_malformed_json_gives_400(plug: AuthPlug[User], body: bytes) -> None:
    """RP-3: JSON that two parsers could read differently is rejected."""
    answer = await ask(
        plug, "POST", "/auth/password/reset_request", body=body, headers={"content-type": "application/json"}
    )

    assert (answer.status, answer.json()["code"]) == (400, "malformed_request")


@pytest.mark.parametrize(
    "body",
    [b"email=a&email=b", b"email=a&%65mail=b", b"email=%ff", b"email=%4", b"&".join(b"a%d=" % n for n in range(51))],
)
async def test_malformed_forms_give_400(plug: AuthPlug[User], body: bytes) -> None:
    """RP-4: a repeated field in any spelling, invalid UTF-8, a broken escape and too many fields are rejected."""
    answer = await ask(plug, "POST", "/auth/password/reset_request", body=body, headers={"content-type": FORM_TYPE})

    assert answer.status == 400


async def test_query_gives_no_parameters(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """RP-4: parameters come only from the body; a phase that reads the query rejects a repeated name, like a form."""
    await register(auth)
    query = b"email=alice%40mail.example.org&password=quartz+lantern+mosaic"

    assert (await post(plug, "/auth/password/sign_in", query=query)).status == 422
    assert (await post(plug, "/auth/password/sign_in", credentials(), query=b"a=1")).status == 200
    assert (await post(plug, "/auth/password/sign_in", credentials(), query=b"a=1&a=2")).status == 200
    assert (await ask(plug, "GET", "/auth/password/reset", query=b"a=1&a=2")).status == 400


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/plain; application/json",
        "application/jsonp",
        "application/json, text/plain",
        "application/json;charset=utf-16",
        "x/y;application/json",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded; charset=latin-1",
        "",
        None,
    ],
)
async def test_other_media_types_give_415(
    auth: LocalAuthentication, plug: AuthPlug[User], content_type: str | None
) -> None:
    """CF-4, RP-2: a media type that other sites may send without a preflight request is never parsed as JSON."""
    headers = {} if content_type is None else {"content-type": content_type}
    body = json.dumps(credentials()).encode()

    assert (await ask(plug, "POST", "/auth/password/sign_in", body=body, headers=headers)).status == 415


@pytest.mark.parametrize(
    ("content_type", "essentials"),
    [
        (None, ["There is no Content-Type header", "'Content-Type: application/json'", "x-www-form-urlencoded"]),
        ("text/plain;charset=UTF-8", ["not supported", "'Content-Type: application/json'"]),
        ("application/json; charset=utf-16", ["must be UTF-8", "'Content-Type: application/json'"]),
        ("application/json; =", ["'Content-Type: application/json'"]),
        ("x" * 257, ["'Content-Type: application/json'"]),
        (FORM_TYPE, ["The body is JSON", "'Content-Type: application/json'"]),
        ("multipart/form-data; boundary=x", ["multipart/form-data is not supported", FORM_TYPE, "URLSearchParams"]),
    ],
)
async def test_answer_to_an_unsupported_body_names_the_header(
    plug: AuthPlug[User], content_type: str | None, essentials: list[str]
) -> None:
    """The detail of a 415 names the right header, in problem details and in text."""
    headers = {} if content_type is None else {"content-type": content_type}
    options: dict[str, Any] = {"method": "POST", "path": "/auth/password/sign_in", "body": b' {"email": "a@x.example"}'}
    text = await ask(plug, **options, headers={**headers, "accept": "text/plain"})
    problem = await ask(plug, **options, headers={**headers, **JSON})

    assert (text.status, problem.status) == (415, 415)
    assert problem.json()["title"] == "The request must be JSON or a form, in UTF-8"
    assert text.text.splitlines() == [problem.json()["title"], problem.json()["detail"]]
    assert [word for word in essentials if word not in problem.json()["detail"]] == []


async def test_second_content_type_is_named(plug: AuthPlug[User]) -> None:
    """RP-2: a request has one media type; the answer says so."""
    headers = [("content-type", FORM_TYPE), ("content-type", "application/json"), *JSON.items()]
    answer = await ask(plug, "POST", "/auth/password/sign_in", body=b"{}", headers=headers)

    assert (answer.status, answer.json()["detail"]) == (415, "Send one Content-Type header, not several.")


async def test_page_for_an_unsupported_form_names_the_remedy(plug: AuthPlug[User]) -> None:
    """A browser that sends a multipart form gets a page that names the supported type."""
    headers = {**PAGE, "content-type": "multipart/form-data; boundary=x"}
    answer = await ask(plug, "POST", "/auth/password/reset", body=b"--x", headers=headers)

    assert answer.status == 415
    assert "multipart/form-data is not supported" in answer.text


# --- disconnects -----------------------------------------------------------------------------------------------------


async def test_disconnect_leaves_nothing_behind(
    tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """RP-9: after half a body and a disconnect there is no answer, no row and no task."""
    before, tasks = tables(tmp_path), asyncio.all_tasks()
    for _ in range(20):
        exchange = start(plug, "POST", "/auth/password/register", chunks=[b"email=a"], whole=False)
        await asyncio.sleep(0)
        exchange.gone.set()
        await exchange.task
        assert exchange.answer.status == 0

    assert tables(tmp_path) == before
    assert asyncio.all_tasks() == tasks


async def test_disconnect_during_a_hash_stops_the_phase(
    tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DO-2, RP-9: a registration is cancelled if its client disconnects while the password waits for its hash."""
    await register(auth)
    before, hashing = tables(tmp_path), asyncio.Event()

    async def hang(*args: Any, **options: Any) -> str:
        hashing.set()
        return str(await silence())

    monkeypatch.setattr(auth.services.passwords, "set", hang)
    exchange = start(plug, "POST", "/auth/password/register", data=registration(OTHER_EMAIL))
    await hashing.wait()
    exchange.gone.set()
    await exchange.task

    assert exchange.answer.status == 0
    assert tables(tmp_path) == before


# --- paths and headers -----------------------------------------------------------------------------------------------

ODD_PATHS = [
    "//password/sign_in",
    "/password//sign_in",
    "/password/sign_in//",
    "/password%2fsign_in",
    "/password/sign%5Fin",
    "/password/sign_in%00",
    "/password/%2e%2e/sign_out",
    "/password/../sign_out",
    "/./password/sign_in",
    "/password/sign_in;x",
    "/Password/sign_in",
    "/password/SIGN_IN",
    "/password/sign_in/more",
    "/password",
    "/sign_out/more",
    "/",
    "",
    "/password\\sign_in",
    "/password/sign_in ",
    "/password/sign_in\xff",
    "http://localhost:8000/auth/password/sign_in",
    "*",
    "@evil.example/auth/password/sign_in",
]


@pytest.mark.parametrize("path", ODD_PATHS)
async def test_other_spellings_of_a_path_give_404(auth: LocalAuthentication, plug: AuthPlug[User], path: str) -> None:
    """RP-6, HT-4: no other spelling is redirected, since a redirect would repeat the body."""
    raw = path if path.startswith(("http", "*", "@")) else f"/auth{path}"
    answer = await post(plug, "/auth/password/sign_in", credentials(), raw_path=raw.encode("latin-1"))

    assert (answer.status, answer["location"]) == (404, None)


async def test_one_trailing_slash_is_allowed(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """RP-6: Litestar adds a trailing slash."""
    await register(auth)

    assert (await post(plug, "/auth/password/sign_in/", credentials())).status == 200


async def test_links_come_from_the_configuration(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """HT-1: Host and forwarded headers do not change the links in mails."""
    await register(auth)
    headers = {"host": "testserver", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    await post(plug, "/auth/password/reset_request", {"email": EMAIL}, headers=headers)
    _, _, opts = auth.sender.messages[-1]

    assert opts["url"] == f"http://localhost:8000/auth/password/reset?reset_token={mailed_token(auth)}"


@pytest.mark.parametrize(("base_url", "level"), [("https://app.example.org", "WARNING"), (BASE_URL, "INFO")])
@pytest.mark.parametrize(
    ("trusted", "header", "told"),
    [
        ([], "x-forwarded-for", 'give trusted_proxies=["192.0.2.1"]'),
        (["192.0.2.1"], "forwarded", 'give forwarded_header="forwarded"'),
    ],
)
async def test_missing_proxy_options_are_logged_once(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    base_url: str,
    level: str,
    trusted: list[str],
    header: str,
    told: str,
) -> None:
    """HT-2: with a local base URL the level is INFO, since the proxy is one for development."""
    caplog.set_level("INFO")
    plug = AuthPlug(make_auth(tmp_path, base_url=base_url, trusted_proxies=trusted))
    headers = {"host": "localhost", header: "for=203.0.113.9"}
    for sent in ({"host": "localhost"}, headers, headers):
        await post(plug, "/auth/nothing", headers=sent)

    assert [record.levelname for record in caplog.records if told in record.message] == [level]


@pytest.mark.parametrize(
    ("path", "root_path", "misplaced"),
    [
        ("/auth/password/sign_in", "/auth", False),
        ("/api/auth/password/sign_in/", "/api/auth", False),
        ("/password/sign_in", "", False),
        ("/login/password/sign_in", "/login", True),
        ("/auth2/password/sign_in", "/auth2", True),
    ],
)
async def test_plug_at_another_path_is_logged(
    plug: AuthPlug[User], caplog: pytest.LogCaptureFixture, path: str, root_path: str, misplaced: bool
) -> None:
    """The links in its mails would be wrong. The line is logged once, and not for a proxy that changes the prefix."""
    for _ in range(2):
        assert (await post(plug, path, root_path=root_path)).status != 404

    said = [message for message in caplog.messages if message.startswith("mount_path: links go to /auth, but")]
    assert said == [f"mount_path: links go to /auth, but the plug is at {root_path}: give the same to both"] * misplaced


UNREADABLE = [
    [("authorization", "Bearer")],
    [("authorization", 'Bearer "abc"')],
    [("authorization", "Bearer [object Object]")],
    [("authorization", "Bearer a"), ("authorization", "Bearer b")],
    [("authorization", "Basic eDp5"), ("authorization", "Bearer a")],
    [("authorization", "Bearer " + "x" * 5000)],
]


@pytest.mark.parametrize("headers", UNREADABLE)
async def test_unreadable_authorization_header_is_ignored(auth: LocalAuthentication, headers: Any) -> None:
    """RP-5: with a valid cookie beside it, the client can register, sign in, reset and sign out."""
    await register(auth)
    app, phases = site(auth), await _phases(auth)
    phases["reset_request"] = phases.pop("reset_request")  # comes last: it replaces the link
    requests = {f"password/{phase}": params for phase, params in phases.items()}
    for path, params in {**requests, "sign_out": {}}.items():
        token = await auth.sign_in((await found_of(auth)).user)
        answer = await post(app, f"/auth/{path}", params, headers=headers, cookie=f"user_session={token.cookie}")
        assert (answer.status, await is_alive(auth, token)) == (200, path == "password/reset_request"), path


@pytest.mark.parametrize("headers", UNREADABLE)
async def test_unreadable_authorization_header_gives_400_in_a_session_phase(
    auth: LocalAuthentication, headers: Any
) -> None:
    """TK-19, RP-5: a phase for signed-in users rejects such a header, even with a valid cookie beside it."""
    _, token = await register(auth)
    request: dict[str, Any] = {"headers": headers, "cookie": f"user_session={token.cookie}"}
    for app in (AuthPlug(auth), site(auth)):
        answer = await post(app, "/auth/password/reauthenticate", {"password": PASSWORD}, **request)
        assert (answer.status, answer["set-cookie"]) == (400, None)
    assert await is_alive(auth, token)


async def test_two_authorization_headers_are_no_credential(auth: LocalAuthentication) -> None:
    """TK-19, RP-5: neither token authenticates; a sign-out ends up to 8 of them and rejects a request with more."""
    user, _ = await register(auth)
    tokens = [await auth.sign_in(user) for _ in range(9)]
    headers = [("authorization", f"Bearer {token}") for token in tokens]
    app = site(auth)

    assert await seen_user(app, headers=headers[:2]) is None
    assert (await post(app, "/auth/sign_out", headers=headers, cookie=f"user_session={tokens[0].cookie}")).status == 400
    assert [await is_alive(auth, token) for token in tokens] == [True] * 9
    assert (await post(app, "/auth/sign_out", headers=[*headers[:8], *headers[:8], *UNREADABLE[0]])).status == 200
    assert [await is_alive(auth, token) for token in tokens] == [False] * 8 + [True]


async def test_token_in_other_places_is_no_credential(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """TK-19, SE-9: a token in the query, a form, a cookie or another header is ignored."""
    _, token = await register(auth)
    for request in (
        {"query": f"access_token={token}&session={token.cookie}".encode()},
        {"cookie": f"user_session={token}; access_token={token}"},
        {"headers": {"x-session": token.cookie, "x-access-token": str(token), "x-user-id": "1", "remote-user": EMAIL}},
    ):
        assert await seen_user(site(auth), **request) is None
    form = {"access_token": str(token), "user_session": token.cookie}
    assert (await post(plug, "/auth/sign_out", form)).status == 200
    assert await seen_user(site(auth), bearer=str(token)) is not None


JUNK = [
    "user_session",
    "user_session=",
    "=x",
    '"',
    "user_session=" + "x" * 8192,
    "a=1; " * 200,
    "user_session=\xff\x80",
]
JUNK += ['user_session="\\141"', ";;;", "user_session==", "user_session=.", "user_session=" + "A" * 43 + "." + "B" * 43]


@pytest.mark.parametrize("cookie", JUNK, ids=range(len(JUNK)))
async def test_malformed_cookie_is_anonymous(auth: LocalAuthentication, cookie: str) -> None:
    """RP-10: a client with a malformed cookie is anonymous and gets no error."""
    assert await seen_user(site(auth), cookie=cookie) is None
    assert (await post(site(auth), "/auth/sign_out", cookie=cookie)).status == 200


METACHARACTERS = [
    "' OR 1=1--",
    '"; DROP TABLE asgi_auth_users',
    "{{7*7}}",
    "%s%n",
    "${x}",
    "*)(uid=*",
    "a\0b",
    "<b>x</b>",
]


@pytest.mark.parametrize("text", METACHARACTERS)
async def test_metacharacters_are_data(auth: LocalAuthentication, plug: AuthPlug[User], text: str) -> None:
    """RP-8, RP-11, RD-4: such values are rejected or wrong; they cause no server error and never become markup."""
    await register(auth)
    for phase, params in (await _phases(auth)).items():
        for field in params:
            answer = await post(plug, f"/auth/password/{phase}", {**params, field: text}, headers=PAGE)
            assert answer.status in (200, 401, 422)
            assert (answer.status == 200) <= (phase == "reset_request"), (phase, field)
            assert "<b>x" not in answer.text
    assert (await post(plug, "/auth/password/sign_in", credentials())).status == 200


# --- return_to -------------------------------------------------------------------------------------------------------


class _Redirecting(AuthPlug[User]):
    async def handle_success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Response:
        return RedirectResponse(self.return_to(request, default="/me"), 303)

    async def handle_sign_out(self, request: Request) -> Response:
        return RedirectResponse(self.return_to(request), 303)


ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/%09/evil.example",
    "/%5cevil.example",
    "/.//evil.example",
    "/%2e%2e//evil.example",
    "https://evil.example",
    "HTTPS:evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "http://localhost:8000@evil.example",
    "https://app.example.org/here/",
    "https://app.example.org/here?x",
    "app://other",
    " /me",
    "me",
    "",
    "/a\r\nSet-Cookie: a=b",
    "/a%0d%0aSet-Cookie:%20a=b",
    "/a\0",
    "/" + "a" * 2048,
]


@pytest.mark.parametrize("wanted", ELSEWHERE)
async def test_return_to_rejects_foreign_targets(auth: LocalAuthentication, wanted: str) -> None:
    """RD-1, RD-3: the plug replaces every doubtful target in the body with the default."""
    await register(auth)
    plug = _Redirecting(auth)
    by_body = await post(plug, "/auth/password/sign_in", {**credentials(), "return_to": wanted})
    by_sign_out = await post(plug, "/auth/sign_out", {"return_to": wanted})

    assert (by_body.status, by_body["location"]) == (303, "/me")
    assert (by_sign_out.status, by_sign_out["location"]) == (303, "/")


async def test_return_to_allows_local_paths_and_listed_urls(tmp_path: Path) -> None:
    """RD-1, RD-2: a local path or exactly a listed URL is allowed; 303 prevents a second POST of the password."""
    auth = make_auth(tmp_path, allowed_return_to=["https://app.example.org/here", "app://back"])
    async with auth.running():
        plug = _Redirecting(auth)
        await register(auth)
        for wanted in ("/a/b?c=d#e", "https://app.example.org/here", "app://back"):
            params = {**credentials(), "return_to": wanted}
            answer = await post(plug, "/auth/password/sign_in", params, headers=BROWSER)
            assert (answer.status, answer["location"]) == (303, wanted)
        in_query = await post(plug, "/auth/password/sign_in", credentials(), query=b"return_to=/q")
        both = {**credentials(), "return_to": "//evil.example"}
        first = await post(plug, "/auth/password/sign_in", both, query=b"return_to=/q")

    assert (in_query["location"], first["location"]) == ("/q", "/me")


@pytest.mark.parametrize("listed", ["https://app.example.org/", ["/local"], ["app.example.org"], ["https://a b"], [""]])
def test_allowed_return_to_is_checked_at_start(tmp_path: Path, listed: Any) -> None:
    """RD-1: the option must be a list of absolute URLs; a string would be a list of its characters."""
    with pytest.raises(ConfigurationError, match="allowed_return_to"):
        make_auth(tmp_path, allowed_return_to=listed)


async def test_return_to_of_an_unreadable_query_is_the_default(auth: LocalAuthentication) -> None:
    """DO-4: a query that is too long or malformed is ignored, also if no other code reads it."""
    for query in (b"return_to=/q&" * 9, b"return_to=/q&a=" + b"x" * 16384, b"return_to=%ff"):
        assert (await post(_Redirecting(auth), "/auth/sign_out", query=query))["location"] == "/"


@pytest.mark.parametrize("field", ["email", "password", "return_to"])
async def test_request_values_cannot_split_headers(auth: LocalAuthentication, field: str) -> None:
    """RD-3: no header of an answer contains a line break or NUL from the request."""
    await register(auth)
    params = {**credentials(), field: "/x\r\nSet-Cookie: a=b\0"}
    answer = await post(_Redirecting(auth), "/auth/password/sign_in", params)

    assert not [value for _, value in answer.headers if set(value) & set("\r\n\0")]
    assert PASSWORD not in str(answer.headers)
