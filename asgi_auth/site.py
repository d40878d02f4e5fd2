"""Site: where the public reaches the application, which cookies are its own, and who comes from elsewhere."""

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
"""Of an ASGI connection."""

_SHOWN = 100
"""Characters of a header's value that the log has."""
_ALONE = frozenset({"session", "pending"})
"""Kinds of which a browser has one."""
_KINDS = _ALONE | {*get_args(CookieKind)}
_SUFFIX = re.compile(r"[0-9a-f]{16}")
"""Of the name of a cookie of which a browser may have several of a kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The public address of one ``Authentication``. Nothing of it comes from a request (HT-1)."""

    base_url: str
    subject_name: str
    origins: frozenset[str]
    """Whose pages may send requests with our cookies."""
    host: str
    secure: bool
    """True on https; http is for ``localhost``, names below it and loopback addresses."""
    session_cookie: str

    # --- cookies

    def cookie(self, kind: str) -> str:
        """The name of the cookie of a *kind*; each subject has its own."""
        return cookie_name(self.subject_name, kind, secure=self.secure)

    def kind_of(self, name: str) -> str | None:
        """The kind of a cookie of ours; None for any other."""
        start = self.cookie("")
        if not name.startswith(start):
            return None
        kind, underscore, suffix = name.removeprefix(start).partition("_")
        is_ours = not underscore if kind in _ALONE else _SUFFIX.fullmatch(suffix)
        return kind if is_ours and kind in _KINDS else None

    def shows_cookie(self, headers: Headers) -> bool:
        """Whether one of our cookies came along. MalformedRequestError: there are too many to tell."""
        return any(self.kind_of(name) is not None for name in cookie_names(headers))

    # --- who comes from elsewhere

    def crosses_sites(self, scope: Scope) -> bool:
        """Whether a browser sends this request, or opens this websocket, on behalf of another site (CF-1, WS-1).

        Raises:
            MalformedRequestError: there are too many cookies to tell.
        """
        headers = scope["headers"]
        if scope["type"] == "websocket":
            return not websocket_allowed(header_values(headers, b"origin"), self.origins)
        if scope["method"] in SAFE_METHODS:
            return False  # most requests: their headers need not even be read
        sites, bearer = header_values(headers, b"sec-fetch-site"), shows_bearer(headers)
        return is_cross_site(
            scope["method"],
            origins=header_values(headers, b"origin"),
            sec_fetch_site=sites[0] if len(sites) == 1 else None,
            referers=header_values(headers, b"referer"),
            authorization=bearer,
            own_cookie=bearer and self.shows_cookie(headers),  # which matters beside a token alone
            allowed=self.origins,
        )

    def refusal(self, scope: Scope) -> CrossSiteError:
        """The error for a request that crosses sites; its reason, for the log, names the other site.

        On a local instance it also says which setting to change.
        """
        lines = scope["headers"]
        origins, sites = header_values(lines, b"origin"), header_values(lines, b"sec-fetch-site")
        # Of a Referer the origin alone: the rest of the URL may hold a secret.
        referers = [] if origins or sites else [origin_of(value) for value in header_values(lines, b"referer")]
        headers = {"Origin": origins, "Sec-Fetch-Site": sites, "Referer": referers}
        seen = ", ".join(f"{name} {_shown(values)}" for name, values in headers.items() if values) or "no Origin"
        advice = "" if self.secure or len(origins) != 1 else self._origin_advice(origins[0])
        return CrossSiteError(
            f"{seen}: the page's origin is neither base_url, {self.base_url}, nor in allowed_origins{advice}"
        )

    def _origin_advice(self, origin: str) -> str:
        """For a developer, whose own page it often is: what to do so that its requests count."""
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
        """On a local instance, refuse a Host that is not local: a page that rebinds its name to 127.0.0.1 stays out.

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
    """Check what the application says of its address.

    Raises:
        ConfigurationError: an origin is none, or *base_url* is http and not local; the message names the parameter.
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
    """What a client sent in a header, for the log: the first two values, each cut."""
    return " and ".join(ascii(value[:_SHOWN]) for value in values[:2]) or "is missing"


def _is_local(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "testserver" or is_loopback(name)
