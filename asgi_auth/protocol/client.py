"""Who asks: the transport's peer, what proxies say of theirs, and User-Agent (RFC 9110 section 10.1.5)."""

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
    """The proxies of the application, and the one header in which they are believed."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False
    """Whether the peer on a UNIX socket is one."""
    header: ForwardedHeader = "x-forwarded-for"

    def trusts(self, peer: str | None) -> bool:
        """Whether what *peer* says of its own peer is believed."""
        return self.unix if peer == UNIX else self.lists(parse_address(peer or ""))

    def lists(self, address: IPv4Address | IPv6Address | None) -> bool:
        """Whether an address is one of a proxy; None, which is no address, is not."""
        return address is not None and any(address in network for network in self.networks)


def peer_of(client: str | None, server: str | None) -> str | None:
    """The other end of the connection: its address, or ``UNIX``.

    >>> peer_of("203.0.113.7", "192.0.2.1"), peer_of(None, None), peer_of(None, "192.0.2.1")
    ('203.0.113.7', 'unix', None)

    Args:
        client: The address in ``client`` of the scope. On a UNIX socket servers give none, or an empty one.
        server: That in ``server``; on a UNIX socket a path or none. Where it is an IP address and *client* is none, a
            client on TCP has hung up before the server asked who it was.

    Returns:
        None where the server does not tell who it is.
    """
    if client:
        return client
    return None if parse_address(server or "") else UNIX


def client_address(peer: str | None, values: Sequence[str], proxies: TrustedProxies) -> str | None:
    """The right-most hop that is not a trusted proxy (HT-2).

    Everything left of it was written by that hop, which may lie.

    >>> proxies = parse_proxies(["10.0.0.0/8"], header="x-forwarded-for")
    >>> client_address("10.0.0.1", ["198.51.100.1, 203.0.113.7"], proxies)
    '203.0.113.7'

    Args:
        peer: From :func:`peer_of`.
        values: The value of every line of the header in which the proxies are believed, in order.
        proxies: Unless the peer is one of them, the header is not looked at.

    Returns:
        IPv6 in canonical form (RFC 5952), an IPv4-mapped address as IPv4. A peer that is no IP address is returned as
        it is. Behind something unreadable, or over 1,024 characters of trusted hops, the last hop that could be read;
        on a trusted UNIX socket ``UNIX`` where none could. None on a UNIX socket without a word of the client.
    """
    address = parse_address(peer or "")
    if address is None and peer != UNIX:
        return peer
    for text in hops(proxies.header, values) if proxies.trusts(peer) else ():
        hop = parse_address(text)
        address = hop or address
        if not proxies.lists(hop):
            break
    if address is None:  # a socket: whom its proxy names without an address are one client, for it may be anybody
        return UNIX if proxies.unix and any(values) else None
    return str(address)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Without brackets, port and zone (RFC 4007 section 11), which do not say who it is; None if it is no address."""
    text = text.strip()
    if match := _BRACKETED.fullmatch(text) or _V4_WITH_PORT.fullmatch(text):
        text = match[1]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def parse_proxies(values: Sequence[str], *, header: ForwardedHeader) -> TrustedProxies:
    """What the application lists: networks such as ``10.0.0.0/8`` or ``::1``, and ``unix``.

    Raises:
        ConfigurationError: One is neither, or has bits set behind its prefix; the header is not supported, or is chosen
            although nobody is believed.
    """
    if isinstance(values, str):
        raise ConfigurationError("trusted_proxies must be a list of networks")
    if header not in get_args(ForwardedHeader):
        raise ConfigurationError(f"forwarded_header must be one of {', '.join(get_args(ForwardedHeader))}")
    if header == "forwarded" and not values:
        raise ConfigurationError("forwarded_header: nobody is believed; list your proxies in trusted_proxies")
    listed = [str(value) for value in values]
    try:
        networks = tuple(ip_network(value) for value in listed if value != UNIX)
    except ValueError as exc:
        raise ConfigurationError(f"trusted_proxies: {exc}") from exc
    return TrustedProxies(networks, UNIX in listed, header)


def client_network(address: str | None) -> str | None:
    """Who counts as one where turns are shared out: an IPv6 customer has at least a /64, and all its addresses.

    >>> client_network("2001:db8::1")
    '2001:db8::/64'
    >>> client_network("192.0.2.1")
    '192.0.2.1'

    Args:
        address: From :func:`client_address`; what is no address stays as it is.
    """
    known = parse_address(address or "")
    if known is None:
        return address or None
    return str(IPv6Network((known, 64), strict=False) if isinstance(known, IPv6Address) else known)


def client_label(user_agent: str) -> str:
    """What to call a device in a list of sessions: one line, at most 256 characters, nothing invisible.

    Control, format (bidirectional ones among them), surrogate and unassigned characters are left out: the line is shown
    to people and written to logs.

    >>> client_label("Browser/1.0\\t(Phone)")
    'Browser/1.0 (Phone)'
    """
    visible = (c for c in user_agent if c.isspace() or not unicodedata.category(c).startswith("C"))
    return " ".join("".join(visible).split())[:MAX_LABEL_CHARACTERS].rstrip()
