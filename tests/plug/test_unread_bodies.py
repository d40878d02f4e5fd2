"""The library reads the rest of the body before a refusal: some servers lose an answer that is sent earlier."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from asgi_auth.errors import StoreUnavailableError
from asgi_auth.types import User
from asgi_auth.web.guards import require
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.asgi import FORM_TYPE, Headers, make_scope, silence
from tests.served import ping
from tests.servers import serving
from tests.support import PATIENCE, LocalAuthentication, register

pytestmark = pytest.mark.anyio

KIB = 1024


class Client:
    """Sends a body in pieces while it is read; records how much had been read when the answer began."""

    def __init__(self, pieces: Iterator[bytes], *, goes_on: bool = False, hangs_up: bool = False) -> None:
        self._pieces, self._goes_on, self._hangs_up = pieces, goes_on, hangs_up
        self.read, self.calls = 0, 0
        self.answer: tuple[int, int] | None = None
        """The status, and the number of bytes that were read before it."""

    async def receive(self) -> Message:
        """Return the next piece; then the end, silence or a disconnect."""
        self.calls += 1
        piece = next(self._pieces, None)
        if piece is not None:
            self.read += len(piece)
            return {"type": "http.request", "body": piece, "more_body": True}
        if self._hangs_up:
            return {"type": "http.disconnect"}
        if self._goes_on:
            return await silence()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        """Record the start of the answer."""
        if message["type"] == "http.response.start":
            self.answer = message["status"], self.read


def pieces(count: int, size: int = KIB) -> Iterator[bytes]:
    """Return *count* pieces of a body."""
    return iter([b"x" * size] * count)


async def ask(app: ASGIApp, client: Client, method: str, path: str, headers: Headers = (), **more: Any) -> None:
    """Send a request of *client*; raise TimeoutError if the application does not finish."""
    async with asyncio.timeout(PATIENCE):
        # The app runs in its own task: an exception thrown into a coroutine ends the tracing of its awaiters.
        await asyncio.ensure_future(app(make_scope(method, path, headers, **more), client.receive, client.send))


def guarded(auth: LocalAuthentication, endpoint: Callable[..., Any] = ping, **options: Any) -> Starlette:
    """Return an application with ``/upload`` behind the guard."""
    return Starlette(
        routes=[Route("/upload", require(**options)(endpoint), methods=["POST"])],
        middleware=[Middleware(SessionUserMiddleware, auth=auth)],
    )


def sync_ping(request: Request) -> Response:
    """An endpoint that runs in a thread and reads no body."""
    return PlainTextResponse("pong")


MANY_HEADERS = {f"x-{number}": "" for number in range(300)}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/auth/no/where", {}, 404),
        ("PUT", "/auth/password/sign_in", {}, 405),
        ("POST", "/auth/password/sign_in", {"origin": "https://elsewhere.example"}, 403),
        ("POST", "/auth/password/sign_in", {"host": "elsewhere.example"}, 421),
        ("POST", "/auth/password/sign_in", MANY_HEADERS, 400),
        ("POST", "/auth/password/sign_in", {"content-type": "text/plain"}, 415),
        ("POST", "/auth/password/reauthenticate", {"authorization": "Bearer"}, 400),
        ("GET", "/auth/password/reset_request", {"content-length": "40960"}, 200),
        ("GET", "/auth/password/sign_in_with_token", {"transfer-encoding": "chunked"}, 405),
    ],
)
async def test_plug_answers_after_the_body(
    plug: AuthPlug[User], method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """RP-1: the plug reads the rest of an unread body before every answer."""
    client = Client(pieces(40))
    await ask(plug, client, method, path, headers)

    assert client.answer == (status, 40 * KIB)


async def test_plug_answers_a_streamed_413_after_the_body(plug: AuthPlug[User]) -> None:
    """RP-1: of a body over the limit, the plug reads up to 64 KiB more."""
    client = Client(pieces(100))
    await ask(plug, client, "POST", "/auth/password/sign_in", {"content-type": FORM_TYPE})

    assert client.answer == (413, 100 * KIB)


@pytest.mark.parametrize("options", [{}, {"redirect": "/sign_in"}], ids=["refused", "redirected"])
@pytest.mark.parametrize("endpoint", [ping, sync_ping], ids=["async", "sync"])
async def test_guard_answers_after_the_body(
    auth: LocalAuthentication, endpoint: Callable[..., Any], options: dict[str, Any]
) -> None:
    """RP-1: the guard reads the body of a refused upload, since the endpoint does not."""
    client = Client(pieces(40))
    await ask(guarded(auth, endpoint, **options), client, "POST", "/upload")

    assert client.answer == (303 if options else 401, 40 * KIB)


@pytest.mark.parametrize("endpoint", [ping, sync_ping], ids=["async", "sync"])
async def test_guard_leaves_the_body_to_the_endpoint(auth: LocalAuthentication, endpoint: Callable[..., Any]) -> None:
    """The guard does not read the body of an allowed request."""
    _, token = await register(auth)
    client = Client(pieces(40))
    await ask(guarded(auth, endpoint), client, "POST", "/upload", {"cookie": f"user_session={token.cookie}"})

    assert (client.answer, client.calls) == ((200, 0), 0)


async def test_guard_does_not_wait_for_a_body_that_was_read(auth: LocalAuthentication) -> None:
    """RP-9: if code around the guard has read the body, the server sends no message until the client disconnects."""

    def read_first(endpoint: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Any]]:
        async def reading(request: Request) -> Any:
            async for _ in request.stream():
                pass
            return await endpoint(request)

        return reading

    client = Client(pieces(2))
    routes = [Route("/upload", read_first(require()(ping)), methods=["POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(SessionUserMiddleware, auth=auth)])
    await ask(app, client, "POST", "/upload")

    assert (client.answer, client.calls) == ((401, 2 * KIB), 3)


async def test_middleware_answers_503_after_the_body(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RP-1: the store is down during an upload with a credential."""

    async def fail(*args: Any, **options: Any) -> None:
        raise StoreUnavailableError("does not answer")

    _, token = await register(auth)
    (access_tokens,) = auth.recognition.among(ambient=False)
    monkeypatch.setattr(access_tokens, "load", fail)
    client = Client(pieces(40))
    app = BearerUserMiddleware(ping, auth)  # type: ignore[arg-type]  # is never called
    await ask(app, client, "POST", "/upload", {"authorization": f"Bearer {token}"})

    assert client.answer == (503, 40 * KIB)


async def test_at_most_64_kib_are_read(plug: AuthPlug[User]) -> None:
    """RP-1: an endless body in pieces of 1 KiB is read to the limit and one piece more."""
    client = Client(pieces(1000))
    await ask(plug, client, "POST", "/auth/no/where")

    assert client.answer == (404, 65 * KIB)


@pytest.mark.parametrize(("length", "calls"), [("65536", 65), ("65537", 0), ("9" * 500, 0)])
async def test_body_with_a_larger_content_length_is_not_read(plug: AuthPlug[User], length: str, calls: int) -> None:
    """RP-1: reading would not reach the end of such a body."""
    client = Client(pieces(64))
    await ask(plug, client, "POST", "/auth/no/where", {"content-length": length})

    assert (client.answer, client.calls) == ((404, max(calls - 1, 0) * KIB), calls)


async def test_refusal_waits_for_a_second_at_most(plug: AuthPlug[User], monkeypatch: pytest.MonkeyPatch) -> None:
    """RP-9: the client sends half a body and then pauses; the wait has a limit."""
    monkeypatch.setattr("asgi_auth.web.bodies._REST_SECONDS", 0.001)
    client = Client(pieces(2), goes_on=True)
    await ask(plug, client, "POST", "/auth/no/where")

    assert client.answer == (404, 2 * KIB)


@pytest.mark.parametrize("app", ["plug", "guard"])
async def test_disconnected_client_gets_no_answer(auth: LocalAuthentication, app: str) -> None:
    """RP-9: the plug and the guard send no answer after a disconnect."""
    client = Client(pieces(2), hangs_up=True)
    await ask(AuthPlug(auth) if app == "plug" else guarded(auth), client, "POST", "/upload")

    assert client.answer is None


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_request_without_a_body_is_not_read(plug: AuthPlug[User], method: str) -> None:
    """A page and a 404 are answered without a call of ``receive``."""
    for path in ("/auth/password/reset", "/auth/no/where"):
        client = Client(pieces(0))
        await ask(plug, client, method, path)
        assert client.calls == 0


@pytest.mark.parametrize(
    ("version", "expect", "calls"), [("1.1", "100-Continue ", 0), ("1.1", "x", 3), ("2", "100-continue", 3)]
)
async def test_client_that_expects_100_continue_gets_none(
    plug: AuthPlug[User], version: str, expect: str, calls: int
) -> None:
    """RFC 9110 section 10.1.1: reading would request the body. Over HTTP/2 the server requests it by itself."""
    client = Client(pieces(2))
    await ask(plug, client, "POST", "/auth/no/where", {"expect": expect}, http_version=version)

    assert (client.answer, client.calls) == ((404, max(calls - 1, 0) * KIB), calls)


async def test_413_reaches_a_client_that_still_sends(plug: AuthPlug[User]) -> None:
    """RP-1: with uvicorn, over HTTP/1.1 and in chunks; the connection serves the next request too."""
    piece = b"400\r\n" + b"x" * KIB + b"\r\n"
    head = b"POST /auth/password/sign_in HTTP/1.1\r\nHost: localhost\r\n"
    async with serving(plug) as url, asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        with closing(writer):
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(100):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)  # lets the server read, which runs in this event loop
            writer.write(b"0\r\n\r\n" + head + b"Content-Length: 0\r\n\r\n")
            statuses = []
            for _ in range(2):
                await reader.readuntil(b"HTTP/1.1 ")
                statuses.append(await reader.readuntil(b" "))

    assert statuses == [b"413 ", b"422 "]
