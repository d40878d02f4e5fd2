"""The add-on itself: what can be done to an invitation, with or without HTTP."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast, get_args

from asgi_auth.acts import Draft
from asgi_auth.add_ons.invitation.accepting import Accepting
from asgi_auth.add_ons.invitation.inviting import Inviting
from asgi_auth.add_ons.invitation.machine import Machine
from asgi_auth.add_ons.invitation.mail import TOKEN
from asgi_auth.errors import ConfigurationError, ValidationError
from asgi_auth.hooks import Hook
from asgi_auth.phases import Outcome, Phase, PhaseRequest, View
from asgi_auth.protocol.fields import read_texts
from asgi_auth.services import Services
from asgi_auth.store import InvitationRecord, InvitationStatus

if TYPE_CHECKING:
    from asgi_auth.add_ons.invitation.options import Invitation

LIST_LIMIT = 100
"""Invitations in one answer."""


class InvitationActions(Hook):
    """Opens the registration for who was invited. Its verbs are those of ``Inviting`` and ``Accepting``."""

    opens_registration = True

    def __init__(self, options: "Invitation", services: Services[Any]) -> None:
        if any(hook.opens_registration for hook in services.hooks):
            raise ConfigurationError("add_ons: there is an add-on already that opens the registration")
        if "email" not in services.store.users.identity_fields:
            raise ConfigurationError(f"{options.name}: the store cannot find users by email")
        self.name, self.needs = options.name, options.needs
        self._options, self._machine = options, Machine(options, services)
        self._inviting = Inviting(options, services, self._machine)
        self._accepting = Accepting(options, services, self._machine)
        self.invite, self.resend = self._inviting.invite, self._inviting.resend
        self.revoke, self.list = self._inviting.revoke, self._inviting.list
        self.accept, self.decline, self.view = self._accepting.accept, self._accepting.decline, self._accepting.view
        self.phases = self._make_phases()

    def _make_phases(self) -> list[Phase]:
        token = frozenset({TOKEN})
        accept, decline = self._accepting.accept_form, self._accepting.decline_form
        return [
            Phase(name="invite", handle=self._invite_phase, who="session"),
            Phase(name="resend", handle=self._resend_phase, who="session"),
            Phase(name="revoke", handle=self._revoke_phase, who="session"),
            Phase(name="list", methods=frozenset({"GET"}), handle=self._list_phase, who="session"),
            Phase(
                name="view", methods=frozenset({"GET"}), handle=self._view_phase, page=True, who="known", secrets=token
            ),
            Phase(name="accept", handle=self._accept_phase, who="session", form=accept, page=True, secrets=token),
            Phase(name="decline", handle=self._decline_phase, form=decline, page=True, secrets=token),
        ]

    async def prepare(self, draft: Draft) -> Draft:
        """Let somebody register who shows a live token: with the invited address, which the token proves."""
        return await self._accepting.prepare(draft)

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Write down what has expired; of what is long over forget the address and the grant."""
        return await self._machine.prune(now, limit)

    # --- phases

    async def _invite_phase(self, request: PhaseRequest) -> Outcome:
        texts = read_texts(request.params, required=["email"], optional=["scope"])
        if "scope" in texts and not self._options.knows_scopes:
            raise ValidationError("no policy knows scopes", fields={"scope": "is not taken here"})
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
        raise ValidationError("no such status", fields={"status": "is none of an invitation"})
    return cast("InvitationStatus | None", status)


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", "50")
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 0 < int(text) <= LIST_LIMIT):
        raise ValidationError("limit refused", fields={"limit": f"must be a number from 1 to {LIST_LIMIT}"})
    return int(text)


def _shown(invitation: InvitationRecord) -> dict[str, Any]:
    """What a client is told of an invitation: neither what it grants, nor who has accepted it."""
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
