"""The pages of the demo, and the application that serves them."""

from functools import partial
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from asgi_auth import (
    Authentication,
    AuthError,
    MethodNotAllowedError,
    RouteNotFoundError,
    SessionUserMiddleware,
    User,
    require,
)
from asgi_auth.demo.account import draw_address, draw_sessions
from asgi_auth.demo.drawing import MAILS, draw, draw_failure, draw_step, draw_who
from asgi_auth.demo.forms import CHANGE_EMAIL, FOR_STRANGERS, FRESH, INVITE, REAUTHENTICATE, STEPS
from asgi_auth.demo.invitations import draw_invitations
from asgi_auth.demo.plug import SitePlug
from asgi_auth.pages import links
from asgi_auth.types import Activity, Session

_TITLES = {404: RouteNotFoundError.title, 405: MethodNotAllowedError.title}


class Site:
    """The pages. Who asks is in ``request.user``, which the middleware has filled in."""

    def __init__(self, auth: Authentication[User]) -> None:
        self._auth, self._plug = auth, SitePlug(auth)
        self.routes = [
            Route("/", self.home),
            *(Route(STEPS[activity].path, partial(self.form, activity)) for activity in FOR_STRANGERS),
            Route("/mail_sent", self.mail_sent),
            Route(STEPS[REAUTHENTICATE].path, self.reauthenticate),
            Route("/account", self.account),
            Route(STEPS[CHANGE_EMAIL].path, self.change_email),
            Route("/account/end/{session_id}", self.end_session, methods=["POST"]),
            Route("/account/end_others", self.end_others, methods=["POST"]),
            Route(STEPS[INVITE].path, self.invitations),
            Mount("/auth", self._plug),
        ]

    async def home(self, request: Request) -> Response:
        """The start."""
        if request.user.is_authenticated:
            text, ways = draw_who(request), '<a class="button" href="/account">Your account</a>'
            ways += '<a class="button plain" href="/invitations">Invite people</a>'
        else:
            text = "<p>Accounts, sessions, invitations and mailed links, on plain pages without scripts.</p>"
            ways = '<a class="button" href="/register">Create an account</a>'
            ways += '<a class="button plain" href="/sign_in">Sign in</a>'
        return draw(request, "Welcome", f'{text}\n{MAILS}\n<p class="buttons">{ways}</p>')

    async def form(self, activity: Activity, request: Request) -> Response:
        """Sign in, register, forgot password, confirm the address. Whoever is signed in has no use for them."""
        return_to = self._plug.return_to(request, default="")
        if request.user.is_authenticated:
            return RedirectResponse(return_to or "/account", 303)
        return draw_step(request, activity, return_to=return_to)

    async def mail_sent(self, request: Request) -> Response:
        """The same for everybody: whether there is such an account is nobody's business."""
        text = "<p>If there is an account with this address, a link to choose a new password is on its way.</p>"
        return draw(request, "Look at your mail", f"{text}\n{MAILS}\n{links({'/sign_in': 'Back to sign in'})}")

    @require(redirect="/sign_in")
    async def account(self, request: Request) -> Response:
        """Who is signed in, and where."""
        session = self._session(request)
        sessions = await self._auth.sessions.list(session.user_id)
        pending = await self._auth.add_on("confirmation").pending(request.user)
        address = draw_address(request.user, pending["email"] if pending else None)
        return draw(request, "Your account", f"{address}\n{draw_sessions(sessions, session)}", wide=True)

    @require(redirect="/sign_in")
    async def reauthenticate(self, request: Request) -> Response:
        """Who wants to change the address has to prove who they are, if they have not just done so."""
        return_to = self._plug.return_to(request, default="/account")
        if self._auth.sessions.is_fresh(self._session(request), FRESH):
            return RedirectResponse(return_to, 303)
        return draw_step(request, REAUTHENTICATE, return_to=return_to)

    @require(redirect="/reauthenticate", fresh=FRESH)
    async def change_email(self, request: Request) -> Response:
        """The form for another address."""
        return draw_step(request, CHANGE_EMAIL)

    @require(redirect="/sign_in")
    async def end_session(self, request: Request) -> Response:
        """End one session, if it is this user's."""
        user_id = self._session(request).user_id
        ended = await self._auth.sessions.revoke(request.path_params["session_id"], user_id=user_id)
        return RedirectResponse("/account?note=ended" if ended else "/account", 303)

    @require(redirect="/sign_in")
    async def end_others(self, request: Request) -> Response:
        """Sign out everywhere but here."""
        session = self._session(request)
        await self._auth.sessions.revoke_all(session.user_id, except_=session)
        return RedirectResponse("/account?note=others_ended", 303)

    @require(redirect="/sign_in")
    async def invitations(self, request: Request) -> Response:
        """Invite, and see what has become of it."""
        return draw_invitations(request, await self._auth.add_on("invitation").list(request.user))

    def _session(self, request: Request) -> Session:
        """Never None behind ``require``."""
        return cast("Session", self._auth.state(request).session)


def make_app(auth: Authentication[User]) -> Starlette:
    """The demo on *auth*."""
    return Starlette(
        routes=Site(auth).routes,
        middleware=[Middleware(SessionUserMiddleware, auth=auth)],
        exception_handlers={HTTPException: _draw_exception, AuthError: _draw_exception},
        lifespan=auth.lifespan,
    )


async def _draw_exception(request: Request, exc: Any) -> Response:
    """Unknown addresses (Starlette's exception) and a store that does not answer (ours)."""
    if isinstance(exc, HTTPException):
        response = draw_failure(request, _TITLES.get(exc.status_code, exc.detail), exc.status_code)
    else:
        response = draw_failure(request, exc.title, exc.status)
    response.headers.update(exc.headers or {})
    return response
