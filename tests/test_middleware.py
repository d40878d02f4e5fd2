"""Middleware: the user of a cookie or a bearer token, on http and websocket."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from anyio import CancelScope
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from asgi_auth.errors import ConfigurationError
from asgi_auth.types import AccessToken, AnonymousUser, AuthState, Session, User
from asgi_auth.web import middleware
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.asgi import (
    BROWSER,
    Headers,
    ask,
    execute,
    live,
    make_scope,
    post,
    seen_user,
    shake,
    silence,
    site,
    tables,
    whoami,
)
from tests.servers import serving
from tests.support import (
    BASE_URL,
    EMAIL,
    OTHER_EMAIL,
    OTHER_SECRET,
    PATIENCE,
    SECRET,
    LocalAuthentication,
    credentials,
    eventually,
    make_auth,
    register,
)

pytestmark = pytest.mark.anyio

UPGRADE = {"origin": BASE_URL}
DENIED = [{"type": "websocket.close", "code": 1008}]
ACCEPTED = [{"type": "websocket.accept", "headers": []}]


def _cookie(token: Any, name: str = "user_session") -> str:
    return f"{name}={token.cookie}"


# --- the user of a request ------------------------------------------------------------------------------------------


async def test_scope_of_a_cookie(auth: LocalAuthentication) -> None:
    """The scope contains the user object, Starlette's credentials and a frozen state."""
    user, token = await register(auth)
    seen: list[Scope] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    scope = make_scope("GET", "/", {"cookie": _cookie(token)})
    await SessionUserMiddleware(look, auth)(scope, silence, _nothing)
    state = scope["asgi_auth"]

    assert seen[0] is scope
    assert scope["user"] == user
    assert scope["auth"].scopes == ["authenticated", "session", "user"]
    assert state == AuthState(user, state.session, "session", ("authenticated", "session", "user"), None, auth)
    assert state.session.id == token.session.id
    assert (auth.user(scope), auth.state(scope)) == (user, state)


async def _nothing(message: Message) -> None: ...


async def test_anonymous(tmp_path: Path, auth: LocalAuthentication) -> None:
    """SE-11: without a credential the user is anonymous, and no row, cookie or header is written."""
    before = tables(tmp_path)
    answers = [await ask(site(auth), "GET", "/") for _ in range(20)]

    assert answers[0].json() == {"user": None, "scopes": [], "error": None}
    assert answers[0].headers == [("content-type", "application/json")]
    assert answers == [answers[0]] * 20
    assert tables(tmp_path) == before


async def test_bearer(auth: LocalAuthentication) -> None:
    """A token in the Authorization header gives the user and adds no header to the answer."""
    user, token = await register(auth)
    answer = await ask(site(auth), "GET", "/", bearer=str(token))

    assert answer.json() == {"user": user.id, "scopes": ["authenticated", "bearer", "user"], "error": None}
    assert answer.headers == [("content-type", "application/json")]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"cookie": "user_session=forged"}, "invalid_token"),
        ({"cookie": "user_session=a; user_session=b"}, "malformed_request"),
        ({"bearer": "forged"}, "invalid_token"),
        ({"bearer": "two words"}, "malformed_request"),
        ({"headers": [("authorization", "Bearer a"), ("authorization", "Bearer b")]}, "malformed_request"),
        ({"headers": {"authorization": "Basic eDp5"}}, None),
        ({"headers": [("x", "")] * 256}, "malformed_request"),
        ({"cookie": "x" * 65537}, "malformed_request"),
        ({"headers": {"authorization": "Basic eDp5"}, "cookie": "user_session=forged"}, "invalid_token"),
    ],
)
async def test_invalid_credential_gives_anonymous_user_with_the_reason(
    auth: LocalAuthentication, request_: dict[str, Any], error: str | None
) -> None:
    """TK-19, SE-2, RP-5: the user is anonymous and guards see the reason; another scheme is ignored."""
    answer = await ask(site(auth), "GET", "/", **request_)

    assert (answer.status, answer.json()) == (200, {"user": None, "scopes": [], "error": error})


async def test_reason_of_a_refused_credential_is_logged_at_debug(
    auth: LocalAuthentication, caplog: pytest.LogCaptureFixture
) -> None:
    """The line says when the token expired and does not contain the credential."""
    caplog.set_level("DEBUG", "asgi_auth")
    _, token = await register(auth)
    auth.clock.advance(timedelta(days=8))
    await ask(site(auth), "GET", "/", bearer=str(token))

    text = "a bearer credential was refused: access token expired 86400 s ago"
    assert caplog.record_tuples[-1] == ("asgi_auth", logging.DEBUG, text)


@pytest.mark.parametrize(
    ("base_url", "cookie", "level", "advice"),
    [
        (
            BASE_URL,
            "user_session=x",
            logging.WARNING,
            "; if the page is yours, set allowed_origins=['https://a.example']",
        ),
        ("https://auth.example.org", "__Host-user_session=x", logging.DEBUG, ""),
    ],
)
async def test_page_of_another_origin_is_a_warning_on_a_local_instance(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, base_url: str, cookie: str, level: int, advice: str
) -> None:
    """CF-1: a local instance warns and names the setting: the page is often the developer's. Elsewhere it is debug."""
    caplog.set_level("DEBUG", "asgi_auth")
    auth = make_auth(tmp_path, base_url=base_url)
    await ask(site(auth), "POST", "/", cookie=cookie, headers={"origin": "https://a.example"})

    text = (
        "a session credential was refused: Origin 'https://a.example': the page's origin is neither base_url, "
        f"{base_url}, nor in allowed_origins{advice}"
    )
    assert caplog.record_tuples[-1] == ("asgi_auth", level, text)


async def test_altered_cookie_is_rejected(auth: LocalAuthentication) -> None:
    """SE-2: a change of any character of a valid cookie makes it invalid."""
    _, token = await register(auth)
    app, good = site(auth), token.cookie
    altered = [good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :] for at in range(len(good))]

    assert await seen_user(app, cookie=f"user_session={good}") is not None
    for cookie in (*altered, good[:-1], good + "A", good.rpartition(".")[0]):
        assert await seen_user(app, cookie=f"user_session={cookie}") is None


async def test_credential_of_another_secret_is_rejected(tmp_path: Path, auth: LocalAuthentication) -> None:
    """SE-2, TK-9: with another secret and the same store, cookie and token are invalid."""
    _, token = await register(auth)
    other = site(make_auth(tmp_path, secret=OTHER_SECRET, store=auth.store))

    assert await seen_user(other, cookie=_cookie(token)) is None
    assert await seen_user(other, bearer=str(token)) is None


@pytest.mark.parametrize("kind", ["cookie", "bearer"])
async def test_foreign_signature_on_a_local_instance_is_a_warning_once(
    tmp_path: Path, auth: LocalAuthentication, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """The warning says that a secret made in code differs in each worker."""
    caplog.set_level("DEBUG", "asgi_auth")
    _, token = await register(auth)
    shown = {"cookie": _cookie(token)} if kind == "cookie" else {"bearer": str(token)}
    worker = make_auth(tmp_path, secret=OTHER_SECRET)
    caplog.clear()
    for _ in range(2):
        assert await seen_user(site(worker), **shown) is None

    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    what = {"cookie": "a session cookie", "bearer": "an access token"}[kind]
    assert told[0].startswith(f"{what} was signed with another secret. If the code makes the secret, each worker and")
    assert "python -m asgi_auth secret" in told[0]


async def test_foreign_signature_is_a_warning_on_a_local_instance_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On https any client may send one; a token for another kind of user does not mean another secret."""
    caplog.set_level("WARNING", "asgi_auth")
    public = [make_auth(tmp_path, base_url="https://a.example", secret=secret) for secret in (SECRET, OTHER_SECRET)]
    staff = make_auth(tmp_path, subject_name="admin")
    _, token = await register(public[0])
    _, staff_token = await register(staff)
    local = make_auth(tmp_path)
    caplog.clear()
    assert await seen_user(site(public[1]), cookie=f"__Host-user_session={token.cookie}") is None
    assert await seen_user(site(public[1]), bearer=str(token)) is None
    assert await seen_user(site(local), bearer=str(staff_token)) is None

    assert caplog.messages == []


async def test_doubled_cookies_are_rejected(auth: LocalAuthentication) -> None:
    """SE-8: two session cookies give no user, in any order, in one header or in two."""
    (_, mine), (_, theirs) = await register(auth), await register(auth, OTHER_EMAIL)
    app = site(auth)
    for pair in ((mine, theirs), (theirs, mine), (mine, mine)):
        cookies = [_cookie(token) for token in pair]
        assert await seen_user(app, cookie="; ".join(cookies)) is None
        assert await seen_user(app, headers=[("cookie", cookie) for cookie in cookies]) is None


async def test_one_identity_for_two_credentials(auth: LocalAuthentication) -> None:
    """SE-13: the outer middleware decides if its credential is valid; identities are never mixed."""
    (alice, cookie), (bob, bearer) = await register(auth), await register(auth, OTHER_EMAIL)
    session_first = site(auth)
    bearer_first = BearerUserMiddleware(SessionUserMiddleware(whoami, auth), auth)
    request: dict[str, Any] = {"cookie": _cookie(cookie), "bearer": str(bearer)}
    for app, user, method in ((session_first, alice, "session"), (bearer_first, bob, "bearer")):
        answer = await ask(app, "GET", "/", **request)
        assert answer.json() == {"user": user.id, "scopes": ["authenticated", method, "user"], "error": None}
    assert await seen_user(session_first, cookie="user_session=forged", bearer=str(bearer)) == bob.id


@pytest.mark.parametrize("planted", ["admin", AnonymousUser(), None])
async def test_earlier_values_in_scope_are_replaced(auth: LocalAuthentication, planted: object) -> None:
    """SE-12: a user, credentials or a state that other code put into the scope are ignored."""
    user, token = await register(auth)
    app = site(auth)
    foreign = AuthState(user, token.session, "session", (), None, "another")
    for state in (planted, foreign, foreign._replace(authentication=None)):
        scope: dict[str, Any] = {"user": planted, "auth": planted, "asgi_auth": state}
        assert (await ask(app, "GET", "/", **scope)).json() == {"user": None, "scopes": [], "error": None}
        assert await shake(app, headers=UPGRADE, **scope) == DENIED


async def test_requests_do_not_mix(auth: LocalAuthentication) -> None:
    """SE-12: 500 concurrent requests, by cookie, by token and anonymous, each get their own user."""
    users = [await register(auth, email) for email in (EMAIL, OTHER_EMAIL)]
    app = site(auth)
    kinds: list[tuple[str | None, dict[str, Any]]] = [(None, {})]
    for user, token in users:
        kinds += [(user.id, {"cookie": _cookie(token)}), (user.id, {"bearer": str(token)})]
    requests = [kinds[n % len(kinds)] for n in range(500)]
    seen = await asyncio.gather(*(seen_user(app, **request) for _, request in requests))

    assert seen == [user for user, _ in requests]


async def test_requests_around_a_rotation(auth: LocalAuthentication) -> None:
    """SE-14: slow requests during sign-in and sign-out neither lose the new session nor revive the old one."""
    _, token = await register(auth)
    app, old = site(auth), _cookie(token)
    slow = [asyncio.ensure_future(seen_user(app, cookie=old)) for _ in range(20)]
    answer = await post(app, "/auth/password/sign_in", credentials(), cookie=old, headers=BROWSER)
    await asyncio.gather(*slow)
    new = f"user_session={answer.cookie('user_session')}"
    assert await seen_user(app, cookie=old) is None
    assert await seen_user(app, cookie=new) is not None

    await asyncio.gather(post(app, "/auth/sign_out", cookie=new), *(seen_user(app, cookie=new) for _ in range(20)))
    assert await seen_user(app, cookie=new) is None


async def test_several_kinds_of_user(tmp_path: Path, auth: LocalAuthentication) -> None:
    """TK-23: with the same secret, store and origin, each middleware accepts only its own kind of user."""
    staff = make_auth(tmp_path, subject_name="staff", store=auth.store)
    _, token = await register(auth)
    cookies = _cookie(token), _cookie(token, "staff_session")
    for kind in (SessionUserMiddleware, BearerUserMiddleware):
        inside, around = kind(kind(whoami, staff), auth), kind(kind(whoami, auth), staff)
        for headers in ({"cookie": cookies[0]}, {"cookie": cookies[1]}, {"authorization": f"Bearer {token}"}):
            own = headers["cookie"] == cookies[0] if "cookie" in headers else kind is BearerUserMiddleware
            mine = own and (("cookie" in headers) == (kind is SessionUserMiddleware))
            assert await seen_user(inside, headers=headers) is None
            assert (await seen_user(around, headers=headers) is not None) == mine
            assert await shake(inside, headers={**headers, **UPGRADE}) == DENIED
            assert (await shake(around, headers={**headers, **UPGRADE}) == ACCEPTED) == mine


# --- caches ---------------------------------------------------------------------------------------------------------


def _answering(*headers: tuple[bytes, bytes], status: int = 200) -> ASGIApp:
    """An application with one answer."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, **({"headers": headers} if headers else {})})
        await send({"type": "http.response.body", "body": b""})

    return app


PAGE = (b"content-type", b"text/html")
FILE = ((b"content-type", b"text/css"), (b"etag", b'"a"'))


@pytest.mark.parametrize(
    ("app", "options", "cache_control"),
    [
        (_answering(), {}, "no-store"),
        (_answering(PAGE), {}, "no-store"),
        (_answering(PAGE), {"cache_control": "private"}, "private"),
        (_answering(*FILE), {}, "private, no-cache"),
        (_answering(*FILE), {"cache_control": "private"}, "private, no-cache"),
        (_answering(status=304), {}, "private, no-cache"),
        (_answering(PAGE, (b"Cache-Control", b"max-age=9")), {}, "max-age=9"),
    ],
)
@pytest.mark.parametrize("good", [True, False])
async def test_answer_that_depends_on_the_cookie_is_private(
    auth: LocalAuthentication, good: bool, app: ASGIApp, options: dict[str, str], cache_control: str
) -> None:
    """SE-15: an answer to a request with our cookie, valid or invalid, is not stored for others."""
    _, token = await register(auth)
    cookie = _cookie(token) if good else "user_session=forged"
    answer = await ask(SessionUserMiddleware(app, auth, **options), "GET", "/", cookie=cookie)
    others = await ask(SessionUserMiddleware(app, auth, **options), "GET", "/", cookie="theirs=1")
    values = {name: [v for key, v in answer.headers if key.lower() == name] for name in ("vary", "cache-control")}

    assert values == {"vary": ["Cookie"], "cache-control": [cache_control]}
    assert others["vary"] is None
    assert others["cache-control"] is None


async def test_cached_file_is_validated_and_not_sent_again(tmp_path: Path, auth: LocalAuthentication) -> None:
    """SE-15: a browser with the cookie caches Starlette's static files and gets 304 when it validates them."""
    (tmp_path / "site.css").write_text("p {}")
    _, token = await register(auth)
    app, cookie = SessionUserMiddleware(StaticFiles(directory=tmp_path), auth), _cookie(token)
    first = await ask(app, "GET", "/site.css", cookie=cookie)
    again = await ask(app, "GET", "/site.css", cookie=cookie, headers={"if-none-match": first["etag"] or ""})

    assert (first.status, first["cache-control"], first.text) == (200, "private, no-cache", "p {}")
    assert (again.status, again["cache-control"], again.text) == (304, "private, no-cache", "")


async def test_cache_control_of_the_middleware_is_checked(auth: LocalAuthentication) -> None:
    """SE-15: the constructor refuses a value that lets a shared cache store pages."""
    for wrong in ("public", "private\r\nx: y", None):
        with pytest.raises(ConfigurationError, match="cache_control"):
            SessionUserMiddleware(whoami, auth, cache_control=wrong)  # type: ignore[arg-type]


async def test_reading_sets_no_cookie(auth: LocalAuthentication) -> None:
    """A request that changes nothing sets no cookie, even if its cookie is invalid."""
    _, token = await register(auth)
    for cookie in (_cookie(token), "user_session=forged"):
        assert (await ask(site(auth), "GET", "/", cookie=cookie))["set-cookie"] is None


# --- other sites ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "headers", "is_known"),
    [
        ("POST", {}, True),
        ("POST", {"origin": BASE_URL}, True),
        ("POST", {"origin": "null"}, False),
        ("PUT", {"sec-fetch-site": "same-site"}, False),
        ("POST", {"referer": f"{BASE_URL}/a"}, True),
        ("POST", {"referer": "https://evil.example/"}, False),
        ("GET", {"referer": "https://evil.example/"}, True),
        ("DELETE", {"sec-fetch-site": "cross-site", "authorization": "Basic eDp5"}, False),
        ("GET", {"sec-fetch-site": "cross-site"}, True),
        ("HEAD", {"origin": "https://evil.example"}, True),
    ],
)
async def test_cross_site_requests_get_no_authority(
    auth: LocalAuthentication, method: str, headers: Headers, is_known: bool
) -> None:
    """CF-1, CF-2: the cookie of a cross-site request is ignored, and the state keeps the reason."""
    _, token = await register(auth)
    answer = await ask(site(auth), method, "/", headers=headers, cookie=_cookie(token))

    assert (answer.json()["user"] is not None) == is_known
    assert answer.json()["error"] == (None if is_known else "cross_site")


@pytest.mark.parametrize(
    ("origins", "verdict"),
    [
        ([BASE_URL], ACCEPTED),
        (["https://app.example.org"], ACCEPTED),
        ([], DENIED),
        (["null"], DENIED),
        (["https://evil.example"], DENIED),
        ([BASE_URL, BASE_URL], DENIED),
        (["http://LOCALHOST:8000"], DENIED),
    ],
)
async def test_handshake_with_the_cookie_requires_a_listed_origin(
    tmp_path: Path, origins: list[str], verdict: list[Message]
) -> None:
    """WS-1: a handshake with the cookie requires a listed Origin; one with a bearer token does not."""
    auth = make_auth(tmp_path, allowed_origins=["https://app.example.org"])
    async with auth.running():
        _, token = await register(auth)
        headers = [("origin", origin) for origin in origins]
        by_cookie = await shake(site(auth), headers=[*headers, ("cookie", _cookie(token))])
        by_token = await shake(site(auth), headers=[*headers, ("authorization", f"Bearer {token}")])

    assert (by_cookie, by_token) == (verdict, ACCEPTED)


# --- a database that does not answer --------------------------------------------------------------------------------


async def test_credential_that_cannot_be_checked_is_503(
    tmp_path: Path, auth: LocalAuthentication, caplog: pytest.LogCaptureFixture
) -> None:
    """TK-14: if the store fails, a credential gives 503, the cookie stays, and anonymous requests are served."""
    _, token = await register(auth)
    await execute(tmp_path, "ALTER TABLE asgi_auth_sessions RENAME TO gone")
    app = site(auth)
    for cookie, bearer in ((_cookie(token), None), (None, str(token))):
        answer = await ask(app, "GET", "/", cookie=cookie, bearer=bearer)
        assert (answer.status, answer["retry-after"], answer["set-cookie"]) == (503, "1", None)
        assert answer.text == "The service is busy at the moment"
    headers = {**UPGRADE, "cookie": _cookie(token)}
    closed = await shake(app, headers=headers)
    denied = await shake(app, headers=headers, extensions={"websocket.http.response": {}})

    assert closed == [{"type": "websocket.close", "code": 1013}]
    assert [message["type"] for message in denied] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert denied[0]["status"] == 503
    assert await seen_user(app) is None
    assert "a credential could not be checked" in caplog.text


async def test_unknown_schema_raises_configuration_error(tmp_path: Path, auth: LocalAuthentication) -> None:
    """An unknown schema raises ConfigurationError; the request is not served as anonymous."""
    _, token = await register(auth)
    await auth.close()
    await execute(tmp_path, "UPDATE asgi_auth_schema SET version = 999")
    with pytest.raises(ConfigurationError):
        await ask(site(auth), "GET", "/", cookie=_cookie(token))


# --- last use -------------------------------------------------------------------------------------------------------


async def test_last_use_is_noted_once_a_minute(tmp_path: Path, auth: LocalAuthentication) -> None:
    """SE-7: last use is stored at most once a minute; a used session does not expire as idle, an unused one does."""
    user, token = await register(auth)
    app = site(auth)

    async def last_seen() -> timedelta:
        (session,) = await auth.sessions.list(user.id)
        return session.last_seen_at - token.session.created_at

    for wait, noted in ((59, 0), (1, 60), (59, 60), (1, 120)):
        auth.clock.advance(timedelta(seconds=wait))
        assert await seen_user(app, cookie=_cookie(token)) == user.id
        assert await last_seen() == timedelta(seconds=noted)
    auth.clock.advance(timedelta(hours=12) - timedelta(seconds=1))
    assert await seen_user(app, bearer=str(token)) == user.id
    auth.clock.advance(timedelta(hours=12))
    assert await seen_user(app, cookie=_cookie(token)) is None


@pytest.mark.parametrize("purpose", [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch")])
async def test_prefetch_is_not_noted_as_a_use(auth: LocalAuthentication, purpose: tuple[str, str]) -> None:
    """SE-7: a prefetch by the browser gets the user's page but does not keep the session alive."""
    user, token = await register(auth)
    auth.clock.advance(timedelta(hours=1))
    for credential in ({"cookie": _cookie(token)}, {"bearer": str(token)}):
        assert await seen_user(site(auth), headers=dict([purpose]), **credential) == user.id
    (session,) = await auth.sessions.list(user.id)

    assert session.last_seen_at == token.session.created_at


async def test_request_succeeds_if_its_last_use_cannot_be_noted(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is sent; the failure is logged."""
    user, token = await register(auth)
    auth.clock.advance(timedelta(minutes=1))
    directory = Path(auth.store._file.path).parent  # type: ignore[attr-defined]

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        await whoami(scope, receive, send)
        await execute(directory, "ALTER TABLE asgi_auth_sessions RENAME TO gone")

    assert await seen_user(SessionUserMiddleware(closing, auth), cookie=_cookie(token)) == user.id
    assert "a session's last use could not be noted" in caplog.text


async def test_exception_propagates_if_the_last_use_cannot_be_noted(
    tmp_path: Path, auth: LocalAuthentication, caplog: pytest.LogCaptureFixture
) -> None:
    """The exception of the application propagates although the last use cannot be stored."""
    _, token = await register(auth)
    auth.clock.advance(timedelta(minutes=1))

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await execute(tmp_path, "ALTER TABLE asgi_auth_sessions RENAME TO gone")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask(SessionUserMiddleware(failing, auth), "GET", "/", cookie=_cookie(token))
    assert "a session's last use could not be noted" in caplog.text


async def test_request_succeeds_despite_an_unexpected_error_of_the_last_use(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception while the last use is stored is logged by its type; the answer is sent."""
    user, token = await register(auth)
    auth.clock.advance(timedelta(minutes=1))

    async def broken(session: Session) -> None:
        raise ZeroDivisionError(token.cookie)

    monkeypatch.setattr(auth.sessions, "touch", broken)
    assert await seen_user(SessionUserMiddleware(whoami, auth), cookie=_cookie(token)) == user.id
    assert "a session's last use could not be noted: ZeroDivisionError" in caplog.messages


async def _last_use(auth: LocalAuthentication, user: User, token: AccessToken) -> timedelta:
    """The time from creation to last use of the only session of *user*."""
    (session,) = await auth.sessions.list(user.id)
    return session.last_seen_at - token.session.created_at


@pytest.mark.parametrize("kind", [SessionUserMiddleware, BearerUserMiddleware])
async def test_request_that_ends_with_an_exception_is_noted_as_a_use(auth: LocalAuthentication, kind: Any) -> None:
    """SE-7: a request that ends with 500 is a use too; the exception propagates unchanged."""
    user, token = await register(auth)
    auth.clock.advance(timedelta(minutes=1))
    defect = ZeroDivisionError()

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise defect

    with pytest.raises(ZeroDivisionError) as raised:
        await ask(kind(failing, auth), "GET", "/", cookie=_cookie(token), bearer=str(token))

    assert raised.value is defect
    assert await _last_use(auth, user, token) == timedelta(minutes=1)


async def test_websocket_that_ends_with_a_disconnect_is_noted_as_a_use(auth: LocalAuthentication) -> None:
    """SE-7: under a real server, an endpoint that ends with WebSocketDisconnect is a use."""
    user, token = await register(auth)
    auth.clock.advance(timedelta(minutes=1))

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    async def noted() -> bool:
        return await _last_use(auth, user, token) == timedelta(hours=11, minutes=1)

    app = Starlette(routes=[WebSocketRoute("/", echo)], middleware=[Middleware(SessionUserMiddleware, auth=auth)])
    headers = {"cookie": _cookie(token), "origin": BASE_URL}
    async with serving(app, lifespan="auto") as url:
        async with connect(url.replace("http", "ws", 1), additional_headers=headers, proxy=None) as websocket:
            await websocket.send("hello")
            assert await websocket.recv() == "hello"
            auth.clock.advance(timedelta(hours=11))
        await eventually(noted)


async def _cut_off(auth: LocalAuthentication, token: AccessToken, *, by_scope: bool) -> None:
    """Cancel a request, as a task or by a scope of anyio, while the application waits for its client."""
    waiting, around = asyncio.Event(), CancelScope()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waiting.set()
        await receive()

    async def serve() -> None:
        with around:
            scope = make_scope("GET", "/", {"cookie": _cookie(token)})
            await SessionUserMiddleware(app, auth)(scope, silence, _nothing)

    task = asyncio.create_task(serve())
    await waiting.wait()
    if by_scope:
        around.cancel()
    else:
        task.cancel()
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait([task])
    assert task.cancelled() is not by_scope
    assert around.cancelled_caught is by_scope


@pytest.mark.parametrize("by_scope", [False, True], ids=["task", "scope"])
async def test_cancelled_request_is_noted_as_a_use(auth: LocalAuthentication, by_scope: bool) -> None:
    """SE-7: a server cancels running requests when it stops, and some do so when the client disconnects."""
    user, token = await register(auth)
    auth.clock.advance(timedelta(minutes=1))
    await _cut_off(auth, token, by_scope=by_scope)

    assert await _last_use(auth, user, token) == timedelta(minutes=1)


@pytest.mark.parametrize("by_scope", [False, True], ids=["task", "scope"])
async def test_cancellation_waits_only_briefly_for_the_store(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, by_scope: bool
) -> None:
    """FT-2: a database that does not answer delays the cancellation only briefly."""
    _, token = await register(auth)
    auth.clock.advance(timedelta(minutes=1))
    monkeypatch.setattr(middleware, "_HELD_BACK", timedelta(milliseconds=10))
    monkeypatch.setattr(auth.sessions, "touch", lambda session: silence())
    await _cut_off(auth, token, by_scope=by_scope)

    assert "a session's last use could not be noted: TimeoutError" in caplog.messages


async def test_cancelled_use_does_not_reopen_a_closed_store(tmp_path: Path) -> None:
    """A request that is cancelled after the store was closed does not open its file again."""
    auth = make_auth(tmp_path)
    async with auth.running():
        user, token = await register(auth)
        auth.clock.advance(timedelta(minutes=1))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await auth.close()
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await ask(SessionUserMiddleware(app, auth), "GET", "/", cookie=_cookie(token))
    assert not (tmp_path / "app.db-wal").exists()
    assert await _last_use(auth, user, token) == timedelta(0)
    await auth.close()


# --- without a middleware -------------------------------------------------------------------------------------------


async def test_every_state_finds_the_same_user_as_the_middlewares(auth: LocalAuthentication) -> None:
    """SE-16: the cookie is tried first, then the bearer token; a state that is already in the scope is not reused."""
    user, token = await register(auth)
    bearer = ("authorization", f"Bearer {token}")
    rows: list[tuple[list[tuple[str, str]], str | None, str | None]] = [
        ([("cookie", _cookie(token))], "session", None),
        ([bearer], "bearer", None),
        ([("cookie", "user_session=forged"), bearer], "bearer", None),
        ([("cookie", "user_session=forged")], None, "invalid_token"),
        ([], None, None),
    ]
    for headers, method, error in rows:
        state = await auth.recognition.every_state(make_scope("GET", "/", headers))
        assert (state.method, state.error and state.error.code) == (method, error)
        assert state.user == (user if method else state.user)
    known = AuthState(user, token.session, "bearer", (), None, auth)
    assert (await auth.recognition.every_state(make_scope("GET", "/", asgi_auth=known))).session is None


# --- lifespan -------------------------------------------------------------------------------------------------------

STARTED, STOPPED = {"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    for stage in ("startup", "shutdown"):
        assert await receive() == {"type": f"lifespan.{stage}"}
        await send({"type": f"lifespan.{stage}.complete"})


@pytest.mark.parametrize("kind", [SessionUserMiddleware, BearerUserMiddleware])
async def test_lifespan_opens_and_closes_the_store(tmp_path: Path, kind: Any) -> None:
    """Nested middlewares open the store once, before the application starts."""
    auth = make_auth(tmp_path)
    opened: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        opened.append((tmp_path / "app.db").exists())
        await _application(scope, receive, send)

    assert await live(kind(kind(app, auth), auth)) == [STARTED, STOPPED]
    assert opened == [True]
    assert await live(AuthPlug(auth)) == [STARTED, STOPPED]
    assert await live(AuthPlug(auth, app=_application)) == [STARTED, STOPPED]


async def test_store_that_cannot_open_fails_the_startup(tmp_path: Path) -> None:
    """The middleware sends startup.failed: a server takes an exception for a missing lifespan."""
    auth = make_auth(tmp_path / "missing")
    for app in (SessionUserMiddleware(_application, auth), AuthPlug(auth), AuthPlug(auth, app=_application)):
        (message,) = await live(app)
        assert message["type"] == "lifespan.startup.failed"
        assert message["message"].startswith("asgi_auth: sqlite: ")


async def test_startup_error_of_the_application_propagates(tmp_path: Path) -> None:
    """An error that the application raises after startup.failed propagates, even if it is one of our types."""
    auth = make_auth(tmp_path)

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed"})
        raise ConfigurationError("its own")

    with pytest.raises(ConfigurationError, match="its own"):
        await live(SessionUserMiddleware(refusing, auth))


async def test_other_scope_types_pass_through(tmp_path: Path) -> None:
    """The application gets scopes of an unknown type; a plug without an application ignores them."""
    auth, seen = make_auth(tmp_path), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope))

    wrapped: list[ASGIApp] = [SessionUserMiddleware(app, auth), BearerUserMiddleware(app, auth), AuthPlug(auth, app)]
    wrapped.append(AuthPlug(auth))
    for each in wrapped:
        await each({"type": "webtransport", "path": "/auth/sign_out"}, silence, _nothing)

    assert seen == [{"type": "webtransport", "path": "/auth/sign_out"}] * 3


async def test_plug_refuses_websockets(auth: LocalAuthentication) -> None:
    """WS-3: the plug closes a websocket to its own paths before it is accepted; others reach the application."""
    assert await shake(AuthPlug(auth), "/auth/password/sign_in") == [{"type": "websocket.close", "code": 1000}]
    _, token = await register(auth)
    headers = {**UPGRADE, "cookie": _cookie(token)}
    assert await shake(site(auth), "/auth/sign_out", headers) == [{"type": "websocket.close", "code": 1000}]
    assert await shake(site(auth), "/socket", headers) == ACCEPTED
