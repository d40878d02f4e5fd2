"""Recognisers: they find the user of a request, or the reason why a credential is rejected.

The middlewares, the plug and the guards of an ``Authentication`` share its recognisers.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from inspect import isawaitable
from typing import Any, NamedTuple, Protocol

from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    ConfigurationError,
    CrossSiteError,
    MalformedRequestError,
    UnavailableError,
)
from asgi_auth.protocol.bearer import read_bearer
from asgi_auth.protocol.cookies import read_cookie
from asgi_auth.protocol.headers import MAX_LINES, check_headers
from asgi_auth.runtime.jobs import logger
from asgi_auth.runtime.telling import Telling
from asgi_auth.sessions import Sessions
from asgi_auth.site import Site
from asgi_auth.store import Loaded
from asgi_auth.types import AnonymousUser, AuthState, Clock, Session

Scope = Mapping[str, Any]
"""The scope of an ASGI connection."""

Scopes = Callable[[Any], Iterable[str] | Awaitable[Iterable[str]]]
"""Returns the permissions of a user in the application; plain or async."""

AUTHENTICATED = "authenticated"
"""The scope of every signed-in user. A credential with scopes of its own, such as an API key, does not get it."""


class Recognised(NamedTuple):
    """The user of a credential without session or with own scopes. For other credentials it is a ``Loaded``."""

    user: Any
    session: Session | None
    """None for a credential without a session."""
    scopes: Sequence[str] | None = None
    """The permissions of the credential; None: all permissions of its user."""


class Load(Protocol):
    """``await load(credential, now=now)``."""

    def __call__(self, credential: str, /, *, now: datetime) -> Coroutine[Any, Any, Recognised | Loaded[Any]]: ...


class Recogniser(Protocol):
    """Recognises one kind of credential. A strategy adds its own by ``Hook.recognisers``."""

    @property
    def method(self) -> str:
        """The value of ``AuthState.method``, which is also a scope of the request."""
        ...

    @property
    def ambient(self) -> bool:
        """True if browsers attach the credential on their own, as a cookie. SessionUserMiddleware uses these
        recognisers, BearerUserMiddleware the others."""
        ...

    def credential(self, scope: Scope, /) -> str | None:
        """The credential of a request or websocket. Returns None if it has none of this kind. Makes no query.

        Raises:
            CrossSiteError, MalformedRequestError: the credential is rejected.
        """
        ...

    @property
    def load(self) -> Load:
        """An async method that loads the user of a credential, by one query.

        It raises InvalidTokenError if the credential is not live. It raises another AuthError, such as
        RateLimitedError, for another rejection, and UnavailableError if the credential cannot be checked.
        """
        ...


Shown = tuple[Recogniser, str]
"""A credential of a request, with its recogniser."""


class CookieRecogniser:
    """Recognises browsers by the session cookie. It rejects requests from other sites (CF-1, WS-1)."""

    method, ambient = "session", True

    def __init__(self, site: Site, sessions: Sessions[Any]) -> None:
        self._site, self._cookie = site, site.session_cookie.encode()
        self.load: Load = sessions.load

    def credential(self, scope: Scope, /) -> str | None:
        """The value of the cookie."""
        cookie = read_cookie(scope["headers"], self._cookie)
        if cookie is not None and self._site.crosses_sites(scope):
            raise self._site.refusal(scope)
        return cookie


class AccessTokenRecogniser:
    """Recognises scripts by the access token, only in the Authorization header (RFC 6750 section 2.1)."""

    method, ambient = "bearer", False

    def __init__(self, sessions: Sessions[Any]) -> None:
        self.load: Load = sessions.load_bearer

    def credential(self, scope: Scope, /) -> str | None:
        """The token."""
        return read_bearer(scope["headers"])


class Recognition:
    """Calls the recognisers of one ``Authentication``, those of strategies first."""

    def __init__(
        self,
        recognisers: Sequence[Recogniser],
        *,
        subject_name: str,
        scopes: Scopes | None,
        clock: Clock,
        authentication: object,
        telling: Telling,
        local: bool,
    ) -> None:
        """Check the methods of the recognisers.

        Args:
            recognisers: The recognisers, those of strategies first.
            subject_name: The kind of user, which is a scope of every user.
            scopes: The ``scopes`` of ``Authentication``.
            clock: Returns the current aware UTC instant.
            authentication: The ``Authentication`` in every ``AuthState``.
            telling: Counts log lines that a stranger can provoke.
            local: True for an instance for development.
        """
        self._recognisers, self._scopes, self._clock = tuple(recognisers), scopes, clock
        self._authentication, self._telling, self._local = authentication, telling, local
        self._own = {each.method: (AUTHENTICATED, each.method, subject_name) for each in self._recognisers}
        if len(self._own) < len(self._recognisers) or {AUTHENTICATED, subject_name} & self._own.keys():
            raise ConfigurationError("strategies, add_ons: the method of a recogniser is taken")
        self._reserved = frozenset({name for own in self._own.values() for name in own})
        self.anonymous = AuthState(AnonymousUser(), None, None, (), None, authentication)

    def among(self, *, ambient: bool) -> tuple[Recogniser, ...]:
        """The recognisers whose credential browsers attach on their own, or the others."""
        return tuple(each for each in self._recognisers if each.ambient is ambient)

    def look(self, scope: Scope, recognisers: Sequence[Recogniser]) -> Shown | AuthState | None:
        """The first credential of a request, not yet verified. Returns None if there is none.

        A rejected credential gives an anonymous state with the reason in ``error``, and a log line at debug level. On a
        local instance, a page of another origin gives a warning.
        """
        method = ""
        try:
            if len(scope["headers"]) > MAX_LINES:  # checked here to save a call at every request
                check_headers(scope["headers"])
            for recogniser in recognisers:
                method = recogniser.method
                credential = recogniser.credential(scope)
                if credential is not None:
                    return recogniser, credential
        except (CrossSiteError, MalformedRequestError) as exc:
            return self._refused(method, exc)
        return None

    async def state(self, shown: Shown | AuthState, now: datetime) -> AuthState:
        """The state for the result of ``look``. A rejected credential gives an anonymous state, as there.

        Raises:
            UnavailableError: the credential cannot be checked.
            ConfigurationError: the store cannot be opened.
        """
        if isinstance(shown, AuthState):
            return shown
        recogniser, credential = shown
        method, scopes = recogniser.method, None
        try:
            loaded = await recogniser.load(credential, now=now)
        except (ConfigurationError, UnavailableError):
            raise
        except AuthError as exc:
            return self._refused(method, exc)
        own: tuple[str, ...] = self._own[method]
        session: Session | None
        if isinstance(loaded, Loaded):
            session, user = loaded
        else:
            user, session, scopes = loaded
        if self._scopes is not None or scopes is not None:
            own = await self._cut(own, user, scopes)
        return AuthState(user, session, method, own, None, self._authentication)

    def _refused(self, method: str, error: AuthError) -> AuthState:
        if self._local and isinstance(error, CrossSiteError):  # usually this is the developer's own page
            text = "a %s credential was refused: %s"
            self._telling.tell(logging.WARNING, f"{error.code} {method}", text, method, error.reason)
        else:
            logger.debug("a %s credential was refused: %s", method, error.reason)
        return self.anonymous._replace(error=error)

    def missing(self, scope: Scope) -> AuthError | None:
        """The error for a request whose credential no middleware checked. Returns None if it has no credential.

        A middleware that checks a credential finds a user or an error. If there is neither, the middleware for this
        kind of credential is missing. The error names it, and so does one log line.
        """
        shown = self._shown(scope) if scope.get("headers") else None
        if shown is None:
            return None
        name = "SessionUserMiddleware" if shown.ambient else "BearerUserMiddleware"
        reason = (
            f"the request shows a {shown.method} credential, and no {name} looks at it: wrap the application in "
            f"{name}, or add Middleware({name}, auth=auth)"
        )
        self._telling.once(logging.DEBUG, name, reason)
        return AuthenticationFailedError(reason, cause="not_signed_in")

    def _shown(self, scope: Scope) -> Recogniser | None:
        """The recogniser of the first credential of a request. Returns None if there is none, or if it is rejected."""
        with suppress(CrossSiteError, MalformedRequestError):
            check_headers(scope["headers"])
            return next((each for each in self._recognisers if each.credential(scope) is not None), None)
        return None

    async def _cut(self, own: tuple[str, ...], user: Any, scopes: Sequence[str] | None) -> tuple[str, ...]:
        """*own* and the application's scopes. A credential with *scopes* gets only those that its user has now."""
        if self._scopes is None:
            return self._unreserved(scopes or ())
        answer = self._scopes(user)
        added = self._unreserved(await answer if isawaitable(answer) else answer)
        return (*own, *added) if scopes is None else tuple(name for name in added if name in scopes)

    def _unreserved(self, scopes: Iterable[str]) -> tuple[str, ...]:
        """*scopes* without the names that only the library gives. Raises TypeError if it is not a list of texts."""
        if isinstance(scopes, str):
            raise TypeError("scopes must be a list of texts, not one text")
        return tuple(name for name in scopes if name not in self._reserved)

    async def every_state(self, scope: Scope) -> AuthState:
        """The current state for any credential of the request; for the plug.

        This ignores the result of a middleware outside. The body may have arrived slowly since then, and the session
        may have ended meanwhile.

        Raises:
            UnavailableError: the credential cannot be checked.
        """
        state = self.anonymous
        for ambient in (True, False):
            if state.method is None and (shown := self.look(scope, self.among(ambient=ambient))) is not None:
                state = await self.state(shown, self._clock())
        return state
