"""Where the demo leads to after each step. What is not here leads to a page of the library."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from asgi_auth import Activity, AuthPlug, User

_NEXT = {
    Activity("password", "reset_request"): "/account?note=reset_asked",
    Activity("confirmation", "confirm"): "/account?note=confirmed",
    Activity("confirmation", "resend"): "/account?note=sent_again",
    Activity("confirmation", "change_email"): "/account?note=change_asked",
    Activity("confirmation", "cancel"): "/account?note=kept",
    Activity("invitation", "invite"): "/invitations?note=invited",
    Activity("invitation", "resend"): "/invitations?note=invited_again",
    Activity("invitation", "revoke"): "/invitations?note=revoked",
    Activity("invitation", "accept"): "/account?note=joined",
}

NOTES = {
    "reset_asked": "A link to choose a new password is on its way to your address.",
    "confirmed": "Your address is confirmed.",
    "sent_again": "If a change waits to be confirmed, another link is on its way. There is one a minute at most.",
    "change_asked": "A link is on its way to the new address. Open it to confirm the change.",
    "kept": "The change was cancelled. Your address stays as it is.",
    "invited": "The invitation is on its way.",
    "invited_again": "The invitation was sent again. The older link does not work any more.",
    "revoked": "The invitation was revoked. Its link does not work any more.",
    "joined": "You have accepted the invitation. Welcome!",
    "ended": "The session was ended.",
    "others_ended": "You are signed out everywhere but here.",
}
"""What a page may say at its top: the query names one, so that no link can put words of its own there."""


class DemoPlug(AuthPlug[User]):
    """Leads people who are signed in on to the pages of the demo, with a note of what was done."""

    async def handle_accepted(self, request: Request, activity: Activity) -> Response:
        """Done, and nobody was signed in."""
        if activity in _NEXT and request.user.is_authenticated:
            return RedirectResponse(_NEXT[activity], 303)
        return await super().handle_accepted(request, activity)
