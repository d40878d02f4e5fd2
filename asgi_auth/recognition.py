"""Recognisers: they find out who sends a request, and why a credential is rejected.

Middlewares, plug and guards share those of an ``Authentication``.
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
"""Of an ASGI connection."""

Scopes = Callable[[Any], Iterable[str] | Awaitable[Iterable[str]]]
"""Returns what a user may do in the application, beside being signed in; plain or async."""

AUTHENTICATED = "authenticated"
"""The scope of every user who is signed in, except by a credential with scopes of its own, such as an API key."""


class Recognised(NamedTuple):
    """The user of a credential without a session, or with scopes of its own. For any other it is a ``Loaded``."""

    user: Any
    session: Session | None
    """None for a credential that needs no session."""
    scopes: Sequence[str] | None = None
    """All that the credential may do; None: whatever its user may."""


class Load(Protocol):
    """``await load(credential, now=now)``."""

    def __call__(self, credential: str, /, *, now: datetime) -> Coroutine[Any, Any, Recognised | Loaded[Any]]: ...


class Recogniser(Protocol):
    """Recognises one kind of credential. A strategy adds its own by ``Hook.recognisers``."""

    @property
    def method(self) -> str:
        """What ``AuthState.method`` says, and a scope of the request."""
        ...

    @property
    def ambient(self) -> bool:
        """Whether browsers attach the credential by themselves, as a cookie. SessionUserMiddleware asks these, and
        BearerUserMiddleware the others."""
        ...

    def credential(self, scope: Scope, /) -> str | None:
        """The credential of a request or websocket; None if it shows none of this kind. Asks no store.

        Raises:
            CrossSiteError, MalformedRequestError: the credential is rejected.
        """
        ...

    @property
    def load(self) -> Load:
        """An async method that says whom it names, by one query.

        It raises InvalidTokenError if it names nobody, another AuthError such as RateLimitedError to refuse it for
        another reason, and UnavailableError if it could not be checked.
        """
        ...


Shown = tuple[Recogniser, str]
"""What a request shows: a credential, and who recognises it."""


class CookieRecogniser:
    """Browsers, by the session cookie; never for a request of another site (CF-1, WS-1)."""

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
    """Scripts, by the access token in the Authorization header, and nowhere else (RFC 6750 section 2.1)."""

    method, ambient = "bearer", False

    def __init__(self, sessions: Sessions[Any]) -> None:
        self.load: Load = sessions.load_bearer

    def credential(self, scope: Scope, /) -> str | None:
        """The token."""
        return read_bearer(scope["headers"])


class Recognition:
    """Asks the recognisers of one ``Authentication``, those of strategies first."""

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
        """Make it.

        Args:
            recognisers: Those of strategies first.
            subject_name: The kind of user, which is a scope of every user.
            scopes: What ``Authentication`` was given.
            clock: Returns the current aware UTC instant.
            authentication: Who says so, in every ``AuthState``.
            telling: Where lines are counted that a stranger can provoke.
            local: Whether this instance is one for development.
        """
        self._recognisers, self._scopes, self._clock = tuple(recognisers), scopes, clock
        self._authentication, self._telling, self._local = authentication, telling, local
        self._own = {each.method: (AUTHENTICATED, each.method, subject_name) for each in self._recognisers}
        if len(self._own) < len(self._recognisers) or {AUTHENTICATED, subject_name} & self._own.keys():
            raise ConfigurationError("strategies, add_ons: the method of a recogniser is taken")
        self._reserved = frozenset({name for own in self._own.values() for name in own})
        self.anonymous = AuthState(AnonymousUser(), None, None, (), None, authentication)

    def among(self, *, ambient: bool) -> tuple[Recogniser, ...]:
        """Those whose credential browsers attach by themselves, or the others."""
        return tuple(each for each in self._recognisers if each.ambient is ambient)

    def look(self, scope: Scope, recognisers: Sequence[Recogniser]) -> Shown | AuthState | None:
        """The first credential of a request, unasked whether it is good; None if there is none.

        A rejected one gives an anonymous state with the reason in ``error``, and a line of the log: at
        debug, but for a page of another origin on a local instance, which is a warning.
        """
        method = ""
        try:
            if len(scope["headers"]) > MAX_LINES:  # asked here, for every request pays for a call
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
        """The state that what ``look`` has found gives; a bad credential an anonymous one, as there.

        Raises:
            UnavailableError: it could not be checked.
            ConfigurationError: the store refuses to open.
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
        if self._local and isinstance(error, CrossSiteError):  # most often it is the developer's own page
            text = "a %s credential was refused: %s"
            self._telling.tell(logging.WARNING, f"{error.code} {method}", text, method, error.reason)
        else:
            logger.debug("a %s credential was refused: %s", method, error.reason)
        return self.anonymous._replace(error=error)

    def missing(self, scope: Scope) -> AuthError | None:
        """What to say of a request for which no middleware has found a user or an error; None if that is right.

        A middleware that looks at a credential finds the one or the other. If the request shows a credential all the
        same, the middleware for its kind is missing: the error says which, and so does a line of the log, once.
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
        """Who recognises the first credential of a request; None if it shows none that counts."""
        with suppress(CrossSiteError, MalformedRequestError):
            check_headers(scope["headers"])
            return next((each for each in self._recognisers if each.credential(scope) is not None), None)
        return None

    async def _cut(self, own: tuple[str, ...], user: Any, scopes: Sequence[str] | None) -> tuple[str, ...]:
        """*own* and what the application adds; of a credential with *scopes* only those that its user has now."""
        if self._scopes is None:
            return self._unreserved(scopes or ())
        answer = self._scopes(user)
        added = self._unreserved(await answer if isawaitable(answer) else answer)
        return (*own, *added) if scopes is None else tuple(name for name in added if name in scopes)

    def _unreserved(self, scopes: Iterable[str]) -> tuple[str, ...]:
        """Without those that only the library gives. TypeError: they are no list of scopes."""
        if isinstance(scopes, str):
            raise TypeError("scopes must be a list of texts, not one text")
        return tuple(name for name in scopes if name not in self._reserved)

    async def every_state(self, scope: Scope) -> AuthState:
        """Who asks, by whatever credential, as the store has it now; for the plug.

        What a middleware outside found is not asked: the body has arrived since then, as slowly as the client liked,
        and the session may have ended meanwhile.

        Raises:
            UnavailableError: could not be checked.
        """
        state = self.anonymous
        for ambient in (True, False):
            if state.method is None and (shown := self.look(scope, self.among(ambient=ambient))) is not None:
                state = await self.state(shown, self._clock())
        return state
