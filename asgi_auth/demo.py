"""A small application to try the library with, and to read: pages for people, without scripts, in one file.

``python -m asgi_auth demo`` serves it. What an application of your own would have is ``SitePlug``, ``Site`` and
``make_app``; the rest is there because the demo needs no configuration.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from html import escape
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from asgi_auth import (
    AccessToken,
    Activity,
    Authentication,
    AuthError,
    AuthPlug,
    ConfigurationError,
    InvalidTokenError,
    MethodNotAllowedError,
    RouteNotFoundError,
    SessionUserMiddleware,
    User,
    require,
)
from asgi_auth.pages import button, form_body, links, page
from asgi_auth.senders import ConsoleSender
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password, Resettable
from asgi_auth.types import EMPTY, Form, FormField, Session

APP_NAME = "asgi_auth demo"

# --- forms -----------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """A form that posts to a phase of the password strategy, and where else one may want to go."""

    path: str
    form: Form
    links: Mapping[str, str]


_EMAIL = FormField(name="email", label="E-mail address", type="email", autocomplete="username")
_PASSWORD = FormField(name="password", label="Password", type="password", autocomplete="current-password")
_NEW = replace(_PASSWORD, autocomplete="new-password")
_AGAIN = replace(_NEW, name="password_confirmation", label="Password, again")
_REMEMBER = FormField(name="remember_me", label="Keep me signed in for 30 days", type="checkbox")
_ASK = "Choose at least 8 characters: a few words that nobody would guess."
_FORGOT = "Enter the address of your account, and we send you a link to choose a new password."

STEPS = {
    "sign_in": Step(
        "/sign_in",
        Form(title="Sign in", fields=(_EMAIL, _PASSWORD, _REMEMBER), button="Sign in"),
        {"/forgot_password": "Forgot your password?", "/register": "Create an account"},
    ),
    "register": Step(
        "/register",
        Form(title="Create an account", text=_ASK, fields=(_EMAIL, _NEW, _AGAIN), button="Create the account"),
        {"/sign_in": "Sign in instead"},
    ),
    "reset_request": Step(
        "/forgot_password",
        Form(title="Forgot your password?", text=_FORGOT, fields=(_EMAIL,), button="Send the link"),
        {"/sign_in": "Back to sign in"},
    ),
}

NOTES = {
    "made": "Your account was made. You can sign in now.",
    "set": "Your password was set. You can sign in with it now.",
    "signed_out": "You are signed out.",
    "ended": "The session was ended.",
    "others_ended": "You are signed out everywhere but here.",
}
"""What a page may say at its top: the query names one, so that no link can put words of its own there."""


# --- drawing ---------------------------------------------------------------------------------------------------------

_CURRENT = ' aria-current="page"'
_DEAD_LINK = "It was used, it has expired, or you asked for a newer one."
_MAILS = '<p class="soft">The demo prints its mails in the terminal that runs it.</p>'


def draw(request: Request, title: str, body: str, *, status: int = 200, wide: bool = False) -> Response:
    """A page of the demo: the parts that all have in common, around *body*."""
    note = NOTES.get(request.query_params.get("note", ""), "")
    notice = f'<p class="notice" role="status">{note}</p>\n' if note and status == 200 else ""
    return page(title, notice + body, app_name=APP_NAME, status=status, header=_header(request), wide=wide)


def _header(request: Request) -> str:
    signed_in, here = request.user.is_authenticated, request.scope["path"]
    pages = {"/account": "Account"} if signed_in else {"/sign_in": "Sign in", "/register": "Register"}
    parts = [f'<a href="{path}"{_CURRENT * (path == here)}>{text}</a>' for path, text in pages.items()]
    parts += [button("/auth/sign_out", "Sign out")] if signed_in else []
    return f'<a class="brand" href="/">{APP_NAME}</a><nav aria-label="Main">{"".join(parts)}</nav>'


def draw_step(
    request: Request, phase: str, *, return_to: str, values: Mapping[str, Any] = EMPTY, reason: AuthError | None = None
) -> Response:
    """The page of a form; after a refusal with what is wrong, and with what was entered but for the passwords."""
    step, query = STEPS[phase], f"?{urlencode({'return_to': return_to})}" if return_to else ""
    form = form_body(
        step.form,
        action=f"/auth/password/{phase}",
        hidden={"return_to": return_to} if return_to else EMPTY,
        values=values,
        problem=_public(reason),
        problems=EMPTY if reason is None else reason.fields,
    )
    body = f"{form}\n{links({path + query: text for path, text in step.links.items()})}"
    return draw(request, step.form.title, body, status=200 if reason is None else reason.status)


def draw_failure(request: Request, title: str, status: int) -> Response:
    """A page for what cannot be done, with a way on."""
    return draw(request, title, links({"/": "Back to the start"}), status=status)


def _public(reason: AuthError | None) -> str:
    """What a person may be told: the same for a wrong password and an unknown address (EN-1)."""
    if reason is None:
        return ""
    return "The address or the password is not right." if reason.status == 401 else f"{reason.title}."


def _who(request: Request) -> str:
    return f"<p>You are signed in as <strong>{escape(request.user.display_name)}</strong>.</p>"


def draw_sessions(sessions: Sequence[Session], current: Session) -> str:
    """The list of sessions, this one first and marked, each other one with a button to end it."""
    others = [session for session in sessions if session.id != current.id]
    rows = [_row(current, '<span class="badge">This session</span>')]
    for session in others:
        which = f"the session of {escape(device_name(session.label))}, signed in {_time(session.created_at)}"
        rows.append(_row(session, button(f"/account/end/{session.id}", "End", unseen=which)))
    more = button("/account/end_others", "End all other sessions") if others else ""
    return f'<h2>Your sessions</h2>\n<ul class="rows">{"".join(rows)}</ul>\n{more}'


def _row(session: Session, act: str) -> str:
    times = f"Signed in {_time(session.created_at)}<br>Last seen {_time(session.last_seen_at)}"
    kept = f"<br>Kept until {_time(session.expires_at)}" if session.remembered else ""
    device = escape(device_name(session.label))
    return f'<li><div><strong>{device}</strong><p class="soft">{times}{kept}</p></div>{act}</li>'


def _time(at: datetime) -> str:
    return f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at.day} {at:%b %Y, %H:%M} UTC</time>'


_BROWSERS = {"Edg": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
_SYSTEMS = ("Android", "iPhone", "iPad", "Windows", "Mac", "Linux")


def device_name(label: str) -> str:
    """What people call the device that a User-Agent describes; the label itself where it is none of a browser."""
    browser = next((name for mark, name in _BROWSERS.items() if mark in label), None)
    system = next((name for name in _SYSTEMS if name in label), "another system")
    return f"{browser} on {system}" if browser else label or "Unknown device"


# --- the application -------------------------------------------------------------------------------------------------

_ACCEPTED = {"register": "/sign_in?note=made", "reset": "/sign_in?note=set", "reset_request": "/mail_sent"}
_TITLES = {404: RouteNotFoundError.title, 405: MethodNotAllowedError.title}


class SitePlug(AuthPlug[User]):
    """What happens after each step: the library decides, this answers."""

    async def handle_success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Response:
        """Signed in or registered: on to where they wanted to go."""
        response = RedirectResponse(self.return_to(request, default="/account"), 303)
        self.store_in_session(response, token)
        return response

    async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """The form again, with what is wrong; a page that says so where there is no form."""
        step = STEPS.get(activity.phase or "")
        if step is not None and isinstance(reason, MethodNotAllowedError):
            return RedirectResponse(step.path, 303)  # somebody entered the address of a refused form once more
        if step is not None:
            values, return_to = self.params(request), self.return_to(request, default="")
            return draw_step(request, str(activity.phase), return_to=return_to, values=values, reason=reason)
        if isinstance(reason, InvalidTokenError):
            body = f"<p>{_DEAD_LINK}</p>\n{links({'/forgot_password': 'Ask for a new link'})}"
            return draw(request, "This link does not work any more", body, status=reason.status)
        if activity.phase == "reset":
            return await super().handle_failure(request, activity, reason)  # the library's page once more
        return draw_failure(request, reason.title, reason.status)

    async def handle_accepted(self, request: Request, activity: Activity) -> Response:
        """A link was asked for, a password was set with one, or an account made that nobody could be signed in to."""
        return RedirectResponse(_ACCEPTED[activity.phase or ""], 303)

    async def handle_sign_out(self, request: Request) -> Response:
        """Back to the start."""
        return RedirectResponse("/?note=signed_out", 303)


class Site:
    """The pages. Who asks is in ``request.user``, which the middleware has filled in."""

    def __init__(self, auth: Authentication[User]) -> None:
        self._auth, self._plug = auth, SitePlug(auth)
        self.routes = [
            Route("/", self.home),
            *(Route(step.path, partial(self.form, phase)) for phase, step in STEPS.items()),
            Route("/mail_sent", self.mail_sent),
            Route("/account", self.account),
            Route("/account/end/{session_id}", self.end_session, methods=["POST"]),
            Route("/account/end_others", self.end_others, methods=["POST"]),
            Mount("/auth", self._plug),
        ]

    async def home(self, request: Request) -> Response:
        """The start."""
        if request.user.is_authenticated:
            text, ways = _who(request), '<a class="button" href="/account">Your account</a>'
        else:
            text = "<p>Accounts, sessions and mailed links, on plain pages without scripts.</p>"
            ways = '<a class="button" href="/register">Create an account</a>'
            ways += '<a class="button plain" href="/sign_in">Sign in</a>'
        return draw(request, "Welcome", f'{text}\n{_MAILS}\n<p class="buttons">{ways}</p>')

    async def form(self, phase: str, request: Request) -> Response:
        """Sign in, register, forgot password. Whoever is signed in has no use for them."""
        return_to = self._plug.return_to(request, default="")
        if request.user.is_authenticated:
            return RedirectResponse(return_to or "/account", 303)
        return draw_step(request, phase, return_to=return_to)

    async def mail_sent(self, request: Request) -> Response:
        """The same for everybody: whether there is such an account is nobody's business."""
        text = "<p>If there is an account with this address, a link to choose a new password is on its way.</p>"
        return draw(request, "Look at your mail", f"{text}\n{_MAILS}\n{links({'/sign_in': 'Back to sign in'})}")

    @require(redirect="/sign_in")
    async def account(self, request: Request) -> Response:
        """Who is signed in, and where."""
        session = self._session(request)
        sessions = await self._auth.sessions.list(session.user_id)
        return draw(request, "Your account", f"{_who(request)}\n{draw_sessions(sessions, session)}", wide=True)

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


# --- running it ------------------------------------------------------------------------------------------------------


def make_auth(directory: Path, base_url: str) -> Authentication[User]:
    """An ``Authentication`` with its database and secret in *directory*, which is made if need be.

    Raises:
        ConfigurationError: the directory cannot be used.
    """
    try:
        with suppress(FileExistsError):
            directory.mkdir(0o700, parents=True)
            (directory / ".gitignore").write_text("*\n")  # nothing in here is for anybody else
        secret = load_secret(directory / "secret")
    except OSError as exc:
        raise ConfigurationError(f"cannot use {directory}: {exc.strerror}; choose another --directory") from exc
    return Authentication(
        store=SQLiteStore(directory / "demo.db"),
        secret=secret,
        base_url=base_url,
        app_name=APP_NAME,
        strategies=[Password(resettable=Resettable(sender=ConsoleSender()))],
    )


def load_secret(path: Path) -> str:
    """The secret in *path*, which is made with mode 0600 if need be; of two that make it at once, one wins."""
    if not path.exists():
        # Written under another name and linked: the file is there with the whole secret or not at all.
        with suppress(FileExistsError), NamedTemporaryFile("w", dir=path.parent) as file:  # has mode 0600
            file.write(f"{token_hex(32)}\n")
            file.flush()
            os.link(file.name, path)
    return path.read_text("utf-8").strip()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; whoever asks for port 0 gets a free one.

    Raises:
        ConfigurationError: *host* is not this machine alone, or the port cannot be had.
    """
    if not _is_loopback(host):
        raise ConfigurationError(f"the demo is for this machine only, not for {host}: use 127.0.0.1, ::1 or localhost")
    address = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listening = socket.create_server((address, port), family=family)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does so for its own only
        return listening
    except OSError as exc:
        why = os.strerror(exc.errno or 0)
        raise ConfigurationError(f"cannot listen on port {port}: {why}; choose another --port, 0 for any") from exc


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def run(*, host: str, port: int, directory: Path, ready: Callable[[str], None]) -> None:
    """Serve the demo until it is interrupted.

    Args:
        host, port: As for ``listen``.
        directory: Where the accounts and the secret are kept.
        ready: Told the address once it can be opened.

    Raises:
        ConfigurationError: uvicorn is missing, the address or the directory cannot be used.
        StoreUnavailableError: the database cannot be opened.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as exc:
        raise ConfigurationError("the demo needs uvicorn: pip install 'asgi-auth[demo]'") from exc
    with listen(host, port) as listening:
        base_url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        auth = make_auth(directory, base_url)
        app = make_app(auth)
        config = uvicorn.Config(app, log_level="warning", access_log=False, proxy_headers=False, server_header=False)

        async def serve() -> None:
            async with auth.running():  # what cannot be opened is told before the address is
                ready(base_url)
                await uvicorn.Server(config).serve(sockets=[listening])

        with suppress(KeyboardInterrupt):
            asyncio.run(serve())
