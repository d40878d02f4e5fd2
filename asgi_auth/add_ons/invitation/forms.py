"""The forms for a user who invites."""

from asgi_auth.messages import Message
from asgi_auth.phases import Form, FormField

INVITE = Form(
    title=Message("invite.title", "Invite people"),
    text=Message("invite.text", "We send a link by mail. It can be used once."),
    fields=(
        FormField(name="email", label=Message("field.email", "E-mail address"), autocomplete="off", inputmode="email"),
    ),
    button=Message("invite.button", "Send the invitation"),
    done=Message("invite.done", "The invitation is on its way."),
)
RESEND = Form(
    title="",
    button=Message("invitation.resend.button", "Send again"),
    done=Message("invitation.resend.done", "The invitation was sent again. The older link does not work any more."),
)
REVOKE = Form(
    title="",
    button=Message("invitation.revoke.button", "Revoke"),
    done=Message("invitation.revoke.done", "The invitation was revoked. Its link does not work any more."),
)
