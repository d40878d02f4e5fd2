"""What happened, for ``Hook.within``: Event and its kinds."""

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
    """What happened, for ``Hook.within``."""

    name: ClassVar[str] = "event"
    at: datetime
    act_id: str = ""
    """The same for all that happens in one act. This and the next three are filled in when the event is told."""
    activity: Activity = Activity(None, None)
    """Which strategy and phase. For a call of the application's own it is ``Activity(None, name_of_the_method)``."""
    actor: str | None = None
    """The id of the user who did it; None: nobody who was signed in, or the application."""
    client: Client = Client()
    user_id: str | None = None
    """To whom it happened; None if that is nobody, or not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCreated(Event):
    """A user and their account exist."""

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
    """As it is now, with its new stamp if there is one."""
    draft: Draft
    before: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """The address and the user name, whichever has changed, as they were."""
    was_confirmed: bool = False
    """Whether the address had been proven before."""
    reverted: bool = False
    """True where the owner of the earlier address has taken the change back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChangeAsked(Event):
    """A change was asked for that waits for its proof; nothing is written yet. ``draft.pending`` has the fields."""

    name: ClassVar[str] = "user.change_asked"
    user: Any
    account: Account
    draft: Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChangeCancelled(Event):
    """A user dropped what waited for its proof."""

    name: ClassVar[str] = "user.change_cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserConfirmed(Event):
    """The mailbox was proven; ``claimed`` if it was the first proof, which drops what strangers may have planted."""

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
    """The user and everything that hangs on them is gone."""

    name: ClassVar[str] = "user.deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSet(Event):
    """A password was set on an account that existed; every earlier session and mail token is dead."""

    name: ClassVar[str] = "password.set"
    user: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInSucceeded(Event):
    """A session was minted."""

    name: ClassVar[str] = "sign_in.succeeded"
    session: Session
    factor: str
    """What was proven last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInPending(Event):
    """A factor was right, and the sign-in waits for another one."""

    name: ClassVar[str] = "sign_in.pending"
    factors: tuple[str, ...]
    """Those that would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActAccepted(Event):
    """An act was done of which there is nothing else to tell yet, such as a reset that was asked for."""

    name: ClassVar[str] = "act.accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActFailed(Event):
    """An act was refused. Nothing that a client typed is in it (AU-4)."""

    name: ClassVar[str] = "act.failed"
    code: str
    """What the client was told: the code of the error."""
    cause: Cause
    """What really happened, for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsRevoked(Event):
    """Sessions were ended: one (its id) or, where ``session_id`` is None, all but the acting one."""

    name: ClassVar[str] = "sessions.revoked"
    session_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationSent(Event):
    """An invitation was made, or a new version of it for another mail; ``user_id`` is who invites."""

    name: ClassVar[str] = "invitation.sent"
    invitation: "InvitationRecord"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationAccepted(Event):
    """An invited person has registered or joined; ``invitation.accepted_via`` is None for who had an account."""

    name: ClassVar[str] = "invitation.accepted"
    invitation: "InvitationRecord"
    user: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationEnded(Event):
    """An invitation was revoked or declined, as its ``status`` and ``reason`` say; ``user_id`` is who revoked it."""

    name: ClassVar[str] = "invitation.ended"
    invitation: "InvitationRecord"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDropped(Event):
    """The job queue was full, or the application ended before it was empty: jobs were discarded."""

    name: ClassVar[str] = "job.dropped"
    count: int
    """How many jobs, since the last time that it was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFailed(Event):
    """A sender failed; the older mail token stays usable."""

    name: ClassVar[str] = "delivery.failed"
    purpose: str
    reason: str
    """The text of a ``SenderError``, which holds no secret; of any other exception only its type."""
