"""Requests that another site makes a browser send: Fetch Metadata section 2.3, origins of RFC 6454 sections 4 to 7.

If both are missing, the origin of the Referer decides (RFC 9110 section 10.1.3).
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import idna

from asgi_auth.errors import ConfigurationError
from asgi_auth.protocol.origin_advice import origin_advice

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""They change nothing (RFC 9110 section 9.2.1), so they need no check. TRACE is not supported."""

_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^\s\[\]@:/?#\\%]+)(?::([0-9]{1,5}))?", re.IGNORECASE | re.ASCII)
_ORIGIN_OF_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_HOST = 253

_SHELL_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_APP_HOSTS = {
    "capacitor": _SHELL_HOST,
    "ionic": _SHELL_HOST,
    "tauri": _SHELL_HOST,
    "chrome-extension": re.compile(r"[a-p]{32}", re.IGNORECASE),
    "moz-extension": _UUID,
}
"""The schemes of app shells and browser extensions, with the pattern of their hosts. They have no port."""


def parse_origin(text: str, *, parameter: str, apps: bool = False) -> str:
    """A configured origin in the form that browsers send (RFC 6454 section 6.2).

    >>> parse_origin("HTTPS://Example.com:443", parameter="base_url")
    'https://example.com'
    >>> parse_origin("capacitor://localhost", parameter="allowed_origins", apps=True)
    'capacitor://localhost'

    Args:
        text: ``https://example.com``: scheme, host, optional port, nothing else.
        parameter: The name of the parameter, for the message.
        apps: Also accept the page of an app shell (``capacitor``, ``ionic``, ``tauri``) or of a browser extension
            (``chrome-extension``, ``moz-extension``). RFC 6454 section 4 gives such a scheme an origin like any other.

    Returns:
        Lower case, without the default port, the host as A-labels.

    Raises:
        ConfigurationError: It is invalid; the message has the problem and the remedy.
    """
    text = text or ""  # None: an environment variable that is not set
    if not isinstance(text, str):
        raise ConfigurationError(f"{parameter} must be text, such as 'https://example.com', not {text!r}")
    origin = _origin(text, apps=apps)
    if origin is None:
        schemes = frozenset({*_DEFAULT_PORTS, *(_APP_HOSTS if apps else ())})
        advice = origin_advice(text, schemes=schemes, is_valid=lambda other: _origin(other, apps=apps) is not None)
        also = f", or of an app or extension: {', '.join(_APP_HOSTS)}" if apps else ""
        raise ConfigurationError(
            f"{parameter}: {advice} (it must be scheme://host or scheme://host:port with http or https{also})"
        )
    return origin


def _origin(text: str, *, apps: bool) -> str | None:
    """*text* in the canonical form of origins. Returns None if it is not an origin."""
    if apps and _is_app(text):
        return text.lower()
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, number = match[1].lower(), int(match[3] or 0)
    try:
        host = _host(match[2].lower())
    except ValueError:
        return None
    if match[3] is not None and not 0 < number < 65536:
        return None
    return f"{scheme}://{host}" + (f":{number}" if number and number != _DEFAULT_PORTS[scheme] else "")


def _is_app(text: str) -> bool:
    scheme, _, host = text.partition("://")
    pattern = _APP_HOSTS.get(scheme.lower())
    return pattern is not None and len(host) <= _MAX_HOST and pattern.fullmatch(host) is not None


def _host(host: str) -> str:
    """The serialized host. Raises ValueError."""
    if host.startswith("["):
        return f"[{IPv6Address(host[1:-1]).compressed}]"
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode("ascii")
    labels = host.split(".")
    if labels[-1].isdecimal():  # browsers read such a host as an IPv4 address in several notations
        return str(IPv4Address(host))
    if len(host) > _MAX_HOST or not all(len(label) < 64 and _LABEL.fullmatch(label) for label in labels):
        raise ValueError("not a host name")
    return host


def is_cross_site(
    method: str,
    *,
    origins: Sequence[str],
    sec_fetch_site: str | None,
    referers: Sequence[str],
    authorization: bool,
    own_cookie: bool,
    allowed: frozenset[str],
) -> bool:
    """True if a browser sends this request for another site, so that its cookie must be ignored.

    Args:
        method: The method as the client sent it; methods are case-sensitive.
        origins: The value of every Origin header.
        sec_fetch_site: The value of Sec-Fetch-Site; None if there is none. An unknown value is ignored.
        referers: The value of every Referer header. Our pages have an allowed origin. A malformed value, or several
            values, count as another site. A client without any of the three headers is not a browser.
        authorization: True if there is a Bearer token, which no other site can make a browser send.
        own_cookie: True if the request has a cookie of ours; used only beside a Bearer token.
        allowed: Origins from :func:`parse_origin`.
    """
    if method in SAFE_METHODS or (authorization and not own_cookie):
        return False
    if len(origins) > 1:
        return True
    if origins and origins[0] in allowed:
        return False
    if sec_fetch_site in ("same-origin", "none"):
        return False
    if sec_fetch_site in ("cross-site", "same-site") or origins:
        return True
    return bool(referers) and (len(referers) > 1 or origin_of(referers[0]) not in allowed)


def origin_of(url: str) -> str:
    """The origin of a URL in the form that browsers send. Empty for any other text.

    >>> origin_of("https://www.example.org/path?token=x")
    'https://www.example.org'
    """
    match = _ORIGIN_OF_URL.match(url)
    return match[0] if match else ""


def websocket_allowed(origins: Sequence[str], allowed: frozenset[str]) -> bool:
    """True if a handshake may use its cookie: it has exactly one Origin header, with an allowed origin (WS-1).

    Browsers send no Sec-Fetch-Site with a handshake, and any origin may open one. Origin is the only signal.
    """
    return len(origins) == 1 and origins[0] in allowed
