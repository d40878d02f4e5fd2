"""The values that flow through the package: users, sessions, requests to a phase, outcomes, events. No behaviour.

Durations are ``timedelta``, instants aware ``datetime`` in UTC. What is secret is left out of every ``repr``.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from asgi_auth.errors import AuthError, ConfigurationError

if TYPE_CHECKING:
    from asgi_auth.store import Found, InvitationRecord, Work


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
        """True: somebody is signed in."""
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
    """When somebody first proved that they read the mail of this address; None: nobody has."""


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
    """What the library knows of a user, whoever owns the table of users."""

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
    browser: bool = False
    """True when the request bears headers that only a browser sends (Origin, Sec-Fetch-Site)."""


class AuthState(NamedTuple):
    """What a middleware found out about a request: ``scope["asgi_auth"]``."""

    user: Any
    """The application's own user object, or an ``AnonymousUser``."""
    session: Session | None
    method: Literal["session", "bearer"] | None
    error: AuthError | None
    """Why a credential that was shown counts for nothing; None if it counts, or if none was shown."""
    authentication: object = None
    """The ``Authentication`` that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRequest:
    """One request to a phase, parsed. What a form sends is text; JSON may send anything, so every value is checked."""

    method: str = "POST"
    params: Mapping[str, Any] = field(default=EMPTY, repr=False)
    query: Mapping[str, str] = field(default=EMPTY, repr=False)
    cookies: Mapping[str, str] = field(default=EMPTY, repr=False)
    client: Client = Client()
    pending: str | None = field(default=None, repr=False)
    """The pending-factor token of a sign-in that waits for its next factor."""
    flows: tuple[str, ...] = field(default=(), repr=False)
    """What ``Redirect.flow`` left in this browser, one for each flow that has not come back yet: several tabs may."""
    state: AuthState = AuthState(AnonymousUser(), None, None, None)
    """Who is signed in; looked up for phases that are only for somebody who is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """One input of a script-free page.

    Raises:
        ConfigurationError: *type* is ``email``: a browser rewrites the domain of an address that is typed there.
    """

    name: str
    label: str
    type: str = "text"
    """The ``type`` of HTML. A mail address has ``text``, with ``inputmode="email"``."""
    autocomplete: str = "off"
    """The ``autocomplete`` of HTML. Password managers fill in ``username``, the identity of the account."""
    inputmode: str | None = None
    """The keyboard that a phone shows, as in HTML: ``email``, ``numeric``, or ``text`` for the ordinary one.

    A field that has one is sent as it was typed: no phone capitalises or corrects it. None is for prose, such as a full
    name.
    """

    def __post_init__(self) -> None:
        if self.type.lower() == "email":
            raise ConfigurationError(
                f"type of the field {self.name!r} must not be 'email': browsers change the domain that was typed; "
                "use type='text' with inputmode='email'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The page that a link in a mail opens: it changes nothing, its button does (CF-3)."""

    title: str
    text: str = ""
    token: str | None = None
    """Name of the query parameter that the page carries on, in a hidden field."""
    fields: tuple[FormField, ...] = ()
    button: str = "Continue"
    action: Activity | None = None
    """Where the form posts to; None: to the phase whose page it is."""
    done: str = "You can close this page and sign in."
    """What the page says once it is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One HTTP step of a strategy: ``/auth/<strategy>/<name>``."""

    name: str
    method: Literal["GET", "POST"]
    handle: Callable[[PhaseRequest], Awaitable["Outcome"]] = field(repr=False)
    form: Form | None = None
    """A page to serve at GET on the path of a POST phase."""
    secrets: frozenset[str] = frozenset()
    """Parameters that are never given back to draw a form again."""
    signed_in: bool = False
    """Only for somebody who is signed in: whoever is not is refused, and ``PhaseRequest.state`` says who it is."""
    identifies: bool = False
    """For everybody; ``PhaseRequest.state`` says who is signed in, if anybody is."""
    hashes: bool = False
    """The phase hashes a password: where too many wait to be hashed it is refused before it begins (503)."""
    registers: Form | None = None
    """For a phase that makes accounts and takes ``invitation_token``: the form for somebody who was invited."""


# --- acts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A user about to be created or changed, for ``Hook.prepare`` to look at, refuse or alter."""

    act: Literal["create", "change"]
    strategy: str | None
    """None when the application itself asks."""
    fields: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """What will be written, by logical name (``email``, ``username`` or a declared extra field)."""
    params: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """What the client sent, without its passwords, for a hook that takes a parameter of its own. Empty in an event."""
    user: Any = None
    """Who is changed; None for a new one."""
    provided: bool = False
    """True if *fields* are what a provider says of the user, not what the client typed."""
    pending: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """Fields that a hook has taken out of *fields*, because they count only once their mailbox is proven."""
    confirmed_at: datetime | None = None
    """When the address was proven, by whoever vouches for it; None: nobody does."""
    invited: bool = False
    """Set by the hook that found an invitation: opens a registration that is otherwise by invitation only."""
    spend: "Spend | None" = field(default=None, repr=False)
    """Consumes what opened the registration, in its transaction, before the user is written."""
    settle: "Callable[[Work[Any], Found[Any]], Awaitable[None]] | None" = field(default=None, repr=False)
    """What follows from it, in the same transaction, once the user is written."""
    notes: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """What a hook wants to find again in ``within``, by its own name."""
    is_password_of: "Callable[[Account], Awaitable[bool]] | None" = field(default=None, repr=False)
    """For ``Hook.taken``: whether an account has the password that was chosen, which costs a hash; elsewhere None."""
    client: Client = Client()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Somebody proved who they are: the account as it was when the proof began, the factor, the instant."""

    account: Account
    factor: str
    at: datetime
    earlier: Mapping[str, datetime] = EMPTY
    """Factors proven before in the same sign-in or session, with their times."""

    @property
    def factors(self) -> dict[str, datetime]:
        """Every factor of this sign-in, with its time."""
        return {**self.earlier, self.factor: self.at}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A sign-in about to happen, for ``Hook.admit`` to pass, refuse or ask more of."""

    user: Any
    proof: Proof
    client: Client
    remember: bool = False
    registered: bool = False
    """True for the sign-in that ends a registration."""


@dataclass(frozen=True, slots=True)
class FactorRequired:
    """One more factor is needed: any of these strategies."""

    strategies: tuple[str, ...]


# --- outcomes --------------------------------------------------------------------------------------------------------

Spend = Callable[["Work[Any]"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Somebody proved who they are; whether they get a session is decided by ``sessions.mint``.

    ``spend`` consumes the token that was shown, in the transaction that mints the session.
    """

    user: Any
    proof: Proof
    remember: bool = field(default=False, kw_only=True)
    registered: bool = field(default=False, kw_only=True)
    settled: bool = field(default=False, kw_only=True)
    """What the sign-in ends, a registration or a reset, is committed: it stays done if no session follows."""
    spend: Spend | None = field(default=None, kw_only=True, repr=False)


@dataclass(frozen=True, slots=True)
class TokenIssued:
    """A sign-in token was made, to be redeemed within a minute; nobody is signed in yet."""

    user: Any
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Done, and nobody was signed in. ``then`` runs after the response, so that it cannot be timed."""

    then: Job | None = field(default=None, repr=False)
    user: Any = field(default=None, repr=False)
    """For code without HTTP only: whom it was about, if anybody."""


@dataclass(frozen=True, slots=True)
class SignedOut:
    """The session is over."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send the browser elsewhere; ``flow``, if not empty, is kept in a cookie of its own until it comes back.

    The phase that it comes back to finds it in ``PhaseRequest.flows``.
    """

    url: str
    flow: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """A step that answers with data (passkey options, the factors that are still missing)."""

    data: Mapping[str, Any]
    pending: str | None = field(default=None, repr=False)
    """A pending-factor token for a cookie of its own; None if there is none."""


@dataclass(frozen=True, slots=True)
class View:
    """Something to look at, and what can be done about it; nothing was changed."""

    data: Mapping[str, Any]
    """For programs; JSON values."""
    title: str = ""
    text: str = ""
    """For people: what the page says."""
    forms: tuple[Form, ...] = ()
    """The page's forms."""
    token: str = field(default="", repr=False)
    """Carried on in the hidden field of every form that has a ``Form.token``."""
    registers: bool = False
    """True to offer the registrations that there are, too (``Phase.registers``)."""
    strategies: tuple[str, ...] = ()
    """Only those of these strategies; empty: of any."""
    links: Mapping[str, str] = EMPTY
    """Where else to go: each text by its address."""


Outcome = SignedIn | TokenIssued | Accepted | SignedOut | Redirect | Challenge | View


# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened, for ``Hook.within``."""

    name: ClassVar[str] = "event"
    at: datetime
    user_id: str | None = None
    strategy: str | None = None
    client: Client = Client()


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCreated(Event):
    """A user and their account exist."""

    name: ClassVar[str] = "user.created"
    user: Any
    account: Account
    draft: Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChanged(Event):
    """Fields of a user were written."""

    name: ClassVar[str] = "user.changed"
    user: Any
    account: Account
    """As it is now, with its new stamp if there is one."""
    draft: Draft
    before: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """The address and the user name, whichever has changed, as they were."""
    was_confirmed: bool = False
    """Whether the address had been proven before."""
    reverted: bool = False
    """True where the owner of the earlier address has taken the change back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserConfirmed(Event):
    """The mailbox was proven; ``claimed`` if it was the first proof, which drops what strangers may have planted."""

    name: ClassVar[str] = "user.confirmed"
    claimed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDisabled(Event):
    """An administrator locked the account."""

    name: ClassVar[str] = "user.disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEnabled(Event):
    """An administrator unlocked the account."""

    name: ClassVar[str] = "user.enabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDeleted(Event):
    """The user and everything that hangs on them is gone."""

    name: ClassVar[str] = "user.deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSet(Event):
    """A password was set on an account that existed; every earlier session and mail token is dead."""

    name: ClassVar[str] = "password.set"
    user: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInSucceeded(Event):
    """A session was minted."""

    name: ClassVar[str] = "sign_in.succeeded"
    session: Session


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInFailed(Event):
    """Credentials were refused. ``reason`` is for the log; the identity that was typed is not in it (AU-4)."""

    name: ClassVar[str] = "sign_in.failed"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsRevoked(Event):
    """Sessions were ended: one (its id) or, where ``session_id`` is None, all but the acting one."""

    name: ClassVar[str] = "sessions.revoked"
    session_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationSent(Event):
    """An invitation was made, or a new version of it for another mail; ``user_id`` is who invites."""

    name: ClassVar[str] = "invitation.sent"
    invitation: "InvitationRecord"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationAccepted(Event):
    """Somebody who was invited has registered or joined; ``strategy`` is None for who had an account."""

    name: ClassVar[str] = "invitation.accepted"
    invitation: "InvitationRecord"
    user: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationEnded(Event):
    """An invitation was revoked or declined, as its ``status`` and ``reason`` say; ``user_id`` is who revoked it."""

    name: ClassVar[str] = "invitation.ended"
    invitation: "InvitationRecord"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDropped(Event):
    """More was left to do after responses than is allowed to wait, or than the end of the application waits for."""

    name: ClassVar[str] = "job.dropped"
    count: int
    """How many jobs, since the last time that it was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFailed(Event):
    """A sender failed; the older mail token stays usable."""

    name: ClassVar[str] = "delivery.failed"
    purpose: str
    reason: str
    """The text of a ``SenderError``, which holds no secret; of any other exception only its type."""
