"""SessionUserMiddleware and BearerUserMiddleware identify the user. Guards decide what the user may do.

Both write ``scope["user"]``, ``scope["auth"]`` and ``scope["asgi_auth"]`` in place, on http and websocket, so that an
access log outside sees the user too. An invalid credential gives an anonymous user, and the reason is kept. The
middleware answers 503 if a credential cannot be checked.
"""

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any

from anyio import CancelScope
from starlette.authentication import AuthCredentials
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_auth.authentication import Authentication
from asgi_auth.errors import AuthError, ConfigurationError, UnavailableError
from asgi_auth.protocol.caching import check_cache_control, is_speculative, keep_private
from asgi_auth.runtime.failures import reason_of
from asgi_auth.runtime.jobs import logger
from asgi_auth.types import AuthState, Session
from asgi_auth.web.answers import unavailable
from asgi_auth.web.bodies import AfterBody
from asgi_auth.web.guards import open_routes
from asgi_auth.web.mounting import check_authentication, mounted_classes

_TRY_AGAIN_LATER = 1013
"""The WebSocket close code for a server that cannot serve now."""
_HELD_BACK = timedelta(seconds=1)
"""How long an exception of the application waits, at most, until the use of the session is stored."""


class _UserMiddleware:
    """The common part of both: when to check a credential, and what to write."""

    _ambient: bool

    def __init__(self, app: ASGIApp, auth: Authentication[Any]) -> None:
        """Wrap an application.

        Args:
            app: What is wrapped.
            auth: Whose users these are.

        Raises:
            ConfigurationError: *auth* is not an ``Authentication``.
        """
        name = type(self).__name__
        check_authentication(auth, name, f"{name}(app, auth), or Middleware({name}, auth=auth)")
        self.app, self.auth = app, auth
        self._sessions, self._clock, self._upkeep = auth.sessions, auth.clock, auth.upkeep
        self._look, self._state = auth.recognition.look, auth.recognition.state
        self._recognisers = auth.recognition.among(ambient=self._ambient)
        self._anonymous = auth.recognition.anonymous
        self._telling = auth.services.telling
        self._failing: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] not in ("http", "websocket"):
            await self._pass_on(scope, receive, send)
            return
        state, shown, due = self._anonymous, None, None
        known = scope.get("asgi_auth")
        if isinstance(known, AuthState) and known.authentication is self.auth:
            state = known  # any other value is not from the library (SE-12)
        # Otherwise the outer middleware has found the session, and will store its use.
        if state.method is None and (shown := self._look(scope, self._recognisers)) is not None:
            now = self._clock()
            try:
                state = await self._state(shown, now)
                if self._failing is not None or not self._upkeep.started:
                    await self._note_success(state)
            except UnavailableError as exc:
                await self._answer_unavailable(exc, scope, receive, send)
                return
            session, send = state.session, self._sending(send)
            if session is not None and self._sessions.touch_due(session, now):
                due = None if is_speculative(scope["headers"]) else session  # a prefetch does not use the session
        if state is not known or scope.get("user") is not state.user:  # otherwise the outer one has written the same
            scope["asgi_auth"] = state
            scope["user"] = state.user
            scope["auth"] = AuthCredentials(state.scopes)
        await (self.app(scope, receive, send) if due is None else self._use(due, scope, receive, send))

    async def _use(self, session: Session, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application and store the use of *session*, also after an exception: many websockets end by one."""
        try:
            await self.app(scope, receive, send)
        except (Exception, asyncio.CancelledError):
            # An answer or the server waits for the exception, so it is delayed only for a moment. The shield is for a
            # cancelled scope of anyio, which would cancel this again. A closed store must not be opened again.
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

    async def _note_success(self, state: AuthState) -> None:
        """After a valid credential: end an outage, and open the store if the server sends no lifespan messages.

        Raises:
            UnavailableError: the store cannot be opened.
        """
        if state.method is not None:
            if not self._upkeep.started:
                await self._upkeep.start()
            if self._failing is not None:
                self._end_outage(self._failing)

    def _end_outage(self, code: str) -> None:
        text = "credentials are checked again: there were %d failures in %.0f seconds"
        if self._telling.end(logging.WARNING, code, text):
            self._failing = None

    def _sending(self, send: Send) -> Send:
        """The ``send`` for the answer to a request with a credential."""
        return send

    async def _touch(self, session: Session, *, patience: timedelta | None = None) -> None:
        """Store the use of *session*. A failure is only logged: the request is over, and the next one stores it."""
        try:
            async with asyncio.timeout(None if patience is None else patience.total_seconds()):
                await self._sessions.touch(session)
        except Exception as exc:  # a store may raise any exception
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

    The cookie is ignored on requests from other sites, and on websocket handshakes from origins that are not listed.
    The answer to a request with the cookie gets ``Vary: Cookie`` and, if the application set none, a ``Cache-Control``:
    ``private, no-cache`` for a file with an ``ETag`` or ``Last-Modified``, else ``cache_control``.
    """

    _ambient = True

    def __init__(self, app: ASGIApp, auth: Authentication[Any], *, cache_control: str = "no-store") -> None:
        """Wrap an application.

        Args:
            app: What is wrapped.
            auth: Whose users these are.
            cache_control: The Cache-Control of pages that have none. With ``private`` the back button of the browser
                shows a page without a request, also after a sign-out.

        Raises:
            ConfigurationError: *auth* is not an ``Authentication``; *cache_control* is not a list of directives, or
                allows a shared cache to store pages.
        """
        super().__init__(app, auth)
        self._cache_control = check_cache_control(cache_control)

    def _sending(self, send: Send) -> Send:
        # The answer depends on the cookie. No other client may see it, nor this browser after the session has ended.
        async def send_private(message: Message) -> None:
            if message["type"] == "http.response.start":
                given, status = message.get("headers", ()), message["status"]
                headers = keep_private(given, status=status, cache_control=self._cache_control)
                message = {**message, "headers": headers}
            await send(message)

        return send_private


class BearerUserMiddleware(_UserMiddleware):
    """Recognises scripts by the Authorization header: the access token of a sign-in (RFC 6750).

    It also accepts credentials of strategies that browsers do not attach by themselves, such as API keys.
    """

    _ambient = False


_ENDS = frozenset({"lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed"})
"""After one of these the server may end the event loop at once."""


async def serve_lifespan(
    auth: Authentication[Any], app: ASGIApp | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """Open the store before the application starts, and close it before the server hears that the application ended.

    The start fails with a message if ``auth`` cannot be opened, or if a plug is mounted as a class. A server would take
    an exception for "this application has no lifespan". If the store cannot be closed, the error is logged, and the
    server still gets the end of the shutdown.
    """
    first, mistake = await receive(), None
    with suppress(Exception):  # advice never stops a start, however odd the application is
        for advice in open_routes(scope.get("app", app)):
            auth.services.telling.once(logging.WARNING, advice, advice)
        mistake = next(mounted_classes(scope.get("app", app)), None)
    running = AsyncExitStack()
    try:
        if mistake is not None:
            raise ConfigurationError(mistake)
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
    finally:  # an application may end without a message, or have no lifespan
        await _end(running)


async def _end(running: AsyncExitStack) -> None:
    """Close the store if it is still open. A second call does nothing."""
    try:
        await running.aclose()
    except Exception as exc:  # a store of the application may raise any exception
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
