"""The client: the peer of the transport, the headers of proxies, and User-Agent (RFC 9110 section 10.1.5)."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import get_args

from asgi_auth.errors import ConfigurationError
from asgi_auth.protocol.forwarded import ForwardedHeader, hops

MAX_LABEL_CHARACTERS = 256

UNIX = "unix"
"""The peer on a UNIX socket, which has no address."""

_PORT = r":(?:[0-9]+|_[A-Za-z0-9._-]+)"  # RFC 7239 section 6 also has obfuscated ones
_BRACKETED = re.compile(rf"\[([^\[\]]*)\](?:{_PORT})?")
_V4_WITH_PORT = re.compile(rf"([0-9.]+){_PORT}")


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The trusted proxies of the application, and the one header that they use."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False
    """True if the peer on a UNIX socket is a trusted proxy."""
    header: ForwardedHeader = "x-forwarded-for"

    def trusts(self, peer: str | None) -> bool:
        """True if *peer* is a trusted proxy."""
        return self.unix if peer == UNIX else self.lists(parse_address(peer or ""))

    def lists(self, address: IPv4Address | IPv6Address | None) -> bool:
        """True if an address is in a trusted network. False for None."""
        return address is not None and any(address in network for network in self.networks)


def peer_of(client: str | None, server: str | None) -> str | None:
    """The other end of the connection: its address, or ``UNIX``.

    >>> peer_of("203.0.113.7", "192.0.2.1"), peer_of(None, None), peer_of(None, "192.0.2.1")
    ('203.0.113.7', 'unix', None)

    Args:
        client: The address in ``client`` of the scope. On a UNIX socket it is None or empty.
        server: The address in ``server`` of the scope. On a UNIX socket it is a path or None. If it is an IP address
            and *client* is None, a TCP client disconnected before the server read its address.

    Returns:
        The address or ``UNIX``. None if the server does not know the peer.
    """
    if client:
        return client
    return None if parse_address(server or "") else UNIX


def client_address(peer: str | None, values: Sequence[str], proxies: TrustedProxies) -> str | None:
    """The right-most hop that is not a trusted proxy (HT-2).

    That hop wrote everything to its left, which may be forged.

    >>> proxies = parse_proxies(["10.0.0.0/8"], header="x-forwarded-for")
    >>> client_address("10.0.0.1", ["198.51.100.1, 203.0.113.7"], proxies)
    '203.0.113.7'

    Args:
        peer: From :func:`peer_of`.
        values: The value of every line of the header of the trusted proxies, in order.
        proxies: The trusted proxies. The header is read only if the peer is one of them.

    Returns:
        IPv6 in canonical form (RFC 5952), an IPv4-mapped address as IPv4. A peer that is not an IP address is returned
        unchanged. After a malformed hop, or over 1,024 characters of trusted hops, it is the last valid hop. On a
        trusted UNIX socket without a valid hop it is ``UNIX``. On a UNIX socket without the header it is None.
    """
    address = parse_address(peer or "")
    if address is None and peer != UNIX:
        return peer
    for text in hops(proxies.header, values) if proxies.trusts(peer) else ():
        hop = parse_address(text)
        address = hop or address
        if not proxies.lists(hop):
            break
    if address is None:  # a socket: all clients whose address is malformed count as one
        return UNIX if proxies.unix and any(values) else None
    return str(address)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address without brackets, port and zone (RFC 4007 section 11). Returns None if it is not an address."""
    text = text.strip()
    if match := _BRACKETED.fullmatch(text) or _V4_WITH_PORT.fullmatch(text):
        text = match[1]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def parse_proxies(values: Sequence[str], *, header: ForwardedHeader) -> TrustedProxies:
    """Parse the configured proxies: networks such as ``10.0.0.0/8`` or ``::1``, and ``unix``.

    Raises:
        ConfigurationError: A value is neither, or has bits set behind its prefix; the header is not supported, or it is
            set without any proxy.
    """
    if isinstance(values, str):
        raise ConfigurationError("trusted_proxies must be a list of networks")
    if header not in get_args(ForwardedHeader):
        raise ConfigurationError(f"forwarded_header must be one of {', '.join(get_args(ForwardedHeader))}")
    if header == "forwarded" and not values:
        raise ConfigurationError("forwarded_header requires a trusted proxy; list your proxies in trusted_proxies")
    listed = [str(value) for value in values]
    try:
        networks = tuple(ip_network(value) for value in listed if value != UNIX)
    except ValueError as exc:
        raise ConfigurationError(f"trusted_proxies: {exc}") from exc
    return TrustedProxies(networks, UNIX in listed, header)


def client_network(address: str | None) -> str | None:
    """The network that counts as one client in limits and turns. An IPv6 customer has at least a whole /64.

    >>> client_network("2001:db8::1")
    '2001:db8::/64'
    >>> client_network("192.0.2.1")
    '192.0.2.1'

    Args:
        address: From :func:`client_address`. A text that is not an address stays the same.
    """
    known = parse_address(address or "")
    if known is None:
        return address or None
    return str(IPv6Network((known, 64), strict=False) if isinstance(known, IPv6Address) else known)


def client_label(user_agent: str) -> str:
    """The name of a device in a list of sessions: one line, at most 256 visible characters.

    Control, format (also bidirectional), surrogate and unassigned characters are removed, because pages and logs show
    the line.

    >>> client_label("Browser/1.0\\t(Phone)")
    'Browser/1.0 (Phone)'
    """
    visible = (c for c in user_agent if c.isspace() or not unicodedata.category(c).startswith("C"))
    return " ".join("".join(visible).split())[:MAX_LABEL_CHARACTERS].rstrip()
