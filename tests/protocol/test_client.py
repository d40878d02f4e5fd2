"""Addresses behind proxies, labels of devices."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.errors import ConfigurationError
from asgi_auth.protocol.client import (
    UNIX,
    TrustedProxies,
    client_address,
    client_label,
    client_network,
    parse_proxies,
    peer_of,
)
from tests.timing import least

PROXIES = parse_proxies(["10.0.0.0/8", "127.0.0.1", "fd00::/8"], header="x-forwarded-for")
SOCKET = parse_proxies(["unix", "10.0.0.0/8"], header="x-forwarded-for")
FORWARDED = parse_proxies(["10.0.0.0/8"], header="forwarded")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        (None, [], None),
        (None, ["203.0.113.7"], None),
        ("testclient", ["203.0.113.7"], "testclient"),
        ("", [], ""),
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7", "10.0.0.3 ,\t10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.7, junk, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, ,"], "203.0.113.7"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("10.0.0.1", ["[2001:DB8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8:0:0:0:0:0:1"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["fe80::1%eth0"], "fe80::1"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("fd00::1", ["2001:db8::2"], "2001:db8::2"),
        ("::ffff:203.0.113.7", [], "203.0.113.7"),
        (UNIX, ["203.0.113.7"], None),
    ],
)
def test_client_address_is_the_right_most_untrusted_hop(
    peer: str | None, forwarded_for: list[str], address: str | None
) -> None:
    """HT-2: the values of a client stand left of those that the proxies write."""
    assert client_address(peer, forwarded_for, PROXIES) == address


def test_client_address_without_trusted_proxies_is_the_peer() -> None:
    """HT-2: no peer is trusted by default, not even loopback."""
    assert client_address("127.0.0.1", ["203.0.113.7"], TrustedProxies()) == "127.0.0.1"
    assert client_address("2001:DB8::1", ["203.0.113.7"], TrustedProxies()) == "2001:db8::1"


@given(
    st.one_of(st.none(), st.text(), st.ip_addresses().map(str)),
    st.lists(st.one_of(st.text(), st.ip_addresses().map(str))),
)
def test_client_address_never_raises(peer: str | None, forwarded_for: list[str]) -> None:
    """Invalid entries never raise."""
    assert (client_address(peer, forwarded_for, PROXIES) is None) is (peer is None)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        (UNIX, ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (UNIX, ["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (UNIX, ["203.0.113.7, unknown"], UNIX),
        (UNIX, [""], None),
        (UNIX, [], None),
        (None, ["203.0.113.7"], None),
        ("203.0.113.9", ["203.0.113.7"], "203.0.113.9"),
    ],
)
def test_client_address_behind_a_unix_socket(peer: str | None, forwarded_for: list[str], address: str | None) -> None:
    """HT-2: "unix" makes only the peer on a UNIX socket trusted."""
    assert client_address(peer, forwarded_for, SOCKET) == address


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (["for=203.0.113.7"], "203.0.113.7"),
        (["for=198.51.100.1, for=203.0.113.7;proto=https", 'for="10.0.0.2:4711"'], "203.0.113.7"),
        (['for="[2001:db8::1]:_port"'], "2001:db8::1"),
        (["for=203.0.113.7, for=unknown"], "10.0.0.1"),
        (["for=203.0.113.7, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
        (["for=203.0.113.7, proto=https"], "10.0.0.1"),
        (["203.0.113.7"], "10.0.0.1"),
    ],
)
def test_client_address_by_forwarded(forwarded: list[str], address: str) -> None:
    """HT-2: clients that a proxy hides count as one, by the last readable hop."""
    assert client_address("10.0.0.1", forwarded, FORWARDED) == address


def test_clients_whose_proxy_names_no_address_are_one() -> None:
    """HT-2: clients without a readable address count as one, also behind a listed socket."""
    listed = parse_proxies(["unix"], header="forwarded")
    assert client_address(UNIX, ["for=[2001:db8::1]"], listed) == UNIX
    assert client_address(UNIX, ['for="[2001:db8::1]"'], listed) == "2001:db8::1"
    assert client_network(UNIX) == UNIX


@pytest.mark.parametrize(
    ("client", "server", "peer"),
    [
        ("203.0.113.7", "192.0.2.1", "203.0.113.7"),
        ("testclient", "testserver", "testclient"),
        (None, "/run/app.sock", UNIX),  # uvicorn
        (None, None, UNIX),  # hypercorn, daphne
        ("", "/run/app.sock", UNIX),  # granian
        (None, "/", UNIX),  # gunicorn
        (None, "192.0.2.1", None),  # uvicorn, of a client that has hung up
        ("", "::1", None),
    ],
)
def test_peer_of(client: str | None, server: str | None, peer: str | None) -> None:
    """HT-2: a TCP client that disconnects before the server reads its address is not a peer on a socket."""
    assert peer_of(client, server) == peer


def test_parse_proxies_takes_networks_and_addresses() -> None:
    """An address is a network of one address; "unix" is not a network."""
    networks = (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert parse_proxies(["10.0.0.0/8", "::1"], header="forwarded") == TrustedProxies(networks, header="forwarded")
    assert parse_proxies(["unix"], header="x-forwarded-for") == TrustedProxies(unix=True)
    assert parse_proxies([], header="x-forwarded-for") == TrustedProxies()


@pytest.mark.parametrize("values", [["10.0.0.1/8"], [""], ["proxy.example"], ["10.0.0.0/33"], "127.0.0.1"], ids=repr)
def test_parse_proxies_refuses(values: list[str]) -> None:
    """An invalid network is named at start; a single text is rejected, because a list is required."""
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        parse_proxies(values, header="x-forwarded-for")


@pytest.mark.parametrize(
    ("user_agent", "label"),
    [
        ("", ""),
        ("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("  a \t b\r\n c ", "a b c"),
        ("a\x00b\x1b[31mc\x7f", "ab[31mc"),
        ("a\u202eb\u2066c\u200bd", "abcd"),
        ("a \u200b b", "a b"),
        ("a\ud800b\ue000c", "abc"),
        ("Zoë", "Zoë"),
        ("x" * 300, "x" * 256),
        ("x" * 255 + " y", "x" * 255),
    ],
    ids=repr,
)
def test_client_label(user_agent: str, label: str) -> None:
    """The label is one visible line of at most 256 characters."""
    assert client_label(user_agent) == label


@given(st.text())
def test_client_label_is_printable(user_agent: str) -> None:
    """Every label is printable, and is its own label."""
    label = client_label(user_agent)

    assert label.isprintable()
    assert client_label(label) == label


def test_client_label_takes_linear_time() -> None:
    """DO-4: 64 KiB of any characters take under 50 ms."""
    assert least(lambda: client_label(" \u202e" * 32768)) < 0.05


@pytest.mark.parametrize(
    ("address", "network"),
    [
        (None, None),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", None),
        ("testclient", "testclient"),
    ],
)
def test_client_network(address: str | None, network: str | None) -> None:
    """DO-6: all addresses of an IPv6 /64 are one client; each IPv4 address is one client."""
    assert client_network(address) == network


def test_client_address_reads_the_end_of_a_long_header() -> None:
    """HT-2, DO-4: the last 1,024 characters are read, without a hop that begins before them."""
    trusted = "10.0.0.2," * 113  # 1,017 characters
    assert client_address("10.0.0.1", [f"203.0.113.7,{trusted[:-10]}"], PROXIES) == "203.0.113.7"
    assert client_address("10.0.0.1", [f"1203.0.113.7,{trusted}"], PROXIES) == "10.0.0.2"
    assert client_address("10.0.0.1", ["1.2.3.4", "," * 2000, "203.0.113.7", ""], PROXIES) == "203.0.113.7"
