"""AuthPlug: serves ``/auth/<strategy>/<phase>`` and ``/auth/sign_out``."""

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_auth.authentication import Authentication, Finished
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    InvalidTokenError,
    MethodNotAllowedError,
    RouteNotFoundError,
    UnavailableError,
    ValidationError,
)
from asgi_auth.hooks import collect_jobs, logger, shielded
from asgi_auth.http import (
    ClientGone,
    check_cross_site,
    check_host,
    client_of,
    cookie_of,
    drop_cookie,
    harden,
    header_values,
    keep_cookie,
    problem,
    read_body,
    reason_headers,
    wants_json,
)
from asgi_auth.middleware import load_state, serve_lifespan
from asgi_auth.pages import form_page, message_page
from asgi_auth.protocol.bearer import read_bearer
from asgi_auth.protocol.paths import mount_prefixes, split_path
from asgi_auth.protocol.return_to import safe_return_to
from asgi_auth.types import (
    EMPTY,
    Accepted,
    AccessToken,
    Activity,
    Challenge,
    Client,
    Job,
    Phase,
    PhaseRequest,
    Redirect,
    SignedOut,
    TokenIssued,
)

U = TypeVar("U")
T = TypeVar("T")

NOWHERE = Activity(None, None)
SIGN_OUT = Activity(None, "sign_out")
_TOKEN_LIMIT = 4096


class AuthPlug(Generic[U]):
    """An ASGI application for ``Mount("/auth", AuthPlug(auth))``.

    Where there is no mounting, ``AuthPlug(auth, app=inner)`` serves ``auth.mount_path`` and passes the rest on.
    Subclass it and override what is to happen: ``handle_success``, ``handle_failure`` and the others.

    Args:
        auth: Whose strategies are served.
        app: The application to wrap; None to be mounted.
        bearer_for_browsers: Give a page's scripts the bearer token, not the cookie, in the JSON answer to a sign-in.
            Whatever can run a script in the page can then take the token along.
    """

    body_limit: ClassVar[int] = 64 * 1024
    """Bytes of a request body."""
    body_timeout: ClassVar[timedelta] = timedelta(seconds=10)
    """How long a request body may take to arrive."""

    def __init__(
        self, auth: Authentication[U], app: ASGIApp | None = None, *, bearer_for_browsers: bool = False
    ) -> None:
        self.auth, self.app, self._bearer_for_browsers = auth, app, bearer_for_browsers

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
        if not self._answers_json(request):
            response: Response = PlainTextResponse("Access granted")
            self.store_in_session(response, token)
            return response
        content = {"status": "success", "subject": self.auth.tokens.subject(token.session.user_id)}
        if self._client(request).browser and not self._bearer_for_browsers:
            response = JSONResponse(content)
            self.store_in_session(response, token)
            return response
        return JSONResponse({**content, "token": str(token)})

    async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """Something was refused; also an unknown route (``Activity(None, None)`` and a ``RouteNotFoundError``).

        ``reason.status``, ``code``, ``title`` and ``fields`` may be shown; ``reason.reason`` is for the log. By default
        problem details (RFC 9457) or text; the page behind a mailed link is drawn again with what is wrong.
        """
        phase = self._phase(activity)
        if phase is not None and phase.form is not None and self._answers_page(request):
            if isinstance(reason, ValidationError):
                return self._draw(phase, activity, self._secret(request, phase), reason.fields, reason.status)
            return message_page(reason.title, _ADVICE, app_name=self.auth.app_name, status=reason.status)
        return problem(reason, json=self._answers_json(request))

    async def handle_accepted(self, request: Request, activity: Activity) -> Response:
        """Done, and nobody was signed in: a reset was asked for, a password was set. By default 200."""
        phase = self._phase(activity)
        if phase is not None and phase.form is not None and self._answers_page(request):
            return message_page("Done", "You can close this page and sign in.", app_name=self.auth.app_name)
        if self._answers_json(request):
            return JSONResponse({"status": "accepted"})
        return PlainTextResponse("Accepted")

    async def handle_challenge(self, request: Request, activity: Activity, data: Mapping[str, Any]) -> Response:
        """A step that answers with data: by default as JSON."""
        return JSONResponse({"status": "challenge", **data})

    async def handle_sign_out(self, request: Request) -> Response:
        """The session is over and its cookie goes with this answer. By default 200."""
        if self._answers_json(request):
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

    async def clear_session(self, request: Request, response: Response) -> None:
        """End the session of the browser's cookie, then remove the cookie. UnavailableError: neither was done."""
        await self.revoke_session_tokens(request)
        drop_cookie(response, self.auth.session_cookie, secure=self.auth.secure)

    async def revoke_session_tokens(self, request: Request) -> None:
        """End the session that the browser's cookie opens, and with it every bearer token of that session."""
        cookie = cookie_of(request.scope, self.auth.session_cookie)
        if cookie is not None:
            await self.auth.sessions.revoke_cookie(cookie, client=self._client(request))

    async def revoke_bearer_tokens(self, request: Request) -> None:
        """End the session of the bearer token in the Authorization header; any other token ends nothing."""
        token = read_bearer(request.scope["headers"])
        if token is not None:
            with suppress(InvalidTokenError):
                claims = self.auth.tokens.verify_access(token)
                await self.auth.sessions.revoke(claims.session_id, user_id=claims.user_id, client=self._client(request))

    def return_to(self, request: Request, default: str = "/") -> str:
        """Where the user wanted to go: ``return_to`` of the body or the query, if it is ours (RD-1), else *default*."""
        params: Mapping[str, Any] = request.scope.get("asgi_auth.params", EMPTY)
        wanted = params.get("return_to", request.query_params.get("return_to"))
        return safe_return_to(wanted, allowed=self.auth.allowed_return_to) or default

    def params(self, request: Request) -> Mapping[str, Any]:
        """What was sent, without its secrets, to draw a form again."""
        return {
            name: value
            for name, value in request.scope.get("asgi_auth.params", EMPTY).items()
            if name not in request.scope.get("asgi_auth.secrets", ())
        }

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
        root, mount = scope.get("root_path", ""), self.auth.mount_path
        return any(
            path == prefix or path.startswith(f"{prefix}/")
            for path in (scope["path"], scope.get("raw_path", b"").decode("latin-1"))
            for prefix in (mount, root + mount)
        )

    async def _serve(self, request: Request, send: Send) -> None:
        with collect_jobs() as jobs:
            try:
                response = await self._respond(request)
                await response(request.scope, request.receive, send)
            except ClientGone:
                return
            finally:
                await shielded(self._run(jobs))

    async def _run(self, jobs: list[Job]) -> None:
        for job in jobs:  # grows while it is walked: a job may leave another
            await self.auth.services.commit.jobs.run(job)

    async def _respond(self, request: Request) -> Response:
        activity = NOWHERE
        try:
            check_host(request.scope, self.auth)
            activity = self._find(request)
            response = await self._answer(request, activity)
        except AuthError as reason:
            if isinstance(reason, UnavailableError):
                logger.error("%s.%s: %s", *activity, reason.reason)
            response = await self.handle_failure(request, activity, reason)
            response.headers.update(reason_headers(reason, self.auth))
        harden(response)
        return response

    def _find(self, request: Request) -> Activity:
        scope = request.scope
        prefixes = mount_prefixes(scope.get("root_path", ""), scope.get("app_root_path", ""), self.auth.mount_path)
        raw_path = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
        segments = split_path(raw_path, prefixes)
        if segments == ("sign_out",):
            return SIGN_OUT
        if segments is None or len(segments) != 2 or segments not in self.auth.routes:
            raise RouteNotFoundError("no such route")
        return Activity(*segments)

    def _phase(self, activity: Activity) -> Phase | None:
        return self.auth.routes.get((activity.strategy or "", activity.phase or ""))

    async def _answer(self, request: Request, activity: Activity) -> Response:
        phase, method = self._phase(activity), request.method
        if phase is not None and phase.form is not None and method in ("GET", "HEAD"):
            return self._draw(phase, activity, self._query_token(request, phase), EMPTY, 200)
        expected = "POST" if phase is None else phase.method
        if method != expected and not (expected == "GET" and method == "HEAD"):
            allow = "GET, HEAD, POST" if phase is not None and phase.form is not None else expected
            raise MethodNotAllowedError(f"{method} is not {expected}", headers={"Allow": allow})
        check_cross_site(request.scope, self.auth)
        read_bearer(request.scope["headers"])  # two credentials are none: 400 (RP-5)
        await self._read(request, phase)
        if phase is None:
            return await self._sign_out(request)
        return await self._run_phase(request, activity, phase)

    async def _read(self, request: Request, phase: Phase | None) -> None:
        body = await read_body(request.scope, request.receive, limit=self.body_limit, timeout=self.body_timeout)
        request.scope["asgi_auth.params"] = body.params
        request.scope["asgi_auth.json"] = body.is_json
        request.scope["asgi_auth.secrets"] = phase.secrets if phase is not None else frozenset()

    async def _sign_out(self, request: Request) -> Response:
        await self.revoke_session_tokens(request)
        await self.revoke_bearer_tokens(request)
        response = await self.handle_sign_out(request)
        drop_cookie(response, self.auth.session_cookie, secure=self.auth.secure)
        return response

    async def _run_phase(self, request: Request, activity: Activity, phase: Phase) -> Response:
        phase_request = await self._phase_request(request, phase)
        act = partial(phase.handle, phase_request)
        result = await _unless_gone(request.receive, self.auth.perform(activity, act, phase_request.client))
        response = await self._dispatch(request, activity, result)
        if isinstance(result, Finished) and phase_request.pending is not None:
            drop_cookie(response, self.auth.pending_cookie, secure=self.auth.secure)
        if isinstance(result, Challenge) and result.pending is not None:
            keep_cookie(response, self.auth.pending_cookie, result.pending, secure=self.auth.secure)
        return response

    async def _phase_request(self, request: Request, phase: Phase) -> PhaseRequest:
        asked = {}
        if phase.signed_in:
            asked["state"] = state = await load_state(self.auth, request.scope)
            if state.session is None:
                raise state.error or AuthenticationFailedError("nobody is signed in")
        return PhaseRequest(
            method=request.method,
            params=request.scope["asgi_auth.params"],
            query=dict(request.query_params),
            cookies=request.cookies,
            client=self._client(request),
            pending=cookie_of(request.scope, self.auth.pending_cookie),
            **asked,
        )

    async def _dispatch(self, request: Request, activity: Activity, result: Any) -> Response:
        if isinstance(result, Finished):
            return await self.handle_success(request, activity, result.user, result.token)
        if isinstance(result, Accepted):
            return await self.handle_accepted(request, activity)
        if isinstance(result, Challenge):
            return await self.handle_challenge(request, activity, result.data)
        if isinstance(result, TokenIssued):
            return await self.handle_challenge(request, activity, {"token": result.token})
        if isinstance(result, SignedOut):
            return await self._sign_out(request)
        if isinstance(result, Redirect):
            return RedirectResponse(result.url, 303)
        raise TypeError(f"{activity} returned {type(result).__name__}, which is no outcome")

    # --- parts

    def _client(self, request: Request) -> Client:
        client: Client | None = request.scope.get("asgi_auth.client")
        if client is None:
            client = request.scope["asgi_auth.client"] = client_of(request.scope, self.auth)
        return client

    def _answers_json(self, request: Request) -> bool:
        return wants_json(request.scope, json_body=request.scope.get("asgi_auth.json", False))

    def _answers_page(self, request: Request) -> bool:
        return any("text/html" in value for value in header_values(request.scope, b"accept"))

    def _draw(self, phase: Phase, activity: Activity, token: str, problems: Mapping[str, str], status: int) -> Response:
        if phase.form is None:
            raise TypeError("a phase without a form has no page")
        action = f"{self.auth.mount_path}/{activity.strategy}/{activity.phase}"
        return form_page(
            phase.form, action=action, token=token, app_name=self.auth.app_name, problems=problems, status=status
        )

    def _query_token(self, request: Request, phase: Phase) -> str:
        """The token of a mailed link; empty where there is not exactly one, which the POST will refuse."""
        name = phase.form.token if phase.form is not None else None
        query = request.scope.get("query_string", b"").decode("latin-1")[:_TOKEN_LIMIT]
        values = [value for key, value in parse_qsl(query) if key == name]
        return values[0] if len(values) == 1 else ""

    def _secret(self, request: Request, phase: Phase) -> str:
        name = phase.form.token if phase.form is not None else None
        value = request.scope.get("asgi_auth.params", EMPTY).get(name)
        return value if isinstance(value, str) else ""


_ADVICE = "Ask for a new link where you asked for this one."


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do *work* for as long as the client is there: what nobody waits for is not worth a hash (DO-2)."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for running in (task, gone):
            running.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await running


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
