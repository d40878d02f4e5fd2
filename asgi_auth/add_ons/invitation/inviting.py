"""For who invites: invite, resend, revoke, list. The record is ``store.InvitationRecord``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from asgi_auth.add_ons.invitation.states import States
from asgi_auth.errors import ForbiddenError, InvalidTokenError, ValidationError
from asgi_auth.messages import NOT_SUPPORTED, NOT_TEXT, Message
from asgi_auth.phases import Accepted
from asgi_auth.services import Services
from asgi_auth.store import InvitationRecord, InvitationStatus
from asgi_auth.types import AnonymousUser, Client

if TYPE_CHECKING:
    from asgi_auth.add_ons.invitation.options import Invitation

TEXT_LIMIT = 200
"""Characters of a scope or a reason."""

_NO_OBJECT = Message("invitation.grant", "This must be an object.")
_NO_NAMES = Message("invitation.strategies", "This must be a list of names.")
_BAD_TEXT = Message("invitation.text", "Use 1 to {limit} printable characters.", limit=TEXT_LIMIT)
_OVER = Message("invitation.over", "This invitation is over: it was accepted, declined or revoked, or it has expired.")


class Actor(Enum):
    """Who may act beside the users."""

    APPLICATION = "application"


APPLICATION = Actor.APPLICATION
"""The application itself, which is asked no policy. It has to be named: that there is no user may mean anybody."""


class Inviting:
    """Whoever acts is a user of the application, or ``APPLICATION``; nobody else may."""

    def __init__(self, options: "Invitation", services: Services[Any], states: States) -> None:
        self._options, self._services, self._states = options, services, states

    async def invite(
        self,
        inviter: Any,
        address: str,
        *,
        grant: Mapping[str, Any] | None = None,
        scope: str | None = None,
        strategies: Sequence[str] = (),
        client: Client = Client(),
    ) -> Accepted:
        """Invite *address*; what comes back says nothing about it (IN-3).

        If the inviter has a pending invitation there, it is sent again, with this *grant*. If somebody else has, it is
        replaced if ``may_revoke`` lets the inviter, else nothing happens, and nobody is told: an error that comes and
        goes would say when the person has registered.

        Args:
            inviter: The application's user, or ``APPLICATION``, which is asked no policy.
            address: Whom to invite.
            grant: JSON values for the application's ``grant``, kept on the server.
            scope: What they are invited to, a team perhaps; one invitation may be pending in each.
            strategies: By which they may register; empty: any.
            client: The client of the request.

        Raises:
            ForbiddenError: the policy says no, or *inviter* is nobody.
            ValidationError: the address, grant, scope or strategies are invalid.
            RateLimitedError: too many, or too soon after the last one.
            StoreUnavailableError: the database does not answer.
        """
        wanted = self._wanted(inviter, address, grant, scope, strategies)
        await self._check_policy(inviter, wanted)
        pending = await self._services.store.invitations.find(scope, wanted.email_key, now=wanted.created_at)
        if pending is not None and pending.inviter_id == wanted.inviter_id and pending.strategies == wanted.strategies:
            await self._states.renew(pending, grant=wanted.grant, client=client)
            return Accepted()
        if wanted.inviter_id is not None:
            limit = self._options.per_inviter
            await self._services.limiter.take(f"{self._options.name}.inviter", wanted.inviter_id, limit)
        if pending is None or await self._manages(inviter, pending):
            await self._states.create(wanted, replaces=pending, client=client)
        return Accepted()

    def _wanted(
        self, inviter: Any, address: object, grant: object, scope: str | None, strategies: Sequence[str]
    ) -> InvitationRecord:
        email, email_key = self._address(address)
        if grant is not None and not isinstance(grant, Mapping):
            raise ValidationError("grant is no object", fields={"grant": _NO_OBJECT})
        if grant and self._options.grant is None:
            raise ValidationError("nothing writes what is granted", fields={"grant": NOT_SUPPORTED})
        _check_text("scope", scope)
        _check_strategies(strategies)
        now = self._services.clock()
        return InvitationRecord(
            id=str(uuid4()),
            scope=scope,
            email=email,
            email_key=email_key,
            grant=dict(grant or {}),
            strategies=tuple(strategies),
            inviter_id=self._id(inviter),
            created_at=now,
            expires_at=now + self._options.lifetime,
            last_sent_at=now,
        )

    def _address(self, address: object) -> tuple[str, str]:
        if not isinstance(address, str):
            raise ValidationError("the address is no text", fields={"email": NOT_TEXT})
        return self._services.accounts.normalise("email", address)

    async def _check_policy(self, inviter: Any, wanted: InvitationRecord) -> None:
        if inviter is APPLICATION or await self._options.allows(inviter, wanted.email, wanted.grant, wanted.scope):
            return
        raise ForbiddenError("may not invite")

    async def resend(self, actor: Any, invitation_id: str, *, client: Client = Client()) -> Accepted:
        """Send another mail, with a new link; the older ones are dead.

        Raises:
            ForbiddenError: there is no such invitation, it is not the actor's, or who made it may not invite any more.
            ValidationError: it is not pending any more.
            RateLimitedError: the last mail is too recent, or there were enough.
            StoreUnavailableError: the database does not answer.
        """
        invitation = await self.managed(actor, invitation_id)
        self._check_pending(invitation)
        try:
            await self._states.check_inviter(invitation)
        except InvalidTokenError as exc:
            raise ForbiddenError(exc.reason) from exc
        await self._states.renew(invitation, client=client)
        return Accepted()

    async def revoke(
        self, actor: Any, invitation_id: str, *, reason: str | None = None, client: Client = Client()
    ) -> Accepted:
        """Take an invitation back; its link is dead at once.

        Args:
            actor: The application's user, or ``APPLICATION``.
            invitation_id: Which one.
            reason: A word of the application's, to be kept; None: ``revoked``.
            client: The client of the request.

        Raises:
            ForbiddenError: there is no such invitation, or it is not the actor's.
            ValidationError: it is not pending any more, or the reason is invalid.
            StoreUnavailableError: the database does not answer.
        """
        _check_text("reason", reason)
        invitation = await self.managed(actor, invitation_id)
        by = self._id(actor)
        if not await self._states.end(invitation, "revoked", by=by, reason=reason or "revoked", client=client):
            raise _ended()
        return Accepted()

    async def list(
        self,
        actor: Any,
        *,
        scope: str | None = None,
        status: InvitationStatus | None = None,
        before: InvitationRecord | None = None,
        limit: int = 50,
        client: Client = Client(),
    ) -> Sequence[InvitationRecord]:
        """The actor's own invitations, the newest first; for ``APPLICATION`` everybody's.

        Args:
            actor: The application's user, or ``APPLICATION``.
            scope: Only of this scope.
            status: Only in this state. What has just run out of time may be left out until it was written down.
            before: Only what comes after this one.
            limit: How many at most.
            client: The client of the request.

        Raises:
            ForbiddenError: *actor* is nobody.
            StoreUnavailableError: the database does not answer.
        """
        inviter_id, now = self._id(actor), self._services.clock()
        found = await self._services.store.invitations.list(
            inviter_id=inviter_id, scope=scope, status=status, before=before, limit=limit
        )
        over = [each.status == "pending" and each.expires_at <= now for each in found]
        shown = [replace(each, status="expired") if late else each for each, late in zip(found, over, strict=True)]
        return [each for each in shown if status is None or each.status == status]

    async def managed(self, actor: Any, invitation_id: str) -> InvitationRecord:
        """An invitation that the actor may send again or revoke. ForbiddenError: there is none, or they may not."""
        invitation = await self._services.store.invitations.get(invitation_id)
        if invitation is None or not await self._manages(actor, invitation):
            raise ForbiddenError("no such invitation, or not theirs")
        return invitation

    async def _manages(self, actor: Any, invitation: InvitationRecord) -> bool:
        if actor is APPLICATION or self._id(actor) == invitation.inviter_id:
            return True
        return await self._options.allows_revoking(actor, invitation)

    def _id(self, actor: Any) -> str | None:
        """The id of who acts; None for the application, never for anybody else."""
        if actor is APPLICATION:
            return None
        if actor is None or isinstance(actor, AnonymousUser):
            raise ForbiddenError("nobody is signed in")
        return self._services.accounts.user_id(actor)

    def _check_pending(self, invitation: InvitationRecord) -> None:
        if invitation.status != "pending" or invitation.expires_at <= self._services.clock():
            raise _ended()


def _check_text(name: str, text: str | None) -> None:
    if text is not None and not (0 < len(text) <= TEXT_LIMIT and text.isprintable()):
        raise ValidationError(f"{name} refused", fields={name: _BAD_TEXT})


def _check_strategies(names: object) -> None:
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(type(name) is str for name in names):
        raise ValidationError("strategies are no names", fields={"strategies": _NO_NAMES})


def _ended() -> ValidationError:
    return ValidationError("the invitation has ended", fields={"id": _OVER})
