"""AuthPlug: serves ``/auth/<strategy>/<phase>`` and ``/auth/sign_out``."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, Generic
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_auth.authentication import Authentication
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    ConfigurationError,
    CrossSiteError,
    FactorRequiredError,
    ForbiddenError,
    InvalidTokenError,
    MalformedRequestError,
    MethodNotAllowedError,
    MisdirectedRequestError,
    NotFreshError,
    RateLimitedError,
    RouteNotFoundError,
    UnavailableError,
    ValidationError,
)
from asgi_auth.pages import form_page, message_page, view_page
from asgi_auth.phases import (
    Accepted,
    Challenge,
    Finished,
    Form,
    Outcome,
    Phase,
    PhaseRequest,
    Redirect,
    TokenIssued,
    View,
)
from asgi_auth.protocol.bearer import read_bearer
from asgi_auth.protocol.caching import CACHED, PREFETCHED, is_speculative
from asgi_auth.protocol.cross_site import SAFE_METHODS
from asgi_auth.protocol.headers import check_headers
from asgi_auth.protocol.return_to import safe_return_to
from asgi_auth.runtime.callables import require_async
from asgi_auth.runtime.jobs import collect_jobs
from asgi_auth.runtime.loop import running_loop
from asgi_auth.types import EMPTY, AccessToken, Activity
from asgi_auth.web.answers import add_security_headers, clear_site_data, draw, problem, reason_headers
from asgi_auth.web.bodies import ClientGone, discard_body, unless_gone
from asgi_auth.web.browser import drop_cookie, keep_cookie
from asgi_auth.web.clients import proxy_advice
from asgi_auth.web.incoming import Incoming
from asgi_auth.web.middleware import serve_lifespan
from asgi_auth.web.routing import SIGN_OUT, Routing

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    U = TypeVar("U", default=Any)  # so that a subclass need not name it
else:
    from typing import TypeVar

    U = TypeVar("U")

_NEW_LINK = "Ask for a new link where you asked for this one."
_TRY_AGAIN = "Go back to the page before this one to try again."

_CALLBACKS: Mapping[type, tuple[str, Callable[[Any], tuple[Any, ...]]]] = {
    Finished: ("handle_success", lambda done: (done.user, done.token)),
    Accepted: ("handle_accepted", lambda _: ()),
    Challenge: ("handle_challenge", lambda challenge: (challenge.data,)),
    TokenIssued: ("handle_challenge", lambda issued: ({"token": issued.token},)),
    View: ("handle_view", lambda view: (view,)),
    Redirect: ("_redirect", lambda redirect: (redirect.url,)),
}
"""Which callback answers which outcome, and what it is given beside the request and the activity."""


class AuthPlug(Generic[U]):
    """An ASGI application for ``Mount("/auth", AuthPlug(auth))``.

    Where there is no mounting, ``AuthPlug(auth, app=inner)`` serves ``auth.mount_path`` and passes the rest on.
    Subclass it and override what is to happen: ``handle_success``, ``handle_failure`` and the others.

    Args:
        auth: Whose strategies are served.
        app: The application to wrap; None to be mounted.
        clear_cache_on_sign_out: Have the browser empty its whole cache of this origin at a sign-out, which can take
            seconds.
        bearer_for_browsers: Give a page's scripts the bearer token, not the cookie, in the JSON answer to a sign-in.
            Whatever can run a script in the page can then take the token along.
    """

    body_limit: ClassVar[int] = 64 * 1024
    """Bytes of a request body."""
    body_timeout: ClassVar[timedelta] = timedelta(seconds=10)
    """How long a request body may take to arrive."""

    _callbacks: ClassVar[tuple[str, ...]] = (
        *("handle_success", "handle_failure", "handle_accepted", "handle_challenge", "handle_view", "handle_sign_out"),
        *("clear_session", "revoke_session_tokens", "revoke_bearer_tokens"),
    )

    def __init__(
        self,
        auth: Authentication[U],
        app: ASGIApp | None = None,
        *,
        bearer_for_browsers: bool = False,
        clear_cache_on_sign_out: bool = False,
    ) -> None:
        require_async(self, *self._callbacks, parameter="AuthPlug")
        self.auth, self.app, self._bearer_for_browsers = auth, app, bearer_for_browsers
        self._cleared = (*PREFETCHED, CACHED) if clear_cache_on_sign_out else PREFETCHED
        self._telling = auth.services.telling
        self._routing = Routing(auth.mount_path, self._telling)

    # --- to override

    async def handle_success(self, request: Request, activity: Activity, user: U, token: AccessToken) -> Response:
        """Somebody was signed in.

        Args:
            request: Its body has been read; see ``params``.
            activity: Which strategy and phase.
            user: The application's own user object.
            token: The bearer token, and for ``store_in_session`` the cookie.

        Returns:
            By default 200: a browser gets the session cookie, a script that asks for JSON the bearer token.
        """
        incoming = self._incoming(request)
        if not incoming.wants_json:
            response: Response = PlainTextResponse("Access granted")
            self.store_in_session(response, token)
            return response
        content = {"status": "success", "subject": self.auth.tokens.subject(token.session.user_id)}
        if incoming.client.browser and not self._bearer_for_browsers:
            response = JSONResponse(content)
            self.store_in_session(response, token)
            return response
        return JSONResponse({**content, "token": str(token)})

    async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """Something was refused; also an unknown route (``Activity(None, None)`` and a ``RouteNotFoundError``).

        ``reason.status``, ``code``, ``title`` and ``fields`` may be shown; ``reason.reason`` is for the log. By default
        problem details (RFC 9457) or text; the page behind a mailed link is drawn again with what is wrong.
        """
        incoming = self._incoming(request)
        phase, form = incoming.phase, incoming.form
        if not incoming.wants_page or (form is None and (phase is None or "GET" not in phase.methods)):
            return problem(reason, json=incoming.wants_json)
        if form is not None and isinstance(reason, ValidationError):
            return self._draw(form, activity, incoming.params, reason.fields, reason.status)
        advice = _NEW_LINK if isinstance(reason, InvalidTokenError) else _TRY_AGAIN
        if isinstance(reason, (InvalidTokenError, ForbiddenError)):  # theirs are whole sentences
            advice = " ".join(reason.fields.values()) or advice
        return draw(message_page(reason.title, advice, app_name=self.auth.app_name, status=reason.status))

    async def handle_accepted(self, request: Request, activity: Activity) -> Response:
        """Done, and nobody was signed in: a reset was asked for, a password was set. By default 200."""
        incoming = self._incoming(request)
        if incoming.form is not None and incoming.wants_page:
            return draw(message_page("Done", incoming.form.done, app_name=self.auth.app_name))
        if incoming.wants_json:
            return JSONResponse({"status": "accepted"})
        return PlainTextResponse("Accepted")

    async def handle_challenge(self, request: Request, activity: Activity, data: Mapping[str, Any]) -> Response:
        """A step that answers with data, or a sign-in that owes another factor.

        Args:
            request: Its body has been read; see ``params``.
            activity: Which strategy and phase.
            data: What the step answers. Where a factor is missing: ``factors``, the names of those that would do, and
                for a client that is no browser ``pending_token``, which it sends back as the parameter of that name.

        Returns:
            By default JSON, with status 401 where a factor is missing; a browser that wants a page is sent on to that
            of the factor.
        """
        incoming = self._incoming(request)
        if incoming.factor_required is None:
            return JSONResponse({"status": "challenge", **data})
        page = self._factor_page(incoming.factor_required.factors)
        if incoming.wants_page and page is not None:
            return RedirectResponse(self._with_return_to(page, incoming), 303)
        return problem(incoming.factor_required, json=not incoming.wants_page, more=data)

    async def handle_view(self, request: Request, activity: Activity, view: View) -> Response:
        """Something to look at, such as an invitation; nothing was changed. By default its page, or its data as JSON.

        A view without a title has no page.
        """
        if not view.title or not self._incoming(request).wants_page:
            return JSONResponse({"status": "view", **view.data})
        forms = [(form, self._routing.path(form.action or activity)) for form in view.forms]
        return draw(view_page(view, [*self._registrations(view), *forms], app_name=self.auth.app_name))

    async def handle_sign_out(self, request: Request) -> Response:
        """The session is over and its cookie goes with this answer. By default 200."""
        if self._incoming(request).wants_json:
            return JSONResponse({"status": "signed_out"})
        return PlainTextResponse("Signed out")

    # --- to use in what is overridden

    def store_in_session(self, response: Response, token: AccessToken) -> None:
        """Give the browser the session cookie of this sign-in.

        Raises:
            TypeError: *token* is not the ``AccessToken`` of a sign-in; a bearer token never becomes a cookie.
        """
        if not isinstance(token, AccessToken):
            raise TypeError("store_in_session takes the AccessToken of a sign-in, and nothing else")
        max_age = None
        if token.session.remembered:
            max_age = int((token.session.expires_at - self.auth.clock()).total_seconds())
        name, secure = self.auth.site.session_cookie, self.auth.site.secure
        keep_cookie(response, name, token.cookie, secure=secure, max_age=max_age)
        clear_site_data(response, *PREFETCHED)  # of the user who was signed in before

    async def clear_session(self, request: Request, response: Response) -> None:
        """End the session of the browser's cookie and any sign-in under way in it, and remove what it keeps of them.

        Those are their cookies, and the pages that it has prefetched.

        Raises:
            MalformedRequestError: a cookie came with more than 8 different values; nothing was changed.
            UnavailableError: the session could not be ended; nothing was changed.
        """
        await self.revoke_session_tokens(request)
        self._forget(self._incoming(request), response)

    def _forget(self, incoming: Incoming, response: Response) -> None:
        incoming.browser.drop_sign_in()
        incoming.browser.apply(response)
        # Written at once, so that a callback may store another session after it.
        drop_cookie(response, self.auth.site.session_cookie, secure=self.auth.site.secure)
        clear_site_data(response, *self._cleared)

    async def revoke_session_tokens(self, request: Request) -> None:
        """End the session that the browser's cookie opens, and with it every bearer token of that session.

        A sign-in that waits in this browser for its next factor ends, too. Of several cookies every one that is ours
        counts: one may be planted, and the session has to end all the same.

        Raises:
            MalformedRequestError: there are more than 8 different ones of a kind; nothing was ended.
            UnavailableError: nothing was ended.
        """
        await self.auth.sessions.revoke_shown(self._incoming(request).client)

    async def revoke_bearer_tokens(self, request: Request) -> None:
        """End the session of the bearer token in the Authorization header; any other token ends nothing.

        Of several headers every one that can be read counts: they let nobody in, but each may do so alone.

        Raises:
            MalformedRequestError: there are more than 8 different tokens, or cookies of ours; nothing was ended.
            UnavailableError: the database does not answer.
        """
        incoming = self._incoming(request)
        client = incoming.client
        for token in incoming.access_tokens:
            with suppress(InvalidTokenError):
                claims = self.auth.tokens.verify_access(token)
                await self.auth.sessions.revoke(claims.session_id, user_id=claims.user_id, client=client)

    def return_to(self, request: Request, default: str = "/") -> str:
        """Where the user wanted to go: ``return_to`` of the body or the query, if it is ours (RD-1), else *default*.

        A path as the browser sees it, with the prefix of a proxy; *default* is returned as it is.
        """
        wanted = self._incoming(request).return_to
        return safe_return_to(wanted, allowed=self.auth.allowed_return_to) or default

    def params(self, request: Request) -> Mapping[str, Any]:
        """What was sent, without its secrets, to draw a form again."""
        return self._incoming(request).shown

    def link_token(self, request: Request) -> str:
        """The token of the mailed link whose form was sent, to put into a hidden field of the form drawn again.

        Empty if there is none. Never into a URL, nor a log.
        """
        return self._incoming(request).link_token

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
            await self._serve(Request(scope, receive), send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _serve(self, request: Request, send: Send) -> None:
        running_loop()
        incoming = Incoming(request, self.auth)
        incoming.keep()
        with collect_jobs(lambda: incoming.source) as jobs:
            try:
                response = await self._respond(request, incoming)
                if await discard_body(request):
                    await response(request.scope, request.receive, send)
            except ClientGone:
                return
            finally:
                await self.auth.services.commit.jobs.finish(jobs)

    async def _respond(self, request: Request, incoming: Incoming) -> Response:
        try:
            self._check(incoming)
            response = await self._answer(request, incoming)
            incoming.browser.apply(response)
        except FactorRequiredError as reason:
            response = await self._ask_for_factor(request, incoming, reason)
            incoming.browser.apply(response)
        except ConfigurationError:  # of the store, opened by this request: the server logs it, with its traceback
            raise
        except AuthError as reason:
            activity = incoming.activity
            self._log(activity, reason)
            response = await answered(self.handle_failure(request, activity, reason), self.handle_failure)
            response.headers.update(reason_headers(reason, request.scope, realm=self.auth.app_name))
            with suppress(MalformedRequestError):  # too many cookies to tell: none was read, none was changed
                incoming.browser.apply(response)
        add_security_headers(response)
        return response

    def _check(self, incoming: Incoming) -> None:
        """Refuse what is not even looked at, and find the phase."""
        scope = incoming.scope
        check_headers(scope["headers"])
        # Said once. A local instance is for development, which needs no limits.
        for kind, advice in proxy_advice(scope, self.auth):
            self._telling.once(logging.WARNING if self.auth.secure else logging.INFO, kind, advice)
        self.auth.site.check_host(scope["headers"])
        activity = self._routing.find(scope)
        phase = self._phase(activity)
        if phase is None and activity != SIGN_OUT:
            raise RouteNotFoundError("no such route")
        incoming.activity, incoming.phase = activity, phase
        self._routing.check_mount(scope, activity)

    def _log(self, activity: Activity, reason: AuthError) -> None:
        """What the client is not told; refused credentials have been logged where they were refused."""
        what = ".".join(filter(None, activity)) or "a request"
        if isinstance(reason, UnavailableError):
            self._telling.tell(logging.ERROR, reason.code, "%s: %s", what, reason.reason)
        elif isinstance(reason, RateLimitedError):
            self._telling.tell(logging.WARNING, f"{reason.code} {what}", "%s refused: %s", what, reason.reason)
        elif isinstance(reason, (CrossSiteError, MisdirectedRequestError)):
            # By the code: a stranger makes up as many origins as they like.
            self._telling.tell(logging.WARNING, reason.code, "%s was refused: %s", what, reason.reason)

    # --- the steps of a request

    async def _answer(self, request: Request, incoming: Incoming) -> Response:
        phase, method = incoming.phase, request.method
        allowed = ("POST",) if phase is None else phase.allowed
        if method not in allowed:
            raise MethodNotAllowedError("wrong method", headers={"Allow": ", ".join(allowed)})
        if method in SAFE_METHODS and (answer := self._look(incoming)) is not None:
            return answer
        if not incoming.is_foreign and self.auth.site.crosses_sites(request.scope):
            raise self.auth.site.refusal(request.scope)
        incoming.browser.check()
        if phase is not None and phase.who == "session":
            read_bearer(request.scope["headers"])  # two credentials are none: 400 (RP-5)
        await incoming.read(request, limit=self.body_limit, timeout=self.body_timeout)
        if not self.auth.upkeep.started:  # the server sends no lifespan messages
            await self.auth.upkeep.start()
        if phase is None:
            return await self._sign_out(request, incoming)
        return await self._run(request, incoming, phase)

    def _look(self, incoming: Incoming) -> Response | None:
        """The answer to a GET that asks no phase: the page of a form, or one that a browser fetches ahead of time."""
        phase = incoming.phase
        if phase is not None and phase.form is not None and "GET" not in phase.methods:
            return self._draw(phase.form, incoming.activity, incoming.query, EMPTY, 200)
        if is_speculative(incoming.scope["headers"]):
            # A callback consumes something, and nobody has opened the page yet. A browser discards such an answer and
            # asks again. The application is not asked: it may redirect.
            return Response(status_code=503, headers={"Retry-After": "0"})
        return None

    async def _sign_out(self, request: Request, incoming: Incoming) -> Response:
        with self.auth.services.commit.acting(SIGN_OUT, client=incoming.client):
            await self.revoke_bearer_tokens(request)
            await self.revoke_session_tokens(request)
        response = await answered(self.handle_sign_out(request), self.handle_sign_out)
        self._forget(incoming, response)
        return response

    async def _run(self, request: Request, incoming: Incoming, phase: Phase) -> Response:
        client, activity = incoming.client, incoming.activity
        # Before the store is asked, and before any task is made, each of which would wait for those of a whole crowd.
        with self.auth.services.passwords.place(client.address) if phase.hashes else nullcontext():
            asked = await self._asked(request, incoming, phase)
            actor = None if asked.state.method is None else self.auth.accounts.user_id(asked.state.user)
            act = partial(self._handle, phase, asked)
            acting = self.auth.perform(activity, act, client, params=incoming.public, actor=actor)
            try:
                outcome = await unless_gone(request.receive, acting)
            except InvalidTokenError:
                if phase.who == "pending":  # there is nothing to go on with
                    incoming.browser.drop("pending")
                raise
        if isinstance(outcome, Finished):
            incoming.browser.drop("pending")
        return await self._call_back(request, activity, outcome)

    async def _asked(self, request: Request, incoming: Incoming, phase: Phase) -> PhaseRequest:
        state, pending = self.auth.recognition.anonymous, None
        if phase.who in ("known", "session") and not incoming.is_foreign:
            state = await self.auth.recognition.every_state(request.scope)
        if phase.who == "pending":
            sent = incoming.params.get("pending_token")
            pending = sent if isinstance(sent, str) and sent else incoming.browser.read("pending")
        return PhaseRequest(
            method=request.method,
            params=incoming.params,
            query_string=request.scope.get("query_string", b""),
            client=incoming.client,
            browser=incoming.browser,
            pending=pending,
            state=state,
        )

    async def _handle(self, phase: Phase, asked: PhaseRequest) -> Outcome:
        """Run a phase, if this client may; a refusal is one of the act."""
        session = asked.state.session
        if phase.who == "session":
            if session is None:
                raise asked.state.error or AuthenticationFailedError("nobody is signed in", cause="not_signed_in")
            if phase.fresh is not None and not self.auth.sessions.is_fresh(session, phase.fresh):
                raise NotFreshError("the last proof is too old", user_id=session.user_id)
        if phase.who == "pending" and not asked.pending:
            raise AuthenticationFailedError("no sign-in waits for this factor", cause="not_signed_in")
        outcome = await phase.handle(asked)
        if phase.cross_site and asked.method == "POST" and not isinstance(outcome, Redirect):
            raise TypeError(f"the phase {phase.name!r} answers a POST of another site with anything but a Redirect")
        return outcome

    async def _ask_for_factor(self, request: Request, incoming: Incoming, reason: FactorRequiredError) -> Response:
        """A browser keeps the pending token as a cookie only; any other client is told it."""
        incoming.factor_required = reason
        data: dict[str, Any] = {"factors": list(reason.factors)}
        if incoming.client.browser or incoming.wants_page:
            lifetime = self.auth.session_options.pending_lifetime
            incoming.browser.keep("pending", reason.pending_token, lifetime=lifetime)
        else:
            data["pending_token"] = reason.pending_token
        response = await self._call_back(request, incoming.activity, Challenge(data))
        if response.status_code == reason.status:
            response.headers.update(reason_headers(reason, request.scope, realm=self.auth.app_name))
        return response

    async def _call_back(self, request: Request, activity: Activity, outcome: Any) -> Response:
        if type(outcome) not in _CALLBACKS:
            raise TypeError(f"{activity} returned {type(outcome).__name__}, which is no outcome")
        name, arguments = _CALLBACKS[type(outcome)]
        callback = getattr(self, name)
        return await answered(callback(request, activity, *arguments(outcome)), callback)

    async def _redirect(self, request: Request, activity: Activity, url: str) -> Response:
        return RedirectResponse(url, 303)

    # --- parts

    def _phase(self, activity: Activity) -> Phase | None:
        return self.auth.routes.get((activity.strategy or "", activity.phase or ""))

    def _factor_page(self, factors: Iterable[str]) -> str | None:
        """Where a person shows one of these factors; None: on no page of the library."""
        pages = (
            self._routing.path(Activity(name, phase.name))
            for (name, _), phase in self.auth.routes.items()
            if name in factors and phase.who == "pending" and phase.page
        )
        return next(pages, None)

    def _with_return_to(self, page: str, incoming: Incoming) -> str:
        wanted = safe_return_to(incoming.return_to, allowed=self.auth.allowed_return_to)
        return page if wanted is None else f"{page}?{urlencode({'return_to': wanted})}"

    def _registrations(self, view: View) -> list[tuple[Form, str]]:
        """The forms of every registration that a view offers, with where they post to."""
        return [
            (phase.registers, self._routing.path(Activity(name, phase.name)))
            for (name, _), phase in self.auth.routes.items()
            if view.registers and phase.registers is not None and (not view.strategies or name in view.strategies)
        ]

    def _draw(
        self, form: Form, activity: Activity, sent: Mapping[str, Any], problems: Mapping[str, str], status: int
    ) -> Response:
        """The page of *form*; the token of the mailed link, in *sent* by query or form, goes on in it."""
        token = sent.get(form.token) if form.token is not None else None
        page = form_page(
            form,
            action=self._routing.path(activity),
            token=token if isinstance(token, str) else "",
            return_to=safe_return_to(sent.get("return_to"), allowed=self.auth.allowed_return_to) or "",
            app_name=self.auth.app_name,
            problems=problems,
            status=status,
        )
        return draw(page)


async def answered(answer: object, callback: Callable[..., object]) -> Response:
    """What an overridden callback returned, or an error that names it."""
    if not isawaitable(answer):
        raise TypeError(f"{callback.__qualname__} must be 'async def'")
    response = await answer
    if not isinstance(response, Response):
        raise TypeError(f"{callback.__qualname__} returned {type(response).__name__}, not a Response")
    return response
