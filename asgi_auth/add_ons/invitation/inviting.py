"""The actions of the user who invites: invite, resend, revoke, list. The record is ``store.InvitationRecord``."""

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
"""The most characters of a scope or a reason."""

_NO_OBJECT = Message("invitation.grant", "This must be an object.")
_NO_NAMES = Message("invitation.strategies", "This must be a list of names.")
_BAD_TEXT = Message("invitation.text", "Use 1 to {limit} printable characters.", limit=TEXT_LIMIT)
_OVER = Message("invitation.over", "This invitation is over: it was accepted, declined or revoked, or it has expired.")


class Actor(Enum):
    """Actors that are not users."""

    APPLICATION = "application"


APPLICATION = Actor.APPLICATION
"""The application itself. No policy is checked for it. It must be passed explicitly, because None may mean anybody."""


class Inviting:
    """The actions of an inviter. The actor must be a user of the application, or ``APPLICATION``."""

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
        """Invite *address*. The result does not reveal whether the address has an account (IN-3).

        If the inviter has a pending invitation for this address, it is sent again with this *grant*. If another user
        has one, it is replaced if ``may_revoke`` allows the inviter that. Otherwise nothing happens, and no error is
        raised: an error that disappears later would reveal that the person has registered.

        Args:
            inviter: The application's user, or ``APPLICATION``. No policy is checked for ``APPLICATION``.
            address: The address to invite.
            grant: JSON values for the application's ``grant``, kept on the server.
            scope: The scope of the invitation, such as a team. An address has at most one pending invitation in each.
            strategies: The strategies that the person may register by; empty: any.
            client: The client of the request.

        Raises:
            ForbiddenError: the policy refuses, or *inviter* is None or anonymous.
            ValidationError: the address, grant, scope or strategies are invalid.
            RateLimitedError: there were too many invitations, or the last one is too recent.
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
            raise ValidationError("grant is not an object", fields={"grant": _NO_OBJECT})
        if grant and self._options.grant is None:
            raise ValidationError("the add-on has no grant function", fields={"grant": NOT_SUPPORTED})
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
            raise ValidationError("the address is not text", fields={"email": NOT_TEXT})
        return self._services.accounts.normalise("email", address)

    async def _check_policy(self, inviter: Any, wanted: InvitationRecord) -> None:
        if inviter is APPLICATION or await self._options.allows(inviter, wanted.email, wanted.grant, wanted.scope):
            return
        raise ForbiddenError("may not invite")

    async def resend(self, actor: Any, invitation_id: str, *, client: Client = Client()) -> Accepted:
        """Send another mail with a new link. Older links become invalid.

        Raises:
            ForbiddenError: there is no such invitation, it is not the actor's, or its inviter may not invite any more.
            ValidationError: the invitation is not pending any more.
            RateLimitedError: the last mail is too recent, or the limit of mails is reached.
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
        """Revoke an invitation. Its link becomes invalid at once.

        Args:
            actor: The application's user, or ``APPLICATION``.
            invitation_id: The id of the invitation.
            reason: A reason of the application, which is stored; None: ``revoked``.
            client: The client of the request.

        Raises:
            ForbiddenError: there is no such invitation, or it is not the actor's.
            ValidationError: the invitation is not pending any more, or the reason is invalid.
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
        """The actor's own invitations, the newest first; for ``APPLICATION`` those of all users.

        Args:
            actor: The application's user, or ``APPLICATION``.
            scope: Only of this scope.
            status: Only in this state. An invitation that has just expired may be missing until it is marked.
            before: Only invitations that follow this one in the list.
            limit: The most invitations to return.
            client: The client of the request.

        Raises:
            ForbiddenError: *actor* is None or anonymous.
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
        """An invitation that the actor may send again or revoke. Raises ForbiddenError if there is no such one."""
        invitation = await self._services.store.invitations.get(invitation_id)
        if invitation is None or not await self._manages(actor, invitation):
            raise ForbiddenError("no such invitation, or not theirs")
        return invitation

    async def _manages(self, actor: Any, invitation: InvitationRecord) -> bool:
        if actor is APPLICATION or self._id(actor) == invitation.inviter_id:
            return True
        return await self._options.allows_revoking(actor, invitation)

    def _id(self, actor: Any) -> str | None:
        """The id of the actor; None for the application only."""
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
        raise ValidationError("strategies are not a list of names", fields={"strategies": _NO_NAMES})


def _ended() -> ValidationError:
    return ValidationError("the invitation has ended", fields={"id": _OVER})
