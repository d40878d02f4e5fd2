"""A controller for browsers: a session cookie, redirects and small pages.

From the root of the repository:

    AUTH_SECRET=$(python -m asgi_auth secret) uvicorn --app-dir examples browser_controller:app

then open http://localhost:8000. Accounts are kept in browser.db in the current directory.
"""

import os
from collections.abc import Mapping
from html import escape
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from asgi_auth import AccessToken, Activity, AuthController, AuthError, Authentication, SessionUserMiddleware, User
from asgi_auth.senders import ConsoleSender
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password, Resettable

auth = Authentication(
    store=SQLiteStore("browser.db"),
    secret=os.environ["AUTH_SECRET"],
    base_url="http://localhost:8000",
    strategies=[Password(resettable=Resettable(sender=ConsoleSender()))],
)


class BrowserAuthController(AuthController[User]):
    """Every phase of every strategy ends in one of these three methods."""

    async def success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Response:
        """The user signed in or registered: set the session cookie and redirect to the page that they wanted."""
        response = RedirectResponse(self.return_to(request, default="/"), status_code=303)
        self.store_in_session(response, token)
        return response

    async def failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """The request was rejected: 401 for wrong credentials, 422 for invalid fields, and so on."""
        problems = "".join(f"<li>{escape(field)} {escape(text)}</li>" for field, text in reason.fields.items())
        return page(reason.title, f"<ul>{problems}</ul><a href='/'>Back</a>", status=reason.status)

    async def sign_out(self, request: Request, params: Mapping[str, Any]) -> Response:
        """The user signed out: the session has ended on the server, so that a copy of the cookie is invalid."""
        response = page("Signed out", "<a href='/'>Back</a>")
        await self.clear_session(request, response)
        return response


def page(title: str, body: str, status: int = 200) -> Response:
    """A whole page; *body* is HTML."""
    title = escape(title)
    html = f"<!doctype html><html lang='en'><title>{title}</title><h1>{title}</h1>{body}</html>"
    return HTMLResponse(html, status)


HELLO = "<p>Hello {email}</p><form method='post' action='/auth/sign_out'><button>Sign out</button></form>"

FORMS = """
<form method="post" action="/auth/password/sign_in">
  <input name="email" type="text" inputmode="email" autocomplete="username" autocapitalize="none" spellcheck="false"
    placeholder="Address" required>
  <input name="password" type="password" placeholder="Password" autocomplete="current-password" required>
  <label><input name="remember_me" type="checkbox"> Stay signed in</label>
  <button>Sign in</button>
</form>
<form method="post" action="/auth/password/register">
  <input name="email" type="text" inputmode="email" autocomplete="username" autocapitalize="none" spellcheck="false"
    placeholder="Address" required>
  <input name="password" type="password" placeholder="Password" autocomplete="new-password" required>
  <input name="password_confirmation" type="password" placeholder="Again" autocomplete="new-password" required>
  <button>Register</button>
</form>
<form method="post" action="/auth/password/reset_request">
  <input name="email" type="text" inputmode="email" autocomplete="username" autocapitalize="none" spellcheck="false"
    placeholder="Address" required>
  <button>Forgot the password</button>
</form>
"""


async def home(request: Request) -> Response:
    """A greeting, or the forms. The middleware has set ``request.user``, which is never None."""
    if request.user.is_authenticated:
        return page("Home", HELLO.format(email=escape(request.user.email)))
    return page("Welcome", FORMS)


app = Starlette(
    routes=[Route("/", home), *BrowserAuthController(auth).routes()],
    middleware=[Middleware(SessionUserMiddleware, auth=auth)],
    lifespan=auth.lifespan,
)
