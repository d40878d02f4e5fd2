"""The advice for operators about proxies."""

from typing import Any

import pytest

from asgi_auth.protocol.client import UNIX, TrustedProxies, parse_proxies
from asgi_auth.protocol.proxy_advice import silent_proxy, unlisted_proxy

NAMED: dict[Any, list[str]] = {"x-forwarded-for": ["203.0.113.7"], "forwarded": ["for=203.0.113.7"]}
LISTED = ["172.16.0.0/12", "unix"]


def sent(*names: str, **values: list[str]) -> dict[Any, list[str]]:
    return {name: values.get(name, found if name in names else []) for name, found in NAMED.items()}


def assert_told(advice: str | None, told: str | None) -> None:
    if told is None:
        assert advice is None
    else:
        assert advice is not None
        assert all(part in advice for part in told.split(" … ")), advice


@pytest.mark.parametrize(
    ("peer", "headers", "told"),
    [
        ("10.0.0.5", ["x-forwarded-for"], 'a request from 10.0.0.5 has X-Forwarded-For … trusted_proxies=["10.0.0.5"]'),
        ("::ffff:10.0.0.5", ["x-forwarded-for", "forwarded"], 'X-Forwarded-For … trusted_proxies=["10.0.0.5"]'),
        ("127.0.0.1", ["forwarded"], 'Forwarded … trusted_proxies=["127.0.0.1"], forwarded_header="forwarded"'),
        ("fd00::1", ["x-forwarded-for"], 'a request from fd00::1 … as one … trusted_proxies=["fd00::1"]'),
        ("100.64.0.1", ["x-forwarded-for"], 'a request from 100.64.0.1 … trusted_proxies=["100.64.0.1"]'),
        (UNIX, ["x-forwarded-for"], 'a request from a UNIX socket has … not limited … trusted_proxies=["unix"]'),
        (UNIX, [], 'a UNIX socket says nothing … not limited … set X-Forwarded-For … trusted_proxies=["unix"]'),
        ("10.0.0.5", [], None),
        ("8.8.8.8", ["x-forwarded-for"], None),
        ("testclient", ["x-forwarded-for"], None),
        (None, ["x-forwarded-for"], None),
        ("172.16.0.1", ["x-forwarded-for"], None),
    ],
)
def test_unlisted_proxy(peer: str | None, headers: list[str], told: str | None) -> None:
    """HT-2: a peer with a private address that sends such a header may be a proxy; a public one may be any client."""
    assert_told(unlisted_proxy(peer, sent(*headers), parse_proxies(LISTED[:1], header="x-forwarded-for")), told)


def test_unlisted_proxy_is_no_client_whom_the_server_has_put_there() -> None:
    """uvicorn replaces a loopback peer by the client in the header, which may be on the local network."""
    assert unlisted_proxy("10.0.0.5", {"x-forwarded-for": ["10.0.0.5"]}, TrustedProxies()) is None
    assert unlisted_proxy("10.0.0.5", {"x-forwarded-for": ["10.0.0.6"]}, TrustedProxies()) is not None


@pytest.mark.parametrize(
    ("peer", "header", "has", "told"),
    [
        ("172.16.0.1", "x-forwarded-for", sent("x-forwarded-for"), None),
        ("172.16.0.1", "forwarded", sent("x-forwarded-for", "forwarded"), None),
        (UNIX, "forwarded", sent(forwarded=['for="[2001:db8::1]"']), None),
        ("172.16.0.1", "x-forwarded-for", sent(), None),
        ("10.0.0.5", "x-forwarded-for", sent("forwarded"), None),
        (None, "x-forwarded-for", sent("forwarded"), None),
        (UNIX, "x-forwarded-for", sent(), "UNIX socket … has no X-Forwarded-For: its clients are not told apart"),
        (
            "172.16.0.1",
            "x-forwarded-for",
            sent("forwarded"),
            '172.16.0.1 … has no X-Forwarded-For: all … It has Forwarded … forwarded_header="forwarded"',
        ),
        (
            UNIX,
            "forwarded",
            sent("x-forwarded-for", forwarded=["for=[2001:db8::1]"]),
            "does not end with an address: all its clients count as one … set Forwarded … brackets and quotation "
            'marks … forwarded_header="x-forwarded-for"',
        ),
        ("172.16.0.1", "forwarded", sent(forwarded=["for=_hidden"]), "172.16.0.1 … does not end with an address"),
    ],
)
def test_silent_proxy(peer: str | None, header: Any, has: Any, told: str | None) -> None:
    """HT-2: if a listed proxy does not name its clients, they count as one, or are not counted."""
    assert_told(silent_proxy(peer, has, parse_proxies(LISTED, header=header)), told)
