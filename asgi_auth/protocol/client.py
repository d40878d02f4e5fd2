"""Who asks, as far as the transport says: X-Forwarded-For as proxies write it, User-Agent (RFC 9110 section 10.1.5)."""

import re
import unicodedata
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from asgi_auth.errors import ConfigurationError

MAX_LABEL_CHARACTERS = 256
MAX_HOPS_CHARACTERS = 1024
"""The end of X-Forwarded-For that is read, some twenty hops: what a stranger wrote is at its beginning."""

_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::[0-9]+)?")
_V4_WITH_PORT = re.compile(r"([0-9.]+):[0-9]+")


def client_address(
    peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[IPv4Network | IPv6Network]
) -> str | None:
    """The right-most hop that is not a trusted proxy (HT-2).

    Everything left of it was written by that hop, which may lie.

    >>> proxies = parse_networks(["10.0.0.0/8"], parameter="trusted_proxies")
    >>> client_address("10.0.0.1", ["198.51.100.1, 203.0.113.7"], proxies)
    '203.0.113.7'

    Args:
        peer: The other end of the connection; None if the transport does not say.
        forwarded_for: The value of every X-Forwarded-For header, in order.
        trusted: The proxies of this application; without any, the headers are not looked at.

    Returns:
        IPv6 in canonical form (RFC 5952), an IPv4-mapped address as IPv4. A peer that is no IP address is returned as
        it is. Behind something unreadable, or over 1,024 characters of trusted hops, the last hop that could be read.
    """
    address = _address(peer or "")
    if address is None:
        return peer
    for text in reversed(_hops(forwarded_for) if trusted else []):
        if text == "":  # RFC 9110 section 5.6.1.2: an empty list element counts for nothing
            continue
        hop = _address(text) if any(address in network for network in trusted) else None
        if hop is None:
            break
        address = hop
    return str(address)


def _hops(forwarded_for: Sequence[str]) -> list[str]:
    text = ",".join(forwarded_for)
    if len(text) > MAX_HOPS_CHARACTERS:
        text = text[-MAX_HOPS_CHARACTERS:].partition(",")[2]  # of the first one only the end may be there
    return [hop.strip() for hop in text.split(",")]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Without brackets, port and zone (RFC 4007 section 11), which do not say who it is; None if it is no address."""
    text = text.strip()
    if match := _BRACKETED.fullmatch(text) or _V4_WITH_PORT.fullmatch(text):
        text = match[1]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def parse_networks(values: Sequence[str], *, parameter: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks that the application lists, for example ``10.0.0.0/8`` or ``::1``.

    Raises:
        ConfigurationError: One is not a network, or has bits set behind its prefix; names the parameter.
    """
    if isinstance(values, str):
        raise ConfigurationError(f"{parameter} must be a list of networks")
    try:
        return tuple(ip_network(str(value)) for value in values)
    except ValueError as exc:
        raise ConfigurationError(f"{parameter}: {exc}") from exc


def client_network(address: str | None) -> str | None:
    """Who counts as one where turns are shared out: an IPv6 customer has at least a /64, and all its addresses.

    >>> client_network("2001:db8::1")
    '2001:db8::/64'
    >>> client_network("192.0.2.1")
    '192.0.2.1'

    Args:
        address: From :func:`client_address`; what is no address stays as it is.
    """
    known = _address(address or "")
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
