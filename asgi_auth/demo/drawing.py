"""What the pages of the demo have in common."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from asgi_auth import Activity, AuthError, RateLimitedError
from asgi_auth.demo.forms import NOTES, REAUTHENTICATE, RESEND_LINK, SIGN_IN, STEPS
from asgi_auth.pages import button, form_body, links, page
from asgi_auth.phases import Form
from asgi_auth.types import EMPTY

APP_NAME = "asgi_auth demo"
MAILS = '<p class="soft">The demo prints its mails in the terminal that runs it.</p>'
_CURRENT = ' aria-current="page"'
_INVITED = "Sign in with the address that was invited, and you can accept."
_REFUSED = {
    SIGN_IN: "The address or the password is not right, or the address is not confirmed yet.",
    REAUTHENTICATE: "The password is not right.",
}


def draw(
    request: Request, title: str, body: str, *, status: int = 200, wide: bool = False, note: str | None = None
) -> Response:
    """A page of the demo: the parts that all have in common, around *body*. *note*: in place of the query's."""
    text = NOTES.get(note or request.query_params.get("note", ""), "")
    notice = f'<p class="notice" role="status">{text}</p>\n' if text and status == 200 else ""
    made = page(title, notice + body, app_name=APP_NAME, status=status, header=_header(request), wide=wide)
    return HTMLResponse(made.html, made.status, headers=made.headers)


def _header(request: Request) -> str:
    signed_in, here = request.user.is_authenticated, request.scope["path"]
    pages = {"/account": "Account", "/invitations": "Invitations"}
    pages = pages if signed_in else {"/sign_in": "Sign in", "/register": "Register"}
    parts = [f'<a href="{path}"{_CURRENT * (path == here)}>{text}</a>' for path, text in pages.items()]
    parts += [button("/auth/sign_out", "Sign out")] if signed_in else []
    return f'<a class="brand" href="/">{APP_NAME}</a><nav aria-label="Main">{"".join(parts)}</nav>'


def draw_step(
    request: Request,
    activity: Activity,
    *,
    return_to: str = "",
    values: Mapping[str, Any] = EMPTY,
    reason: AuthError | None = None,
) -> Response:
    """The page of a form; after a refusal with what is wrong, and with what was entered but for the passwords."""
    step, query = STEPS[activity], f"?{urlencode({'return_to': return_to})}" if return_to else ""
    token = values.get("invitation_token")  # of whoever was invited and has to sign in first
    hidden = {"return_to": return_to, "invitation_token": token if isinstance(token, str) else ""}
    form = draw_form(
        replace(step.form, text=_INVITED) if token else step.form,
        activity,
        hidden={name: value for name, value in hidden.items() if value},
        values=values,
        reason=reason,
    )
    body = f"{form}\n{links({path + query: text for path, text in step.links.items()})}"
    return draw(request, step.form.title, body, status=200 if reason is None else reason.status)


def draw_form(
    form: Form,
    activity: Activity,
    *,
    hidden: Mapping[str, str] = EMPTY,
    values: Mapping[str, Any] = EMPTY,
    reason: AuthError | None = None,
) -> str:
    """A form that posts to a phase, as HTML."""
    return form_body(
        form,
        action=path_of(activity),
        hidden=hidden,
        values=values,
        problem="" if reason is None else public(reason, activity),
        problems=EMPTY if reason is None else reason.fields,
    )


def draw_failure(request: Request, title: str, status: int) -> Response:
    """A page for what cannot be done, with a way on."""
    return draw(request, title, links({"/": "Back to the start"}), status=status)


def draw_mail_sent(request: Request, address: str, *, again: bool) -> Response:
    """After a registration: the same for everybody, whether or not there was an account with *address*."""
    text = (
        f"<p>We have sent a link to <strong>{escape(address)}</strong>. Open it to confirm that the address is"
        " yours; then you can sign in.</p>"
    )
    resend = Form(title="", button="Send the link again")
    form = form_body(resend, action=path_of(RESEND_LINK), hidden={"email": address}, look="plain")
    ways = links({"/register": "Use another address", "/sign_in": "Sign in"})
    body = f'{text}\n{MAILS}\n<div class="buttons">{form}</div>\n{ways}'
    return draw(request, "Look at your mail", body, note="sent_again" if again else None)


def draw_who(request: Request) -> str:
    """Who is signed in, as HTML."""
    return f"<p>You are signed in as <strong>{escape(request.user.display_name)}</strong>.</p>"


def path_of(activity: Activity) -> str:
    """Where a phase is."""
    return f"/auth/{activity.strategy}/{activity.phase}"


def public(reason: AuthError, activity: Activity) -> str:
    """What a person may be told: the same for a wrong password and an unknown address (EN-1)."""
    if reason.status == 401:
        return _REFUSED.get(activity, f"{reason.title}.")
    if isinstance(reason, RateLimitedError):
        return f"That was too often. Please try again in {_wait(int(reason.headers['Retry-After']))}."
    return f"{reason.title}."


def _wait(seconds: int) -> str:
    """Such as ``40 seconds`` or ``3 minutes``; rounded up."""
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds > size:
            return f"{-(-seconds // size)} {unit}s"
    return f"{seconds} second{'s' * (seconds != 1)}"


def draw_time(at: datetime) -> str:
    """An instant, as HTML."""
    return f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at.day} {at:%b %Y, %H:%M} UTC</time>'
