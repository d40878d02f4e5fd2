"""The parts of one step of a strategy: Phase, PhaseRequest, Browser, Form, View and the outcomes."""

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
    """The library's own cookies in one browser, by kind. This class stores nothing: it is for phases without HTTP.

    The response sets and deletes the cookies that the phase keeps and drops, whether the phase succeeds or fails. All
    cookies are ``SameSite=Lax``, ``HttpOnly`` and for this host only. A strategy sees no other cookie.
    """

    def read(self, kind: CookieKind) -> str | None:
        """Return the only value of a *kind*. Return None if there is no value, or more than one."""
        values = self.read_all(kind)
        return values[0] if len(values) == 1 else None

    def read_all(self, kind: CookieKind) -> Sequence[str]:
        """Return every value of a *kind*, the oldest first."""
        return ()

    def keep(self, kind: CookieKind, value: str, *, lifetime: timedelta) -> None:
        """Store *value* in the browser for *lifetime*.

        A value of ``pending`` replaces the earlier one. Any other kind has up to 20 values; one more replaces the
        oldest.
        """

    def drop(self, kind: CookieKind, value: str | None = None) -> None:
        """Delete *value* from the browser; None: all values of a *kind*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRequest:
    """One parsed request to a phase. A form sends text; JSON may hold any type, so the phase checks every value."""

    method: str = "POST"
    params: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """The parameters of the body."""
    query_string: bytes = field(default=b"", repr=False)
    client: Client = Client()
    browser: Browser = field(default=Browser(), repr=False)
    pending: str | None = field(default=None, repr=False)
    """The pending-factor token of a sign-in that waits for its next factor, for ``services.sessions.pending``."""
    state: AuthState = AuthState(AnonymousUser(), None, None, (), None)
    """The user who is signed in. The plug looks this up unless the phase is for ``anyone``."""

    @property
    def query(self) -> Mapping[str, str]:
        """The query, parsed as strictly as a form. Raises MalformedRequestError if it is malformed or over 16 KiB."""
        return parse_query(self.query_string)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """One input of a script-free page.

    Raises:
        ConfigurationError: *type* is ``email``. Browsers change the domain of an address in such a field.
    """

    name: str
    label: str
    """The label of the field. A ``Message`` is translated."""
    type: str = "text"
    """The ``type`` of HTML. Use ``text`` with ``inputmode="email"`` for a mail address."""
    autocomplete: str = "off"
    """The ``autocomplete`` of HTML. Password managers fill in ``username``, the identity of the account."""
    inputmode: str | None = None
    """The keyboard that a phone shows, as in HTML: ``email``, ``numeric``, or ``text`` for the ordinary one.

    With a value, no phone capitalises or corrects the input. Use None for prose, such as a full name.
    """
    optional: bool = False
    """True if the user may leave the field empty."""
    shown: str | None = None
    """A text that the page shows instead of an input. The browser does not send it; a password manager can read it."""

    def __post_init__(self) -> None:
        if self.type.lower() == "email":
            raise ConfigurationError(
                f"type of the field {self.name!r} must not be 'email': browsers change the domain that was typed; "
                "use type='text' with inputmode='email'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A script-free page that a person fills in. Only its button changes anything; opening it does not (CF-3).

    Every text may be a ``Message``, which is translated. Any other text is shown unchanged.
    """

    title: str
    text: str = ""
    token: str | None = None
    """The name of the query parameter that the page sends on in a hidden field."""
    fields: tuple[FormField, ...] = ()
    button: str = Message("button.continue", "Continue")
    action: Activity | None = None
    """The phase that receives the form; None: the phase of this page."""
    done_title: str = Message("page.done", "Done")
    """The heading of the page after the form was accepted."""
    done: str = ""
    """The text of the page after the form was accepted."""
    refused: str = ""
    """The text of the page for wrong credentials (401); empty: ``AuthError.title``."""


Who = Literal["anyone", "known", "session", "pending"]


@dataclass(frozen=True, slots=True)
class Phase:
    """One HTTP step of a strategy: ``/auth/<strategy>/<name>``.

    A GET changes nothing. The exception is a callback, which its flow record guards.

    Raises:
        ConfigurationError: the parts contradict each other; the message names the phase.
    """

    name: str
    handle: Callable[[PhaseRequest], Awaitable["Outcome"]] = field(repr=False)
    _: KW_ONLY
    methods: frozenset[str] = frozenset({"POST"})
    """``GET``, ``POST`` or both."""
    form: Form | None = None
    """The form of this step."""
    page: bool = False
    """True if a person opens this path. GET and HEAD show the form, or the phase's own answer to GET."""
    secrets: frozenset[str] = frozenset()
    """Secret parameters. A redrawn form does not contain them, and no hook sees them."""
    who: Who = "anyone"
    """Who may use this phase.

    ``anyone``: every client. ``known``: every client; ``PhaseRequest.state`` has the user who is signed in.
    ``session``: a user who is signed in with a session. ``pending``: a sign-in that waits for its next factor.
    """
    fresh: timedelta | None = None
    """The maximum age of the session's latest proof; None: no maximum."""
    cross_site: bool = False
    """True for a POST that a provider makes the browser send.

    The phase reads no cookie and does not know the user; a record of the strategy guards it. It answers with a
    ``Redirect`` to GET of the same path, where the flow ends.
    """
    hashes: bool = False
    """True if the phase hashes a password. It is refused with 503 if too many passwords wait to be hashed."""
    proves: bool = False
    """True if users prove a factor here. Pages link here if the user is not signed in, or not freshly."""
    form_for: Callable[["PhaseRequest"], Awaitable[Form]] | None = field(default=None, repr=False)
    """Returns the form for one request, such as one with the address of the link.

    It changes nothing. It raises InvalidTokenError if the link is not live. None: the form is always ``form``.
    """
    registers: Form | None = None
    """The form for invited persons, if the phase creates accounts and accepts ``invitation_token``."""

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
        """The methods that clients may use (RFC 9110 section 9.1)."""
        pages = ("GET", "HEAD") if self.page else ()
        return tuple(dict.fromkeys((*pages, *sorted(self.methods))))


# --- outcomes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The user proved a factor. ``sessions.mint`` decides whether the user gets a session.

    ``spend`` consumes the token of the client in the transaction that creates the session.
    """

    user: Any
    proof: Proof
    remember: bool = field(default=False, kw_only=True)
    registered: bool = field(default=False, kw_only=True)
    settled: bool = field(default=False, kw_only=True)
    """True if the registration or reset before this sign-in is committed. It stays committed without a session."""
    spend: Spend | None = field(default=None, kw_only=True, repr=False)
    replaces: str | None = field(default=None, kw_only=True)
    """The id of a session of the user that the new session replaces. More privilege requires a new session."""


@dataclass(frozen=True, slots=True)
class TokenIssued:
    """A sign-in token was issued. The client must exchange it within a minute; the user is not signed in yet."""

    user: Any
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The act is done; no user was signed in. ``then`` runs after the response, so that clients cannot time it."""

    then: Job | None = field(default=None, repr=False)
    user: Any = field(default=None, repr=False)
    """For code without HTTP only: the user of the act, if there is one."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Redirect the browser. A strategy stores what it needs later in ``PhaseRequest.browser``."""

    url: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """The step answers with data, such as the options of a passkey."""

    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """A page to read, with its forms. Nothing was changed."""

    data: Mapping[str, Any]
    """For programs; JSON values."""
    title: str = ""
    text: str = ""
    """The text of the page, for people."""
    forms: tuple[Form, ...] = ()
    """The page's forms."""
    token: str = field(default="", repr=False)
    """The value of the hidden field of every form that has a ``Form.token``."""
    parts: "tuple[View, ...]" = ()
    """Further sections of the same page."""
    signs_in: bool = False
    """True if the page also offers the sign-in forms (``Phase.proves``)."""
    registers: bool = False
    """True if the page also offers the registration forms (``Phase.registers``)."""
    strategies: tuple[str, ...] = ()
    """Limits these forms to the named strategies; empty: all strategies."""
    links: Mapping[str, str] = EMPTY
    """Further links of the page: each text by its URL."""


Outcome = SignedIn | TokenIssued | Accepted | Redirect | Challenge | View


class Finished(NamedTuple):
    """The result of an action, for code without HTTP: its user and its token; None where there is none."""

    user: Any
    token: Any

    def __repr__(self) -> str:
        return f"Finished(user={self.user!r})"
