"""An ASGI 3 lint around and inside every ASGI layer of the library: it checks the order and types of all messages."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.asgi import PAGE, ask, execute, live, post, shake, silence, start
from tests.support import BASE_URL, EMAIL, PATIENCE, LocalAuthentication, credentials, make_auth, register, registration

pytestmark = pytest.mark.anyio


# --- requirements of messages ---------------------------------------------------------------------------------------


def _check_headers(headers: Any) -> None:
    for name, value in list(headers):
        assert type(name) is bytes
        assert type(value) is bytes
        assert name == name.lower()
        assert not set(name + value) & set(b"\r\n\0")


def _check_start(message: Message) -> None:
    assert type(message["status"]) is int
    assert 200 <= message["status"] < 600
    _check_headers(message.get("headers", ()))


def _check_body(message: Message) -> None:
    assert type(message.get("body", b"")) is bytes
    assert type(message.get("more_body", False)) is bool


def _check_accept(message: Message) -> None:
    assert message.get("subprotocol") is None
    _check_headers(message.get("headers", ()))


def _check_close(message: Message) -> None:
    code = message.get("code", 1000)
    assert code in (1000, 1001, 1008, 1011, 1012, 1013)


def _check_failed(message: Message) -> None:
    assert type(message.get("message", "")) is str


def _check_complete(message: Message) -> None:
    assert list(message) == ["type"]


CHECKS: dict[str, Callable[[Message], None]] = {
    "http.response.start": _check_start,
    "http.response.body": _check_body,
    "websocket.accept": _check_accept,
    "websocket.close": _check_close,
    "websocket.http.response.start": _check_start,
    "websocket.http.response.body": _check_body,
    "lifespan.startup.complete": _check_complete,
    "lifespan.startup.failed": _check_failed,
    "lifespan.shutdown.complete": _check_complete,
    "lifespan.shutdown.failed": _check_failed,
}

FOLLOWS: dict[str, set[str]] = {
    "": {"http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start"}
    | {"lifespan.startup.complete", "lifespan.startup.failed"},
    "http.response.start": {"http.response.body"},
    "http.response.body": {"http.response.body"},
    "websocket.accept": {"websocket.close"},
    "websocket.http.response.start": {"websocket.http.response.body"},
    "lifespan.startup.complete": {"lifespan.shutdown.complete", "lifespan.shutdown.failed"},
}
"""The messages that may follow each message; the empty key is the beginning."""


class Lint:
    """An application between two others that checks the messages in both directions."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.seen = app, list[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        kind, last, ended = scope["type"], "", False
        before = {name: value for name, value in scope.items() if name not in ("user", "auth", "asgi_auth")}
        _check_headers(scope.get("headers", ()))

        async def checked_receive() -> Message:
            message = await receive()
            assert message["type"].startswith(f"{kind}.")
            return message

        async def checked_send(message: Message) -> None:
            nonlocal last, ended
            assert not ended, "after the end"
            assert type(message) is dict
            assert message["type"].startswith(f"{kind}.")
            assert message["type"] in FOLLOWS.get(last, set()), (last, message["type"])
            CHECKS[message["type"]](message)
            last = message["type"]
            ended = last.endswith(".body") and not message.get("more_body", False)
            self.seen.append(last)
            await send(message)

        await self.app(scope, checked_receive, checked_send)
        changed = {name for name, value in before.items() if scope[name] is not value}
        assert not changed, "only what is ours is written"
        assert kind != "http" or ended or not last, "half an answer"


# --- layers between two lints ---------------------------------------------------------------------------------------


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads the whole request and answers in two parts."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})
    elif scope["type"] == "websocket":
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
    elif scope["type"] == "lifespan":
        for stage in ("startup", "shutdown"):
            assert await receive() == {"type": f"lifespan.{stage}"}
            await send({"type": f"lifespan.{stage}.complete"})


LAYERS: dict[str, Callable[[ASGIApp, Any], ASGIApp]] = {
    "session": SessionUserMiddleware,
    "bearer": BearerUserMiddleware,
    "plug": lambda app, auth: AuthPlug(auth, app),
}


@pytest.fixture(params=LAYERS)
def linted(request: pytest.FixtureRequest, auth: LocalAuthentication) -> Lint:
    """An application inside a lint, inside a layer, inside another lint."""
    return Lint(LAYERS[request.param](Lint(_application), auth))


async def test_http_passes_through(linted: Lint, auth: LocalAuthentication) -> None:
    """A request passes with and without credentials, valid or invalid, and with a body in parts."""
    _, token = await register(auth)
    for options in (
        {},
        {"cookie": f"user_session={token.cookie}"},
        {"cookie": "user_session=forged"},
        {"bearer": str(token)},
        {"bearer": "a b"},
        {"headers": {"origin": "null"}, "cookie": f"user_session={token.cookie}"},
    ):
        answer = await ask(linted, "POST", "/", chunks=[b"a", b"b", b""], **options)
        assert (answer.status, answer.body) == (200, b"ab")


async def test_websocket_passes_through(linted: Lint, auth: LocalAuthentication) -> None:
    """The application accepts a websocket of every user."""
    _, token = await register(auth)
    for headers in ({}, {"origin": BASE_URL, "cookie": f"user_session={token.cookie}"}, {"authorization": "Bearer x"}):
        sent = await shake(linted, headers=headers)
        assert sent == [{"type": "websocket.accept"}]


async def test_lifespan_passes_through(linted: Lint) -> None:
    """The application starts and stops once."""
    assert [message["type"] for message in await live(linted)] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_unknown_scopes_pass_through(linted: Lint) -> None:
    """The layer reads nothing and sends nothing."""
    async with asyncio.timeout(PATIENCE):
        await linted({"type": "unknown"}, silence, _discard)

    assert linted.seen == []


async def _discard(message: Message) -> None: ...


@pytest.mark.parametrize("layer", LAYERS)
async def test_failed_start_is_reported_once(tmp_path: Path, layer: str) -> None:
    """The layer sends ``lifespan.startup.failed`` once; the inner application receives nothing."""
    inner = Lint(_application)
    outer = Lint(LAYERS[layer](inner, make_auth(tmp_path / "missing")))
    (message,) = await live(outer)

    assert message["type"] == "lifespan.startup.failed"
    assert inner.seen == []


async def test_answers_of_the_plug_are_valid_messages(tmp_path: Path, auth: LocalAuthentication) -> None:
    """The plug's answers of every kind are valid ASGI; a disconnected client gets none."""
    linted = Lint(SessionUserMiddleware(Lint(AuthPlug(auth)), auth))
    answers = [
        await post(linted, "/auth/password/register", registration()),
        await post(linted, "/auth/password/sign_in", credentials()),
        await post(linted, "/auth/password/sign_in", credentials(password="wrong")),
        await post(linted, "/auth/password/reset_request", {"email": EMAIL}),
        await ask(linted, "GET", "/auth/password/sign_in", headers=PAGE),
        await ask(linted, "HEAD", "/auth/nothing"),
        await ask(linted, "POST", "/auth/sign_out", body=b"x"),
        await post(linted, "/auth/sign_out"),
    ]
    gone = start(linted, "POST", "/auth/sign_out", chunks=[b"a"], whole=False)
    await asyncio.sleep(0)
    gone.gone.set()
    await gone.task

    assert [answer.status for answer in answers] == [200, 200, 401, 200, 200, 404, 415, 200]
    assert gone.answer.status == 0


@pytest.mark.parametrize("extensions", [None, {}, {"websocket.http.response": {}}])
async def test_handshake_is_refused_if_the_store_is_unavailable(
    tmp_path: Path, auth: LocalAuthentication, extensions: dict[str, Any] | None
) -> None:
    """TK-14: it is refused with 503 if the server supports that, otherwise closed."""
    _, token = await register(auth)
    await execute(tmp_path, "ALTER TABLE asgi_auth_sessions RENAME TO gone")
    linted = Lint(SessionUserMiddleware(Lint(_application), auth))
    headers = {"origin": BASE_URL, "cookie": f"user_session={token.cookie}"}
    sent = await shake(linted, headers=headers, extensions=extensions)

    assert sent[0]["type"] == ("websocket.http.response.start" if extensions else "websocket.close")


async def test_handshake_below_the_plug_is_closed(auth: LocalAuthentication) -> None:
    """WS-3: the plug closes a websocket without accepting it."""
    linted = Lint(AuthPlug(auth))

    assert await shake(linted, "/auth/password/sign_in") == [{"type": "websocket.close", "code": 1000}]
