"""The only reader of request bodies, and the only writer of responses and cookies."""

import asyncio
import re
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any, TypeVar, get_args

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from asgi_auth.authentication import Authentication
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    BodyTooLargeError,
    CrossSiteError,
    InvalidTokenError,
    MalformedRequestError,
    MediaTypeError,
    MisdirectedRequestError,
    SlowRequestError,
)
from asgi_auth.jobs import shielded
from asgi_auth.protocol.accept import prefers_json
from asgi_auth.protocol.bearer import challenge, shows_bearer
from asgi_auth.protocol.body import media_type, parse_form, parse_json
from asgi_auth.protocol.client import client_address, client_label, client_network, peer_of
from asgi_auth.protocol.cookies import cookie_names, delete_cookie, read_cookie, read_every, set_cookie
from asgi_auth.protocol.cross_site import SAFE_METHODS, is_cross_site, origin_of
from asgi_auth.protocol.forwarded import ForwardedHeader
from asgi_auth.protocol.loopback import is_loopback
from asgi_auth.protocol.proxy_advice import silent_proxy, unlisted_proxy
from asgi_auth.tokens import random_hash
from asgi_auth.types import Client

T = TypeVar("T")


class ClientGone(Exception):  # noqa: N818  # not an error: there is nobody left to answer
    """The client hung up before everything was read."""


# --- reading ---------------------------------------------------------------------------------------------------------


MAX_LINES = 256
"""Header lines of a request: most servers stop at 100, and over HTTP/2 each of a browser's 180 cookies may have one."""
MAX_VALUE_BYTES = 1024
"""Of a header whose value is cut, because the rest of it is nothing that we look for."""
MAX_QUERY_BYTES = 16 * 1024
"""A link's token and a ``return_to``, and the long codes of some providers."""

_SHOWN = 100
"""Characters of a header's value that the log has."""

# The last ones have a byte more, so that it can be told whether there were any before.
_FIRST_BYTES, _LAST_BYTES = slice(MAX_VALUE_BYTES), slice(-MAX_VALUE_BYTES - 1, None)


def check_headers(scope: Scope) -> None:
    """Refuse more header lines than any client of ours sends, before one of them is looked at.

    Cookies and Authorization have limits of their own, where they are read; of every other header the first 1,024 bytes
    count, of X-Forwarded-For and Forwarded the last.

    Raises:
        MalformedRequestError: There are more than 256.
    """
    if len(scope["headers"]) > MAX_LINES:
        raise MalformedRequestError("too many header lines")


def header_values(scope: Scope, name: bytes, part: slice = _FIRST_BYTES) -> list[str]:
    """Every value of a header, in order, of each the first 1,024 bytes or another *part*."""
    return [value[part].decode("latin-1") for key, value in _lines(scope) if key == name]


def _lines(scope: Scope) -> Iterable[tuple[bytes, bytes]]:
    """The header lines, as many as are allowed: a request that is refused for having more still gets an answer."""
    lines: Iterable[tuple[bytes, bytes]] = scope["headers"][:MAX_LINES]
    return lines


async def read_body(request: Request, *, limit: int, timeout: timedelta) -> Mapping[str, Any]:
    """Read and parse a body of at most *limit* bytes: the parameters.

    Raises:
        BodyTooLargeError: more is announced, or comes.
        SlowRequestError: it is not there after *timeout*.
        MediaTypeError: there is a body, and it is neither JSON nor a form in UTF-8.
        MalformedRequestError: it cannot be parsed, or names a parameter twice.
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
    return _parse(body, header_values(request.scope, b"content-type")) if body else {}


def _announced(scope: Scope) -> int:
    """The length of the body by its Content-Length, of several the largest; 0 without one that can be read."""
    values = header_values(scope, b"content-length")
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
    if len(content_types) != 1:
        raise MediaTypeError(f"{len(content_types)} Content-Type headers")
    is_json = media_type(content_types[0].encode("latin-1")) == "json"
    return parse_json(body) if is_json else parse_form(body)


_REST_BYTES = 64 * 1024
_REST_SECONDS = 1.0
_CONTINUE = "100-continue"


async def discard_body(request: Request) -> bool:
    """Before a refusal, read the rest of the body; False: the client hung up, and there is nobody to answer.

    Where the answer comes before the end of the body, hypercorn drops the HTTP/2 connection with everything in it, and
    granian resets the stream. At most 64 KiB are read, for at most a second; a body that is announced to be longer is
    not read at all.
    """
    if not _is_worth_reading(request.scope):
        return True
    try:
        async with asyncio.timeout(_REST_SECONDS):
            await _discard(request)
    except ClientDisconnect:
        return False
    except (TimeoutError, RuntimeError):  # RuntimeError: the body has been read to its end, as it mostly has
        pass
    return True


def _is_worth_reading(scope: Scope) -> bool:
    if _announced(scope) > _REST_BYTES:
        return False
    if scope["method"] in SAFE_METHODS:  # HTTP/2 needs neither header, but no client sends a body with a GET by itself
        return bool(header_values(scope, b"content-length") or header_values(scope, b"transfer-encoding"))
    # Over HTTP/1.1 such a client waits for our leave, or for the answer, and reading would give leave.
    waits = _CONTINUE in (value.strip().lower() for value in header_values(scope, b"expect"))
    return not (waits and scope["http_version"].startswith("1"))


async def _discard(request: Request) -> None:
    read = 0
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            read += len(chunk)
            if read > _REST_BYTES:
                return


class AfterBody(Response):
    """An answer that an endpoint returns without having read the body: sent as ``discard_body`` says."""

    def __init__(self, answer: Response, request: Request) -> None:
        """Args: answer: What is sent, whole. request: What it answers."""
        super().__init__(status_code=answer.status_code)
        self.body, self.raw_headers, self._request = answer.body, answer.raw_headers, request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if await discard_body(self._request):
            await super().__call__(scope, receive, send)


def read_query(scope: Scope) -> Mapping[str, str]:
    """The query, as strictly read as a form.

    Raises:
        MalformedRequestError: it is over 16 KiB, names a parameter twice, or cannot be read.
    """
    query = scope.get("query_string", b"")
    if len(query) > MAX_QUERY_BYTES:
        raise MalformedRequestError("the query is too long")
    return parse_form(query)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do *work* for as long as the client is there: what nobody waits for is not worth a hash (DO-2).

    Raises:
        ClientGone: the client hung up first; by now *work* has ended.
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
        # Something in between repeats the body for ever; asking it again and again would stop the event loop.
        await asyncio.get_running_loop().create_future()


async def _end(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def check_host(scope: Scope, auth: Authentication[Any]) -> None:
    """On a local instance, refuse a Host that is not local: a page that rebinds its name to 127.0.0.1 must not get in.

    Raises:
        MisdirectedRequestError: the Host is neither this machine (see ``is_loopback``) nor ``testserver``.
    """
    if auth.secure:
        return
    hosts = header_values(scope, b"host")
    if len(hosts) != 1 or not _is_local(hosts[0]):
        raise MisdirectedRequestError(
            f"Host {_shown(hosts)}: with base_url {auth.base_url} only localhost, names below it and loopback "
            "addresses are served; to serve another name, give base_url that name, with https"
        )


def _is_local(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "testserver" or is_loopback(name)


def check_cross_site(scope: Scope, auth: Authentication[Any]) -> None:
    """Refuse what a browser sends on behalf of another site (CF-1, CF-2).

    Raises:
        CrossSiteError: it does.
        MalformedRequestError: there are too many cookies to tell.
    """
    if crosses_sites(scope, auth):
        raise foreign_origin(scope, auth)


def foreign_origin(scope: Scope, auth: Authentication[Any]) -> CrossSiteError:
    """The refusal of a request that another site made a browser send; its reason, for the log, names that site."""
    origins, sites = header_values(scope, b"origin"), header_values(scope, b"sec-fetch-site")
    # Of a Referer the origin alone: the rest of the URL may hold a secret.
    referers = [] if origins or sites else [origin_of(value) for value in header_values(scope, b"referer")]
    headers = {"Origin": origins, "Sec-Fetch-Site": sites, "Referer": referers}
    seen = ", ".join(f"{name} {_shown(values)}" for name, values in headers.items() if values) or "no Origin"
    return CrossSiteError(f"{seen}: the page's origin is neither base_url, {auth.base_url}, nor in allowed_origins")


def _shown(values: list[str]) -> str:
    """What a client sent in a header, for the log: the first two values, each cut."""
    return " and ".join(ascii(value[:_SHOWN]) for value in values[:2]) or "is missing"


def crosses_sites(scope: Scope, auth: Authentication[Any]) -> bool:
    """Whether a browser sends this request on behalf of another site.

    Raises:
        MalformedRequestError: there are too many cookies to tell.
    """
    if scope["method"] in SAFE_METHODS:
        return False  # most requests: their headers need not even be read
    sites, bearer = header_values(scope, b"sec-fetch-site"), shows_bearer(scope["headers"])
    return is_cross_site(
        scope["method"],
        origins=header_values(scope, b"origin"),
        sec_fetch_site=sites[0] if len(sites) == 1 else None,
        referers=header_values(scope, b"referer"),
        authorization=bearer,
        own_cookie=bearer and _shows_cookie(scope, auth),  # which matters beside a token alone
        allowed=auth.origins,
    )


def _shows_cookie(scope: Scope, auth: Authentication[Any]) -> bool:
    return auth.session_cookie in cookie_names(scope["headers"]) or bool(step_cookies(scope, auth))


def step_cookies(scope: Scope, auth: Authentication[Any]) -> list[str]:
    """The names of the cookies of sign-ins that are under way in this browser: the pending one, and those of flows.

    Raises:
        MalformedRequestError: there are too many cookies to tell.
    """
    start = f"{auth.flow_cookie}_"
    return [
        name
        for name in sorted(cookie_names(scope["headers"]))
        # Only a name that we gave goes back into a header.
        if name == auth.pending_cookie or (name.startswith(start) and _FLOW.fullmatch(name, len(start)))
    ]


_FLOW = re.compile(r"[0-9a-f]{16}")


def cookie_of(scope: Scope, name: str) -> str | None:
    """A cookie of ours; None if it is absent, doubled or unreadable."""
    try:
        return read_cookie(scope["headers"], name.encode()) or None
    except MalformedRequestError:
        return None


def client_of(scope: Scope, auth: Authentication[Any]) -> Client:
    """Who asks: the address from the transport or a trusted proxy (HT-2), and what the browser shows of itself.

    Raises:
        MalformedRequestError: a cookie of ours came with more than 8 different values.
    """
    agents = header_values(scope, b"user-agent")
    pending = read_every(scope["headers"], auth.pending_cookie.encode())
    return Client(
        address=_address_of(scope, auth),
        label=client_label(agents[0]) if agents else "",
        session_hashes=tuple(_session_hashes(scope, auth)),
        pending_hashes=tuple(filter(None, map(random_hash, pending))),
        browser=is_browser(scope),
    )


def source_of(scope: Scope, auth: Authentication[Any]) -> str | None:
    """Who counts as one where turns are shared out."""
    return client_network(_address_of(scope, auth))


def _address_of(scope: Scope, auth: Authentication[Any]) -> str | None:
    proxies = auth.trusted_proxies
    return client_address(_peer(scope), header_values(scope, proxies.header.encode(), _LAST_BYTES), proxies)


def _peer(scope: Scope) -> str | None:
    client, server = scope.get("client"), scope.get("server")
    return peer_of(client[0] if client else None, server[0] if server else None)


def proxy_advice(scope: Scope, auth: Authentication[Any]) -> Iterator[tuple[str, str]]:
    """What to tell the operator of a proxy of theirs that is not trusted, or does not tell who its client is.

    Yields:
        The kind of advice, and its text.
    """
    sent = {name: header_values(scope, name.encode(), _LAST_BYTES) for name in get_args(ForwardedHeader)}
    for advise in (unlisted_proxy, silent_proxy):
        if (advice := advise(_peer(scope), sent, auth.trusted_proxies)) is not None:
            yield advise.__name__, advice


def is_browser(scope: Scope) -> bool:
    """Whether the request has a header that only browsers send, and that scripts in a page cannot set."""
    return bool(header_values(scope, b"origin") or header_values(scope, b"sec-fetch-site"))


def _session_hashes(scope: Scope, auth: Authentication[Any]) -> Iterator[bytes]:
    """Of every session cookie that is ours, also beside a planted one: they are used to end sessions only."""
    for cookie in read_every(scope["headers"], auth.session_cookie.encode()):
        with suppress(InvalidTokenError):
            yield auth.sessions.cookie_hash(cookie)


# --- answering -------------------------------------------------------------------------------------------------------


def wants_json(scope: Scope) -> bool:
    """Whether to answer JSON: Accept prefers it, or the body is JSON and Accept names no text type."""
    return prefers_json(header_values(scope, b"accept"), json_body=_says_json(header_values(scope, b"content-type")))


def _says_json(content_types: list[str]) -> bool:
    return any(value.partition(";")[0].strip().lower() == "application/json" for value in content_types)


def wants_page(scope: Scope) -> bool:
    """Whether to answer with a page: Accept names HTML, and does not prefer JSON."""
    return not wants_json(scope) and any("text/html" in value for value in header_values(scope, b"accept"))


def problem(reason: AuthError, *, json: bool) -> Response:
    """The answer to a failure: problem details (RFC 9457), or a line of text and one for each field."""
    if json:
        content: dict[str, Any] = {"type": "about:blank", "title": reason.title, "status": reason.status}
        content["code"] = reason.code
        if reason.fields:
            content["fields"] = dict(reason.fields)
        return JSONResponse(content, reason.status, media_type="application/problem+json")
    title = AuthenticationFailedError.title if isinstance(reason, AuthenticationFailedError) else reason.title
    lines = [title, *(f"{field}: {message}" for field, message in reason.fields.items())]
    return PlainTextResponse("\n".join(lines), reason.status)


def reason_headers(reason: AuthError, scope: Scope, *, realm: str) -> dict[str, str]:
    """The headers that a failure needs whoever answers it; a 401 names a way in (RFC 9110 section 11.6.1)."""
    headers, error = dict(reason.headers), _challenge_error(reason, scope)
    if reason.status == 401 or error is not None:
        headers["WWW-Authenticate"] = challenge(realm=realm, error=error)
    return headers


def _challenge_error(reason: AuthError, scope: Scope) -> str | None:
    """The error value of RFC 6750 section 3.1; None where no bearer token was shown."""
    if not shows_bearer(_lines(scope)):
        return None
    if isinstance(reason, MalformedRequestError):
        return "invalid_request"
    return reason.code if isinstance(reason, InvalidTokenError) else None


def unavailable(reason: AuthError) -> Response:
    """503 with Retry-After: a credential could not be checked, and nothing else is known."""
    return PlainTextResponse(reason.title, reason.status, headers=dict(reason.headers))


_NOTHING = "default-src 'none'; frame-ancestors 'none'"


def harden(response: Response) -> None:
    """The headers of every answer of the plug (TK-21, RD-4). What a page allows itself stays as it is."""
    headers = response.headers
    headers["Cache-Control"] = "no-store"
    headers["X-Content-Type-Options"] = "nosniff"
    # A page with "no-referrer" posts "Origin: null", which would not pass as our own.
    if headers.get("Referrer-Policy") != "strict-origin":  # stricter, and it does send the Origin
        headers["Referrer-Policy"] = "same-origin"
    # An application's page may need styles and scripts; who may frame it is ours to say (CF-8).
    is_page = headers.get("Content-Type", "").startswith("text/html")
    headers.setdefault("Content-Security-Policy", "frame-ancestors 'none'" if is_page else _NOTHING)


def keep_cookie(response: Response, name: str, value: str, *, secure: bool, max_age: int | None = None) -> None:
    """Add a Set-Cookie; one that is there for the same name goes."""
    _drop(response, name)
    response.headers.append("Set-Cookie", set_cookie(name, value, secure=secure, max_age=max_age))


def drop_cookie(response: Response, name: str, *, secure: bool) -> None:
    """Add a Set-Cookie that removes the cookie."""
    _drop(response, name)
    response.headers.append("Set-Cookie", delete_cookie(name, secure=secure))


def clear_site_data(response: Response, *kinds: str) -> None:
    """Have the browser drop these kinds of what it keeps of the site, beside those that are named there already."""
    given = ",".join(response.headers.getlist("Clear-Site-Data")).split(",")
    named = [name for name in (each.strip() for each in given) if name]
    response.headers["Clear-Site-Data"] = ", ".join(dict.fromkeys([*named, *kinds]))


def _drop(response: Response, name: str) -> None:
    start = f"{name}=".encode()
    response.raw_headers[:] = [
        (key, value) for key, value in response.raw_headers if key != b"set-cookie" or not value.startswith(start)
    ]
