"""One request to the plug, read once. What comes after asks this value, not the scope."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

from starlette.requests import HTTPConnection, Request

from asgi_auth.authentication import Authentication
from asgi_auth.errors import FactorRequiredError, MalformedRequestError
from asgi_auth.phases import Form, Phase
from asgi_auth.protocol.bearer import read_every
from asgi_auth.protocol.body import parse_query
from asgi_auth.protocol.fields import without
from asgi_auth.types import EMPTY, Activity, Client
from asgi_auth.web.answers import wants_json, wants_page
from asgi_auth.web.bodies import read_body
from asgi_auth.web.browser import CookieBrowser
from asgi_auth.web.clients import client_of, source_of

_KEY = "asgi_auth.incoming"
"""Where the scope holds it, for callbacks that make a request of their own from the scope."""

NOWHERE = Activity(None, None)


class Incoming:
    """What is known of one request. Each part is read when it is first asked for, and then kept.

    Parts that cannot be read raise ``MalformedRequestError``.
    """

    def __init__(self, connection: HTTPConnection, auth: Authentication[Any]) -> None:
        """Args: connection: The request. auth: Whose plug it came to."""
        self.scope, self._auth = connection.scope, auth
        self.activity, self.phase = NOWHERE, None  # until the route is found
        self.params: Mapping[str, Any] = EMPTY
        """What the body holds; empty until it is read."""
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
        self.scope[_KEY] = self

    async def read(self, request: Request, *, limit: int, timeout: timedelta) -> None:
        """Read the body. Errors as ``read_body``."""
        self.params = await read_body(request, limit=limit, timeout=timeout)

    # --- the client

    @cached_property
    def client(self) -> Client:
        """Who asks. A POST that another site makes the browser send shows nothing of the browser's (CF-1)."""
        client = client_of(self.scope, self._auth)
        return replace(client, session_hashes=(), pending_hashes=()) if self.is_foreign else client

    @cached_property
    def source(self) -> str | None:
        """Who counts as one where turns are shared out."""
        return source_of(self.scope, self._auth)

    @cached_property
    def browser(self) -> CookieBrowser:
        """The cookies of the steps of a sign-in."""
        return CookieBrowser([] if self.is_foreign else self.scope["headers"], self._auth.site)

    @cached_property
    def access_tokens(self) -> list[str]:
        """Every bearer token that was shown: to take rights away, never to give them."""
        return read_every(self.scope["headers"])

    @property
    def is_foreign(self) -> bool:
        """Whether a provider makes the browser send it: a record of the strategy guards it, and no cookie counts."""
        return self.phase is not None and self.phase.cross_site and self.scope["method"] == "POST"

    # --- what was sent

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The query, as strictly read as a form."""
        return parse_query(self.scope.get("query_string", b""))

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
        """The token of the mailed link whose form was sent; empty if there is none."""
        form = None if self.phase is None else self.phase.registers or self.phase.form
        token = None if form is None or form.token is None else self.params.get(form.token)
        return token if isinstance(token, str) else ""

    @property
    def return_to(self) -> object:
        """``return_to`` of the body, or else of the query; None if there is none that can be read."""
        if "return_to" in self.params:
            return self.params["return_to"]
        with suppress(MalformedRequestError):  # where the query matters, it is refused elsewhere
            return self.query.get("return_to")
        return None

    # --- what is wanted

    @cached_property
    def wants_json(self) -> bool:
        """Whether to answer JSON."""
        return wants_json(self.scope)

    @cached_property
    def wants_page(self) -> bool:
        """Whether to answer with a page."""
        return wants_page(self.scope)
