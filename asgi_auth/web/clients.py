"""The client of a request, as the transport and the headers describe it."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, get_args

from starlette.types import Scope

from asgi_auth.authentication import Authentication
from asgi_auth.errors import InvalidTokenError
from asgi_auth.messages import ENGLISH
from asgi_auth.protocol.client import client_address, client_label, client_network, peer_of
from asgi_auth.protocol.cookies import read_every
from asgi_auth.protocol.forwarded import ForwardedHeader
from asgi_auth.protocol.headers import LAST_BYTES, header_values
from asgi_auth.protocol.proxy_advice import silent_proxy, unlisted_proxy
from asgi_auth.tokens import random_hash
from asgi_auth.types import Client


def client_of(scope: Scope, auth: Authentication[Any], *, locale: str = ENGLISH) -> Client:
    """The client: its address from the transport or a trusted proxy (HT-2), and what its browser sends.

    Raises:
        MalformedRequestError: a cookie of the library has more than 8 different values.
    """
    agents = header_values(scope["headers"], b"user-agent")
    pending = read_every(scope["headers"], auth.site.cookie("pending").encode())
    return Client(
        address=_address_of(scope, auth),
        label=client_label(agents[0]) if agents else "",
        session_hashes=tuple(_session_hashes(scope, auth)),
        pending_hashes=tuple(filter(None, map(random_hash, pending))),
        locale=locale,
        browser=is_browser(scope),
    )


def source_of(scope: Scope, auth: Authentication[Any]) -> str | None:
    """The source of a request: requests of one source share its turns."""
    return client_network(_address_of(scope, auth))


def _address_of(scope: Scope, auth: Authentication[Any]) -> str | None:
    proxies = auth.trusted_proxies
    return client_address(_peer(scope), header_values(scope["headers"], proxies.header.encode(), LAST_BYTES), proxies)


def _peer(scope: Scope) -> str | None:
    client, server = scope.get("client"), scope.get("server")
    return peer_of(client[0] if client else None, server[0] if server else None)


def proxy_advice(scope: Scope, auth: Authentication[Any]) -> Iterator[tuple[str, str]]:
    """Advice for the operator about a proxy that is not trusted, or that does not name its client.

    Yields:
        The kind of advice, and its text.
    """
    sent = {name: header_values(scope["headers"], name.encode(), LAST_BYTES) for name in get_args(ForwardedHeader)}
    for advise in (unlisted_proxy, silent_proxy):
        if (advice := advise(_peer(scope), sent, auth.trusted_proxies)) is not None:
            yield advise.__name__, advice


def is_browser(scope: Scope) -> bool:
    """Whether the request has a header that only browsers send, and that scripts in a page cannot set."""
    return bool(header_values(scope["headers"], b"origin") or header_values(scope["headers"], b"sec-fetch-site"))


def _session_hashes(scope: Scope, auth: Authentication[Any]) -> Iterator[bytes]:
    """The hash of every session cookie, also of planted ones. They are only used to end sessions."""
    for cookie in read_every(scope["headers"], auth.site.session_cookie.encode()):
        with suppress(InvalidTokenError):
            yield auth.sessions.cookie_hash(cookie)


_TEST_HOSTS = frozenset({b"testserver", b"test"})
"""The hosts that the documentation of Starlette, FastAPI and httpx has in tests."""


def is_insecure_test(scope: Scope) -> bool:
    """Whether a test client sends the request over http, and therefore never returns a cookie that is Secure.

    False for a real server: behind a proxy that ends TLS, an application sees http. Quart's client is not detected,
    because it returns such a cookie.
    """
    client = scope.get("client")
    return scope.get("scheme", "http") == "http" and (
        (client is not None and client[0] == "testclient")  # Starlette, FastAPI, Litestar
        or any(name == b"host" and value in _TEST_HOSTS for name, value in scope["headers"])  # httpx.ASGITransport
    )
