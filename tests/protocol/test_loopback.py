"""Hosts that are this machine."""

import pytest

from asgi_auth.protocol.loopback import is_loopback

LABEL = "a" * 63


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost",
        "app.localhost",
        "App.LOCALHOST",
        "a.b-c.my_app.localhost",
        "1.localhost",
        f"{LABEL}.localhost",
        f"{LABEL}.{LABEL}.{LABEL}.{'a' * 51}.localhost",
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "0:0:0:0:0:0:0:1",
    ],
)
def test_this_machine_is_loopback(host: str) -> None:
    """RFC 6761 section 6.3: ``localhost`` and every name below it; 127.0.0.0/8 and ::1."""
    assert is_loopback(host) is True


@pytest.mark.parametrize(
    "host",
    [
        "",
        "local",
        "localhost.",
        "app.localhost.",
        ".localhost",
        "a..localhost",
        "-a.localhost",
        "a-.localhost",
        "applocalhost",
        "localhost.example.org",
        "app.localhost.example.org",
        "app.localhost\n",
        "a b.localhost",
        "a/b.localhost",
        "evil.example#.localhost",
        "user@localhost",
        "app.localhost:80",
        "app.\u017focalhost",
        "ä.localhost",
        f"{LABEL}a.localhost",
        f"{LABEL}.{LABEL}.{LABEL}.{'a' * 52}.localhost",
        "0.0.0.0",  # noqa: S104  # nothing listens
        "126.255.255.255",
        "128.0.0.1",
        "127.1",
        "10.0.0.1",
        "::",
        "::2",
        "[::1]",
        "testserver",
    ],
    ids=repr,
)
def test_other_hosts_are_not_loopback(host: str) -> None:
    """A name that only resembles ``localhost``, an address in short notation, and a host with a port are rejected."""
    assert is_loopback(host) is False
