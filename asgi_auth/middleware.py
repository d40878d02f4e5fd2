"""SessionUserMiddleware and BearerUserMiddleware: they say who asks. Guards say who may.

Both write ``scope["user"]``, ``scope["auth"]`` and ``scope["asgi_auth"]`` in place, on http and websocket, so that an
access log outside sees the user too. A bad credential is an anonymous user with the reason kept; only one that could
not be checked is answered here, with 503.
"""

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Literal

from starlette.authentication import AuthCredentials
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_auth.authentication import Authentication
from asgi_auth.errors import AuthError, CrossSiteError, InvalidTokenError, MalformedRequestError, UnavailableError
from asgi_auth.hooks import logger
from asgi_auth.http import check_headers, crosses_sites, header_values, unavailable
from asgi_auth.protocol.bearer import read_bearer
from asgi_auth.protocol.caching import check_cache_control, is_speculative, keep_private
from asgi_auth.protocol.cookies import read_cookie
from asgi_auth.protocol.cross_site import websocket_allowed
from asgi_auth.store import Loaded
from asgi_auth.types import AnonymousUser, AuthState, Session

_ANONYMOUS_USER = AnonymousUser()
_TRY_AGAIN_LATER = 1013
"""The WebSocket close code for a server that cannot serve now."""


class _UserMiddleware(ABC):
    """What both have in common: when to look, and what to write."""

    method: Literal["session", "bearer"]

    def __init__(self, app: ASGIApp, auth: Authentication[Any]) -> None:
        """Args: app: What is wrapped. auth: Whose users these are."""
        self.app, self.auth = app, auth
        self._sessions, self._clock = auth.sessions, auth.clock
        self._anonymous = AuthState(_ANONYMOUS_USER, None, None, None, auth)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] not in ("http", "websocket"):
            await self._pass_on(scope, receive, send)
            return
        state, found = _known_state(scope, self.auth) or self._anonymous, None
        if state.session is None:  # else the middleware outside has found it, and will note its use
            try:
                found = await self.identify(scope)
            except UnavailableError as exc:
                await self._answer_unavailable(exc, scope, receive, send)
                return
        state, due = found or (state, None)
        _write(scope, state)
        await self.app(scope, receive, self._sending(send) if found else send)
        if due is not None:
            await self._touch(due)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await serve_lifespan(self.auth, self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def identify(self, scope: Scope) -> tuple[AuthState, Session | None] | None:
        """What the credential of this request says, be it that it counts for nothing; None if there is none.

        Beside it the session, if it is time to note its last use. A speculative request is no use.

        Raises:
            UnavailableError: it could not be checked.
        """
        try:
            check_headers(scope)
            credential = self._credential(scope)
            if credential is None:
                return None
            now = self._clock()
            session, user = await self._load(credential, now)
        except (InvalidTokenError, CrossSiteError, MalformedRequestError) as exc:
            return self._anonymous._replace(error=exc), None
        due = session if self._sessions.touch_due(session, now) and not is_speculative(scope["headers"]) else None
        return AuthState(user, session, self.method, None, self.auth), due

    @abstractmethod
    def _credential(self, scope: Scope) -> str | None:
        """What was shown; None: nothing. CrossSiteError, MalformedRequestError: it counts for nothing."""
        ...

    @abstractmethod
    def _load(self, credential: str, now: datetime) -> Coroutine[Any, Any, Loaded[Any]]:
        """The session that it opens. InvalidTokenError: none. UnavailableError: could not be checked."""
        ...

    def _sending(self, send: Send) -> Send:
        """What sends the answer to a request that showed a credential."""
        return send

    async def _touch(self, session: Session) -> None:
        try:
            await self._sessions.touch(session)
        except UnavailableError as exc:  # answered already; the next request will note it
            logger.warning("a session's last use could not be noted: %s", exc.reason)

    async def _answer_unavailable(self, exc: UnavailableError, scope: Scope, receive: Receive, send: Send) -> None:
        logger.error("a credential could not be checked: %s", exc.reason)
        if scope["type"] == "http" or "websocket.http.response" in (scope.get("extensions") or ()):
            await unavailable(exc)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})


class SessionUserMiddleware(_UserMiddleware):
    """Recognises browsers by the session cookie.

    Requests from other sites get no authority from it, nor do websocket handshakes from origins that are not listed.
    The answer to a request with the cookie gets ``Vary: Cookie`` and, if the application set none, a ``Cache-Control``:
    ``private, no-cache`` for a file with an ``ETag`` or ``Last-Modified``, else ``cache_control``.
    """

    method = "session"

    def __init__(self, app: ASGIApp, auth: Authentication[Any], *, cache_control: str = "no-store") -> None:
        """Wrap an application.

        Args:
            app: What is wrapped.
            auth: Whose users these are.
            cache_control: The Cache-Control of pages that have none. With ``private`` the back button of the browser
                shows a page without a request, also after a sign-out.

        Raises:
            ConfigurationError: *cache_control* is no list of directives, or allows a shared cache to store pages.
        """
        super().__init__(app, auth)
        self._cookie, self._cache_control = auth.session_cookie.encode(), check_cache_control(cache_control)

    def _credential(self, scope: Scope) -> str | None:
        cookie = read_cookie(scope["headers"], self._cookie)
        if cookie is not None and self._is_foreign(scope):
            raise CrossSiteError("cross-site request with our cookie")
        return cookie

    def _is_foreign(self, scope: Scope) -> bool:
        if scope["type"] == "websocket":
            return not websocket_allowed(header_values(scope, b"origin"), self.auth.origins)
        return crosses_sites(scope, self.auth)

    def _load(self, credential: str, now: datetime) -> Coroutine[Any, Any, Loaded[Any]]:
        return self._sessions.load(credential, now=now)

    def _sending(self, send: Send) -> Send:
        # The cookie decided what this answer is: nobody else may see it, nor this browser once the session has ended.
        async def send_private(message: Message) -> None:
            if message["type"] == "http.response.start":
                given, status = message.get("headers", ()), message["status"]
                headers = keep_private(given, status=status, cache_control=self._cache_control)
                message = {**message, "headers": headers}
            await send(message)

        return send_private


class BearerUserMiddleware(_UserMiddleware):
    """Recognises scripts by the bearer token in the Authorization header, and nowhere else (RFC 6750 section 2.1)."""

    method = "bearer"

    def _credential(self, scope: Scope) -> str | None:
        return read_bearer(scope["headers"])

    def _load(self, credential: str, now: datetime) -> Coroutine[Any, Any, Loaded[Any]]:
        return self._sessions.load_bearer(credential, now=now)


async def load_state(auth: Authentication[Any], scope: Scope) -> AuthState:
    """Who asks, by the cookie or the bearer token, as the store has it now.

    What a middleware outside found is not asked: the body has arrived since then, as slowly as the client liked, and
    the session may have ended meanwhile.

    Raises:
        UnavailableError: could not be checked.
    """
    state = AuthState(_ANONYMOUS_USER, None, None, None, auth)
    for kind in (SessionUserMiddleware, BearerUserMiddleware):
        if state.session is None and (found := await kind(_no_application, auth).identify(scope)):
            state, _ = found
    return state


def _known_state(scope: Scope, auth: Authentication[Any]) -> AuthState | None:
    """What *auth* has said in this scope; whatever else is there was not said by us (SE-12)."""
    known = scope.get("asgi_auth")
    return known if isinstance(known, AuthState) and known.authentication is auth else None


def _write(scope: Scope, state: AuthState) -> None:
    if scope.get("asgi_auth") is state and scope.get("user") is state.user:
        return  # the middleware outside has written just this
    scope["asgi_auth"] = state
    scope["user"] = state.user
    scopes = [] if state.method is None else ["authenticated", state.method, state.authentication.subject_name]  # type: ignore[attr-defined]
    scope["auth"] = AuthCredentials(scopes)


async def serve_lifespan(
    auth: Authentication[Any], app: ASGIApp | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """Open the store before the application starts and close it once it has ended.

    An ``auth`` that cannot be opened fails the start loudly: a server would take an exception for "no lifespan here".
    """
    first = await receive()
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(auth.running())
        except AuthError as exc:
            await send({"type": "lifespan.startup.failed", "message": f"asgi_auth: {exc.reason}"})
            return
        await (app or _no_application)(scope, _replaying(first, receive), send)


async def _no_application(_scope: Scope, receive: Receive, send: Send) -> None:
    for stage in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{stage}.complete"})


def _replaying(first: Message, receive: Receive) -> Receive:
    waiting = [first]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
