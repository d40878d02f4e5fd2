"""The only reader of request bodies. It reads the body for a phase, or discards it."""

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from asgi_auth.errors import BodyTooLargeError, MediaTypeError, SlowRequestError
from asgi_auth.protocol.body import media_type, parse_form, parse_json
from asgi_auth.protocol.cross_site import SAFE_METHODS
from asgi_auth.protocol.headers import header_values
from asgi_auth.runtime.jobs import shielded

T = TypeVar("T")


class ClientGone(Exception):  # noqa: N818  # not an error: the client is gone
    """The client hung up before the whole request was read."""


async def read_body(request: Request, *, limit: int, timeout: timedelta) -> Mapping[str, Any]:
    """Read a body of at most *limit* bytes and return its parameters.

    Raises:
        BodyTooLargeError: the body, or its Content-Length, is over *limit*.
        SlowRequestError: the body did not arrive within *timeout*.
        MediaTypeError: there is a body, and it is neither JSON nor a form in UTF-8.
        MalformedRequestError: the body cannot be parsed, or has a parameter twice.
        ClientGone: the client hung up.
    """
    if _announced(request.scope) > limit:
        raise BodyTooLargeError(f"Content-Length is over {limit} bytes")
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            body = await _receive_all(request, limit)
    except TimeoutError as exc:
        raise SlowRequestError(f"no whole body after {timeout}") from exc
    except ClientDisconnect as exc:
        raise ClientGone from exc
    return _parse(body, header_values(request.scope["headers"], b"content-type")) if body else {}


def _announced(scope: Scope) -> int:
    """The largest Content-Length; 0 if there is none that can be read."""
    values = header_values(scope["headers"], b"content-length")
    return max((int(value[:20]) for value in values if value.isascii() and value.isdecimal()), default=0)


async def _receive_all(request: Request, limit: int) -> bytes:
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            if len(body) + len(chunk) > limit:
                raise BodyTooLargeError(f"the body is over {limit} bytes")
            body += chunk
    return bytes(body)


def _parse(body: bytes, content_types: list[str]) -> Mapping[str, Any]:
    if len(content_types) > 1:
        raise MediaTypeError("several Content-Type headers", detail="Send one Content-Type header, not several.")
    is_json = media_type(content_types[0].encode("latin-1") if content_types else None) == "json"
    return parse_json(body) if is_json else parse_form(body)


_REST_BYTES = 64 * 1024
_REST_SECONDS = 1.0
_CONTINUE = "100-continue"


async def discard_body(request: Request) -> bool:
    """Read the rest of the body before an early answer. Returns False if the client hung up.

    If the answer comes before the end of the body, hypercorn drops the whole HTTP/2 connection, and granian resets the
    stream. At most 64 KiB are read, for at most a second. A body with a larger Content-Length is not read at all.
    """
    if not _is_worth_reading(request.scope):
        return True
    try:
        async with asyncio.timeout(_REST_SECONDS):
            await _discard(request)
    except ClientDisconnect:
        return False
    except (TimeoutError, RuntimeError):  # RuntimeError: the body was already read to its end, the usual case
        pass
    return True


def _is_worth_reading(scope: Scope) -> bool:
    if _announced(scope) > _REST_BYTES:
        return False
    if scope["method"] in SAFE_METHODS:  # HTTP/2 requires neither header, but clients send no body with a plain GET
        return any(header_values(scope["headers"], name) for name in (b"content-length", b"transfer-encoding"))
    # Over HTTP/1.1 this client waits for "100 Continue" or the answer. Reading would send it "100 Continue".
    waits = _CONTINUE in (value.strip().lower() for value in header_values(scope["headers"], b"expect"))
    return not (waits and scope["http_version"].startswith("1"))


async def _discard(request: Request) -> None:
    read = 0
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            read += len(chunk)
            if read > _REST_BYTES:
                return


class AfterBody(Response):
    """An answer of an endpoint that has not read the body. It is sent after ``discard_body``."""

    def __init__(self, answer: Response, request: Request) -> None:
        """Args: answer: The complete answer. request: The request that it answers."""
        super().__init__(status_code=answer.status_code)
        self.body, self.raw_headers, self._request = answer.body, answer.raw_headers, request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if await discard_body(self._request):
            await super().__call__(scope, receive, send)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do *work* while the client is connected. If the client hangs up, cancel *work* to save the password hash (DO-2).

    Raises:
        ClientGone: the client hung up first. *work* has ended by then.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        gone.result()
        raise ClientGone
    finally:
        await shielded(_end(task, gone))


async def _disconnect(receive: Receive) -> None:
    if (await receive())["type"] != "http.disconnect":
        # A middleware repeats the body for ever. Calling it in a loop would block the event loop.
        await asyncio.get_running_loop().create_future()


async def _end(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
