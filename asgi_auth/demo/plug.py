"""What happens after each step: the library decides, this answers."""

from html import escape
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from asgi_auth import (
    AccessToken,
    Activity,
    AuthenticationFailedError,
    AuthError,
    AuthPlug,
    InvalidTokenError,
    MethodNotAllowedError,
    NotFreshError,
    User,
)
from asgi_auth.demo.drawing import draw, draw_failure, draw_mail_sent, draw_step
from asgi_auth.demo.forms import INVITE, REAUTHENTICATE, REGISTER, RESEND_LINK, ROWS, SIGN_IN, STEPS, VIEW
from asgi_auth.demo.invitations import TOKEN, adapt, draw_invitations
from asgi_auth.pages import links
from asgi_auth.phases import View

_ACCEPTED: dict[tuple[str | None, str | None], str] = {
    ("password", "register"): "/sign_in?note=made",  # with an invitation, and no session could be had
    ("password", "reset"): "/sign_in?note=set",
    ("password", "reset_request"): "/mail_sent",
    ("confirmation", "change_email"): "/account?note=change_asked",
    ("confirmation", "cancel"): "/account?note=kept",
    ("confirmation", "undo"): "/forgot_password?note=undone",
    ("invitation", "invite"): "/invitations?note=invited",
    ("invitation", "resend"): "/invitations?note=invited_again",
    ("invitation", "revoke"): "/invitations?note=revoked",
    ("invitation", "accept"): "/account?note=joined",
    ("invitation", "decline"): "/?note=declined",
}
_DEAD_LINK = "It was used, it has expired, or there is a newer one."
_NEW_LINKS = {
    "reset": {"/forgot_password": "Ask for a new link"},
    "confirm": {"/confirm_address": "Ask for a new link"},
}
_ON_PAGES_OF_THE_LIBRARY = ("reset", "confirm", "undo", "accept", "decline")


class SitePlug(AuthPlug[User]):
    """The phases of the library with the pages of the demo."""

    # --- done

    async def handle_success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Response:
        """Signed in or registered: on to where they wanted to go."""
        response = await self._invited(request, user) if activity == SIGN_IN else None
        if response is None:
            joined = "?note=joined" * (activity == REGISTER)  # nobody is signed in by registering but who was invited
            response = RedirectResponse(self.return_to(request, default=f"/account{joined}"), 303)
        self.store_in_session(response, token)
        return response

    async def handle_sign_out(self, request: Request) -> Response:
        """Back to the start, or to the invitation that is for another account."""
        return await self._invited(request, None) or RedirectResponse("/?note=signed_out", 303)

    async def _invited(self, request: Request, user: User | None) -> Response | None:
        """The invitation that somebody had before them, as it looks to *user*; None: there was none."""
        if TOKEN not in self.params(request):
            return None
        try:
            view = await self.auth.add_on("invitation").view(self.params(request), user=user)
        except AuthError:  # it is dead by now
            return None
        return await self.handle_view(request, VIEW, view)

    async def handle_view(self, request: Request, activity: Activity, view: View) -> Response:
        """The page of an invitation."""
        return await super().handle_view(request, activity, adapt(view) if activity == VIEW else view)

    async def handle_accepted(self, request: Request, activity: Activity) -> Response:
        """Done, and nobody was signed in."""
        signed_in, address = request.user.is_authenticated, self.params(request).get("email")
        if address and (activity == REGISTER or (activity == RESEND_LINK and not signed_in)):
            return draw_mail_sent(request, address, again=activity == RESEND_LINK)
        if activity == RESEND_LINK:
            return RedirectResponse("/account?note=sent_again", 303)
        if activity.phase == "confirm":
            return RedirectResponse("/account?note=confirmed" if signed_in else "/sign_in?note=proven", 303)
        return RedirectResponse(_ACCEPTED[activity], 303)

    # --- refused

    async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """The form again, with what is wrong; a page that says so where there is no form."""
        way = self._way_round(request, activity, reason)
        if way is not None:
            return RedirectResponse(way, 303)
        values, return_to = self.params(request), self.return_to(request, default="")
        if page_of(activity) == STEPS[INVITE].path and request.user.is_authenticated:
            sent = await self.auth.add_on("invitation").list(request.user)
            return draw_invitations(request, sent, activity=activity, values=values, reason=reason)
        if activity in STEPS and (activity != REGISTER or "email" in values):  # whoever was invited names none
            return draw_step(request, activity, return_to=return_to, values=values, reason=reason)
        if isinstance(reason, InvalidTokenError) or activity == VIEW:
            return _draw_dead_link(request, activity, reason)
        if activity == REGISTER or activity.phase in _ON_PAGES_OF_THE_LIBRARY:
            return await super().handle_failure(request, activity, reason)  # that page once more
        return draw_failure(request, reason.title, reason.status)

    def _way_round(self, request: Request, activity: Activity, reason: AuthError) -> str | None:
        """Where to go first, or instead."""
        here, phase = page_of(activity), self.auth.routes.get((activity.strategy or "", activity.phase or ""))
        if isinstance(reason, MethodNotAllowedError) and activity in STEPS:
            return here  # somebody entered the address of a refused form once more
        back = urlencode({"return_to": here})
        if isinstance(reason, NotFreshError):
            return f"{STEPS[REAUTHENTICATE].path}?{back}"
        nobody = isinstance(reason, AuthenticationFailedError) and not request.user.is_authenticated
        if nobody and phase is not None and phase.who == "session":
            return f"{STEPS[SIGN_IN].path}?{back}"
        return None


def page_of(activity: Activity) -> str:
    """The page that leads to a phase."""
    if activity in STEPS:
        return STEPS[activity].path
    return STEPS[INVITE].path if activity in ROWS else "/account"


def _draw_dead_link(request: Request, activity: Activity, reason: AuthError) -> Response:
    told = " ".join(reason.fields.values()) if isinstance(reason, InvalidTokenError) else ""
    ways = _NEW_LINKS.get(activity.phase or "", {"/": "Back to the start"})
    body = f"<p>{escape(told or _DEAD_LINK)}</p>\n{links(ways)}"
    return draw(request, "This link does not work any more", body, status=reason.status)
