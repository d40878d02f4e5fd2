"""The mail of an invitation, and the data for its text."""

from typing import TYPE_CHECKING, Any

from asgi_auth.claims import is_moved
from asgi_auth.mailing import Link, Quota
from asgi_auth.services import Services
from asgi_auth.store import InvitationRecord
from asgi_auth.tokens import IssuedToken
from asgi_auth.types import Account

if TYPE_CHECKING:
    from asgi_auth.add_ons.invitation.options import Invitation

TOKEN = "invitation_token"
"""The parameter of the token. The token is never a cookie, because an attacker may plant one."""


class InvitationMail:
    """Passes the token of an invitation to the sender only."""

    def __init__(self, options: "Invitation", services: Services[Any]) -> None:
        self._options, self._services = options, services
        self._link = Link(strategy=options.name, phase="view", parameter=TOKEN, url=options.url)
        self._sender = services.mailing.sender(options.sender, parameter=f"{options.name}.sender")

    def quota(self, invitation: InvitationRecord) -> Quota:
        """The quota of mails to the invited address, for all inviters together."""
        return Quota(f"{self._options.name}.address", invitation.email_key, self._options.per_address)

    async def send(self, invitation: InvitationRecord, issued: IssuedToken) -> None:
        """Send the mail. As a job it looks up the address after the answer, so that timing reveals nothing (IN-3).

        The mail was counted before the answer.
        """
        services, options, quota = self._services, self._options, self.quota(invitation)
        try:
            found = await services.store.users.find("email", invitation.email_key)
            inviter = await self.inviter_name(invitation)
        except Exception:
            await services.mailing.give_back(quota)
            raise
        owner = found.user if found is not None and is_owned(services, found.account) else None
        sent = await services.mailing.send(
            self._sender,
            owner,
            purpose=options.name,
            address=invitation.email,
            token=issued,
            link=self._link,
            counted=[quota],
            details={"inviter": inviter, "scope": invitation.scope, "registered": owner is not None},
        )
        note = services.store.invitations.note_delivery
        await note(invitation.id, invitation.version, "sent" if sent else "failed")

    async def inviter_name(self, invitation: InvitationRecord) -> str | None:
        """The printable display name of the inviter; empty if it is only an id, None for the application."""
        found = None if invitation.inviter_id is None else await self._services.accounts.get(invitation.inviter_id)
        if found is None:
            return None
        name = self._services.accounts.display_name(found.user)
        return "" if name == found.account.user_id else name  # an id means nothing to the reader


def proves_addresses(services: Services[Any]) -> bool:
    """Whether an unproven address prevents a sign-in."""
    return any(hook.proves_addresses for hook in services.hooks)


def is_owned(services: Services[Any], account: Account) -> bool:
    """Whether the account has an owner. Anybody may make an unproven account with an address, or move one (AC-1)."""
    if is_moved(account):
        return False
    known = account.confirmed_at is not None or account.disabled_at is not None  # a disabled user stays disabled (IN-4)
    return known or not proves_addresses(services)
