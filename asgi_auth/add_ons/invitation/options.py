"""The options of invitations, and the policies of the application among them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from asgi_auth.add_ons.invitation.actions import InvitationActions
from asgi_auth.add_ons.invitation.states import answer
from asgi_auth.add_ons.invitation.verbs import InvitationVerbs
from asgi_auth.checks import check_count, check_duration, check_mail_url, takes
from asgi_auth.errors import ConfigurationError
from asgi_auth.limits import Limit, check_limit
from asgi_auth.sender import Sender, SenderFunction
from asgi_auth.services import Services
from asgi_auth.store import InvitationRecord, Work
from asgi_auth.strategy import TypedActions

LONGEST_LIFETIME = timedelta(days=7)
"""The longest lifetime of a link (IN-1)."""

MayInvite = Callable[..., Any]
"""``(inviter, address, grant)`` or ``(inviter, address, grant, scope)``; plain or async."""
MayRevoke = Callable[[Any, InvitationRecord], Any]
"""``(actor, invitation)``; plain or async."""
Grant = Callable[[Any, Mapping[str, Any], Work[Any]], Any]
"""``(user, data, work)``; plain or async."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation(TypedActions[InvitationVerbs]):
    """Invites people by mail, to register or to join.

    Args:
        sender: Delivers the link. Only it sees the token.
        lifetime: How long a link lives; at most seven days.
        may_invite: Whether *inviter* may invite this address with this grant: ``(inviter, address, grant)``. A fourth
            parameter gets the scope; without it a client may not name a scope. It is called again when an invitation is
            accepted. None: only the application itself invites.
        may_revoke: Whether *actor* may revoke, resend or replace an invitation of another user: ``(actor,
            invitation)``. None: only the inviter may.
        grant: Writes the grant of the invitation: ``(user, data, work)``, in the transaction of the acceptance. An
            ``AuthError`` refuses the acceptance, and the invitation stays usable. None: an invitation grants nothing.
        resend_after: How long to wait after a mail before the next one.
        sent_at_most: The most mails of one invitation.
        extends_to: The longest lifetime of an invitation that is sent again.
        per_inviter: How many invitations one inviter may create.
        per_address: How many mails one address may get from all inviters together.
        forget_after: How long after its end an invitation keeps its address and grant.
        url: The application's own page in place of the library's; ``invitation_token`` is added to its query.
        sign_in_url: The application's page to sign in, for a link on the library's page.
        name: The path segment of the phases and ``auth.add_on(name)``.

    Raises:
        ConfigurationError: an option is invalid; the message names it.
    """

    sender: Sender | SenderFunction
    lifetime: timedelta = timedelta(days=7)
    may_invite: MayInvite | None = None
    may_revoke: MayRevoke | None = None
    grant: Grant | None = None
    resend_after: timedelta = timedelta(seconds=60)
    sent_at_most: int = 5
    extends_to: timedelta = timedelta(days=30)
    per_inviter: Limit = Limit(50, timedelta(days=1))
    per_address: Limit = Limit(5, timedelta(days=1))
    forget_after: timedelta = timedelta(days=90)
    url: str | None = None
    sign_in_url: str | None = None
    name: str = "invitation"

    needs: ClassVar[frozenset[str]] = frozenset({"invitations", "counters"})
    """The capabilities that the store must have."""

    def __post_init__(self) -> None:
        self._check_times()
        self._check_limits()
        for name in ("may_invite", "may_revoke", "grant"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise ConfigurationError(f"invitation.{name} must be a function")
        if self.may_invite is not None and not (takes(self.may_invite, 3) or takes(self.may_invite, 4)):
            raise ConfigurationError("invitation.may_invite must take (inviter, address, grant)")
        check_mail_url("invitation.url", self.url)

    def _check_times(self) -> None:
        for name in ("lifetime", "resend_after", "extends_to", "forget_after"):
            check_duration(f"invitation.{name}", getattr(self, name))
        check_duration("invitation.lifetime", self.lifetime, longest=LONGEST_LIFETIME)
        if self.extends_to < self.lifetime:
            raise ConfigurationError("invitation.extends_to must not be under lifetime")

    def _check_limits(self) -> None:
        check_count("invitation.sent_at_most", self.sent_at_most)
        for name in ("per_inviter", "per_address"):
            check_limit(f"invitation.{name}", getattr(self, name))

    def bind(self, services: Services[Any]) -> InvitationActions:
        """Called once at start by ``Authentication``."""
        return InvitationActions(self, services)

    @property
    def knows_scopes(self) -> bool:
        """Whether the policy takes the scope. If not, a client may not name a scope."""
        return self.may_invite is not None and takes(self.may_invite, 4)

    async def allows(self, inviter: Any, address: str, grant: Mapping[str, Any], scope: str | None) -> bool:
        """Whether *inviter* may invite."""
        if self.may_invite is None:
            return False
        arguments = (inviter, address, grant, scope)
        return bool(await answer(self.may_invite(*arguments[: 4 if self.knows_scopes else 3])))

    async def allows_revoking(self, actor: Any, invitation: InvitationRecord) -> bool:
        """Whether *actor* may end an invitation that is not theirs."""
        return self.may_revoke is not None and bool(await answer(self.may_revoke(actor, invitation)))
