"""AuthPlug: serves ``/auth/<strategy>/<phase>`` and ``/auth/sign_out``."""

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import partial
from inspect import isawaitable
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_auth.authentication import Authentication, Finished
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    ConfigurationError,
    CrossSiteError,
    ForbiddenError,
    InvalidTokenError,
    MalformedRequestError,
    MethodNotAllowedError,
    MisdirectedRequestError,
    RateLimitedError,
    RouteNotFoundError,
    UnavailableError,
    ValidationError,
)
from asgi_auth.pages import form_page, message_page, view_page
from asgi_auth.phases import Accepted, Challenge, Form, Phase, PhaseRequest, Redirect, SignedOut, TokenIssued, View
from asgi_auth.protocol.bearer import read_bearer, read_every
from asgi_auth.protocol.caching import CACHED, PREFETCHED, is_speculative
from asgi_auth.protocol.cookies import read_cookies
from asgi_auth.protocol.cross_site import SAFE_METHODS
from asgi_auth.protocol.paths import mount_advice, mount_prefixes, split_path, wrapped_prefixes
from asgi_auth.protocol.return_to import safe_return_to
from asgi_auth.runtime.callables import require_async
from asgi_auth.runtime.jobs import collect_jobs, logger
from asgi_auth.runtime.loop import running_loop
from asgi_auth.tokens import hash_token
from asgi_auth.types import EMPTY, AccessToken, Activity, Client
from asgi_auth.web.http import (
    ClientGone,
    check_cross_site,
    check_headers,
    check_host,
    clear_site_data,
    client_of,
    cookie_of,
    discard_body,
    draw,
    drop_cookie,
    harden,
    is_browser,
    keep_cookie,
    problem,
    proxy_advice,
    read_body,
    read_query,
    reason_headers,
    source_of,
    step_cookies,
    unless_gone,
    wants_json,
    wants_page,
)
from asgi_auth.web.middleware import load_state, serve_lifespan

U = TypeVar("U")

NOWHERE = Activity(None, None)
SIGN_OUT = Activity(None, "sign_out")
_FLOW_SECONDS = 600
"""How long a browser may be away at a provider."""
_MAX_PATH = 1024
_NEW_LINK = "Ask for a new link where you asked for this one."
_TRY_AGAIN = "Go back to the page before this one to try again."


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
        self._misplaced, self._telling = False, auth.services.telling

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
        if not wants_json(request.scope):
            response: Response = PlainTextResponse("Access granted")
            self.store_in_session(response, token)
            return response
        content = {"status": "success", "subject": self.auth.tokens.subject(token.session.user_id)}
        if is_browser(request.scope) and not self._bearer_for_browsers:
            response = JSONResponse(content)
            self.store_in_session(response, token)
            return response
        return JSONResponse({**content, "token": str(token)})

    async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """Something was refused; also an unknown route (``Activity(None, None)`` and a ``RouteNotFoundError``).

        ``reason.status``, ``code``, ``title`` and ``fields`` may be shown; ``reason.reason`` is for the log. By default
        problem details (RFC 9457) or text; the page behind a mailed link is drawn again with what is wrong.
        """
        phase, form = self._phase(activity), self._form(request, activity)
        if not wants_page(request.scope) or (form is None and (phase is None or phase.method != "GET")):
            return problem(reason, json=wants_json(request.scope))
        if form is not None and isinstance(reason, ValidationError):
            sent = request.scope.get("asgi_auth.params", EMPTY)
            return self._draw(form, activity, sent, reason.fields, reason.status)
        advice = _NEW_LINK if isinstance(reason, InvalidTokenError) else _TRY_AGAIN
        if isinstance(reason, (InvalidTokenError, ForbiddenError)):  # theirs are whole sentences
            advice = " ".join(reason.fields.values()) or advice
        return draw(message_page(reason.title, advice, app_name=self.auth.app_name, status=reason.status))

    async def handle_accepted(self, request: Request, activity: Activity) -> Response:
        """Done, and nobody was signed in: a reset was asked for, a password was set. By default 200."""
        form = self._form(request, activity)
        if form is not None and wants_page(request.scope):
            return draw(message_page("Done", form.done, app_name=self.auth.app_name))
        if wants_json(request.scope):
            return JSONResponse({"status": "accepted"})
        return PlainTextResponse("Accepted")

    async def handle_challenge(self, request: Request, activity: Activity, data: Mapping[str, Any]) -> Response:
        """A step that answers with data: by default as JSON."""
        return JSONResponse({"status": "challenge", **data})

    async def handle_view(self, request: Request, activity: Activity, view: View) -> Response:
        """Something to look at, such as an invitation; nothing was changed. By default its page, or its data as JSON.

        A view without a title has no page.
        """
        if not view.title or not wants_page(request.scope):
            return JSONResponse({"status": "view", **view.data})
        forms = [(form, self._path(form.action or activity)) for form in view.forms]
        return draw(view_page(view, [*self._registrations(view), *forms], app_name=self.auth.app_name))

    async def handle_sign_out(self, request: Request) -> Response:
        """The session is over and its cookie goes with this answer. By default 200."""
        if wants_json(request.scope):
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
        name, secure = self.auth.session_cookie, self.auth.secure
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
        self._clear(request, response)

    def _clear(self, request: Request, response: Response) -> None:
        for name in (self.auth.session_cookie, *step_cookies(request.scope, self.auth)):
            drop_cookie(response, name, secure=self.auth.secure)
        clear_site_data(response, *self._cleared)

    async def revoke_session_tokens(self, request: Request) -> None:
        """End the session that the browser's cookie opens, and with it every bearer token of that session.

        A sign-in that waits in this browser for its next factor ends, too. Of several cookies every one that is ours
        counts: one may be planted, and the session has to end all the same.

        Raises:
            MalformedRequestError: there are more than 8 different ones of a kind; nothing was ended.
            UnavailableError: nothing was ended.
        """
        await self.auth.sessions.revoke_shown(client_of(request.scope, self.auth))

    async def revoke_bearer_tokens(self, request: Request) -> None:
        """End the session of the bearer token in the Authorization header; any other token ends nothing.

        Of several headers every one that can be read counts: they let nobody in, but each may do so alone.

        Raises:
            MalformedRequestError: there are more than 8 different tokens, or cookies of ours; nothing was ended.
            UnavailableError: the database does not answer.
        """
        client = client_of(request.scope, self.auth)
        for token in read_every(request.scope["headers"]):
            with suppress(InvalidTokenError):
                claims = self.auth.tokens.verify_access(token)
                await self.auth.sessions.revoke(claims.session_id, user_id=claims.user_id, client=client)

    def return_to(self, request: Request, default: str = "/") -> str:
        """Where the user wanted to go: ``return_to`` of the body or the query, if it is ours (RD-1), else *default*.

        A path as the browser sees it, with the prefix of a proxy; *default* is returned as it is.
        """
        sent: Mapping[str, Any] = request.scope.get("asgi_auth.params", EMPTY)
        if "return_to" not in sent:
            with suppress(MalformedRequestError):  # where the query matters, it is refused elsewhere
                sent = read_query(request.scope)
        return safe_return_to(sent.get("return_to"), allowed=self.auth.allowed_return_to) or default

    def params(self, request: Request) -> Mapping[str, Any]:
        """What was sent, without its secrets, to draw a form again."""
        return {
            name: value
            for name, value in request.scope.get("asgi_auth.params", EMPTY).items()
            if name not in request.scope.get("asgi_auth.secrets", ())
        }

    def link_token(self, request: Request) -> str:
        """The token of the mailed link whose form was sent, to put into a hidden field of the form drawn again.

        Empty if there is none. Never into a URL, nor a log.
        """
        token = request.scope.get("asgi_auth.params", EMPTY).get(request.scope.get("asgi_auth.link_token"))
        return token if isinstance(token, str) else ""

    # --- ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3. A websocket under the plug's paths is closed before it is accepted (WS-3)."""
        kind = scope["type"]
        if kind == "lifespan":
            await serve_lifespan(self.auth, self.app, scope, receive, send)
        elif self.app is not None and not (kind in ("http", "websocket") and self._is_mine(scope)):
            await self.app(scope, receive, send)
        elif kind == "http":
            await self._serve(Request(scope, receive), send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    def _is_mine(self, scope: Scope) -> bool:
        """Whether a request to a wrapped application is the plug's; an encoded spelling of its paths is, too."""
        prefixes = wrapped_prefixes(scope.get("root_path", ""), self.auth.mount_path)
        return any(
            f"{path}/".startswith(f"{prefix}/")
            for path in (scope["path"][:_MAX_PATH], _raw_path(scope).decode("latin-1"))
            for prefix in prefixes
        )

    async def _serve(self, request: Request, send: Send) -> None:
        running_loop()
        with collect_jobs(partial(source_of, request.scope, self.auth)) as jobs:
            try:
                response = await self._respond(request)
                if await discard_body(request):
                    await response(request.scope, request.receive, send)
            except ClientGone:
                return
            finally:
                await self.auth.services.commit.jobs.finish(jobs)

    def _log(self, activity: Activity, reason: AuthError) -> None:
        """What the client is not told; refused credentials have been logged where they were refused."""
        if isinstance(reason, UnavailableError):
            self._telling.tell(logging.ERROR, reason.code, "%s.%s: %s", *activity, reason.reason)
        elif isinstance(reason, RateLimitedError):
            kind = f"{reason.code} {'.'.join(filter(None, activity))}"
            self._telling.tell(logging.WARNING, kind, "%s.%s refused: %s", *activity, reason.reason)
        elif isinstance(reason, (CrossSiteError, MisdirectedRequestError)):
            what = ".".join(filter(None, activity)) or "a request"
            # By the code: a stranger makes up as many origins as they like.
            self._telling.tell(logging.WARNING, reason.code, "%s was refused: %s", what, reason.reason)

    async def _respond(self, request: Request) -> Response:
        activity = NOWHERE
        try:
            check_headers(request.scope)
            self._check_proxy(request.scope)
            check_host(request.scope, self.auth)
            activity = self._find(request)
            response = await self._answer(request, activity)
        except ConfigurationError:  # of the store, opened by this request: the server logs it, with its traceback
            raise
        except AuthError as reason:
            self._log(activity, reason)
            response = await answered(self.handle_failure(request, activity, reason), self.handle_failure)
            response.headers.update(reason_headers(reason, request.scope, realm=self.auth.app_name))
        harden(response)
        return response

    def _check_proxy(self, scope: Scope) -> None:
        """Say once what proxies need. On a local instance they are for development, which needs no limits."""
        for kind, advice in proxy_advice(scope, self.auth):
            self._telling.once(logging.WARNING if self.auth.secure else logging.INFO, kind, advice)

    def _find(self, request: Request) -> Activity:
        scope = request.scope
        prefixes = mount_prefixes(scope.get("root_path", ""), scope.get("app_root_path", ""), self.auth.mount_path)
        segments = split_path(_raw_path(scope), prefixes)
        if segments == ("sign_out",):
            return SIGN_OUT
        if segments is None or len(segments) != 2 or segments not in self.auth.routes:
            raise RouteNotFoundError("no such route")
        self._check_mount(scope, "/".join(segments))
        return Activity(*segments)

    def _check_mount(self, scope: Scope, rest: str) -> None:
        """Say once what is wrong with ``mount_path``, or with the prefix that the server was told."""
        if not self._misplaced:
            path = _raw_path(scope).partition(b"?")[0].decode("ascii")
            mounted = path.rstrip("/").removesuffix(f"/{rest}")
            advice = mount_advice(mounted, scope.get("root_path", ""), scope.get("app_root_path"), self.auth.mount_path)
            if advice is not None:
                self._misplaced = True
                logger.warning("%s", advice)

    def _phase(self, activity: Activity) -> Phase | None:
        return self.auth.routes.get((activity.strategy or "", activity.phase or ""))

    def _form(self, request: Request, activity: Activity) -> Form | None:
        """What is drawn again: the page of the phase, or what somebody was shown who was invited."""
        phase = self._phase(activity)
        if phase is None:
            return None
        invited = phase.registers is not None and phase.registers.token in request.scope.get("asgi_auth.params", EMPTY)
        return phase.registers if invited else phase.form

    def _registrations(self, view: View) -> list[tuple[Form, str]]:
        """The forms of every registration that a view offers, with where they post to."""
        return [
            (phase.registers, self._path(Activity(name, phase.name)))
            for (name, _), phase in self.auth.routes.items()
            if view.registers and phase.registers is not None and (not view.strategies or name in view.strategies)
        ]

    def _path(self, activity: Activity) -> str:
        return "/".join((self.auth.mount_path, *(part for part in activity if part is not None)))

    async def _answer(self, request: Request, activity: Activity) -> Response:
        phase, method = self._phase(activity), request.method
        if phase is not None and phase.form is not None and method in ("GET", "HEAD"):
            return self._draw(phase.form, activity, read_query(request.scope), EMPTY, 200)
        allowed = _methods(phase)
        if method not in allowed:
            raise MethodNotAllowedError("wrong method", headers={"Allow": ", ".join(allowed)})
        if method in SAFE_METHODS and is_speculative(request.scope["headers"]):
            # A phase may consume something, as a callback does, and nobody has opened the page yet. A browser discards
            # such an answer and asks again. The application is not asked: it may redirect.
            return Response(status_code=503, headers={"Retry-After": "0"})
        check_cross_site(request.scope, self.auth)
        if phase is not None and phase.signed_in:
            read_bearer(request.scope["headers"])  # two credentials are none: 400 (RP-5)
        await self._read(request, phase)
        if not self.auth.upkeep.started:  # the server sends no lifespan messages
            await self.auth.upkeep.start()
        if phase is None:
            return await self._sign_out(request)
        return await self._run_phase(request, activity, phase)

    async def _read(self, request: Request, phase: Phase | None) -> None:
        params = await read_body(request, limit=self.body_limit, timeout=self.body_timeout)
        request.scope["asgi_auth.params"] = params
        request.scope["asgi_auth.secrets"] = phase.secrets if phase is not None else frozenset()
        form = None if phase is None else phase.registers or phase.form
        request.scope["asgi_auth.link_token"] = None if form is None else form.token

    async def _sign_out(self, request: Request) -> Response:
        await self.revoke_bearer_tokens(request)
        await self.revoke_session_tokens(request)
        response = await answered(self.handle_sign_out(request), self.handle_sign_out)
        self._clear(request, response)
        return response

    async def _run_phase(self, request: Request, activity: Activity, phase: Phase) -> Response:
        client = client_of(request.scope, self.auth)
        # Before the store is asked, and before any task is made, each of which would wait for those of a whole crowd.
        with self.auth.services.passwords.place(client.address) if phase.hashes else nullcontext():
            act = partial(phase.handle, await self._phase_request(request, phase, client))
            result = await unless_gone(request.receive, self.auth.perform(activity, act, client))
        response = await self._dispatch(request, activity, result)
        self._keep_cookies(request, response, result)
        return response

    def _keep_cookies(self, request: Request, response: Response, result: Any) -> None:
        auth = self.auth
        if isinstance(result, Finished) and auth.pending_cookie in step_cookies(request.scope, auth):
            drop_cookie(response, auth.pending_cookie, secure=auth.secure)
        if isinstance(result, Challenge) and result.pending is not None:
            keep_cookie(response, auth.pending_cookie, result.pending, secure=auth.secure)
        if isinstance(result, Redirect) and result.flow:
            # A name of its own, so that a flow in another tab keeps its cookie.
            name = f"{auth.flow_cookie}_{hash_token(result.flow).hex()[:16]}"
            keep_cookie(response, name, result.flow, secure=auth.secure, max_age=_FLOW_SECONDS)

    async def _phase_request(self, request: Request, phase: Phase, client: Client) -> PhaseRequest:
        asked = {}
        if phase.signed_in or phase.identifies:
            asked["state"] = state = await load_state(self.auth, request.scope)
            if phase.signed_in and state.session is None:
                raise state.error or AuthenticationFailedError("nobody is signed in")
        cookies, flow = read_cookies(request.scope["headers"]), f"{self.auth.flow_cookie}_"
        return PhaseRequest(
            method=request.method,
            params=request.scope["asgi_auth.params"],
            query=read_query(request.scope),
            cookies=cookies,
            flows=tuple(value for name, value in cookies.items() if name.startswith(flow)),
            client=client,
            pending=cookie_of(request.scope, self.auth.pending_cookie),
            **asked,
        )

    async def _dispatch(self, request: Request, activity: Activity, result: Any) -> Response:
        if isinstance(result, Finished):
            answer = self.handle_success(request, activity, result.user, result.token)
            return await answered(answer, self.handle_success)
        if isinstance(result, Accepted):
            return await answered(self.handle_accepted(request, activity), self.handle_accepted)
        if isinstance(result, Challenge):
            answer = self.handle_challenge(request, activity, result.data)
            return await answered(answer, self.handle_challenge)
        if isinstance(result, TokenIssued):
            answer = self.handle_challenge(request, activity, {"token": result.token})
            return await answered(answer, self.handle_challenge)
        if isinstance(result, View):
            return await answered(self.handle_view(request, activity, result), self.handle_view)
        if isinstance(result, SignedOut):
            return await self._sign_out(request)
        if isinstance(result, Redirect):
            return RedirectResponse(result.url, 303)
        raise TypeError(f"{activity} returned {type(result).__name__}, which is no outcome")

    # --- parts

    def _draw(
        self, form: Form, activity: Activity, sent: Mapping[str, Any], problems: Mapping[str, str], status: int
    ) -> Response:
        """The page of *form*; the token of the mailed link, in *sent* by query or form, goes on in it."""
        token = sent.get(form.token) if form.token is not None else None
        page = form_page(
            form,
            action=self._path(activity),
            token=token if isinstance(token, str) else "",
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


def _raw_path(scope: Scope) -> bytes:
    """As it was sent; where the server does not tell, ``path`` encoded again, so that ``%3F`` is no query.

    Cut to a length that no path of ours has, so that a longer one is as unknown as the rest of it.
    """
    raw_path: bytes = scope.get("raw_path") or quote(scope["path"][:_MAX_PATH], errors="replace").encode()
    return raw_path[:_MAX_PATH]


def _methods(phase: Phase | None) -> tuple[str, ...]:
    method = "POST" if phase is None else phase.method
    pages = phase is not None and (phase.form is not None or method == "GET")
    return tuple(dict.fromkeys(("GET", "HEAD", method))) if pages else (method,)
