"""SessionUserMiddleware and BearerUserMiddleware: they say who asks. Guards say who may.

Both write ``scope["user"]``, ``scope["auth"]`` and ``scope["asgi_auth"]`` in place, on http and websocket, so that an
access log outside sees the user too. A bad credential is an anonymous user with the reason kept; only one that could
not be checked is answered here, with 503.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from anyio import CancelScope
from starlette.authentication import AuthCredentials
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_auth.authentication import Authentication
from asgi_auth.errors import AuthError, CrossSiteError, InvalidTokenError, MalformedRequestError, UnavailableError
from asgi_auth.protocol.bearer import read_bearer
from asgi_auth.protocol.caching import check_cache_control, is_speculative, keep_private
from asgi_auth.protocol.cookies import read_cookie
from asgi_auth.protocol.cross_site import websocket_allowed
from asgi_auth.runtime.failures import reason_of
from asgi_auth.runtime.jobs import logger
from asgi_auth.runtime.loop import running_loop
from asgi_auth.store import Loaded
from asgi_auth.types import AnonymousUser, AuthState, Session
from asgi_auth.web.http import (
    MAX_LINES,
    AfterBody,
    check_headers,
    crosses_sites,
    foreign_origin,
    header_values,
    unavailable,
)

_ANONYMOUS_USER = AnonymousUser()
_TRY_AGAIN_LATER = 1013
"""The WebSocket close code for a server that cannot serve now."""
_HELD_BACK = timedelta(seconds=1)
"""How long an exception of the application waits, at most, until the use of the session is noted."""


class _Load(Protocol):
    """The session that a credential opens. InvalidTokenError: none. UnavailableError: could not be checked."""

    def __call__(self, credential: str, /, *, now: datetime) -> Coroutine[Any, Any, Loaded[Any]]: ...


class _UserMiddleware(ABC):
    """What both have in common: when to look, and what to write."""

    method: Literal["session", "bearer"]
    _load: _Load

    def __init__(self, app: ASGIApp, auth: Authentication[Any]) -> None:
        """Args: app: What is wrapped. auth: Whose users these are."""
        self.app, self.auth = app, auth
        self._sessions, self._clock, self._upkeep = auth.sessions, auth.clock, auth.upkeep
        self._anonymous = AuthState(_ANONYMOUS_USER, None, None, None, auth)
        self._telling = auth.services.telling
        self._failing: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] not in ("http", "websocket"):
            await self._pass_on(scope, receive, send)
            return
        state, found = self._anonymous, None
        if "asgi_auth" in scope:
            state = _known_state(scope, self.auth) or state
        if state.session is None:  # else the middleware outside has found it, and will note its use
            try:
                found = await self.identify(scope)
            except UnavailableError as exc:
                await self._answer_unavailable(exc, scope, receive, send)
                return
        state, due = found or (state, None)
        _write(scope, state)
        sending = self._sending(send) if found else send
        if due is None:
            await self.app(scope, receive, sending)
        else:
            await self._use(due, scope, receive, sending)

    async def _use(self, session: Session, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and note the use of *session* however it ends: many a websocket ends by an exception."""
        try:
            await self.app(scope, receive, send)
        except (Exception, asyncio.CancelledError):
            # An answer or the server waits for the exception, so it is held back for a moment only. The shield is for
            # a cancelled scope of anyio, which would cancel this again. What is closed must not be opened once more.
            with CancelScope(shield=True):
                if not self.auth.closed:
                    await self._touch(session, patience=_HELD_BACK)
            raise
        await self._touch(session)

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
            ConfigurationError: asyncio does not run this, or the store refuses to open.
        """
        try:
            if len(scope["headers"]) > MAX_LINES:  # asked here, for every request pays for a call
                check_headers(scope)
            credential = self._credential(scope)
            if credential is None:
                return None
            now = self._clock()
            if self._upkeep.started:
                session, user = await self._load(credential, now=now)
            else:
                session, user = await self._load_first(credential, now)
        except (InvalidTokenError, CrossSiteError, MalformedRequestError) as exc:
            logger.debug("a %s credential was refused: %s", self.method, exc.reason)
            return self._anonymous._replace(error=exc), None
        if self._failing is not None:
            self._end_outage(self._failing)
        due = session if self._sessions.touch_due(session, now) and not is_speculative(scope["headers"]) else None
        return AuthState(user, session, self.method, None, self.auth), due

    def _end_outage(self, code: str) -> None:
        text = "credentials are checked again: there were %d failures in %.0f seconds"
        if self._telling.end(logging.WARNING, code, text):
            self._failing = None

    async def _load_first(self, credential: str, now: datetime) -> Loaded[Any]:
        """Load the session where the server sends no lifespan messages; a valid one starts what they would start."""
        running_loop()
        loaded = await self._load(credential, now=now)
        await self._upkeep.start()
        return loaded

    @abstractmethod
    def _credential(self, scope: Scope) -> str | None:
        """What was shown; None: nothing. CrossSiteError, MalformedRequestError: it counts for nothing."""
        ...

    def _sending(self, send: Send) -> Send:
        """What sends the answer to a request that showed a credential."""
        return send

    async def _touch(self, session: Session, *, patience: timedelta | None = None) -> None:
        """Note the use of *session*; a failure is only logged: the request is over, and the next one will note it."""
        try:
            async with asyncio.timeout(None if patience is None else patience.total_seconds()):
                await self._sessions.touch(session)
        except Exception as exc:  # whatever a store may raise
            text = "a session's last use could not be noted: %s"
            self._telling.tell(logging.WARNING, "touch", text, reason_of(exc))

    async def _answer_unavailable(self, exc: UnavailableError, scope: Scope, receive: Receive, send: Send) -> None:
        self._failing = exc.code
        self._telling.tell(logging.ERROR, exc.code, "a credential could not be checked: %s", exc.reason)
        if scope["type"] == "http":
            await AfterBody(unavailable(exc), Request(scope, receive))(scope, receive, send)
        elif "websocket.http.response" in (scope.get("extensions") or ()):
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
        self._load = self._sessions.load

    def _credential(self, scope: Scope) -> str | None:
        cookie = read_cookie(scope["headers"], self._cookie)
        if cookie is not None and self._is_foreign(scope):
            raise foreign_origin(scope, self.auth)
        return cookie

    def _is_foreign(self, scope: Scope) -> bool:
        if scope["type"] == "websocket":
            return not websocket_allowed(header_values(scope, b"origin"), self.auth.origins)
        return crosses_sites(scope, self.auth)

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

    def __init__(self, app: ASGIApp, auth: Authentication[Any]) -> None:
        """Args: app: What is wrapped. auth: Whose users these are."""
        super().__init__(app, auth)
        self._load = self._sessions.load_bearer

    def _credential(self, scope: Scope) -> str | None:
        return read_bearer(scope["headers"])


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


_ENDS = frozenset({"lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed"})
"""After one of these the server may end the event loop at once."""


async def serve_lifespan(
    auth: Authentication[Any], app: ASGIApp | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """Open the store before the application starts, and close it before the server hears that the application ended.

    An ``auth`` that cannot be opened fails the start with a message: a server would take an exception for "this
    application has no lifespan". A store that cannot be closed is logged, and the server hears of the end all the same.
    """
    first = await receive()
    running = AsyncExitStack()
    try:
        await running.enter_async_context(auth.running())
    except AuthError as exc:
        await send({"type": "lifespan.startup.failed", "message": f"asgi_auth: {exc.reason}"})
        return

    async def send_closed(message: Message) -> None:
        if message["type"] in _ENDS:
            await _end(running)
        await send(message)

    try:
        await (app or _no_application)(scope, _replaying(first, receive), send_closed)
    finally:  # an application may end without a word, or have no lifespan
        await _end(running)


async def _end(running: AsyncExitStack) -> None:
    """Close what is still open; the second time nothing is."""
    try:
        await running.aclose()
    except Exception as exc:  # a store may be anybody's code
        logger.error("the store could not be closed: %s", reason_of(exc))


async def _no_application(_scope: Scope, receive: Receive, send: Send) -> None:
    for stage in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{stage}.complete"})


def _replaying(first: Message, receive: Receive) -> Receive:
    waiting = [first]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
