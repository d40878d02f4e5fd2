"""Hosts of this machine: RFC 6761 section 6.3, RFC 1122 section 3.2.1.3 (g), RFC 4291 section 2.5.3."""

import re
from ipaddress import ip_address

_MAX_NAME = 253
_LOCALHOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*localhost", re.IGNORECASE | re.ASCII)


def is_loopback(host: str) -> bool:
    """True if a host is this machine: ``localhost``, a name below it, or a loopback address. Makes no DNS query.

    >>> is_loopback("app.localhost"), is_loopback("::1"), is_loopback("localhost.example.org")
    (True, True, False)

    Args:
        host: A name or an IP address, without a port and without brackets.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return len(host) <= _MAX_NAME and _LOCALHOST.fullmatch(host) is not None
