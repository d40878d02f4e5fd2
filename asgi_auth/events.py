"""The events that ``Hook.within`` receives: Event and its kinds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from asgi_auth.acts import Draft
from asgi_auth.errors import Cause
from asgi_auth.types import EMPTY, Account, Activity, Client, Session

if TYPE_CHECKING:
    from asgi_auth.store import InvitationRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event, for ``Hook.within``."""

    name: ClassVar[str] = "event"
    at: datetime
    act_id: str = ""
    """The same for all events of one act. The library fills in this and the next three for the hooks."""
    activity: Activity = Activity(None, None)
    """The strategy and phase. For a call by the application it is ``Activity(None, name_of_the_method)``."""
    actor: str | None = None
    """The id of the user who acted; None: the client was not signed in, or the application acted."""
    client: Client = Client()
    user_id: str | None = None
    """The id of the user whom the event is about; None if there is no such user, or if it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCreated(Event):
    """A user and their account were created."""

    name: ClassVar[str] = "user.created"
    user: Any
    account: Account
    draft: Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChanged(Event):
    """Fields of a user were written."""

    name: ClassVar[str] = "user.changed"
    user: Any
    account: Account
    """The account after the change, with its new stamp if there is one."""
    draft: Draft
    before: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """The earlier address and user name; only those that changed."""
    was_confirmed: bool = False
    """True if the earlier address was proven."""
    reverted: bool = False
    """True if the account got its earlier address back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChangeAsked(Event):
    """A user asked for a change that waits for a proof. Nothing is written yet. ``draft.pending`` has the fields."""

    name: ClassVar[str] = "user.change_asked"
    user: Any
    account: Account
    draft: Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChangeCancelled(Event):
    """A user cancelled a change that waited for its proof."""

    name: ClassVar[str] = "user.change_cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserConfirmed(Event):
    """The mailbox was proven. ``claimed`` is True for the first proof, which drops what strangers may have planted."""

    name: ClassVar[str] = "user.confirmed"
    claimed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDisabled(Event):
    """An administrator locked the account."""

    name: ClassVar[str] = "user.disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEnabled(Event):
    """An administrator unlocked the account."""

    name: ClassVar[str] = "user.enabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDeleted(Event):
    """The user and all of the library's rows for the user were deleted."""

    name: ClassVar[str] = "user.deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSet(Event):
    """A password was set on an existing account. It ended every earlier session and mail token."""

    name: ClassVar[str] = "password.set"
    user: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInSucceeded(Event):
    """A session was created."""

    name: ClassVar[str] = "sign_in.succeeded"
    session: Session
    factor: str
    """The factor that was proven last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInPending(Event):
    """A factor was proven, and the sign-in waits for another one."""

    name: ClassVar[str] = "sign_in.pending"
    factors: tuple[str, ...]
    """The factors of which the user must prove one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActAccepted(Event):
    """An act was accepted that has no event of its own yet, such as the request for a reset."""

    name: ClassVar[str] = "act.accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActFailed(Event):
    """An act was refused. The event holds nothing that the client typed (AU-4)."""

    name: ClassVar[str] = "act.failed"
    code: str
    """The code of the error that the client got."""
    cause: Cause
    """The real cause, for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsRevoked(Event):
    """Sessions were ended: the one with ``session_id``; if that is None, all except the acting one."""

    name: ClassVar[str] = "sessions.revoked"
    session_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationSent(Event):
    """An invitation, or a new version of it for another mail, was created. ``user_id`` is the inviter."""

    name: ClassVar[str] = "invitation.sent"
    invitation: "InvitationRecord"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationAccepted(Event):
    """An invited person registered or joined. ``invitation.accepted_via`` is None if the person had an account."""

    name: ClassVar[str] = "invitation.accepted"
    invitation: "InvitationRecord"
    user: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationEnded(Event):
    """An invitation was revoked or declined; see its ``status`` and ``reason``. ``user_id`` is who revoked it."""

    name: ClassVar[str] = "invitation.ended"
    invitation: "InvitationRecord"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDropped(Event):
    """Jobs were discarded: the job queue was full, or the application ended before they ran."""

    name: ClassVar[str] = "job.dropped"
    count: int
    """The number of discarded jobs since the last such event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFailed(Event):
    """A sender failed. The older mail token stays valid."""

    name: ClassVar[str] = "delivery.failed"
    purpose: str
    reason: str
    """The text of a ``SenderError``, which holds no secret. For any other exception only its type."""
