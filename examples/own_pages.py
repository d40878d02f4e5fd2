"""Your own pages: the application draws every form with its templates, and the library checks the submitted values.

From the root of the repository:

    AUTH_SECRET=$(python -m asgi_auth secret) uvicorn --app-dir examples own_pages:app

then open http://localhost:8000. It needs Jinja (pip install 'asgi-auth[jinja]'). Accounts are kept in library.db in the
current directory.
"""

import os
from collections.abc import Mapping
from typing import Any

from jinja2 import DictLoader, Environment
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from asgi_auth import (
    AccessToken,
    Activity,
    Authentication,
    AuthenticationFailedError,
    AuthError,
    AuthPlug,
    InvalidTokenError,
    SessionUserMiddleware,
    User,
)
from asgi_auth.phases import Form
from asgi_auth.senders import ConsoleSender
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password, Resettable

BASE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{% block title %}{% endblock %} - Reading Room</title>
<style>
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #1b2b26; --green: #1f6b4f; --on-green: #fff;
  --line: #83918b; --red: #a3261b; font: 1.0625rem/1.5 system-ui, sans-serif }
@media (prefers-color-scheme: dark) { :root { --paper: #131a17; --ink: #e6ede9; --green: #7fd0ae; --on-green: #08241a;
  --red: #ffb0a6 } }
* { box-sizing: border-box }
body { max-width: 32rem; margin: 0 auto; padding: 1.5rem; background: var(--paper); color: var(--ink);
  overflow-wrap: anywhere }
header { margin-bottom: 2.5rem; padding-bottom: .75rem; border-bottom: .25rem solid var(--green) }
a { color: var(--green) }
header a { font-weight: 700; text-decoration: none }
h1 { font-size: 1.75rem; line-height: 1.2 }
label { display: block; margin-top: 1.25rem; font-weight: 600 }
input { font: inherit; padding: .5rem; border: 1px solid var(--line); background: transparent; color: inherit }
input:not([type=checkbox]) { width: 100% }
input[type=checkbox] { width: 1.25rem; height: 1.25rem; vertical-align: middle; accent-color: var(--green) }
label.box { font-weight: 400 }
input[aria-invalid] { border: 2px solid var(--red) }
button { display: block; margin: 1.5rem 0; padding: .6rem 1.5rem; font: inherit; font-weight: 600; border: 0;
  background: var(--green); color: var(--on-green); cursor: pointer }
:focus-visible { outline: 3px solid var(--green); outline-offset: 2px }
.problem { margin: .25rem 0; color: var(--red) }
</style>
</head>
<body>
<header><a href="/">Reading Room</a></header>
<main>{% block main %}{% endblock %}</main>
</body>
</html>
"""

FORM = """{% extends "base" %}
{% block title %}{{ "Error: " if reason }}{{ form.title }}{% endblock %}
{% block main %}
<h1>{{ form.title }}</h1>
{% if problem %}<p class="problem" role="alert">{{ problem }}</p>{% endif %}
{% if form.text %}<p>{{ form.text }}</p>{% endif %}
<form method="post" action="{{ action }}" novalidate>
{% for name, text in hidden.items() %}<input type="hidden" name="{{ name }}" value="{{ text }}">{% endfor %}
{% for field in form.fields %}
  {% set name, message = field.name, reason.fields[field.name] if reason and field.name in reason.fields %}
  {% if field.type == "checkbox" %}
  <label class="box"><input name="{{ name }}" type="checkbox" {{ "checked" if values[name] }}> {{ field.label }}</label>
  {% else %}
  <label for="{{ name }}">{{ field.label }}</label>
  <input id="{{ name }}" type="{{ field.type }}" autocomplete="{{ field.autocomplete }}"
    {% if field.inputmode %}inputmode="{{ field.inputmode }}" autocapitalize="none" spellcheck="false"{% endif %}
    {% if field.shown is none %}name="{{ name }}"{% else %}value="{{ field.shown }}" readonly{% endif %}
    {% if values[name] and field.shown is none %}value="{{ values[name] }}"{% endif %}
    {% if message %}aria-invalid="true" aria-describedby="{{ name }}-problem"{% endif %}>
  {% endif %}
  {% if message %}<p class="problem" id="{{ name }}-problem">{{ message }}</p>{% endif %}
{% endfor %}
<button>{{ form.button }}</button>
</form>
<p><a href="/auth/password/sign_in">Sign in</a> · <a href="/auth/password/register">Register</a> ·
<a href="/auth/password/reset_request">Forgot your password?</a></p>
{% endblock %}
"""

TEXT = """{% extends "base" %}
{% block title %}{{ title }}{% endblock %}
{% block main %}
<h1>{{ title }}</h1>
<p>{{ text }}</p>
{% if user %}<form method="post" action="/auth/sign_out"><button>Sign out</button></form>
{% else %}<p><a href="/auth/password/sign_in">Sign in</a> · <a href="/auth/password/register">Register</a></p>
{% endif %}
{% endblock %}
"""

TEMPLATES = Environment(loader=DictLoader({"base": BASE, "form": FORM, "text": TEXT}), autoescape=True)

DONE = {
    Activity("password", "reset_request"): ("Check your mail", "If you have an account, a link is on its way to you."),
    Activity("password", "reset"): ("Done", "Your new password is set. You can sign in with it now."),
}

auth = Authentication(
    store=SQLiteStore("library.db"),
    secret=os.environ["AUTH_SECRET"],
    base_url="http://localhost:8000",
    app_name="Reading Room",
    strategies=[Password(resettable=Resettable(sender=ConsoleSender()))],
)


class OwnPages(AuthPlug[User]):
    """Draws the forms and the pages after them. The library draws the other pages, such as /auth/account."""

    async def handle_form(
        self, request: Request, activity: Activity, form: Form, values: Mapping[str, Any], reason: AuthError | None
    ) -> Response:
        """Draw a form, also after an error: *values* are the submitted values, ``reason.fields`` has the messages."""
        hidden = {"return_to": self.return_to(request, default="/")}
        if form.token is not None:  # that of a mailed link
            hidden[form.token] = self.link_token(request)
        shown = {"form": form, "action": self.path(form.action or activity), "hidden": hidden, "values": values}
        return draw(
            "form", 200 if reason is None else reason.status, **shown, reason=reason, problem=problem(form, reason)
        )

    async def handle_success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Response:
        """The user is signed in: redirect to the page that they wanted."""
        response = RedirectResponse(self.return_to(request, default="/"), status_code=303)
        self.store_in_session(response, token)
        return response

    async def handle_accepted(self, request: Request, activity: Activity) -> Response:
        """The phase succeeded without a sign-in."""
        title, text = DONE.get(activity, ("Done", ""))
        return draw("text", title=title, text=text)

    async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """An invalid link or an unknown path. ``handle_form`` draws the forms that can be sent again."""
        if reason.status in (401, 422, 429, 503) and not isinstance(reason, InvalidTokenError):
            return await super().handle_failure(request, activity, reason)
        return draw("text", reason.status, title=reason.title, text=reason.advice)

    async def handle_sign_out(self, request: Request) -> Response:
        """Back to the start."""
        return RedirectResponse("/", status_code=303)


def problem(form: Form, reason: AuthError | None) -> str:
    """The problem of the form as a whole; for a wrong password the message of the form."""
    if reason is None:
        return ""
    if isinstance(reason, AuthenticationFailedError) and form.refused:
        return form.refused
    return f"{reason.title}. {reason.advice}"


def draw(template: str, status: int = 200, **shown: Any) -> Response:
    """A page of the application."""
    return HTMLResponse(TEMPLATES.get_template(template).render(shown), status)


async def home(request: Request) -> Response:
    """A greeting, or links to sign in and register."""
    if request.user.is_authenticated:
        return draw("text", title="Welcome back", text=f"You are signed in as {request.user.email}.", user=request.user)
    return draw("text", title="Welcome", text="Sign in to see the books that you have borrowed.")


app = Starlette(
    routes=[Route("/", home), Mount("/auth", OwnPages(auth))],
    middleware=[Middleware(SessionUserMiddleware, auth=auth)],
    lifespan=auth.lifespan,
)
