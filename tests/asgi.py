"""Raw ASGI: requests to an application without a server or a client library."""

import asyncio
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_auth.authentication import Authentication
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

BROWSER = {"Sec-Fetch-Site": "same-origin"}
PAGE = {"Accept": "text/html", **BROWSER}
JSON = {"Accept": "application/json"}
FORM_TYPE = "application/x-www-form-urlencoded"


@dataclass
class Answer:
    """The answer to a request."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key == name.lower()]

    def __getitem__(self, name: str) -> str | None:
        """The only value of a header; None if the header is absent."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def cookie(self, name: str) -> str:
        """The value of a cookie that the answer sets."""
        return SimpleCookie("; ".join(self.all("set-cookie")))[name].value


def make_scope(method: str, path: str, headers: Headers = (), *, query: bytes = b"", **more: Any) -> Scope:
    """The scope of a request to ``http://localhost:8000``, unless *headers* has a Host."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if not any(name.lower() == "host" for name, _ in pairs):
        pairs.insert(0, ("host", "localhost:8000"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(errors="replace"),
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
        "client": ("192.0.2.1", 1234),
        "server": ("localhost", 8000),
    } | more


class Exchange:
    """One request and its answer.

    ``task`` ends when the application returns; ``answered`` is set when the whole answer was sent.
    """

    def __init__(self, app: ASGIApp, scope: Scope, chunks: Iterable[bytes], *, whole: bool = True) -> None:
        self.answer, self.answered, self.gone = Answer(), asyncio.Event(), asyncio.Event()
        parts = list(chunks)
        self._messages: list[Message] = [
            {"type": "http.request", "body": part, "more_body": not whole or index < len(parts)}
            for index, part in enumerate(parts, 1)
        ]
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        waiting = [asyncio.ensure_future(event.wait()) for event in (self.answered, self.gone)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.answer.status = message["status"]
            self.answer.headers = [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())
            ]
        else:
            self.answer.body += message.get("body", b"")
            if not message.get("more_body", False):
                self.answered.set()


def start(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    headers: Headers = (),
    data: Mapping[str, str] | None = None,
    json: Any = None,
    body: bytes = b"",
    chunks: Iterable[bytes] | None = None,
    whole: bool = True,
    cookie: str | None = None,
    bearer: str | None = None,
    **scope: Any,
) -> Exchange:
    """Begin a request with a form (*data*), JSON, a raw *body* or *chunks* of one.

    If not *whole*, the body never ends: the client announces more and does not send it.
    """
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if data is not None:
        body, pairs = urlencode(data).encode(), [*pairs, ("content-type", FORM_TYPE)]
    if json is not None:
        body, pairs = _dumps(json), [*pairs, ("content-type", "application/json")]
    if cookie is not None:
        pairs.append(("cookie", cookie))
    if bearer is not None:
        pairs.append(("authorization", f"Bearer {bearer}"))
    return Exchange(app, make_scope(method, path, pairs, **scope), [body] if chunks is None else chunks, whole=whole)


def _dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


async def ask(app: ASGIApp, method: str, path: str, **request: Any) -> Answer:
    """Send a request and wait until the application returns, including jobs after the answer."""
    exchange = start(app, method, path, **request)
    await exchange.task
    return exchange.answer


async def post(app: ASGIApp, path: str, data: Mapping[str, str] | None = None, **request: Any) -> Answer:
    """Send a POST request with a form."""
    return await ask(app, "POST", path, data=data, **request)


async def shake(
    app: ASGIApp, path: str = "/", headers: Headers = (), said: Sequence[str] = (), **more: Any
) -> list[Message]:
    """Begin a websocket handshake, send the texts in *said*, disconnect, and return all that the application sent."""
    scope = make_scope("GET", path, headers, type="websocket", scheme="ws", subprotocols=[], **more)
    del scope["method"]
    texts: list[Message] = [{"type": "websocket.receive", "text": text} for text in said]
    messages: list[Message] = [{"type": "websocket.connect"}, *texts, {"type": "websocket.disconnect", "code": 1006}]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    # In a separate task: Python 3.11 does not trace the callers of a coroutine into which an error was thrown.
    await asyncio.ensure_future(app(scope, receive, send))
    return sent


async def live(app: ASGIApp, messages: Iterable[Message] | None = None) -> list[Message]:
    """Run a lifespan from startup to shutdown and return all that the application sent."""
    waiting = list(messages or [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    return sent


async def silence() -> Message:
    """A ``receive`` that never returns."""
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # it never returns


async def whoami(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that returns the current user as JSON and accepts a websocket only from a user."""
    await asyncio.sleep(0)  # gives other requests a turn
    state = scope["asgi_auth"]
    seen = {"user": scope["user"].id, "scopes": scope["auth"].scopes, "error": state.error and state.error.code}
    if scope["type"] == "websocket":
        await receive()
        kind = "accept" if scope["user"].is_authenticated else "close"
        await send({"type": f"websocket.{kind}", **({"headers": []} if kind == "accept" else {"code": 1008})})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": _dumps(seen)})


def site(auth: Authentication[Any], plug: ASGIApp | None = None) -> ASGIApp:
    """``whoami`` inside a plug inside both middlewares."""
    return SessionUserMiddleware(BearerUserMiddleware(plug or AuthPlug(auth, app=whoami), auth), auth)


async def seen_user(app: ASGIApp, **request: Any) -> str | None:
    """The id of the user that the application sees."""
    answer = await ask(app, "GET", "/", **request)
    user: str | None = answer.json()["user"]
    return user


def tables(directory: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of ``app.db`` in *directory*, by table."""
    with closing(sqlite3.connect(directory / "app.db")) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: database.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}  # noqa: S608


async def execute(directory: Path, statement: str) -> None:
    """Change ``app.db`` in *directory* while the application runs and does not know of it."""
    await asyncio.to_thread(_execute, directory, statement)


def _execute(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / "app.db")) as database, database:
        database.execute(statement)
