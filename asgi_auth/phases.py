"""What a step of a strategy is: Phase, PhaseRequest, Form, View, and the outcomes."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from asgi_auth.acts import Proof, Spend
from asgi_auth.errors import ConfigurationError
from asgi_auth.types import EMPTY, Activity, AnonymousUser, AuthState, Client, Job


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
