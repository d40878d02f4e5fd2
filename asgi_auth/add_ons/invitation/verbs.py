"""The methods of ``auth.actions(invitation)``: each runs an action of invitations to its end."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from asgi_auth.phases import Finished, View
from asgi_auth.store import InvitationRecord, InvitationStatus
from asgi_auth.types import Client


class InvitationVerbs(Protocol):
    """The actions of ``InvitationActions``, with its errors."""

    async def invite(
        self,
        inviter: Any,
        address: str,
        *,
        grant: Mapping[str, Any] | None = ...,
        scope: str | None = ...,
        strategies: Sequence[str] = ...,
        client: Client = ...,
    ) -> Finished:
        """Invite *address*."""
        ...

    async def resend(self, actor: Any, invitation_id: str, *, client: Client = ...) -> Finished:
        """Send another mail, with a new link."""
        ...

    async def revoke(
        self, actor: Any, invitation_id: str, *, reason: str | None = ..., client: Client = ...
    ) -> Finished:
        """Revoke an invitation."""
        ...

    async def list(
        self,
        actor: Any,
        *,
        scope: str | None = ...,
        status: InvitationStatus | None = ...,
        before: InvitationRecord | None = ...,
        limit: int = ...,
        client: Client = ...,
    ) -> Sequence[InvitationRecord]:
        """The actor's own invitations."""
        ...

    async def view(self, params: Mapping[str, Any], *, user: Any = ..., client: Client = ...) -> View:
        """Show the invitation."""
        ...

    async def accept(self, user: Any, params: Mapping[str, Any], *, client: Client = ...) -> Finished:
        """Accept the invitation with an account."""
        ...

    async def decline(self, params: Mapping[str, Any], *, client: Client = ...) -> Finished:
        """Decline the invitation."""
        ...
