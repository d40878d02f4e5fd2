"""AuthPlug: serves ``/auth/<strategy>/<phase>`` and ``/auth/sign_out``; its callbacks are for applications to override.

``serving`` has the steps of a request, ``plug_pages`` the pages, ``answers`` the headers of every answer.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_auth.authentication import Authentication
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    InvalidTokenError,
    RateLimitedError,
    UnavailableError,
    ValidationError,
)
from asgi_auth.messages import Message
from asgi_auth.phases import Form, View
from asgi_auth.protocol.caching import CACHED, PREFETCHED
from asgi_auth.protocol.return_to import safe_return_to
from asgi_auth.runtime.callables import require_async
from asgi_auth.types import EMPTY, AccessToken, Activity, AuthState
from asgi_auth.web.answers import clear_site_data, problem
from asgi_auth.web.browser import keep_cookie
from asgi_auth.web.incoming import Incoming
from asgi_auth.web.middleware import serve_lifespan
from asgi_auth.web.mounting import Mountable, check_authentication
from asgi_auth.web.plug_pages import PlugPages
from asgi_auth.web.routing import Routing
from asgi_auth.web.serving import Serving

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    U = TypeVar("U", default=Any)  # so that a subclass need not name it
else:
    from typing import TypeVar

    U = TypeVar("U")

_GRANTED = Message("page.granted", "Access granted")
_SIGNED_IN = Message("page.signed_in", "You are signed in.")
_SIGNED_OUT = Message("page.signed_out", "You are signed out")


class AuthPlug(Mountable, Generic[U]):
    """An ASGI application for ``Mount("/auth", AuthPlug(auth))``.

    Without mounting, ``AuthPlug(auth, app=inner)`` serves ``auth.mount_path`` and passes other requests on. To change
    an answer, subclass it and override ``handle_success``, ``handle_failure`` or another callback.

    Args:
        auth: The authentication whose strategies are served.
        app: The application to wrap; None to be mounted.
        clear_cache_on_sign_out: Tell the browser to empty its whole cache of this origin at a sign-out. This can take
            seconds.
        bearer_for_browsers: Give a page's scripts the bearer token, not the cookie, in the JSON answer to a sign-in.
            An attacker who can run a script in the page can then steal the token.

    Raises:
        ConfigurationError: *auth* is not an ``Authentication``, a callback is not async, or the class is mounted in
            place of an instance.
    """

    body_limit: ClassVar[int] = 64 * 1024
    """The largest request body, in bytes."""
    body_timeout: ClassVar[timedelta] = timedelta(seconds=10)
    """How long a request body may take to arrive."""

    _callbacks: ClassVar[tuple[str, ...]] = (
        *("handle_success", "handle_failure", "handle_accepted", "handle_challenge", "handle_view", "handle_form"),
        *("handle_sign_out", "clear_session", "revoke_session_tokens", "revoke_bearer_tokens"),
    )

    def __init__(
        self,
        auth: Authentication[U],
        app: ASGIApp | None = None,
        *,
        bearer_for_browsers: bool = False,
        clear_cache_on_sign_out: bool = False,
    ) -> None:
        name = type(self).__name__
        check_authentication(auth, name, f"{name}(auth), as in Mount('/auth', {name}(auth))")
        require_async(self, *self._callbacks, parameter="AuthPlug")
        self.auth, self.app, self._bearer_for_browsers = auth, app, bearer_for_browsers
        self._routing = Routing(auth.mount_path, auth.services.telling)
        self._pages = PlugPages(auth, self._routing)
        cleared = (*PREFETCHED, CACHED) if clear_cache_on_sign_out else PREFETCHED
        self._serving = Serving(self, self._routing, self._pages, cleared=cleared)

    # --- to override

    async def handle_success(self, request: Request, activity: Activity, user: U, token: AccessToken) -> Response:
        """The user was signed in.

        Args:
            request: Its body has been read; see ``params``.
            activity: The strategy and the phase.
            user: The application's own user object.
            token: The bearer token. It also holds the cookie for ``store_in_session``.

        Returns:
            By default 303 to ``return_to`` or ``Pages(account=…)``, or a page. If no page is wanted, 200: a browser
            gets the session cookie, and a script that asks for JSON gets the bearer token.
        """
        incoming = self._incoming(request)
        if not incoming.wants_json:
            response: Response = await self._signed_in(request, user, token)
            self.store_in_session(response, token)
            return response
        content = {"status": "success", "subject": self.auth.tokens.subject(token.session.user_id)}
        if incoming.client.browser and not self._bearer_for_browsers:
            response = JSONResponse(content)
            self.store_in_session(response, token)
            return response
        return JSONResponse({**content, "token": str(token)})

    async def _signed_in(self, request: Request, user: U, token: AccessToken) -> Response:
        incoming = self._incoming(request)
        if not incoming.wants_page:
            return PlainTextResponse("Access granted")
        incoming.becomes(AuthState(user, token.session, "session", (), None, self.auth))
        if (found := await self._serving.view_again(incoming)) is not None:
            activity, view = found
            return await self.handle_view(request, activity, view)
        if goal := self._pages.return_to(incoming) or self.auth.pages.account:
            return RedirectResponse(goal, 303)
        return self._pages.message(_GRANTED, _SIGNED_IN, incoming, links=self._pages.next_links(incoming))

    async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """The request failed. An unknown route has ``Activity(None, None)`` and a ``RouteNotFoundError``.

        ``reason.status``, ``code``, ``title``, ``detail`` and ``fields`` may be shown; ``reason.reason`` is for the
        log. By default problem details (RFC 9457) or text. A browser gets the form again with its errors, the sign-in
        page if no user is signed in, or a page that says what to do next.
        """
        incoming = self._incoming(request)
        if not incoming.wants_page:
            return problem(reason, json=incoming.wants_json, say=incoming.say)
        if (way := self._pages.way_round(incoming, reason)) is not None:
            return RedirectResponse(way, 303)
        if _can_be_mended(reason) and (answer := await self._again(request, activity, reason)) is not None:
            return answer
        has_way_on = isinstance(reason, InvalidTokenError) or _can_be_mended(reason)
        return self._pages.failure(reason, incoming, links=self._pages.next_links(incoming) if has_way_on else EMPTY)

    async def _again(self, request: Request, activity: Activity, reason: AuthError) -> Response | None:
        """The form that was sent, with its errors; None if it was not a form, or only a button of another page."""
        incoming = self._incoming(request)
        if (found := await self._serving.view_again(incoming)) is not None:
            viewed, view = found
            return self._pages.view(view, viewed, incoming, failed=activity, reason=reason)
        # If the store does not answer, it is not asked a second time.
        is_down = isinstance(reason, UnavailableError)
        form = incoming.form if is_down else await self._serving.form_again(request, incoming)
        if form is None or not form.title:
            return None
        return await self._serving.draw_form(request, incoming, form, incoming.shown, reason)

    async def handle_form(
        self, request: Request, activity: Activity, form: Form, values: Mapping[str, Any], reason: AuthError | None
    ) -> Response:
        """Draw a form, for the first time or again. By default the page of the library.

        Args:
            request: For ``link_token`` and ``return_to``, which the form passes on in hidden fields.
            activity: Where the form posts to, unless the form has its own action; ``path`` returns its path.
            form: The form to draw.
            values: The values that the user sent before, without secrets.
            reason: Why they were refused, with a message for each field in ``reason.fields``; None: nothing was sent.
        """
        return self._pages.form(form, activity, self._incoming(request), values, reason)

    async def handle_accepted(self, request: Request, activity: Activity) -> Response:
        """The request succeeded without a sign-in, such as a reset request or a new password. By default 200."""
        incoming = self._incoming(request)
        if incoming.form is not None and incoming.wants_page:
            links = self._pages.next_links(incoming)
            return self._pages.message(incoming.form.done_title, incoming.form.done, incoming, links=links)
        if incoming.wants_json:
            return JSONResponse({"status": "accepted"})
        return PlainTextResponse("Accepted")

    async def handle_challenge(self, request: Request, activity: Activity, data: Mapping[str, Any]) -> Response:
        """A step answers with data, or a sign-in requires another factor.

        Args:
            request: Its body has been read; see ``params``.
            activity: The strategy and the phase.
            data: The data of the step. If a factor is required: ``factors``, the names of the accepted factors. A
                client that is not a browser also gets ``pending_token`` and sends it back as the parameter of that
                name.

        Returns:
            By default JSON, with status 401 if a factor is required. A browser that wants a page is redirected to the
            page of the factor.
        """
        incoming = self._incoming(request)
        if incoming.factor_required is None:
            return JSONResponse({"status": "challenge", **data})
        page = self._pages.of_factor(incoming.factor_required.factors, incoming)
        if incoming.wants_page and page is not None:
            return RedirectResponse(page, 303)
        return problem(incoming.factor_required, json=not incoming.wants_page, more=data, say=incoming.say)

    async def handle_view(self, request: Request, activity: Activity, view: View) -> Response:
        """Show a view, such as an invitation; nothing was changed. By default its page, or its data as JSON.

        A view without a title has no page.
        """
        if not view.title or not self._incoming(request).wants_page:
            return JSONResponse({"status": "view", **view.data})
        return self._pages.view(view, activity, self._incoming(request))

    async def handle_sign_out(self, request: Request) -> Response:
        """The session has ended. This answer removes its cookie. By default 200."""
        incoming = self._incoming(request)
        if incoming.wants_json:
            return JSONResponse({"status": "signed_out"})
        if not incoming.wants_page:
            return PlainTextResponse("Signed out")
        if (found := await self._serving.view_again(incoming)) is not None:
            activity, view = found
            return await self.handle_view(request, activity, view)
        if return_to := self._pages.return_to(incoming):
            return RedirectResponse(return_to, 303)
        return self._pages.message(_SIGNED_OUT, "", incoming, links=self._pages.for_strangers(incoming))

    def add_headers(self, request: Request, response: Response) -> None:
        """Add headers of your own to every answer, also to errors. By default none.

        The plug always adds the security headers afterwards (``answers.add_security_headers``).
        """

    # --- to use in overridden callbacks

    def store_in_session(self, response: Response, token: AccessToken) -> None:
        """Give the browser the session cookie of this sign-in.

        Raises:
            TypeError: *token* is not the ``AccessToken`` of a sign-in. A bearer token is never put into a cookie.
        """
        if not isinstance(token, AccessToken):
            raise TypeError("store_in_session: token must be the AccessToken of a sign-in")
        max_age = None
        if token.session.remembered:
            max_age = int((token.session.expires_at - self.auth.clock()).total_seconds())
        name, secure = self.auth.site.session_cookie, self.auth.site.secure
        keep_cookie(response, name, token.cookie, secure=secure, max_age=max_age)
        clear_site_data(response, *PREFETCHED)  # of the user who was signed in before

    async def clear_session(self, request: Request, response: Response) -> None:
        """End the session of the browser's cookie, and any unfinished sign-in of this browser.

        The answer also removes their cookies and the prefetched pages from the browser.

        Raises:
            MalformedRequestError: a cookie has more than 8 different values; nothing was changed.
            UnavailableError: the session could not be ended; nothing was changed.
        """
        await self.revoke_session_tokens(request)
        self._serving.forget(self._incoming(request), response)

    async def revoke_session_tokens(self, request: Request) -> None:
        """End the session of the browser's cookie, and every bearer token of that session.

        An unfinished sign-in of this browser ends too. If there are several session cookies, the session of each one
        ends: one of them may be planted, and the real session must still end.

        Raises:
            MalformedRequestError: there are more than 8 different cookies of a kind; nothing was ended.
            UnavailableError: nothing was ended.
        """
        await self.auth.sessions.revoke_shown(self._incoming(request).client)

    async def revoke_bearer_tokens(self, request: Request) -> None:
        """End the session of the bearer token in the Authorization header; any other token ends nothing.

        If there are several headers, the session of each readable token ends. Such a request is not authenticated, but
        each token alone would be.

        Raises:
            MalformedRequestError: there are more than 8 different tokens, or cookies of the library; nothing was ended.
            UnavailableError: the database does not answer.
        """
        incoming = self._incoming(request)
        client = incoming.client
        for token in incoming.access_tokens:
            with suppress(InvalidTokenError):
                claims = self.auth.tokens.verify_access(token)
                await self.auth.sessions.revoke(claims.session_id, user_id=claims.user_id, client=client)

    def return_to(self, request: Request, default: str = "/") -> str:
        """The page that the user wanted: ``return_to`` of the body or the query if it is allowed (RD-1), or *default*.

        The path is the one that the browser sees, with the prefix of a proxy. *default* is returned unchanged.
        """
        wanted = self._incoming(request).return_to
        return safe_return_to(wanted, allowed=self.auth.allowed_return_to) or default

    def params(self, request: Request) -> Mapping[str, Any]:
        """The parameters without their secrets, to draw a form again."""
        return self._incoming(request).shown

    def link_token(self, request: Request) -> str:
        """The token of the mailed link that the user opened or whose form they sent, for a hidden field of the form.

        Empty if there is none. Do not put it into a URL or a log.
        """
        return self._incoming(request).link_token

    def path(self, activity: Activity) -> str:
        """The path that a form of this activity posts to, such as ``/auth/password/sign_in``."""
        return self._routing.path(activity)

    def locale(self, request: Request) -> str:
        """The language of the answer, for ``lang`` of a page: a tag such as ``pt-BR``."""
        return self._incoming(request).locale

    def say(self, request: Request, text: str) -> str:
        """*text* in that language, such as ``reason.title`` or a label. A plain string is returned unchanged."""
        return self._incoming(request).say(text)

    def _incoming(self, request: Request) -> Incoming:
        return Incoming.of(request, self.auth)

    # --- ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3. A websocket under the plug's paths is closed before it is accepted (WS-3)."""
        kind = scope["type"]
        if kind == "lifespan":
            await serve_lifespan(self.auth, self.app, scope, receive, send)
        elif self.app is not None and not (kind in ("http", "websocket") and self._routing.wraps(scope)):
            await self.app(scope, receive, send)
        elif kind == "http":
            await self._serving.serve(Request(scope, receive), send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1000})


def _can_be_mended(reason: AuthError) -> bool:
    """Whether the user can send the same form again, with other values or later."""
    if isinstance(reason, InvalidTokenError):
        return False
    return isinstance(reason, ValidationError | AuthenticationFailedError | RateLimitedError | UnavailableError)
