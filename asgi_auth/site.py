"""Site: the public address of the application, its cookies, and the check for cross-site requests."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import urlsplit

from asgi_auth.errors import ConfigurationError, CrossSiteError, MisdirectedRequestError
from asgi_auth.protocol.bearer import shows_bearer
from asgi_auth.protocol.cookies import cookie_name, cookie_names
from asgi_auth.protocol.cross_site import SAFE_METHODS, is_cross_site, origin_of, parse_origin, websocket_allowed
from asgi_auth.protocol.headers import Headers, header_values
from asgi_auth.protocol.loopback import is_loopback
from asgi_auth.types import CookieKind

Scope = Mapping[str, Any]
"""The scope of an ASGI connection."""

_SHOWN = 100
"""The maximum of characters of a header's value in the log."""
_ALONE = frozenset({"session", "pending"})
"""Kinds of which a browser has only one cookie."""
_KINDS = _ALONE | {*get_args(CookieKind)}
_SUFFIX = re.compile(r"[0-9a-f]{16}")
"""The suffix of the cookie name, for kinds of which a browser may have several cookies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The public address of one ``Authentication``. No part of it comes from a request (HT-1)."""

    base_url: str
    subject_name: str
    origins: frozenset[str]
    """The origins whose pages may send requests with our cookies."""
    host: str
    secure: bool
    """True on https; http is for ``localhost``, names below it and loopback addresses."""
    session_cookie: str

    # --- cookies

    def cookie(self, kind: str) -> str:
        """The name of the cookie of a *kind*; each subject has its own."""
        return cookie_name(self.subject_name, kind, secure=self.secure)

    def kind_of(self, name: str) -> str | None:
        """The kind of a cookie of ours. Returns None for any other cookie."""
        start = self.cookie("")
        if not name.startswith(start):
            return None
        kind, underscore, suffix = name.removeprefix(start).partition("_")
        is_ours = not underscore if kind in _ALONE else _SUFFIX.fullmatch(suffix)
        return kind if is_ours and kind in _KINDS else None

    def shows_cookie(self, headers: Headers) -> bool:
        """True if the request has one of our cookies. Raises MalformedRequestError if it has too many cookies."""
        return any(self.kind_of(name) is not None for name in cookie_names(headers))

    # --- requests from other sites

    def crosses_sites(self, scope: Scope) -> bool:
        """True if a browser sends this request, or opens this websocket, for another site (CF-1, WS-1).

        Raises:
            MalformedRequestError: there are too many cookies.
        """
        headers = scope["headers"]
        if scope["type"] == "websocket":
            return not websocket_allowed(header_values(headers, b"origin"), self.origins)
        if scope["method"] in SAFE_METHODS:
            return False  # most requests; this saves reading their headers
        sites, bearer = header_values(headers, b"sec-fetch-site"), shows_bearer(headers)
        return is_cross_site(
            scope["method"],
            origins=header_values(headers, b"origin"),
            sec_fetch_site=sites[0] if len(sites) == 1 else None,
            referers=header_values(headers, b"referer"),
            authorization=bearer,
            own_cookie=bearer and self.shows_cookie(headers),  # this matters only beside a token
            allowed=self.origins,
        )

    def refusal(self, scope: Scope) -> CrossSiteError:
        """The error for a cross-site request. Its reason, for the log, names the other site.

        On a local instance the reason also names the setting to change.
        """
        lines = scope["headers"]
        origins, sites = header_values(lines, b"origin"), header_values(lines, b"sec-fetch-site")
        # Only the origin of a Referer: the rest of the URL may hold a secret.
        referers = [] if origins or sites else [origin_of(value) for value in header_values(lines, b"referer")]
        headers = {"Origin": origins, "Sec-Fetch-Site": sites, "Referer": referers}
        seen = ", ".join(f"{name} {_shown(values)}" for name, values in headers.items() if values) or "no Origin"
        advice = "" if self.secure or len(origins) != 1 else self._origin_advice(origins[0])
        return CrossSiteError(
            f"{seen}: the page's origin is neither base_url, {self.base_url}, nor in allowed_origins{advice}"
        )

    def _origin_advice(self, origin: str) -> str:
        """Advice for a developer, as this is often the developer's own page: how to allow its requests."""
        if origin == "null":
            return "; 'null' is sent by a local file, a sandboxed frame, and a page with Referrer-Policy: no-referrer"
        try:
            origin = parse_origin(origin, parameter="Origin", apps=True)
        except ConfigurationError:
            return ""
        page, own = urlsplit(origin), urlsplit(self.base_url)
        if (page.scheme, page.port) == (own.scheme, own.port) and is_loopback(page.hostname or ""):
            return f"; open the page at {self.base_url}, or set base_url={origin!r}"
        return f"; if the page is yours, set allowed_origins=[{origin!r}]"

    def check_host(self, headers: Headers) -> None:
        """On a local instance, reject a Host that is not local. This stops DNS rebinding to 127.0.0.1.

        Raises:
            MisdirectedRequestError: the Host is neither ``localhost``, a name below it, a loopback address nor
                ``testserver``.
        """
        if self.secure:
            return
        hosts = header_values(headers, b"host")
        if len(hosts) != 1 or not _is_local(hosts[0]):
            raise MisdirectedRequestError(
                f"Host {_shown(hosts)}: with base_url {self.base_url} only localhost, names below it and "
                "loopback addresses are served; to serve another name, give base_url that name, with https"
            )


def make_site(*, base_url: str, allowed_origins: Iterable[str], subject_name: str) -> Site:
    """Check the configured addresses.

    Raises:
        ConfigurationError: an origin is invalid, or *base_url* is http and not local; the message names the parameter.
    """
    base_url = parse_origin(base_url, parameter="base_url")
    host, secure = urlsplit(base_url).hostname or "", base_url.startswith("https://")
    if not secure and not is_loopback(host):
        secure_url = base_url.replace("http://", "https://", 1)
        raise ConfigurationError(
            f"base_url must be https, not {base_url!r}: write {secure_url!r}; only localhost, names below it and "
            "loopback addresses may use http"
        )
    if isinstance(allowed_origins, str):
        raise ConfigurationError(f"allowed_origins must be a list: write [{allowed_origins!r}]")
    others = (parse_origin(origin, parameter="allowed_origins", apps=True) for origin in allowed_origins)
    return Site(
        base_url=base_url,
        subject_name=subject_name,
        origins=frozenset({base_url, *others}),
        host=host,
        secure=secure,
        session_cookie=cookie_name(subject_name, "session", secure=secure),
    )


def _shown(values: list[str]) -> str:
    """The values of a header for the log: the first two, each cut."""
    return " and ".join(ascii(value[:_SHOWN]) for value in values[:2]) or "is missing"


def _is_local(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "testserver" or is_loopback(name)
