"""The pages of the demo, and the application that serves them."""

from html import escape
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
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
from asgi_auth.demo.account import AccountPage
from asgi_auth.demo.invitations import InvitationsPage
from asgi_auth.demo.pages import REGISTER, SIGN_IN, DemoPages
from asgi_auth.demo.plug import NOTES, DemoPlug
from asgi_auth.pages import Context
from asgi_auth.types import Session

_TITLES = {404: RouteNotFoundError.title, 405: MethodNotAllowedError.title}


class Site:
    """The pages. Who asks is in ``request.user``, which the middleware has filled in."""

    def __init__(self, auth: Authentication[User]) -> None:
        self._auth, self._pages = auth, cast("DemoPages", auth.pages)
        self.routes = [
            Route("/", self.home),
            Route("/account", self.account),
            Route("/account/end/{session_id}", self.end_session, methods=["POST"]),
            Route("/account/end_others", self.end_others, methods=["POST"]),
            Route("/invitations", self.invitations),
            Mount("/auth", DemoPlug(auth)),
        ]

    async def home(self, request: Request) -> Response:
        """The start."""
        if request.user.is_authenticated:
            text = f"You are signed in as <strong>{escape(request.user.display_name)}</strong>."
            ways = {"/account": "Your account", "/invitations": "Your invitations"}
        else:
            text = "Accounts, sessions, invitations and mailed links, on plain pages without scripts."
            ways = {REGISTER: "Create an account", SIGN_IN: "Sign in"}
        looks = ("button", "button plain")
        buttons = (
            f'<a class="{look}" href="{path}">{way}</a>' for look, (path, way) in zip(looks, ways.items(), strict=True)
        )
        return self._draw(request, "Welcome", f'<p>{text}</p>\n<p class="buttons">{"".join(buttons)}</p>')

    @require(redirect=SIGN_IN)
    async def account(self, request: Request) -> Response:
        """Who is signed in, and where."""
        session = self._session(request)
        sessions = await self._auth.sessions.list(session.user_id)
        pending = await self._auth.add_on("confirmation").pending(request.user)
        page = AccountPage(self._pages, self._context(request))
        return self._draw(
            request, "Your account", page.draw(pending and pending["email"], sessions, session), wide=True
        )

    @require(redirect=SIGN_IN)
    async def end_session(self, request: Request) -> Response:
        """End one session, if it is this user's."""
        user_id = self._session(request).user_id
        ended = await self._auth.sessions.revoke(request.path_params["session_id"], user_id=user_id)
        return RedirectResponse("/account?note=ended" if ended else "/account", 303)

    @require(redirect=SIGN_IN)
    async def end_others(self, request: Request) -> Response:
        """Sign out everywhere but here."""
        session = self._session(request)
        await self._auth.sessions.revoke_all(session.user_id, except_=session)
        return RedirectResponse("/account?note=others_ended", 303)

    @require(redirect=SIGN_IN)
    async def invitations(self, request: Request) -> Response:
        """Who was invited, and what has become of it."""
        sent = await self._auth.add_on("invitation").list(request.user)
        page = InvitationsPage(self._pages, self._context(request))
        return self._draw(request, "Your invitations", page.draw(sent), wide=True)

    async def failure(self, request: Request, exc: Any) -> Response:
        """Unknown addresses (Starlette's exception), and a store that does not answer (ours)."""
        is_http = isinstance(exc, HTTPException)
        title = _TITLES.get(exc.status_code, exc.detail) if is_http else exc.title
        status = exc.status_code if is_http else exc.status
        way_on = self._pages.links({"/": "Back to the start"}, self._context(request))
        response = self._draw(request, title, way_on, status=status)
        response.headers.update(exc.headers or {})
        return response

    def _context(self, request: Request) -> Context:
        return Context(self._auth.app_name, user=request.user if request.user.is_authenticated else None)

    def _draw(self, request: Request, title: str, body: str, *, status: int = 200, wide: bool = False) -> Response:
        """A page; the query may name a note for its top."""
        context, note = self._context(request), NOTES.get(request.query_params.get("note", ""))
        if note is not None:
            body = f"{self._pages.message(note, context, kind='notice')}\n{body}"
        page = self._pages.page(title, body, context, status=status, wide=wide)
        return HTMLResponse(page.html, page.status, headers=page.headers)

    def _session(self, request: Request) -> Session:
        """Never None behind ``require``."""
        return cast("Session", self._auth.state(request).session)


def make_app(auth: Authentication[User]) -> Starlette:
    """The demo on *auth*."""
    site = Site(auth)
    return Starlette(
        routes=site.routes,
        middleware=[Middleware(SessionUserMiddleware, auth=auth)],
        exception_handlers={HTTPException: site.failure, AuthError: site.failure},
        lifespan=auth.lifespan,
    )
