"""The invitations that somebody has sent, and what can be done about those that wait."""

from collections.abc import Sequence
from html import escape

from asgi_auth.demo.pages import DemoPages, draw_time
from asgi_auth.pages import Context
from asgi_auth.store import InvitationRecord

_BADGES = {
    "pending": '<span class="badge waits">Waiting</span>',
    "accepted": '<span class="badge">Accepted</span>',
    "declined": '<span class="badge over">Declined</span>',
    "revoked": '<span class="badge over">Revoked</span>',
    "expired": '<span class="badge over">Expired</span>',
}
_INVITE = '<p class="buttons"><a class="button" href="/auth/invitation/invite">Invite people</a></p>'


class InvitationsPage:
    """Draws the page."""

    def __init__(self, pages: DemoPages, context: Context) -> None:
        self._pages, self._context = pages, context

    def draw(self, invitations: Sequence[InvitationRecord]) -> str:
        """The list, the newest first."""
        rows = "".join(map(self._row, invitations)) or '<li><p class="soft">None yet.</p></li>'
        return f'<ul class="rows">{rows}</ul>\n{_INVITE}'

    def _row(self, invitation: InvitationRecord) -> str:
        waits, acts = invitation.status == "pending", ""
        times = f"Sent {draw_time(invitation.last_sent_at)}"
        if waits:
            times += f"<br>Open until {draw_time(invitation.expires_at)}"
            again, revoke = self._act("resend", "Send again", invitation), self._act("revoke", "Revoke", invitation)
            acts = f'<div class="acts">{again}{revoke}</div>'
        if invitation.delivery == "failed":
            times += "<br>The mail could not be sent"
        name = f"<strong>{escape(invitation.email)}</strong> {_BADGES[invitation.status]}"
        return f'<li><div>{name}<p class="soft">{times}</p></div>{acts}</li>'

    def _act(self, phase: str, text: str, invitation: InvitationRecord) -> str:
        unseen, hidden = f"the invitation of {invitation.email}", {"id": invitation.id}
        return self._pages.act(self._context, f"/auth/invitation/{phase}", text, unseen=unseen, hidden=hidden)
