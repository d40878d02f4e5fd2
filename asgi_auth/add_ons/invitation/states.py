"""The states of an invitation, and the one guarded statement behind each step from one to the next.

::

    create ──► pending ──► accepted
               │  ▲   ├──► revoked
       another │  │   ├──► declined
          mail └──┘   └──► expired     by the clock; marked later

The token of a mail is opaque. Its row names an invitation and its version. A new mail makes a new version, and only the
token of the newest version is live.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from inspect import isawaitable
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from asgi_auth.add_ons.invitation.mail import TOKEN, InvitationMail
from asgi_auth.errors import InvalidTokenError, RateLimitedError
from asgi_auth.events import InvitationAccepted, InvitationEnded, InvitationSent
from asgi_auth.messages import Message
from asgi_auth.services import Services
from asgi_auth.store import Found, InvitationRecord, Work
from asgi_auth.tokens import IssuedToken
from asgi_auth.types import Client

if TYPE_CHECKING:
    from asgi_auth.add_ons.invitation.options import Invitation

LOST_AUTHORITY = "inviter_lost_authority"


async def answer(result: Any) -> Any:
    """The result of a function of the application, plain or async."""
    return await result if isawaitable(result) else result


_NEWER = Message("invitation.newer", "A newer invitation was sent. Open the link of the newest mail.")


class States:
    """Moves invitations from state to state. The only policy it checks is whether the inviter may still invite."""

    def __init__(self, options: "Invitation", services: Services[Any]) -> None:
        self._options, self._services = options, services
        self._invitations = services.store.invitations
        self._mail = InvitationMail(options, services)
        self.inviter_name = self._mail.inviter_name

    # --- to pending

    async def create(self, wanted: InvitationRecord, *, replaces: InvitationRecord | None, client: Client) -> None:
        """Store *wanted* in place of *replaces*, and mail it. Does nothing if another request was first."""
        issued, quota = self._issue(wanted), self._mail.quota(wanted)

        async def act(work: Work[Any]) -> bool:
            if replaces is not None:
                await self._end(work, replaces, "revoked", by=wanted.inviter_id, reason="superseded", client=client)
            inserted = await work.invitations.insert(wanted)
            if inserted:
                await work.tokens.insert(issued.record)
                self._announce(work, wanted, issued, client)
            return inserted

        async with self._services.mailing.counted(quota):
            inserted = await self._services.commit(act)
        if not inserted:
            await self._services.mailing.give_back(quota)

    async def renew(
        self, invitation: InvitationRecord, *, grant: Mapping[str, Any] | None = None, client: Client
    ) -> None:
        """Make the next version, with a new *grant* if given, and mail it. Older links become invalid.

        Raises:
            RateLimitedError: the last mail is too recent, or the limit of mails is reached; or another request was
                first.
        """
        now = self._services.clock()
        self._check_pace(invitation, now)
        expires_at = min(now + self._options.lifetime, invitation.created_at + self._options.extends_to)
        issued = self._issue(replace(invitation, version=invitation.version + 1, expires_at=expires_at))

        async def act(work: Work[Any]) -> None:
            renewed = await work.invitations.renew(
                invitation.id,
                version=invitation.version,
                now=now,
                expires_at=expires_at,
                sent_before=now - self._options.resend_after,
                sent_at_most=self._options.sent_at_most,
                grant=grant,
            )
            if renewed is None:
                _refuse_for(self._options.resend_after)
            await work.tokens.insert(issued.record)
            self._announce(work, renewed, issued, client)

        async with self._services.mailing.counted(self._mail.quota(invitation)):
            await self._services.commit(act)

    def _check_pace(self, invitation: InvitationRecord, now: datetime) -> None:
        wait = invitation.last_sent_at + self._options.resend_after - now
        if invitation.sent_count >= self._options.sent_at_most:
            wait = invitation.expires_at - now
        if wait > timedelta(0):
            _refuse_for(wait)

    def _issue(self, invitation: InvitationRecord) -> IssuedToken:
        return self._services.tokens.make(
            self._options.name,
            account=None,
            lifetime=invitation.expires_at - self._services.clock(),
            extra_data={"invitation": invitation.id, "version": invitation.version},
        )

    def _announce(self, work: Work[Any], invitation: InvitationRecord, issued: IssuedToken, client: Client) -> None:
        at, user_id = self._services.clock(), invitation.inviter_id
        work.emit(InvitationSent(at=at, user_id=user_id, invitation=invitation))
        work.after_commit(partial(self._mail.send, invitation, issued))

    # --- reading

    async def read(self, token: str) -> tuple[InvitationRecord, int]:
        """The invitation of a token, in any state, and the version of the token.

        Raises:
            InvalidTokenError: the token belongs to no invitation.
        """
        record = await self._services.tokens.peek(self._options.name, token)
        invitation = await self._invitations.get(record.extra_data.get("invitation", ""))
        if invitation is None:
            raise InvalidTokenError("the token leads to no invitation")
        return invitation, record.extra_data["version"]

    async def live(self, token: str) -> InvitationRecord:
        """The pending invitation whose newest token this is.

        Raises:
            InvalidTokenError: the token is not live. Every cause gives the same answer, except a newer mail.
        """
        invitation, version = await self.read(token)
        self.check_live(invitation, version)
        return invitation

    def check_live(self, invitation: InvitationRecord, version: int) -> None:
        """Raises InvalidTokenError unless *invitation* is pending and has this *version*."""
        if invitation.status != "pending" or invitation.expires_at <= self._services.clock():
            raise InvalidTokenError(f"the invitation is {invitation.status}")
        if invitation.version != version:
            # The person with the older mail also has the newer one, so this reveals nothing to them.
            newer = {TOKEN: _NEWER}
            raise InvalidTokenError("the invitation was sent again", fields=newer)

    async def check_inviter(self, invitation: InvitationRecord) -> None:
        """Check that the inviter still exists and may still invite. If not, revoke the invitation.

        Raises:
            InvalidTokenError: the invitation was revoked.
        """
        if invitation.inviter_id is None:
            return
        found = await self._services.accounts.get(invitation.inviter_id)
        if found is not None and _is_there(found):
            asked = (found.user, invitation.email, invitation.grant, invitation.scope)
            if await self._options.allows(*asked):
                return
        await self.end(invitation, "revoked", reason=LOST_AUTHORITY)
        raise InvalidTokenError("the inviter may not invite any more")

    # --- from pending

    async def accept(self, work: Work[Any], invitation: InvitationRecord, **accepted: str) -> None:
        """Accept the invitation, in the transaction of its effects.

        Raises:
            InvalidTokenError: another request was first, or the inviter is deleted or disabled by now.
        """
        now, version = self._services.clock(), invitation.version
        if invitation.inviter_id is not None and not _is_there(await work.users.get(invitation.inviter_id)):
            raise InvalidTokenError("the inviter is not there any more")
        if await work.invitations.end(invitation.id, "accepted", now=now, version=version, **accepted) is None:
            raise InvalidTokenError("the invitation ended, or was sent again, at this moment")

    async def grant(self, work: Work[Any], found: Found[Any], invitation: InvitationRecord, client: Client) -> None:
        """Write the grant of the invitation.

        The invitation was read before the transaction and is unchanged, because each change makes a new version.
        """
        now, user_id = self._services.clock(), found.account.user_id
        if self._options.grant is not None:
            await answer(self._options.grant(found.user, invitation.grant, work))
        work.emit(
            InvitationAccepted(
                at=now,
                user_id=user_id,
                invitation=replace(invitation, status="accepted", accepted_by=user_id, ended_at=now),
                user=found.user,
            )
        )

    async def end(
        self,
        invitation: InvitationRecord,
        status: Literal["revoked", "declined"],
        *,
        by: str | None = None,
        reason: str | None = None,
        client: Client = Client(),
    ) -> bool:
        """End the invitation in its own transaction. Returns True for the one call that ended it."""

        async def act(work: Work[Any]) -> bool:
            return await self._end(work, invitation, status, by=by, reason=reason, client=client)

        return await self._services.commit(act)

    async def _end(
        self,
        work: Work[Any],
        invitation: InvitationRecord,
        status: Literal["revoked", "declined"],
        *,
        by: str | None,
        reason: str | None,
        client: Client,
    ) -> bool:
        now = self._services.clock()
        version = invitation.version if status == "declined" else None  # revoke ends any version
        ended = await work.invitations.end(invitation.id, status, now=now, version=version, ended_by=by, reason=reason)
        if ended is not None:
            work.emit(InvitationEnded(at=now, user_id=by, invitation=ended))
        return ended is not None

    async def prune(self, now: datetime, limit: int) -> int:
        """Mark expired invitations. Forget the address and the grant of invitations that ended long ago."""
        count = await self._invitations.expire(now=now, limit=limit)
        for aged in await self._invitations.aged(before=now - self._options.forget_after, limit=limit):
            await self._invitations.forget(aged.id, self._services.digest("invitation", aged.email_key).hex())
            count += 1
        return count


def _is_there(inviter: Found[Any] | None) -> bool:
    return inviter is not None and inviter.account.disabled_at is None


def _refuse_for(wait: timedelta) -> NoReturn:
    """Raise RateLimitedError with Retry-After (RFC 9110 section 10.2.3)."""
    seconds = max(1, ceil(wait.total_seconds()))
    raise RateLimitedError("another mail of the invitation is too soon", headers={"Retry-After": str(seconds)})
