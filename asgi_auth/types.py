"""The values that flow through the package: users, accounts, sessions, tokens, who asks. No behaviour.

Durations are ``timedelta``, instants aware ``datetime`` in UTC. What is secret is left out of every ``repr``.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Self

from asgi_auth.errors import AuthError


class FrozenDict(dict[str, Any]):
    """A dict that nobody can alter, because it is shared. JSON and pickle take it for what it is, unlike a proxy."""

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
"""Returns a keyed hash, for one use (the first text), of the second. Its key goes with the application's secret."""

Job = Callable[[], Awaitable[None]]
"""Something to do once the act is committed: after the response under the plug, awaited without HTTP."""


# --- users -----------------------------------------------------------------------------------------------------------


class UserMixin:
    """What ``request.user`` must offer, for an application's own user class; needs only an ``id``.

    Starlette reads ``is_authenticated``, ``display_name`` and ``identity``.
    """

    @property
    def is_authenticated(self) -> Literal[True]:
        """True: the user is signed in."""
        return True

    @property
    def display_name(self) -> str:
        """What to call the user on a page: the address or user name if there is one, else the id."""
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
    """As it was entered, in NFC: the only place that mail is sent to. None for accounts without an address."""
    username: str | None = None
    """None unless the application signs people in by user name."""
    data: Mapping[str, Any] = EMPTY
    """The extra fields that the application declared, by name."""
    created_at: datetime
    confirmed_at: datetime | None = None
    """When the mailbox of this address was first proven; None: it was never proven."""


class AnonymousUser:
    """Nobody is signed in. ``scope["user"]`` is never None; this user is false in a condition."""

    id: None = None
    email: None = None
    username: None = None

    def __bool__(self) -> Literal[False]:
        """False: ``if not request.user`` asks whether nobody is signed in."""
        return False

    @property
    def is_authenticated(self) -> Literal[False]:
        """False: nobody is signed in."""
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
    """What the library knows of a user, also where the application owns the table of users."""

    user_id: str
    stamp: bytes = field(repr=False)
    """128 random bits. Sessions and tokens copy it when their proof begins; once it changes, they are dead."""
    password_hash: str | None = field(default=None, repr=False)
    """None: this user has no password."""
    confirmed_at: datetime | None = None
    disabled_at: datetime | None = None
    proven_email: str | None = None
    """The address that was proven last, where the one in force was changed to and never proven; None otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One user signed in on one device."""

    id: str
    """Public: the handle in a list of sessions, and ``sid`` of its bearer tokens."""
    user_id: str
    stamp: bytes = field(repr=False)
    created_at: datetime
    last_seen_at: datetime
    """At most a minute old."""
    idle_expires_at: datetime
    expires_at: datetime
    """The absolute end, however busy the session is."""
    label: str = ""
    """The User-Agent of the sign-in, control characters removed, at most 256 characters."""
    factors: Mapping[str, datetime] = EMPTY
    """When each factor was last proven in this session, by name of the strategy."""
    remembered: bool = False
    """True for a session that outlives the browser. It is never fresh."""


class AccessToken(str):
    """The bearer token of a sign-in, which also carries the value of the session cookie of the same sign-in.

    As text it is a JWT. Only :meth:`AuthPlug.store_in_session` reads ``cookie``.
    """

    cookie: str
    session: Session
    expires_at: datetime

    __slots__ = ("cookie", "expires_at", "session")

    def __new__(cls, value: str, *, cookie: str, session: Session, expires_at: datetime) -> Self:
        """Args: value: The JWT. cookie: The signed cookie value. expires_at: When the JWT ends."""
        token = super().__new__(cls, value)
        token.cookie, token.session, token.expires_at = cookie, session, expires_at
        return token

    def __repr__(self) -> str:
        return f"AccessToken(session={self.session.id!r})"


# --- requests --------------------------------------------------------------------------------------------------------


CookieKind = Literal["pending", "flow", "challenge", "device", "trusted"]
"""What a cookie of the library's is for, beside that of the session: a sign-in that waits for its next factor, a round
trip to a provider, a challenge to be answered, a browser that is known, one that is spared the second factor."""


class Activity(NamedTuple):
    """What was attempted: ``Activity("password", "sign_in")``; both None for an unknown route."""

    strategy: str | None
    phase: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who asks, as far as the transport says."""

    address: str | None = None
    """IP address; None without HTTP."""
    label: str = ""
    """The User-Agent, control characters removed, at most 256 characters."""
    session_hashes: tuple[bytes, ...] = field(default=(), repr=False)
    """Look-up hashes of the session cookies that the browser showed; those sessions end when it signs in again."""
    pending_hashes: tuple[bytes, ...] = field(default=(), repr=False)
    """Look-up hashes of the pending sign-ins that the browser showed; they end when it signs in or out."""
    locale: str = "en"
    """The language of the person, as a tag (RFC 5646)."""
    browser: bool = False
    """True when the request bears headers that only a browser sends (Origin, Sec-Fetch-Site)."""


class AuthState(NamedTuple):
    """What a middleware found out about a request: ``scope["asgi_auth"]``."""

    user: Any
    """The application's own user object, or an ``AnonymousUser``."""
    session: Session | None
    """None where nobody is signed in, and where the credential needs no session, as an API key."""
    method: str | None
    """How the user is recognised: ``session``, ``bearer``, or as a strategy calls it; None: nobody is signed in."""
    scopes: tuple[str, ...]
    """What ``scope["auth"].scopes`` holds: what this request may do."""
    error: AuthError | None
    """Why the credential was rejected; None if it was accepted, or if the request shows none."""
    authentication: object = None
    """The ``Authentication`` that says so."""
