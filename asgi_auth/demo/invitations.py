"""Invitations: the page of whoever invites, and what is shown to whoever was invited."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from asgi_auth import Activity, AuthError, ValidationError
from asgi_auth.demo.drawing import APP_NAME, draw, draw_form, draw_time, public
from asgi_auth.demo.forms import EMAIL, INVITE, PASSWORD, REMEMBER, SIGN_IN, STEPS
from asgi_auth.pages import button
from asgi_auth.phases import Form, View
from asgi_auth.store import InvitationRecord
from asgi_auth.types import EMPTY

_BADGES = {
    "pending": '<span class="badge waits">Waiting</span>',
    "accepted": '<span class="badge">Accepted</span>',
    "declined": '<span class="badge over">Declined</span>',
    "revoked": '<span class="badge over">Revoked</span>',
    "expired": '<span class="badge over">Expired</span>',
}
TOKEN = "invitation_token"
"""The hidden field of whoever was invited."""


def draw_invitations(
    request: Request,
    invitations: Sequence[InvitationRecord],
    *,
    values: Mapping[str, Any] = EMPTY,
    reason: AuthError | None = None,
    activity: Activity = INVITE,
) -> Response:
    """The form, and the invitations that one has sent. *reason*: why *activity* was refused."""
    form, status = STEPS[INVITE].form, 200 if reason is None else reason.status
    alert, refused = "", reason
    if reason is not None and activity != INVITE:  # about a row, not about the form
        ended = isinstance(reason, ValidationError)
        problem = "This invitation is over already." if ended else public(reason, activity)
        alert, refused = f'<p class="problem notice" role="alert">{problem}</p>\n', None
    rows = "".join(_row(invitation) for invitation in invitations) or '<li><p class="soft">None yet.</p></li>'
    body = (
        f"{alert}{draw_form(form, INVITE, values=values, reason=refused)}\n"
        f'<h2>Your invitations</h2>\n<ul class="rows">{rows}</ul>'
    )
    return draw(request, form.title, body, status=status, wide=True)


def _row(invitation: InvitationRecord) -> str:
    pending, address = invitation.status == "pending", escape(invitation.email)
    times = f"Sent {draw_time(invitation.last_sent_at)}"
    if pending:
        times += f"<br>Open until {draw_time(invitation.expires_at)}"
    if invitation.delivery == "failed":
        times += "<br>The mail could not be sent"
    acts = _act("resend", "Send again", invitation) + _act("revoke", "Revoke", invitation)
    acts, badge = f'<div class="acts">{acts}</div>' if pending else "", _BADGES[invitation.status]
    return f'<li><div><strong>{address}</strong> {badge}<p class="soft">{times}</p></div>{acts}</li>'


def _act(phase: str, text: str, invitation: InvitationRecord) -> str:
    which = f"the invitation of {escape(invitation.email)}"
    return button(f"/auth/invitation/{phase}", text, unseen=which, hidden={"id": invitation.id})


def adapt(view: View) -> View:
    """What the library shows somebody who was invited, with the forms of this site to go on at once.

    The token goes along in their hidden field: nobody has to open the link of the mail again.
    """
    inviter, email, to_do = view.data["inviter"], view.data["email"], view.data["to_do"]
    text = f"{inviter or APP_NAME} has invited {email}."
    if to_do == "sign_in":
        fields = (EMAIL, PASSWORD, REMEMBER)
        form = Form(title="", token=TOKEN, fields=fields, button="Sign in and go on", action=SIGN_IN)
        text += " There is an account with this address: sign in to accept."
        return replace(view, text=text, forms=(form, *view.forms))
    if to_do == "switch_account":
        form = Form(title="", token=TOKEN, button="Sign out and go on", action=Activity(None, "sign_out"))
        text += f" You are signed in with another account: sign out to go on as {email}."
        return replace(view, text=text, forms=(form, *view.forms[1:]))
    return view
