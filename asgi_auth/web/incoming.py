"""One request to the plug, read once. Later steps read this object, not the scope."""

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
"""The key of the object in the scope, for callbacks that make a new request from the scope."""

NOWHERE = Activity(None, None)


class Incoming:
    """One request to the plug. Each part is read at its first use and then kept.

    Raises ``MalformedRequestError`` if a part cannot be read.
    """

    def __init__(self, connection: HTTPConnection, auth: Authentication[Any]) -> None:
        """Args: connection: The request. auth: The authentication of the plug that received it."""
        self._connection, self._scope, self._auth = connection, connection.scope, auth
        self.activity, self.phase = NOWHERE, None  # until the route is found
        self.params: Mapping[str, Any] = EMPTY
        """The parameters of the body; empty until it is read."""
        self._state: AuthState | None = None
        self.factor_required: FactorRequiredError | None = None
        """Set if the answer has to ask for another factor."""

    activity: Activity
    phase: Phase | None

    @classmethod
    def of(cls, connection: HTTPConnection, auth: Authentication[Any]) -> Self:
        """The object that the plug of *auth* made for this request; a new one if the request is not the plug's."""
        known = connection.scope.get(_KEY)
        return known if isinstance(known, cls) and known._auth is auth else cls(connection, auth)

    def keep(self) -> None:
        """Store this object in the scope, where ``of`` finds it."""
        self._scope[_KEY] = self

    # --- checks before the body is read

    def check_transport(self) -> None:
        """Check the number of header lines and, on a local instance, the Host.

        Raises:
            MalformedRequestError: there are too many header lines.
            MisdirectedRequestError: the Host of a local instance is foreign.
        """
        check_headers(self._scope["headers"])
        self._auth.site.check_host(self._scope["headers"])

    def find_phase(self, routing: Routing) -> None:
        """Find the phase of the request. Raises RouteNotFoundError if there is none."""
        activity = routing.find(self._scope)
        phase = self._auth.routes.get((activity.strategy or "", activity.phase or ""))
        if phase is None and activity not in OWN:
            raise RouteNotFoundError("no such route")
        self.activity, self.phase = activity, phase
        routing.check_mount(self._scope, activity)

    def check_site(self) -> None:
        """Refuse a request that another site makes the browser send (CF-1, CF-2), before any work.

        Raises:
            CrossSiteError: another site sent it, and the phase does not accept that.
            MalformedRequestError: there are too many cookies; or there are two credentials for a phase that requires a
                session (RP-5).
        """
        if not self.is_foreign and self._auth.site.crosses_sites(self._scope):
            raise self._auth.site.refusal(self._scope)
        self.browser.check()
        if self.phase is not None and self.phase.who == "session":
            read_bearer(self._scope["headers"])

    @property
    def proxy_advice(self) -> Iterator[tuple[str, str]]:
        """The kind and the text of each piece of advice for the operator about proxies."""
        return proxy_advice(self._scope, self._auth)

    @property
    def is_speculative(self) -> bool:
        """Whether the browser prefetches the page, and the user has not opened it."""
        return is_speculative(self._scope["headers"])

    # --- the body

    async def read(self, request: Request, *, limit: int, timeout: timedelta) -> None:
        """Read the body. Errors as ``read_body``."""
        self.params = await read_body(request, limit=limit, timeout=timeout)

    # --- the client

    @cached_property
    def client(self) -> Client:
        """The client. The cookies of a POST from another site are ignored (CF-1)."""
        client = client_of(self._scope, self._auth, locale=self.locale)
        return replace(client, session_hashes=(), pending_hashes=()) if self.is_foreign else client

    @cached_property
    def source(self) -> str | None:
        """The source of the request: requests of one source share its turns."""
        return source_of(self._scope, self._auth)

    async def state(self) -> AuthState:
        """The signed-in user, as the store has it now. Raises UnavailableError if it cannot be checked."""
        recognition = self._auth.recognition
        self._state = recognition.anonymous if self.is_foreign else await recognition.every_state(self._scope)
        return self._state

    def becomes(self, state: AuthState) -> None:
        """Set the state after this request has signed a user in or out."""
        self._state = state

    @property
    def known(self) -> AuthState:
        """The last known state: of this request, or of an outer middleware; otherwise anonymous."""
        found = self._scope.get("asgi_auth") if self._state is None else self._state
        is_ours = isinstance(found, AuthState) and found.authentication is self._auth
        return found if is_ours and found is not None else self._auth.recognition.anonymous

    @property
    def is_signed_in(self) -> bool:
        """Whether a user is signed in, according to ``known``."""
        return self.known.method is not None

    @cached_property
    def browser(self) -> CookieBrowser:
        """The cookies of the steps of a sign-in."""
        return CookieBrowser([] if self.is_foreign else self._scope["headers"], self._auth.site)

    @cached_property
    def access_tokens(self) -> list[str]:
        """Every bearer token of the request. They are only used to end sessions, never to grant access."""
        return read_every(self._scope["headers"])

    @property
    def is_foreign(self) -> bool:
        """Whether a provider makes the browser send it. A record of the strategy guards it; its cookies are ignored."""
        return self.phase is not None and self.phase.cross_site and self._scope["method"] == "POST"

    # --- the parameters

    @property
    def query_string(self) -> bytes:
        """The query as it was sent."""
        query: bytes = self._scope.get("query_string", b"")
        return query

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The parsed query. The rules are those of a form."""
        return parse_query(self.query_string)

    @property
    def shown(self) -> Mapping[str, Any]:
        """The parameters without the secrets of the phase, to show its form again."""
        secrets = frozenset() if self.phase is None else self.phase.secrets
        return without(self.params, {*secrets, "pending_token"})

    @property
    def public(self) -> Mapping[str, Any]:
        """The parameters without the secrets of any phase, for hooks: a form may send more than its phase reads."""
        return without(self.params, self._auth.secrets)

    @property
    def form(self) -> Form | None:
        """The form to show again: that of the phase, or the one for an invited person."""
        if self.phase is None:
            return None
        registers = self.phase.registers
        return registers if registers is not None and registers.token in self.params else self.phase.form

    @property
    def link_token(self) -> str:
        """The token of the mailed link that the user opened or whose form they sent; empty if there is none."""
        form = None if self.phase is None else self.phase.registers or self.phase.form
        return "" if form is None else self.token_of(form)

    def token_of(self, form: Form) -> str:
        """The token to pass on in *form*: from the form that was sent, or from the link that was opened."""
        return _text_of(self.params, form.token) or _text_of(self._readable_query, form.token)

    @property
    def _readable_query(self) -> Mapping[str, str]:
        """The query; empty if it cannot be read. Steps that require the query refuse the request."""
        with suppress(MalformedRequestError):
            return self.query
        return EMPTY

    @property
    def return_to(self) -> object:
        """``return_to`` of the body, otherwise of the query; None if there is none that can be read."""
        if "return_to" in self.params:
            return self.params["return_to"]
        return self._readable_query.get("return_to")

    # --- the kind of answer

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
        """The headers required on the answer to a failure."""
        return reason_headers(reason, self._scope, realm=self._auth.app_name)


def _text_of(sent: Mapping[str, Any], name: str | None) -> str:
    value = None if name is None else sent.get(name)
    return value if isinstance(value, str) else ""
