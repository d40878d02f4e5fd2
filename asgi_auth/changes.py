"""Changes of users: locks the user, writes the fields and emits the event, in the caller's transaction."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from asgi_auth.acts import Draft
from asgi_auth.drafts import Drafts, Fields, as_told
from asgi_auth.errors import InvalidTokenError, ValidationError
from asgi_auth.events import UserChangeAsked, UserChanged
from asgi_auth.messages import Message
from asgi_auth.sessions import Sessions
from asgi_auth.store import Found, ScopedStore, Work
from asgi_auth.types import EMPTY, Account, Clock, Session

U = TypeVar("U")

_GONE = Message("user.gone", "This user does not exist any more.")


async def hold(work: Work[U], user_id: str) -> Found[U] | None:
    """Lock the user until the end of the transaction and return it. Returns None if there is no such user."""
    # An empty update, not a read: after a read, the write of another transaction would go unnoticed.
    return await work.users.update(user_id, {}, {})


async def hold_as(work: Work[U], user_id: str, stamp: bytes | None = None) -> Found[U]:
    """As ``hold``, for a user who must exist and have this *stamp* (None: any).

    Raises:
        ValidationError: the user does not exist any more.
        InvalidTokenError: the account has another stamp.
    """
    held = await hold(work, user_id)
    if held is None:
        raise user_gone()
    if stamp is not None and held.account.stamp != stamp:
        raise InvalidTokenError("the account changed in the meantime", cause="account_changed")
    return held


class Changes(Generic[U]):
    """Writes fields of a locked user."""

    def __init__(self, store: ScopedStore[U], *, clock: Clock, sessions: Sessions[U], drafts: Drafts[U]) -> None:
        self._store, self._clock, self._sessions, self._drafts = store, clock, sessions, drafts

    async def owner_of(self, work: Work[U], email: str) -> Found[U] | None:
        """The user who has this address."""
        return await work.users.find("email", self._drafts.normalise("email", email)[1])

    async def write(
        self,
        work: Work[U],
        held: Found[U],
        draft: Draft,
        fields: Fields,
        *,
        acting: Session | None = None,
        stamp: bytes | None = None,
        changes: Mapping[str, Any] = EMPTY,
        reverted: bool = False,
    ) -> Found[U]:
        """Write *fields*. A new address or user name, or any of *changes*, ends all sessions except *acting*.

        Args:
            work: The transaction.
            held: The user, locked in this transaction by ``hold``.
            draft: The change and its client.
            fields: The fields of the draft, normalised.
            acting: The session that stays live.
            stamp: The stamp that the account must have; None: any.
            changes: Further columns of the account to write.
            reverted: True if the account gets an earlier address back.

        Raises:
            IdentityTakenError: another user has this address or name.
            InvalidTokenError: *acting* has ended, or the account has changed.
        """
        values, keys = fields
        user_id, before = held.account.user_id, _names_before(self._store.users.values(held.user), values)
        if "email" in before:
            proven = changes.get("confirmed_at", draft.confirmed_at) is not None
            proven_email = None if proven else _proven_last(held.account, before["email"])
            changes = {"confirmed_at": draft.confirmed_at, "proven_email": proven_email, **changes}
        if before or changes:
            expected = EMPTY if stamp is None else {"stamp": stamp}
            renewed = await self._sessions.renew_stamp(work, user_id, acting=acting, changes=changes, expected=expected)
            if renewed is None:
                raise InvalidTokenError("the account changed in the meantime", cause="account_changed")
        else:
            await self._sessions.acting(work, acting, user_id)
        found = await work.users.update(user_id, values, keys) or held  # the lock keeps the user from being deleted
        now, told = self._clock(), as_told(draft)
        if values or changes:
            work.emit(
                UserChanged(
                    at=now,
                    user_id=user_id,
                    user=found.user,
                    account=found.account,
                    draft=told,
                    before=before,
                    was_confirmed=held.account.confirmed_at is not None,
                    reverted=reverted,
                )
            )
        if draft.pending:
            work.emit(UserChangeAsked(at=now, user_id=user_id, user=found.user, account=found.account, draft=told))
        return found


def user_gone() -> ValidationError:
    """The error for a change of a user who was deleted meanwhile."""
    return ValidationError("the user is gone", fields={"user": _GONE}, cause="unknown_user")


def _names_before(values: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """The current values of the address and the user name that *written* changes."""
    names = ("email", "username")
    return {name: values.get(name) for name in names if name in written and written[name] != values.get(name)}


def _proven_last(account: Account, email: str | None) -> str | None:
    """The address that *account* proved last, where *email* is its current one; None if it proved none."""
    return account.proven_email if account.confirmed_at is None else email
