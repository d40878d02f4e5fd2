"""The steps of a request to the plug: check it, read it, run its phase and call a callback for the answer."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Send

from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    ConfigurationError,
    CrossSiteError,
    FactorRequiredError,
    InvalidTokenError,
    MalformedRequestError,
    MethodNotAllowedError,
    MisdirectedRequestError,
    NotFreshError,
    RateLimitedError,
    UnavailableError,
)
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
from asgi_auth.protocol.cross_site import SAFE_METHODS
from asgi_auth.runtime.jobs import collect_jobs
from asgi_auth.runtime.loop import running_loop
from asgi_auth.types import EMPTY, Activity
from asgi_auth.web.answers import add_security_headers, clear_site_data
from asgi_auth.web.bodies import ClientGone, discard_body, unless_gone
from asgi_auth.web.browser import drop_cookie
from asgi_auth.web.clients import is_insecure_test
from asgi_auth.web.incoming import Incoming
from asgi_auth.web.plug_pages import PlugPages
from asgi_auth.web.routing import OWN, SIGN_OUT, Routing

if TYPE_CHECKING:
    from asgi_auth.web.plug import AuthPlug

_CALLBACKS: Mapping[type, tuple[str, Callable[[Any], tuple[Any, ...]]]] = {
    Finished: ("handle_success", lambda done: (done.user, done.token)),
    Accepted: ("handle_accepted", lambda _: ()),
    Challenge: ("handle_challenge", lambda challenge: (challenge.data,)),
    TokenIssued: ("handle_challenge", lambda issued: ({"token": issued.token},)),
    View: ("handle_view", lambda view: (view,)),
}
"""The callback for each outcome, and its arguments after the request and the activity."""

_INSECURE_TEST = (
    "the test client will not send the cookie of this answer back: base_url is {0}, so the cookie is Secure, and the "
    'client asks over http. Give the client that address: TestClient(app, base_url="{0}")'
)


class Serving:
    """Serves the requests of one plug."""

    def __init__(self, plug: "AuthPlug[Any]", routing: Routing, pages: PlugPages, *, cleared: Sequence[str]) -> None:
        """Args: cleared: The Clear-Site-Data values that a sign-out sends to browsers."""
        self._plug, self._auth, self._routing, self._pages = plug, plug.auth, routing, pages
        self._telling, self._cleared = plug.auth.services.telling, cleared

    async def serve(self, request: Request, send: Send) -> None:
        running_loop()
        incoming = Incoming(request, self._auth)
        incoming.keep()
        with collect_jobs(lambda: incoming.source) as jobs:
            try:
                response = await self._respond(request, incoming)
                if await discard_body(request):
                    await response(request.scope, request.receive, send)
            except ClientGone:
                return
            finally:
                await self._auth.services.commit.jobs.finish(jobs)

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
            response = await answered(self._plug.handle_failure(request, activity, reason), self._plug.handle_failure)
            if response.status_code not in range(300, 400):  # a redirect to a page is not an error response
                response.headers.update(incoming.headers_of(reason))
            with suppress(MalformedRequestError):  # too many cookies: none was read, none was changed
                incoming.browser.apply(response)
        self._plug.add_headers(request, response)
        add_security_headers(response)
        if self._auth.secure and "set-cookie" in response.headers and is_insecure_test(request.scope):
            self._telling.once(logging.WARNING, "insecure test", _INSECURE_TEST.format(self._auth.base_url))
        return response

    def _check(self, incoming: Incoming) -> None:
        """Check the transport, and find the phase."""
        incoming.check_transport()
        # Logged once. A local instance is for development and needs no limits.
        for kind, advice in incoming.proxy_advice:
            self._telling.once(logging.WARNING if self._auth.secure else logging.INFO, kind, advice)
        incoming.find_phase(self._routing)

    def _log(self, activity: Activity, reason: AuthError) -> None:
        """Log reasons that the client is not told. Rejected credentials were already logged."""
        what = ".".join(filter(None, activity)) or "a request"
        if isinstance(reason, UnavailableError):
            self._telling.tell(logging.ERROR, reason.code, "%s: %s", what, reason.reason)
        elif isinstance(reason, RateLimitedError):
            self._telling.tell(logging.WARNING, f"{reason.code} {what}", "%s refused: %s", what, reason.reason)
        elif isinstance(reason, (CrossSiteError, MisdirectedRequestError)):
            # By the code, because an attacker can make up any number of origins.
            self._telling.tell(logging.WARNING, reason.code, "%s was refused: %s", what, reason.reason)

    # --- the steps of a request

    async def _answer(self, request: Request, incoming: Incoming) -> Response:
        phase, method = incoming.phase, request.method
        allowed = OWN[incoming.activity] if phase is None else phase.allowed
        if method not in allowed:
            raise MethodNotAllowedError("wrong method", headers={"Allow": ", ".join(allowed)})
        if method in SAFE_METHODS and (answer := await self._look(request, incoming)) is not None:
            return answer
        incoming.check_site()
        await incoming.read(request, limit=self._plug.body_limit, timeout=self._plug.body_timeout)
        if not self._auth.upkeep.started:  # the server sends no lifespan messages
            await self._auth.upkeep.start()
        if phase is None:
            return await self._sign_out(request, incoming)
        return await self._run(request, incoming, phase)

    async def _look(self, request: Request, incoming: Incoming) -> Response | None:
        """The answer to a GET that runs no phase: a page, or 503 for a prefetch of a callback; otherwise None."""
        phase = incoming.phase
        if phase is None:
            return await self._show_account(request, incoming)
        if phase.form is not None and "GET" not in phase.methods:
            return await self._show_form(request, incoming, phase, phase.form)
        if incoming.is_speculative:
            # A callback consumes a token, and the user has not opened the page yet. A browser discards this answer and
            # asks again. No callback of the application is called, because it may redirect.
            return Response(status_code=503, headers={"Retry-After": "0"})
        return None

    async def _show_account(self, request: Request, incoming: Incoming) -> Response:
        state = await incoming.state()
        if state.session is None:
            raise state.error or _not_signed_in()
        view = await self._pages.account(state.user, self._auth.accounts.display_name(state.user))
        return await self._call_back(request, incoming.activity, view)

    async def _show_form(self, request: Request, incoming: Incoming, phase: Phase, form: Form) -> Response:
        """The page of a form, for clients that may use the phase."""
        # The page of a mailed link opens for every client. Otherwise the redirect to the sign-in would lose the token.
        is_closed = phase.who == "session" and form.token is None
        if is_closed or phase.form_for is not None:
            asked = await self._asked(request, incoming, phase)
            if is_closed:
                self._check_who(phase, asked)
            if phase.form_for is not None:
                form = await phase.form_for(asked)
        return await self.draw_form(request, incoming, form, EMPTY, None)

    async def draw_form(
        self, request: Request, incoming: Incoming, form: Form, values: Mapping[str, Any], reason: AuthError | None
    ) -> Response:
        """Call ``handle_form`` to draw a form."""
        answer = self._plug.handle_form(request, incoming.activity, form, values, reason)
        return await answered(answer, self._plug.handle_form)

    async def form_again(self, request: Request, incoming: Incoming) -> Form | None:
        """The form to draw again after this request was refused; None if there is none."""
        phase, form = incoming.phase, incoming.form
        if phase is not None and phase.form_for is not None and form is phase.form:
            with suppress(AuthError):  # the link may be invalid by now; the general form is drawn then
                return await phase.form_for(await self._asked(request, incoming, phase))
        return form

    async def view_again(self, incoming: Incoming) -> tuple[Activity, View] | None:
        """The current view whose form was sent; None if the form belongs to no view, or its link is invalid.

        A form of a view has the token of the view.
        """
        for (name, _), phase in self._auth.routes.items():
            tokens = phase.secrets & incoming.params.keys()
            if phase.form is None and phase.page and len(tokens) == 1:
                query = urlencode({each: incoming.params[each] for each in tokens})
                sent, state = query.encode(), incoming.known
                asked = PhaseRequest(method="GET", query_string=sent, client=incoming.client, state=state)
                with suppress(AuthError):
                    if isinstance(view := await phase.handle(asked), View):
                        return Activity(name, phase.name), view
        return None

    async def _sign_out(self, request: Request, incoming: Incoming) -> Response:
        with self._auth.services.commit.acting(SIGN_OUT, client=incoming.client):
            await self._plug.revoke_bearer_tokens(request)
            await self._plug.revoke_session_tokens(request)
        incoming.becomes(self._auth.recognition.anonymous)
        response = await answered(self._plug.handle_sign_out(request), self._plug.handle_sign_out)
        self.forget(incoming, response)
        return response

    def forget(self, incoming: Incoming, response: Response) -> None:
        """Tell the browser to forget the session, and any unfinished sign-in."""
        incoming.browser.drop_sign_in()
        incoming.browser.apply(response)
        # Written at once, so that a callback can store another session afterwards.
        drop_cookie(response, self._auth.site.session_cookie, secure=self._auth.site.secure)
        clear_site_data(response, *self._cleared)

    async def _run(self, request: Request, incoming: Incoming, phase: Phase) -> Response:
        client, activity = incoming.client, incoming.activity
        # Before a call to the store and before a new task: under load each of them would wait for all the others.
        with self._auth.services.passwords.place(client.address) if phase.hashes else nullcontext():
            asked = await self._asked(request, incoming, phase)
            actor = None if asked.state.method is None else self._auth.accounts.user_id(asked.state.user)
            act = partial(self._handle, phase, asked)
            acting = self._auth.perform(activity, act, client, params=incoming.public, actor=actor)
            try:
                outcome = await unless_gone(request.receive, acting)
            except InvalidTokenError:
                if phase.who == "pending":  # the sign-in cannot continue
                    incoming.browser.drop("pending")
                raise
        if isinstance(outcome, Finished):
            incoming.browser.drop("pending")
        return await self._call_back(request, activity, outcome)

    async def _asked(self, request: Request, incoming: Incoming, phase: Phase) -> PhaseRequest:
        state, pending = self._auth.recognition.anonymous, None
        if phase.who in ("known", "session"):
            state = await incoming.state()
        if phase.who == "pending":
            sent = incoming.params.get("pending_token")
            pending = sent if isinstance(sent, str) and sent else incoming.browser.read("pending")
        return PhaseRequest(
            method=request.method,
            params=incoming.params,
            query_string=incoming.query_string,
            client=incoming.client,
            browser=incoming.browser,
            pending=pending,
            state=state,
        )

    async def _handle(self, phase: Phase, asked: PhaseRequest) -> Outcome:
        """Run a phase if this client may use it. A refusal counts as a failure of the act."""
        self._check_who(phase, asked)
        outcome = await phase.handle(asked)
        if phase.cross_site and asked.method == "POST" and not isinstance(outcome, Redirect):
            raise TypeError(f"the phase {phase.name!r} must answer a POST from another site with a Redirect")
        return outcome

    def _check_who(self, phase: Phase, asked: PhaseRequest) -> None:
        session = asked.state.session
        if phase.who == "session":
            if session is None:
                raise asked.state.error or _not_signed_in()
            if phase.fresh is not None and not self._auth.sessions.is_fresh(session, phase.fresh):
                raise NotFreshError("the last proof is too old", user_id=session.user_id)
        if phase.who == "pending" and not asked.pending:
            raise AuthenticationFailedError("no sign-in waits for this factor", cause="not_signed_in")

    async def _ask_for_factor(self, request: Request, incoming: Incoming, reason: FactorRequiredError) -> Response:
        """Ask for another factor. A browser gets the pending token only as a cookie; other clients get it as data."""
        incoming.factor_required = reason
        data: dict[str, Any] = {"factors": list(reason.factors)}
        if incoming.client.browser or incoming.wants_page:
            lifetime = self._auth.session_options.pending_lifetime
            incoming.browser.keep("pending", reason.pending_token, lifetime=lifetime)
        else:
            data["pending_token"] = reason.pending_token
        response = await self._call_back(request, incoming.activity, Challenge(data))
        if response.status_code == reason.status:
            response.headers.update(incoming.headers_of(reason))
        return response

    async def _call_back(self, request: Request, activity: Activity, outcome: Any) -> Response:
        if isinstance(outcome, Redirect):
            return RedirectResponse(outcome.url, 303)
        if type(outcome) not in _CALLBACKS:
            raise TypeError(f"{activity} returned {type(outcome).__name__}, which is not an outcome")
        name, arguments = _CALLBACKS[type(outcome)]
        callback = getattr(self._plug, name)
        return await answered(callback(request, activity, *arguments(outcome)), callback)


def _not_signed_in() -> AuthenticationFailedError:
    return AuthenticationFailedError("nobody is signed in", cause="not_signed_in")


async def answered(answer: object, callback: Callable[..., object]) -> Response:
    """Return the response of an overridden callback. Raises TypeError with its name if it returned anything else."""
    if not isawaitable(answer):
        raise TypeError(f"{callback.__qualname__} must be 'async def'")
    response = await answer
    if not isinstance(response, Response):
        raise TypeError(f"{callback.__qualname__} returned {type(response).__name__}, not a Response")
    return response
