"""What a step of a strategy is: Phase, PhaseRequest, Browser, Form, View, and the outcomes."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import Any, Literal, NamedTuple

from asgi_auth.acts import Proof, Spend
from asgi_auth.errors import ConfigurationError
from asgi_auth.messages import Message
from asgi_auth.protocol.body import parse_query
from asgi_auth.types import EMPTY, Activity, AnonymousUser, AuthState, Client, CookieKind, Job


class Browser:
    """The library's own cookies in one browser, by kind. This one keeps nothing: it is for phases without HTTP.

    What a phase keeps and drops goes with its answer, whether it succeeds or fails. All are ``SameSite=Lax``, for no
    script and for this host only. A strategy sees no other cookie.
    """

    def read(self, kind: CookieKind) -> str | None:
        """The only value of a *kind*; None if there is none, or if there are several."""
        values = self.read_all(kind)
        return values[0] if len(values) == 1 else None

    def read_all(self, kind: CookieKind) -> Sequence[str]:
        """Every value of a *kind*, the oldest first."""
        return ()

    def keep(self, kind: CookieKind, value: str, *, lifetime: timedelta) -> None:
        """Have the browser keep *value* for *lifetime*.

        Of ``pending`` it is the only one from then on. Of any other kind it stands beside those that are there, up to
        20: the oldest goes.
        """

    def drop(self, kind: CookieKind, value: str | None = None) -> None:
        """Have the browser forget *value*; None: all of a *kind*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRequest:
    """One request to a phase, parsed. What a form sends is text; JSON may send anything, so every value is checked."""

    method: str = "POST"
    params: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """What the body holds."""
    query_string: bytes = field(default=b"", repr=False)
    client: Client = Client()
    browser: Browser = field(default=Browser(), repr=False)
    pending: str | None = field(default=None, repr=False)
    """The pending-factor token of a sign-in that waits for its next factor, for ``services.sessions.pending``."""
    state: AuthState = AuthState(AnonymousUser(), None, None, (), None)
    """Who is signed in; looked up unless the phase is for ``anyone``."""

    @property
    def query(self) -> Mapping[str, str]:
        """The query, as strictly read as a form. MalformedRequestError: it cannot be read, or is over 16 KiB."""
        return parse_query(self.query_string)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """One input of a script-free page.

    Raises:
        ConfigurationError: *type* is ``email``: a browser rewrites the domain of an address that is typed there.
    """

    name: str
    label: str
    """What the field is called; a ``Message`` is translated."""
    type: str = "text"
    """The ``type`` of HTML. A mail address has ``text``, with ``inputmode="email"``."""
    autocomplete: str = "off"
    """The ``autocomplete`` of HTML. Password managers fill in ``username``, the identity of the account."""
    inputmode: str | None = None
    """The keyboard that a phone shows, as in HTML: ``email``, ``numeric``, or ``text`` for the ordinary one.

    A field that has one is sent as it was typed: no phone capitalises or corrects it. None is for prose, such as a full
    name.
    """
    optional: bool = False
    """True where it may be left empty."""
    shown: str | None = None
    """A text that the page shows in place of an input, and that is not sent. A password manager finds it."""

    def __post_init__(self) -> None:
        if self.type.lower() == "email":
            raise ConfigurationError(
                f"type of the field {self.name!r} must not be 'email': browsers change the domain that was typed; "
                "use type='text' with inputmode='email'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A script-free page that a person fills in. Opening it changes nothing, its button does (CF-3).

    Every text may be a ``Message``, which is translated; any other text is shown as it is.
    """

    title: str
    text: str = ""
    token: str | None = None
    """Name of the query parameter that the page carries on, in a hidden field."""
    fields: tuple[FormField, ...] = ()
    button: str = Message("button.continue", "Continue")
    action: Activity | None = None
    """Where the form posts to; None: to the phase whose page it is."""
    done_title: str = Message("page.done", "Done")
    """The heading of the page that says that it was accepted."""
    done: str = ""
    """What that page says."""
    refused: str = ""
    """What the page says of wrong credentials (401); empty: ``AuthError.title``."""


Who = Literal["anyone", "known", "session", "pending"]


@dataclass(frozen=True, slots=True)
class Phase:
    """One HTTP step of a strategy: ``/auth/<strategy>/<name>``.

    A GET changes nothing, except a callback, which its flow record guards.

    Raises:
        ConfigurationError: the parts contradict each other; the message names the phase.
    """

    name: str
    handle: Callable[[PhaseRequest], Awaitable["Outcome"]] = field(repr=False)
    _: KW_ONLY
    methods: frozenset[str] = frozenset({"POST"})
    """``GET``, ``POST`` or both."""
    form: Form | None = None
    """What a person can fill in."""
    page: bool = False
    """True where a person opens this path: GET shows the form, or what the phase answers to GET. So does HEAD."""
    secrets: frozenset[str] = frozenset()
    """Parameters that are never given back to draw a form again, and that no hook sees."""
    who: Who = "anyone"
    """Who may use it.

    ``anyone``; ``known``: everybody, and ``PhaseRequest.state`` says who is signed in; ``session``: only a user who is
    signed in with a session; ``pending``: only with a sign-in that waits for its next factor.
    """
    fresh: timedelta | None = None
    """The session must have a proof that recent; None: any session will do."""
    cross_site: bool = False
    """True for a POST that a provider makes the browser send.

    It reads no cookie and knows nobody; a record of the strategy guards it. It answers with a ``Redirect`` to GET of
    the same path, where the flow ends.
    """
    hashes: bool = False
    """The phase hashes a password: where too many wait to be hashed it is refused before it begins (503)."""
    proves: bool = False
    """True where people prove who they are. Pages send users who are not signed in, or not freshly, there."""
    form_for: Callable[["PhaseRequest"], Awaitable[Form]] | None = field(default=None, repr=False)
    """Returns the form for one request, such as one that shows the address that the link is about.

    It changes nothing, and raises InvalidTokenError where the link is dead. None: the form is always ``form``.
    """
    registers: Form | None = None
    """For a phase that makes accounts and takes ``invitation_token``: the form for a person who was invited."""

    def __post_init__(self) -> None:
        for broken, rule in (
            (not self.methods or not self.methods <= {"GET", "POST"}, "methods are GET, POST or both"),
            (self.page and self.form is None and "GET" not in self.methods, "a page needs a form, or GET"),
            (self.form_for is not None and self.form is None, "form_for needs a form"),
            (self.fresh is not None and self.who != "session", "fresh needs who='session'"),
            (self.cross_site and self.methods != {"GET", "POST"}, "cross_site needs GET and POST"),
        ):
            if broken:
                raise ConfigurationError(f"the phase {self.name!r}: {rule}")

    @property
    def allowed(self) -> tuple[str, ...]:
        """The methods that a client may use (RFC 9110 section 9.1)."""
        pages = ("GET", "HEAD") if self.page else ()
        return tuple(dict.fromkeys((*pages, *sorted(self.methods))))


# --- outcomes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user proved who they are. ``sessions.mint`` decides whether they get a session.

    ``spend`` consumes the token that was shown, in the transaction that mints the session.
    """

    user: Any
    proof: Proof
    remember: bool = field(default=False, kw_only=True)
    registered: bool = field(default=False, kw_only=True)
    settled: bool = field(default=False, kw_only=True)
    """What the sign-in ends, a registration or a reset, is committed: it stays done if no session follows."""
    spend: Spend | None = field(default=None, kw_only=True, repr=False)
    replaces: str | None = field(default=None, kw_only=True)
    """The id of a session of the user that ends when this sign-in has one: a rise in privilege is a new session."""


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
class Redirect:
    """Send the browser elsewhere. What is to be found when it comes back is kept in ``PhaseRequest.browser``."""

    url: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """A step that answers with data, such as the options of a passkey."""

    data: Mapping[str, Any]


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
    parts: "tuple[View, ...]" = ()
    """Further things to look at, on the same page."""
    signs_in: bool = False
    """True to offer the forms to sign in, too (``Phase.proves``)."""
    registers: bool = False
    """True to offer the registrations that there are, too (``Phase.registers``)."""
    strategies: tuple[str, ...] = ()
    """Only those of these strategies; empty: of any."""
    links: Mapping[str, str] = EMPTY
    """Where else to go: each text by its address."""


Outcome = SignedIn | TokenIssued | Accepted | Redirect | Challenge | View


class Finished(NamedTuple):
    """How an action ended, for code without HTTP: whom it was about and the token, each None where there is none."""

    user: Any
    token: Any

    def __repr__(self) -> str:
        return f"Finished(user={self.user!r})"
