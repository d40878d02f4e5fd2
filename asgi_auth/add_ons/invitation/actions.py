"""The add-on itself: the actions of invitations, with or without HTTP."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast, get_args

from asgi_auth.acts import Draft
from asgi_auth.add_ons.invitation.accepting import Accepting
from asgi_auth.add_ons.invitation.forms import INVITE, RESEND, REVOKE
from asgi_auth.add_ons.invitation.inviting import Inviting
from asgi_auth.add_ons.invitation.mail import TOKEN
from asgi_auth.add_ons.invitation.states import States
from asgi_auth.errors import ConfigurationError, ValidationError
from asgi_auth.hooks import Hook
from asgi_auth.messages import NOT_SUPPORTED, Message
from asgi_auth.phases import Accepted, Outcome, Phase, PhaseRequest, View
from asgi_auth.protocol.fields import read_texts
from asgi_auth.services import Services
from asgi_auth.store import InvitationRecord, InvitationStatus
from asgi_auth.types import Client

if TYPE_CHECKING:
    from asgi_auth.add_ons.invitation.options import Invitation

LIST_LIMIT = 100
"""The most invitations in one answer."""

_NO_STATUS = Message("invitation.status", "This is not a status of an invitation.")
_NO_LIMIT = Message("invitation.limit", "This must be a number from 1 to {limit}.", limit=LIST_LIMIT)


class InvitationActions(Hook):
    """Opens the registration for invited people. ``Inviting`` and ``Accepting`` explain the actions."""

    opens_registration = True

    def __init__(self, options: "Invitation", services: Services[Any]) -> None:
        if any(hook.opens_registration for hook in services.hooks):
            raise ConfigurationError("add_ons: another add-on already opens the registration")
        if "email" not in services.store.users.identity_fields:
            raise ConfigurationError(f"{options.name}: the store cannot find users by email")
        self.name, self.needs = options.name, options.needs
        self._options, self._states = options, States(options, services)
        self._inviting = Inviting(options, services, self._states)
        self._accepting = Accepting(options, services, self._states)
        self.phases = self._make_phases()

    def _make_phases(self) -> Sequence[Phase]:
        token = frozenset({TOKEN})
        accept, decline = self._accepting.accept_form, self._accepting.decline_form
        return [
            Phase(
                name="invite",
                handle=self._invite_phase,
                form=INVITE,
                page=self._options.may_invite is not None,
                who="session",
            ),
            Phase(name="resend", handle=self._resend_phase, form=RESEND, who="session"),
            Phase(name="revoke", handle=self._revoke_phase, form=REVOKE, who="session"),
            Phase(name="list", methods=frozenset({"GET"}), handle=self._list_phase, who="session"),
            Phase(
                name="view", methods=frozenset({"GET"}), handle=self._view_phase, page=True, who="known", secrets=token
            ),
            Phase(name="accept", handle=self._accept_phase, who="session", form=accept, page=True, secrets=token),
            Phase(name="decline", handle=self._decline_phase, form=decline, page=True, secrets=token),
        ]

    # --- for the user who invites

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
        """Invite *address*, as ``Inviting.invite`` says."""
        return await self._inviting.invite(
            inviter, address, grant=grant, scope=scope, strategies=strategies, client=client
        )

    async def resend(self, actor: Any, invitation_id: str, *, client: Client = Client()) -> Accepted:
        """Send another mail, with a new link, as ``Inviting.resend`` says."""
        return await self._inviting.resend(actor, invitation_id, client=client)

    async def revoke(
        self, actor: Any, invitation_id: str, *, reason: str | None = None, client: Client = Client()
    ) -> Accepted:
        """Revoke an invitation, as ``Inviting.revoke`` says."""
        return await self._inviting.revoke(actor, invitation_id, reason=reason, client=client)

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
        """The actor's own invitations, as ``Inviting.list`` says."""
        return await self._inviting.list(actor, scope=scope, status=status, before=before, limit=limit, client=client)

    # --- for the invited person

    async def view(self, params: Mapping[str, Any], *, user: Any = None, client: Client = Client()) -> View:
        """Show the invitation, as ``Accepting.view`` says."""
        return await self._accepting.view(params, user=user, client=client)

    async def accept(self, user: Any, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted:
        """Join with an account, as ``Accepting.accept`` says."""
        return await self._accepting.accept(user, params, client=client)

    async def decline(self, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted:
        """Decline the invitation, as ``Accepting.decline`` says."""
        return await self._accepting.decline(params, client=client)

    # --- as a hook

    async def prepare(self, draft: Draft) -> Draft:
        """Allow a registration with a live token. The token proves the invited address."""
        return await self._accepting.prepare(draft)

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Mark expired invitations. Forget the address and the grant of invitations that ended long ago."""
        return await self._states.prune(now, limit)

    # --- phases

    async def _invite_phase(self, request: PhaseRequest) -> Outcome:
        texts = read_texts(request.params, required=["email"], optional=["scope"])
        if "scope" in texts and not self._options.knows_scopes:
            raise ValidationError("the policy takes no scope", fields={"scope": NOT_SUPPORTED})
        return await self.invite(
            request.state.user,
            texts["email"],
            grant=request.params.get("grant"),
            scope=texts.get("scope"),
            client=request.client,
        )

    async def _resend_phase(self, request: PhaseRequest) -> Outcome:
        return await self.resend(request.state.user, _id(request.params), client=request.client)

    async def _revoke_phase(self, request: PhaseRequest) -> Outcome:
        reason = read_texts(request.params, optional=["reason"]).get("reason")
        return await self.revoke(request.state.user, _id(request.params), reason=reason, client=request.client)

    async def _list_phase(self, request: PhaseRequest) -> Outcome:
        user, query = request.state.user, request.query
        before = await self._inviting.managed(user, query["before"]) if "before" in query else None
        listed = await self.list(
            user, scope=query.get("scope"), status=_status(query), before=before, limit=_limit(query)
        )
        return View({"invitations": [_shown(invitation) for invitation in listed]})

    async def _view_phase(self, request: PhaseRequest) -> Outcome:
        user = None if request.state.session is None else request.state.user
        return await self.view(request.query, user=user, client=request.client)

    async def _accept_phase(self, request: PhaseRequest) -> Outcome:
        return await self.accept(request.state.user, request.params, client=request.client)

    async def _decline_phase(self, request: PhaseRequest) -> Outcome:
        return await self.decline(request.params, client=request.client)


def _id(params: Mapping[str, Any]) -> str:
    return read_texts(params, required=["id"])["id"]


def _status(query: Mapping[str, str]) -> InvitationStatus | None:
    status = query.get("status")
    if status is not None and status not in get_args(InvitationStatus):
        raise ValidationError("no such status", fields={"status": _NO_STATUS})
    return cast("InvitationStatus | None", status)


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", "50")
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 0 < int(text) <= LIST_LIMIT):
        raise ValidationError("limit refused", fields={"limit": _NO_LIMIT})
    return int(text)


def _shown(invitation: InvitationRecord) -> dict[str, Any]:
    """The data of an invitation for a client, without its grant and without the user who accepted it."""
    return {
        "id": invitation.id,
        "scope": invitation.scope,
        "email": invitation.email,
        "status": invitation.status,
        "created_at": invitation.created_at.isoformat(),
        "expires_at": invitation.expires_at.isoformat(),
        "sent_count": invitation.sent_count,
        "last_sent_at": invitation.last_sent_at.isoformat(),
        "delivery": invitation.delivery,
        "reason": invitation.reason,
    }
