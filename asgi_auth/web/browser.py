"""The only writer of cookies: the session cookie, and the cookies of the steps of a sign-in."""

from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple

from starlette.responses import Response

from asgi_auth.phases import Browser
from asgi_auth.protocol.cookies import cookie_names, delete_cookie, read_cookies, set_cookie
from asgi_auth.protocol.headers import Headers
from asgi_auth.site import Site
from asgi_auth.types import CookieKind

MOST_OF_A_KIND = 20
"""Number of cookies. A browser keeps about 180 for a site, and sends all of them with each request."""

MOST_BYTES_OF_A_KIND = 16 * 1024
"""Size of their values. Servers accept 8 to 64 KiB of headers."""

SIGN_IN_KINDS: tuple[CookieKind, ...] = ("pending", "flow", "challenge")
"""The kinds that belong to an unfinished sign-in. A sign-out removes them."""


class _Change(NamedTuple):
    name: str
    value: str | None
    """None: remove the cookie."""
    max_age: int | None = None


class CookieBrowser(Browser):
    """The browser that a request comes from. The next ``read`` already sees kept and dropped cookies."""

    def __init__(self, headers: Headers, site: Site) -> None:
        """Args: headers: The headers of the request. site: The site of the cookies."""
        self._headers, self._site = headers, site
        self._changes: dict[str, _Change] = {}

    @cached_property
    def _kept(self) -> dict[str, str]:
        """The library's cookies by name, the oldest first, as browsers send them (RFC 6265bis section 5.8.3).

        A cookie that was sent twice, or that cannot be read, has an empty value. Raises MalformedRequestError if there
        are too many cookies.
        """
        readable, names = read_cookies(self._headers), cookie_names(self._headers)
        return {name: readable.get(name, "") for name in names if self._site.kind_of(name) not in (None, "session")}

    def check(self) -> None:
        """Raises MalformedRequestError if there are too many cookies. Called before any other work."""
        _ = self._kept

    def read_all(self, kind: CookieKind) -> Sequence[str]:
        """Every value of a *kind* that can be read, the oldest first."""
        return [value for name, value in self._kept.items() if value and self._site.kind_of(name) == kind]

    def keep(self, kind: CookieKind, value: str, *, lifetime: timedelta) -> None:
        """Tell the browser to keep *value*.

        Raises:
            ValueError: a cookie cannot hold *value*, or *lifetime* is under a second.
        """
        name, seconds = self._site.cookie(kind), int(lifetime.total_seconds())
        if seconds < 1:
            raise ValueError("the lifetime of a cookie must be a second or more")
        if kind != "pending":  # a name of its own, so that a sign-in in another tab keeps its cookie
            name = f"{name}_{_suffix(value)}"
        set_cookie(name, value, secure=self._site.secure)
        self._make_room(kind, name, len(value))
        self._kept[name] = value
        self._changes[name] = _Change(name, value, seconds)

    def _make_room(self, kind: CookieKind, name: str, size: int) -> None:
        others = [other for other in self._kept if self._site.kind_of(other) == kind and other != name]
        while others and (
            len(others) >= MOST_OF_A_KIND or sum(len(self._kept[each]) for each in others) + size > MOST_BYTES_OF_A_KIND
        ):
            self._drop(others.pop(0))

    def drop(self, kind: CookieKind, value: str | None = None) -> None:
        """Tell the browser to forget *value*; None: every value of this *kind*."""
        for name, kept in list(self._kept.items()):
            if self._site.kind_of(name) == kind and value in (None, kept):
                self._drop(name)

    def _drop(self, name: str) -> None:
        self._kept.pop(name)
        self._changes[name] = _Change(name, None)

    def drop_sign_in(self) -> None:
        """Tell the browser to forget every unfinished sign-in."""
        for kind in SIGN_IN_KINDS:
            self.drop(kind)

    def apply(self, response: Response) -> None:
        """Write the changes into an answer. They replace its Set-Cookie headers of the same names."""
        for change in self._changes.values():
            if change.value is None:
                drop_cookie(response, change.name, secure=self._site.secure)
            else:
                keep_cookie(response, change.name, change.value, secure=self._site.secure, max_age=change.max_age)


def _suffix(value: str) -> str:
    return sha256(value.encode()).hexdigest()[:16]


def keep_cookie(response: Response, name: str, value: str, *, secure: bool, max_age: int | None = None) -> None:
    """Add a Set-Cookie. It replaces one of the same name."""
    _drop(response, name)
    response.headers.append("Set-Cookie", set_cookie(name, value, secure=secure, max_age=max_age))


def drop_cookie(response: Response, name: str, *, secure: bool) -> None:
    """Add a Set-Cookie that removes the cookie."""
    _drop(response, name)
    response.headers.append("Set-Cookie", delete_cookie(name, secure=secure))


def _drop(response: Response, name: str) -> None:
    start = f"{name}=".encode()
    response.raw_headers[:] = [
        (key, value) for key, value in response.raw_headers if key != b"set-cookie" or not value.startswith(start)
    ]
