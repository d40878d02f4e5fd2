"""Requests that are large in the parts that cost most to read, for the tests and for the benchmark of stalls."""

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgi_auth.authentication import Authentication
from asgi_auth.web.guards import require
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug

HEADER_BYTES = 4 * 1024 * 1024
"""The size of one header: some servers pass on headers of this size and larger."""
BODY_BYTES = 64 * 1024
LINES = 100_000

_NAMES = (
    *("cookie", "authorization", "origin", "sec-fetch-site", "referer", "user-agent", "x-forwarded-for"),
    *("accept", "accept-language", "content-type", "content-length", "host"),
)
_FILLINGS = (
    b"a",
    b" ",
    b",",
    b";",
    b"=;",
    b"9",
    b"%41",
    b"[",
    b"10.0.0.1,",
    b"user_session=a;",
    b"text/html;q=0,",
    b"a-b;q=1,",
)
_BEGINNINGS = {"authorization": b"Bearer ", "origin": b"http://", "referer": b"http://", "content-type": b"text/html;"}


class Hostile(NamedTuple):
    """One request: ``POST /auth/password/sign_in`` by default."""

    name: str
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    path: str = "/auth/password/sign_in"
    query: bytes = b""
    method: str = "POST"
    kind: str = "http"

    def scope(self) -> Scope:
        """The scope, as a server would create it."""
        host = [] if any(name == b"host" for name, _ in self.headers) else [(b"host", b"localhost:8000")]
        return {
            "type": self.kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": None if "raw" in self.name else self.path.encode("utf-8"),
            "query_string": self.query,
            "root_path": "",
            "headers": [*host, *self.headers],
            "client": ("10.0.0.1", 1234),
            "server": ("localhost", 8000),
            "subprotocols": [],
        }

    async def meet(self, app: ASGIApp, scope: Scope) -> int:
        """Send the request with *scope*; return the status of the answer or the code that closed the websocket."""
        kinds: dict[str, Message] = {
            "http": {"type": "http.request", "body": self.body},
            "websocket": {"type": "websocket.connect"},
        }
        waiting: list[Message] = [kinds[self.kind]]
        statuses: list[int] = []

        async def receive() -> Message:
            return waiting.pop() if waiting else await asyncio.get_running_loop().create_future()

        async def send(message: Message) -> None:
            statuses.append(message.get("status", message.get("code", 0)))

        await app(scope, receive, send)
        return statuses[0]


@require(redirect="/sign_in")
async def _index(request: Request) -> Response:
    return PlainTextResponse("pong")


@require()
async def _talk(websocket: WebSocket) -> None:
    await websocket.accept()


async def _guarded(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that admits only signed-in users."""
    if scope["type"] == "websocket":
        await _talk(WebSocket(scope, receive, send))
    else:
        await (await _index(Request(scope, receive)))(scope, receive, send)


def target(auth: Authentication[Any]) -> ASGIApp:
    """All parts that read requests: both middlewares, the plug, the guard."""
    return SessionUserMiddleware(BearerUserMiddleware(AuthPlug(auth, app=_guarded), auth), auth)


def hostile() -> Iterator[Hostile]:
    """Yield every hostile request. They are created one at a time: all of them together would fill the memory."""
    yield from _headers()
    yield from _paths()
    yield from _forms()
    yield from _json()


def _headers() -> Iterator[Hostile]:
    for name in _NAMES:
        for filling in _FILLINGS:
            value = _BEGINNINGS.get(name, b"") + _filled(filling, HEADER_BYTES)
            yield from _everywhere(f"{name}: {filling.decode()}", [(name.encode(), value)])
    for name in (*_NAMES, "x"):
        yield from _everywhere(f"{name}, {LINES} lines", [(name.encode(), b"a=b")] * LINES)
    # The largest inputs within the limits.
    yield from _everywhere("cookie, 64 KiB", [(b"cookie", _filled(b"user_session=a;", BODY_BYTES))])
    yield from _everywhere("cookie, 299 values", [(b"cookie", b"".join(b"user_session=%d;" % n for n in range(299)))])
    yield from _everywhere("cookie, 8 forged", [(b"cookie", b";".join(map(_forged, range(8))))])
    yield from _everywhere("256 lines", [(b"accept", _filled(b",", 1024))] * 255)
    yield from _everywhere("256 lines of languages", [(b"accept-language", _filled(b",", 1024))] * 255)
    yield from _everywhere("authorization, 255 lines", [(b"authorization", _filled(b" ", 8192))] * 255)


def _forged(number: int) -> bytes:
    """A forged session cookie with a valid form, so that the signature is checked."""
    return b"user_session=%s.%s" % (b"%042dA" % number, b"A" * 43)


def _everywhere(name: str, headers: list[tuple[bytes, bytes]]) -> Iterator[Hostile]:
    yield Hostile(f"plug, {name}", headers)
    yield Hostile(f"sign-out, {name}", headers, path="/auth/sign_out")
    yield Hostile(f"guard, {name}", headers, path="/", method="GET")
    yield Hostile(f"unsafe guard, {name}", headers, path="/")
    yield Hostile(f"websocket, {name}", headers, path="/", kind="websocket")


def _paths() -> Iterator[Hostile]:
    html = [(b"accept", b"text/html")]
    for filling in ("a", "/", "é", "😀", "%41"):
        path = "/auth/" + filling * (HEADER_BYTES // len(filling.encode()))
        for kind in ("path", "path, not raw"):
            yield Hostile(f"plug, {kind}: {filling}", html, path=path)
            yield Hostile(f"guard, {kind}: {filling}", html, path=path[5:], method="GET")
    for filling_bytes in (b"a", b"a&", b"&", b"%41", b"a=&", b"+"):
        query = b"a=" + _filled(filling_bytes, HEADER_BYTES)
        yield Hostile(f"plug, query: {filling_bytes.decode()}", [], query=query)
        yield Hostile(f"sign-out, query: {filling_bytes.decode()}", [], query=query, path="/auth/sign_out")
        yield Hostile(
            f"page, query: {filling_bytes.decode()}", html, query=query, path="/auth/password/reset", method="GET"
        )
        yield Hostile(f"guard, query: {filling_bytes.decode()}", html, query=query, path="/", method="GET")
    yield Hostile("plug, 16 KiB of query", [], query=b"a=" + _filled(b"%41", 16 * 1024 - 2))


def _forms() -> Iterator[Hostile]:
    form = [(b"content-type", b"application/x-www-form-urlencoded")]
    for filling in (b"a&", b"&", b"=&", b"a", b"+", b"\\", b"%41", b"%41a", b"%f0%9f%98%80", b"%ff", b"%"):
        yield Hostile(f"form: {filling.decode()}", form, b"a=" + _filled(filling, BODY_BYTES - 2))
    for name, value in _values():
        fields = {"email": b"alice@mail.example.org", "password": b"walrus-teapot-orbit-41", name: value}
        body = b"&".join(b"%s=%s" % (field.encode(), text) for field, text in fields.items())
        yield Hostile(f"{name}: {value[:24].decode(errors='replace')}", form, body)


def _values() -> Iterator[tuple[str, bytes]]:
    """Values that are expensive to normalise, of the maximum length and much longer."""
    for text in ("é", "中", "\ufdfa", "a.", "é.", "中.", "\u0301\u0316", "\u0344", "xn--9ca."):
        for characters in (240, 4096):
            yield "email", ("a@" + (text * characters)[:characters] + ".com").encode()
            yield "email", ((text * characters)[:characters] + "@mail.example.org").encode()
    for text in ("a", "\u0301\u0316", "\u0f73", "\u0344", "\ufdfa", "\u1100\u1161\u11a8", "😀", " "):
        for characters in (500, 2048, 4096):
            yield "password", ("a" + (text * characters)[: characters - 1]).encode()


def _json() -> Iterator[Hostile]:
    json = [(b"content-type", b"application/json")]
    for begin, filling, end in (
        *((b"", filling, b"") for filling in (b"[", b'"', b"\\", b" ", b"{", b'{"a":', b"[]", b"1", b"\xff")),
        *((b'{"a":[', filling, b"1]}") for filling in (b"[],", b"{},", b"1,", b'"",', b"null,", b"1e1,", b'{"a":1},')),
        *((b'{"a":[', _filled(b"9", 4000) + b",", b"1]}"), (b'{"a":', b"9", b"}"), (b'{"a":', b"9", b".5}")),
        *((b'{"a":"', filling, b'"}') for filling in (b"a", b"\\u0041", b"\\n", b"\\ud83d\\ude00", b"\\ud83d", b"[")),
        (b'{"a":[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],"', b"\\n", b'"]}'),
        (b'{"', b"a", b'":1,"a":1}'),
        (b'{"a":"', "é".encode(), b'"}'),
    ):
        body = begin + _filled(filling, BODY_BYTES - len(begin) - len(end)) + end
        yield Hostile(f"JSON: {(begin + filling)[:24].decode('latin-1')}", json, body)
    yield Hostile("JSON: keys", json, b"{" + b",".join(b'"%x":1' % n for n in range(6000)) + b"}")
    yield Hostile("JSON: a key twice", json, b'{"%s":1,"%s":2}' % ((b"a" * 32000,) * 2))
    values = b"[" + b"1," * 498 + b"1]"
    yield Hostile("JSON: 1,000 marks", json, b'{"a":%s,"b":[%s]}' % (values, b",".join([b"{}"] * 240)))


def _filled(filling: bytes, size: int) -> bytes:
    return filling * (size // len(filling))
