"""Members by invitation only: an admin invites, and the invited person sets a password on a page of this site.

From the root of the repository:

    AUTH_SECRET=$(python -m asgi_auth secret) uvicorn --app-dir examples invitations:app

It prints its mails. The first one is for the first admin, $ADMIN_EMAIL: open its link. Everything is kept in team.db in
the current directory.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from html import escape
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from asgi_auth import (
    AccessToken,
    Activity,
    Authentication,
    AuthError,
    AuthPlug,
    RateLimitedError,
    SessionUserMiddleware,
    User,
    ValidationError,
    require,
)
from asgi_auth.add_ons import APPLICATION, Invitation
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password
from asgi_auth.phases import View

SITE = "http://localhost:8000"
ROLES = ("editor", "admin")
TABLE = "CREATE TABLE IF NOT EXISTS roles (user_id TEXT PRIMARY KEY, role TEXT NOT NULL)"


# --- what the application decides ------------------------------------------------------------------------------------


def send(user: User | None, token: str | None, opts: Mapping[str, Any]) -> None:
    """The mail, with its own text. Send it through a mail server here: printing is for this machine only."""
    who = f"{opts['inviter']} would like you to join" if opts["inviter"] else "You are the first of"
    print(f"To: {opts['address']}\n\n{who} the team.\nSet your password: {opts['url']}", flush=True)
    print(f"The link works once, until {opts['expires_at']:%d %B, %H:%M} UTC.\n", flush=True)


async def roles(user_id: str | None = None) -> list[str]:
    """The roles of all users, or of one."""
    async with auth.services.store.transaction() as work:
        rows = await work.connection.execute_fetchall("SELECT user_id, role FROM roles")
    return [role for owner, role in rows if user_id in (None, owner)]


async def may_invite(inviter: User, address: str, grant: Mapping[str, Any]) -> bool:
    """Whether the inviter may grant this role. Called again when the invitation is accepted."""
    return grant.get("role") in ROLES and "admin" in await roles(inviter.id)


async def may_revoke(actor: User, invitation: Any) -> bool:
    """Whether a user may revoke or resend the invitation of another user: an admin may."""
    return "admin" in await roles(actor.id)


async def give_role(user: User, grant: Mapping[str, Any], work: Any) -> None:
    """Runs in the transaction that creates the user, so that every user has a role. Never commit here."""
    await work.connection.execute("INSERT OR REPLACE INTO roles VALUES (?, ?)", (user.id, grant["role"]))


auth = Authentication(
    store=SQLiteStore("team.db"),
    secret=os.environ["AUTH_SECRET"],
    base_url=SITE,
    app_name="The team",
    registration="invite_only",
    strategies=[Password()],
    add_ons=[
        Invitation(
            sender=send,
            lifetime=timedelta(hours=48),
            url=f"{SITE}/welcome",
            may_invite=may_invite,
            may_revoke=may_revoke,
            grant=give_role,
        )
    ],
)


# --- pages -----------------------------------------------------------------------------------------------------------

WELCOME = """{problems}<p>{inviter} would like you to join as {email}. Choose a password:</p>
<form method="post" action="/auth/password/register">
  <input name="invitation_token" type="hidden" value="{token}">
  <input name="password" type="password" placeholder="Password" autocomplete="new-password" required>
  <input name="password_confirmation" type="password" placeholder="Again" autocomplete="new-password" required>
  <button>Join</button>
</form>"""
SIGN_IN = """<form method="post" action="/auth/password/sign_in">
  <input name="email" type="text" inputmode="email" autocomplete="username" autocapitalize="none" spellcheck="false"
    placeholder="Address" required>
  <input name="password" type="password" placeholder="Password" autocomplete="current-password" required>
  <button>Sign in</button>
</form>"""
HELLO = """<p>Hello {email}, {role}</p><form method="post" action="/auth/sign_out"><button>Sign out</button></form>"""
INVITE = """<form method="post" action="/invite">
  <input name="email" type="text" inputmode="email" autocomplete="off" autocapitalize="none" spellcheck="false"
    placeholder="Address" required>
  <select name="role"><option>editor<option>admin</select> <button>Invite</button>
</form>"""
ROW = """<li>{email}, {status}<form method="post" action="/auth/invitation/resend">
  <input name="id" type="hidden" value="{id}"><button>Send again</button><button formaction="/auth/invitation/revoke">
  Revoke</button></form></li>"""


def page(title: str, body: str, status: int = 200) -> Response:
    """A whole page; *body* is HTML."""
    html = f"<!doctype html><html lang='en'><title>{escape(title)}</title><h1>{escape(title)}</h1>{body}</html>"
    # The URL of a page may contain a token. This header keeps it out of the Referer of links and forms.
    return HTMLResponse(html, status, headers={"Referrer-Policy": "strict-origin", "Cache-Control": "no-store"})


async def home(request: Request) -> Response:
    """The signed-in user; for an admin also all invitations."""
    if not request.user.is_authenticated:
        return page("The team", SIGN_IN)
    role = ", ".join(await roles(request.user.id))
    body = HELLO.format(email=escape(request.user.email), role=escape(role))
    if role == "admin":
        sent = await auth.add_on("invitation").list(APPLICATION)
        rows = (ROW.format(email=escape(each.email), status=each.status, id=each.id) for each in sent)
        body += f"{INVITE}<ul>{''.join(rows)}</ul>"
    return page("The team", body)


@require(redirect="/")
async def invite(request: Request) -> Response:
    """Invite a person to a role; ``may_invite`` decides if the user may do so."""
    form = dict(parse_qsl((await request.body()).decode()))
    await auth.add_on("invitation").invite(request.user, form.get("email", ""), grant={"role": form.get("role")})
    return RedirectResponse("/", 303)


async def welcome(request: Request) -> Response:
    """The page of the mailed link. It changes nothing, because mail scanners follow links, too."""
    view = await auth.add_on("invitation").view(request.query_params, user=auth.user(request))
    if view.data["to_do"] != "register":  # the person has an account: the library's page shows the next step
        return RedirectResponse(f"/auth/invitation/view?{urlencode({'invitation_token': view.token})}", 303)
    return draw_welcome(view)


def draw_welcome(view: View, problems: str = "", status: int = 200) -> Response:
    """The form to choose a password; *problems* are those of the last attempt, as HTML."""
    said = {"inviter": view.data["inviter"] or "We", "email": view.data["email"], "token": view.token}
    body = WELCOME.format(problems=problems, **{name: escape(value) for name, value in said.items()})
    return page("Welcome", body, status)


def listed(reason: AuthError) -> str:
    """The problems of the form, as HTML."""
    return f"<ul>{''.join(f'<li>{escape(field)} {escape(text)}</li>' for field, text in reason.fields.items())}</ul>"


async def refused(request: Request, reason: Any) -> Response:
    """An error of the library on a page of this site."""
    return page(reason.title, f"{listed(reason)}<a href='/'>Back</a>", reason.status)


class SitePlug(AuthPlug[User]):
    """The answers of this site after each step."""

    async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """A rejected password draws our form again. The link stays valid until the person has registered."""
        token = self.link_token(request)
        if activity == ("password", "register") and token and isinstance(reason, ValidationError):
            view = await auth.add_on("invitation").view({"invitation_token": token})
            return draw_welcome(view, listed(reason), reason.status)
        return await super().handle_failure(request, activity, reason)

    async def handle_success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Response:
        """Signed in, or registered with an invitation."""
        response = RedirectResponse("/", 303)
        self.store_in_session(response, token)
        return response

    async def handle_accepted(self, request: Request, activity: Activity) -> Response:
        """An invitation was sent again, revoked, accepted or declined."""
        return RedirectResponse("/", 303)

    async def handle_sign_out(self, request: Request) -> Response:
        """Back to the start."""
        return RedirectResponse("/", 303)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Create the table, and invite the first admin if there is no admin."""
    async with auth.lifespan(app):
        async with auth.services.store.transaction() as work:
            await work.connection.execute(TABLE)
        if "admin" not in await roles():
            admin = os.environ.get("ADMIN_EMAIL", "admin@mail.example.org")
            with suppress(RateLimitedError):  # started twice within a minute: the link that was printed still works
                await auth.add_on("invitation").invite(APPLICATION, admin, grant={"role": "admin"})
        yield


app = Starlette(
    routes=[
        Route("/", home),
        Route("/invite", invite, methods=["POST"]),
        Route("/welcome", welcome),
        Mount("/auth", SitePlug(auth)),
    ],
    middleware=[Middleware(SessionUserMiddleware, auth=auth)],
    exception_handlers={AuthError: refused},
    lifespan=lifespan,
)
