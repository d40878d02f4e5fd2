"""One request to the plug, read once. What comes after asks this value, not the scope."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

from starlette.requests import HTTPConnection, Request

from asgi_auth.authentication import Authentication
from asgi_auth.errors import AuthError, FactorRequiredError, MalformedRequestError, RouteNotFoundError
from asgi_auth.phases import Form, Phase
from asgi_auth.protocol.bearer import read_bearer, read_every
from asgi_auth.protocol.body import parse_query
from asgi_auth.protocol.caching import is_speculative
from asgi_auth.protocol.fields import without
from asgi_auth.protocol.headers import check_headers, header_values
from asgi_auth.types import EMPTY, Activity, AuthState, Client
from asgi_auth.web.answers import reason_headers, wants_json, wants_page
from asgi_auth.web.bodies import read_body
from asgi_auth.web.browser import CookieBrowser
from asgi_auth.web.clients import client_of, proxy_advice, source_of
from asgi_auth.web.routing import OWN, Routing

_KEY = "asgi_auth.incoming"
"""Where the scope holds it, for callbacks that make a request of their own from the scope."""

NOWHERE = Activity(None, None)


class Incoming:
    """What is known of one request. Each part is read when it is first asked for, and then kept.

    Parts that cannot be read raise ``MalformedRequestError``.
    """

    def __init__(self, connection: HTTPConnection, auth: Authentication[Any]) -> None:
        """Args: connection: The request. auth: Whose plug it came to."""
        self._connection, self._scope, self._auth = connection, connection.scope, auth
        self.activity, self.phase = NOWHERE, None  # until the route is found
        self.params: Mapping[str, Any] = EMPTY
        """What the body holds; empty until it is read."""
        self._state: AuthState | None = None
        self.factor_required: FactorRequiredError | None = None
        """Set where the answer has to ask for another factor."""

    activity: Activity
    phase: Phase | None

    @classmethod
    def of(cls, connection: HTTPConnection, auth: Authentication[Any]) -> Self:
        """What the plug of *auth* has read of a request; of one that is not the plug's, what can be read now."""
        known = connection.scope.get(_KEY)
        return known if isinstance(known, cls) and known._auth is auth else cls(connection, auth)

    def keep(self) -> None:
        """Let ``of`` find this."""
        self._scope[_KEY] = self

    # --- what is refused before it is read

    def check_transport(self) -> None:
        """Refuse more header lines than are looked at, and on a local instance a foreign Host.

        Raises:
            MalformedRequestError, MisdirectedRequestError: as it says.
        """
        check_headers(self._scope["headers"])
        self._auth.site.check_host(self._scope["headers"])

    def find_phase(self, routing: Routing) -> None:
        """Find out which phase it is for. RouteNotFoundError: none."""
        activity = routing.find(self._scope)
        phase = self._auth.routes.get((activity.strategy or "", activity.phase or ""))
        if phase is None and activity not in OWN:
            raise RouteNotFoundError("no such route")
        self.activity, self.phase = activity, phase
        routing.check_mount(self._scope, activity)

    def check_site(self) -> None:
        """Refuse what another site makes a browser send (CF-1, CF-2), and what cannot be judged, before any work.

        Raises:
            CrossSiteError: another site does, and the phase is not for that.
            MalformedRequestError: there are too many cookies to tell; or, for a phase that needs a session, two
                credentials (RP-5).
        """
        if not self.is_foreign and self._auth.site.crosses_sites(self._scope):
            raise self._auth.site.refusal(self._scope)
        self.browser.check()
        if self.phase is not None and self.phase.who == "session":
            read_bearer(self._scope["headers"])

    @property
    def proxy_advice(self) -> Iterator[tuple[str, str]]:
        """The kind and the text of what to tell the operator of their proxies."""
        return proxy_advice(self._scope, self._auth)

    @property
    def is_speculative(self) -> bool:
        """Whether a browser fetches ahead of time, and nobody has opened the page."""
        return is_speculative(self._scope["headers"])

    # --- the body

    async def read(self, request: Request, *, limit: int, timeout: timedelta) -> None:
        """Read the body. Errors as ``read_body``."""
        self.params = await read_body(request, limit=limit, timeout=timeout)

    # --- the client

    @cached_property
    def client(self) -> Client:
        """Who asks. A POST that another site makes the browser send shows nothing of the browser's (CF-1)."""
        client = client_of(self._scope, self._auth, locale=self.locale)
        return replace(client, session_hashes=(), pending_hashes=()) if self.is_foreign else client

    @cached_property
    def source(self) -> str | None:
        """Who counts as one where turns are shared out."""
        return source_of(self._scope, self._auth)

    async def state(self) -> AuthState:
        """Who is signed in, as the store has it now. UnavailableError: that could not be checked."""
        recognition = self._auth.recognition
        self._state = recognition.anonymous if self.is_foreign else await recognition.every_state(self._scope)
        return self._state

    def becomes(self, state: AuthState) -> None:
        """Note who is signed in from now on: the request has signed a user in or out."""
        self._state = state

    @property
    def known(self) -> AuthState:
        """Who is signed in, as far as it was looked up: for this request, or by a middleware outside."""
        found = self._scope.get("asgi_auth") if self._state is None else self._state
        is_ours = isinstance(found, AuthState) and found.authentication is self._auth
        return found if is_ours and found is not None else self._auth.recognition.anonymous

    @property
    def is_signed_in(self) -> bool:
        """Whether a user is signed in, as ``known`` says."""
        return self.known.method is not None

    @cached_property
    def browser(self) -> CookieBrowser:
        """The cookies of the steps of a sign-in."""
        return CookieBrowser([] if self.is_foreign else self._scope["headers"], self._auth.site)

    @cached_property
    def access_tokens(self) -> list[str]:
        """Every bearer token that was shown: to take rights away, never to give them."""
        return read_every(self._scope["headers"])

    @property
    def is_foreign(self) -> bool:
        """Whether a provider makes the browser send it: a record of the strategy guards it, and no cookie counts."""
        return self.phase is not None and self.phase.cross_site and self._scope["method"] == "POST"

    # --- what was sent

    @property
    def query_string(self) -> bytes:
        """The query as it was sent."""
        query: bytes = self._scope.get("query_string", b"")
        return query

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The query, as strictly read as a form."""
        return parse_query(self.query_string)

    @property
    def shown(self) -> Mapping[str, Any]:
        """The parameters without the secrets of the phase, to draw its form again."""
        secrets = frozenset() if self.phase is None else self.phase.secrets
        return without(self.params, {*secrets, "pending_token"})

    @property
    def public(self) -> Mapping[str, Any]:
        """The parameters without the secrets of any phase, for hooks: a form may send more than its phase reads."""
        return without(self.params, self._auth.secrets)

    @property
    def form(self) -> Form | None:
        """What is drawn again: the form of the phase, or the one for a person who was invited."""
        if self.phase is None:
            return None
        registers = self.phase.registers
        return registers if registers is not None and registers.token in self.params else self.phase.form

    @property
    def link_token(self) -> str:
        """The token of the mailed link that was opened, or whose form was sent; empty if there is none."""
        form = None if self.phase is None else self.phase.registers or self.phase.form
        return "" if form is None else self.token_of(form)

    def token_of(self, form: Form) -> str:
        """The token that goes on in *form*: of the form that was sent, or of the link that was opened."""
        return _text_of(self.params, form.token) or _text_of(self._readable_query, form.token)

    @property
    def _readable_query(self) -> Mapping[str, str]:
        """The query; empty if it cannot be read, which is refused where it matters."""
        with suppress(MalformedRequestError):
            return self.query
        return EMPTY

    @property
    def return_to(self) -> object:
        """``return_to`` of the body, or else of the query; None if there is none that can be read."""
        if "return_to" in self.params:
            return self.params["return_to"]
        return self._readable_query.get("return_to")

    # --- what is wanted

    @cached_property
    def locale(self) -> str:
        """The language of the answer."""
        wanted = header_values(self._scope["headers"], b"accept-language")
        user = self.known.user if self.is_signed_in else None
        return self._auth.localization.of_request(self._connection, wanted, user)

    def say(self, text: str) -> str:
        """*text* in that language."""
        return self._auth.localization.say(text, self.locale)

    @cached_property
    def wants_json(self) -> bool:
        """Whether to answer JSON."""
        return wants_json(self._scope)

    @cached_property
    def wants_page(self) -> bool:
        """Whether to answer with a page."""
        return wants_page(self._scope)

    def headers_of(self, reason: AuthError) -> dict[str, str]:
        """The headers that the answer to a failure needs."""
        return reason_headers(reason, self._scope, realm=self._auth.app_name)


def _text_of(sent: Mapping[str, Any], name: str | None) -> str:
    value = None if name is None else sent.get(name)
    return value if isinstance(value, str) else ""
