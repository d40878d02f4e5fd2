"""The values of the package: users, accounts, sessions, tokens and clients. No behaviour.

Durations are ``timedelta``, instants are aware ``datetime`` in UTC. No ``repr`` contains a secret.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Self

from asgi_auth.errors import AuthError


class FrozenDict(dict[str, Any]):
    """A read-only dict, for shared values. Unlike a proxy, it works with JSON and pickle."""

    __slots__ = ()

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("read-only: make a dict of it first")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # the default of a dataclass field has to be hashable
        return hash(frozenset(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


EMPTY: Mapping[str, Any] = FrozenDict()

Clock = Callable[[], datetime]
"""Returns the current instant, aware, in UTC."""

Digest = Callable[[str, str], bytes]
"""``digest(use, text)`` returns a keyed hash of *text*. The key changes with the application's secret."""

Job = Callable[[], Awaitable[None]]
"""Runs after the act is committed: after the response under the plug; without HTTP the caller awaits it."""


# --- users -----------------------------------------------------------------------------------------------------------


class UserMixin:
    """Adds the attributes of ``request.user`` to an application's own user class, which needs an ``id``.

    Starlette reads ``is_authenticated``, ``display_name`` and ``identity``.
    """

    @property
    def is_authenticated(self) -> Literal[True]:
        """Always True."""
        return True

    @property
    def display_name(self) -> str:
        """The name of the user on a page: the address, the user name or the id."""
        return str(getattr(self, "email", None) or getattr(self, "username", None) or self.identity)

    @property
    def identity(self) -> str:
        """The id of the user as text."""
        return str(self.id)  # type: ignore[attr-defined]  # the class that mixes this in has it


@dataclass(frozen=True, slots=True, kw_only=True)
class User(UserMixin):
    """A user of a store that keeps its own table of users (``SQLiteStore``)."""

    id: str
    email: str | None = None
    """The address as it was entered, in NFC. Mail goes only to it. None for accounts without an address."""
    username: str | None = None
    """None unless the application uses user names."""
    data: Mapping[str, Any] = EMPTY
    """The extra fields that the application declared, by name."""
    created_at: datetime
    confirmed_at: datetime | None = None
    """When a user first proved the mailbox of this address; None: it is unproven."""


class AnonymousUser:
    """The user of a request without a signed-in user. ``scope["user"]`` is never None; this user is falsy."""

    id: None = None
    email: None = None
    username: None = None

    def __bool__(self) -> Literal[False]:
        """Always False, so that ``if not request.user`` works."""
        return False

    @property
    def is_authenticated(self) -> Literal[False]:
        """Always False."""
        return False

    @property
    def display_name(self) -> str:
        """Empty."""
        return ""

    @property
    def identity(self) -> str:
        """Empty."""
        return ""

    def __repr__(self) -> str:
        return "AnonymousUser()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The library's own data of a user, also if the application owns the table of users."""

    user_id: str
    stamp: bytes = field(repr=False)
    """128 random bits. Sessions and tokens copy it when their proof begins. A change of the stamp ends them."""
    password_hash: str | None = field(default=None, repr=False)
    """None: this user has no password."""
    confirmed_at: datetime | None = None
    disabled_at: datetime | None = None
    proven_email: str | None = None
    """The address that was proven last, if the current address was changed since and never proven; else None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One user signed in on one device."""

    id: str
    """Public: the id in a list of sessions, and ``sid`` of its access tokens."""
    user_id: str
    stamp: bytes = field(repr=False)
    created_at: datetime
    last_seen_at: datetime
    """At most a minute old."""
    idle_expires_at: datetime
    expires_at: datetime
    """The absolute end, also if the session is in use."""
    label: str = ""
    """The User-Agent of the sign-in, control characters removed, at most 256 characters."""
    factors: Mapping[str, datetime] = EMPTY
    """When each factor was last proven in this session, by name of the strategy."""
    remembered: bool = False
    """True for a session that outlives the browser. It is never fresh."""


class AccessToken(str):
    """The access token of a sign-in. It also has the value of the session cookie of this sign-in.

    As a text it is a JWT. Only :meth:`AuthPlug.store_in_session` reads ``cookie``.
    """

    cookie: str
    session: Session
    expires_at: datetime

    __slots__ = ("cookie", "expires_at", "session")

    def __new__(cls, value: str, *, cookie: str, session: Session, expires_at: datetime) -> Self:
        """Args: value: The JWT. cookie: The signed cookie value. expires_at: When the JWT expires."""
        token = super().__new__(cls, value)
        token.cookie, token.session, token.expires_at = cookie, session, expires_at
        return token

    def __repr__(self) -> str:
        return f"AccessToken(session={self.session.id!r})"


# --- requests --------------------------------------------------------------------------------------------------------


CookieKind = Literal["pending", "flow", "challenge", "device", "trusted"]
"""The purpose of a cookie of the library other than the session cookie: a sign-in that waits for its next factor, a
round trip to a provider, an open challenge, a known browser, or a browser that may skip the second factor."""


class Activity(NamedTuple):
    """The strategy and phase of an act: ``Activity("password", "sign_in")``. Both are None for an unknown route."""

    strategy: str | None
    phase: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The client of a request, as the transport describes it."""

    address: str | None = None
    """IP address; None without HTTP."""
    label: str = ""
    """The User-Agent, control characters removed, at most 256 characters."""
    session_hashes: tuple[bytes, ...] = field(default=(), repr=False)
    """Look-up hashes of the session cookies of the browser. A new sign-in ends these sessions."""
    pending_hashes: tuple[bytes, ...] = field(default=(), repr=False)
    """Look-up hashes of the pending sign-ins of the browser. A sign-in or sign-out ends them."""
    locale: str = "en"
    """The language of the user, as a tag (RFC 5646)."""
    browser: bool = False
    """True if the request has headers that only a browser sends (Origin, Sec-Fetch-Site)."""


class AuthState(NamedTuple):
    """The result of a middleware for a request: ``scope["asgi_auth"]``."""

    user: Any
    """The application's own user object, or an ``AnonymousUser``."""
    session: Session | None
    """None if no user is signed in, or if the credential has no session, such as an API key."""
    method: str | None
    """How the user was recognised: ``session``, ``bearer`` or the method of a strategy; None: no user is signed in."""
    scopes: tuple[str, ...]
    """The permissions of this request, as in ``scope["auth"].scopes``."""
    error: AuthError | None
    """Why the credential was rejected; None if it is valid, or if there is none."""
    authentication: object = None
    """The ``Authentication`` of this state."""
