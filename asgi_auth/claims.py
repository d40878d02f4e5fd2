"""Claims: what the first proof of a mailbox makes of the account that has its address, inside a transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from asgi_auth.acts import Draft
from asgi_auth.changes import Changes, hold, hold_as
from asgi_auth.drafts import Drafts, Fields
from asgi_auth.errors import InvalidTokenError, ValidationError
from asgi_auth.events import UserConfirmed
from asgi_auth.hooks import Hook
from asgi_auth.messages import Message
from asgi_auth.sessions import Sessions
from asgi_auth.store import Found, ScopedStore, Work
from asgi_auth.types import EMPTY, Account, Client, Clock, Session

U = TypeVar("U")

_FREED = Message(
    "address.freed",
    "This address was never confirmed for the account that used it. That account has its earlier address again: sign in"
    " with the earlier one. If you have no account, you can register with this address now.",
)


class Claims(Generic[U]):
    """Gives an account, or only its address, to who has proven the mailbox; and takes a change of it back."""

    def __init__(
        self,
        store: ScopedStore[U],
        *,
        clock: Clock,
        hooks: Sequence[Hook],
        sessions: Sessions[U],
        drafts: Drafts[U],
        changes: Changes[U],
    ) -> None:
        self._store, self._clock, self._hooks, self._sessions = store, clock, hooks, sessions
        self._drafts, self._changes = drafts, changes

    async def claim(
        self,
        work: Work[U],
        found: Found[U],
        *,
        registration: Fields | None = None,
        password_hash: str | None = None,
        acting: Session | None = None,
    ) -> Found[U] | None:
        """The first proof of the mailbox of an account that was never confirmed, inside a transaction (AC-1).

        What a stranger may have planted goes: every session but *acting*, mail tokens and pending changes die with the
        stamp; hooks are told and drop theirs. A claim by a registration keeps only what that gives. A claim by mail
        keeps the password and the fields, unless the address was registered more than once with different passwords:
        then it keeps neither, but for fields that may not be empty.

        Args:
            work: The transaction.
            found: The account as it was when the proof began.
            registration: The fields of the registration that ends in this claim, and their keys; None: there is none.
            password_hash: Of the password that was chosen with the proof; None: none was.
            acting: The session that may live on.

        Returns:
            The account as it is now; None, and nothing is written, if it is confirmed or has changed since *found*.

        Raises:
            IdentityTakenError: another user has the address or user name of *registration*.
            ValidationError: a field may not be empty, has no default, and *registration* does not give it.
            InvalidTokenError: *acting* has ended.
        """
        now, user_id = self._clock(), found.account.user_id
        # The user is held first, as in every change, so that nobody waits in a circle.
        held = await hold(work, user_id)
        first = found.account.proven_email is None  # else it is the proof of a changed address, and nobody's claim
        contested = first and registration is None and await self._is_contested(work, found)
        if registration is None and password_hash is None and not contested:
            password_hash = found.account.password_hash
        renewed = await self._sessions.renew_stamp(
            work,
            user_id,
            acting=acting,
            changes={"password_hash": password_hash, "confirmed_at": now, "proven_email": None},
            expected={"confirmed_at": None, "disabled_at": None, "stamp": found.account.stamp},
        )
        if held is None or renewed is None:
            return None
        if registration is not None:
            await work.users.replace(user_id, *registration)
        elif contested:
            await self._forget_fields(work, held)
        work.emit(UserConfirmed(at=now, user_id=user_id, claimed=first))
        return await work.users.get(user_id)

    async def _is_contested(self, work: Work[U], found: Found[U]) -> bool:
        return any([await hook.is_contested(found, work) for hook in self._hooks])

    async def _forget_fields(self, work: Work[U], held: Found[U]) -> None:
        values = self._store.users.values(held.user)
        kept = {name: values.get(name) for name in self._store.users.identity_fields}
        try:
            await work.users.replace(held.account.user_id, *self._drafts.normalise_fields(kept))
        except ValidationError as exc:  # raised before anything is written
            required = {name: values[name] for name in exc.fields if name in values}
            await work.users.replace(held.account.user_id, *self._drafts.normalise_fields({**kept, **required}))

    async def confirm_change(
        self,
        work: Work[U],
        user_id: str,
        fields: Mapping[str, Any],
        *,
        stamp: bytes | None,
        acting: Session | None = None,
        strategy: str | None = None,
        client: Client | None = None,
    ) -> Found[U]:
        """Write what was kept back until its owner proved it, inside a transaction; a proven address is confirmed.

        Args:
            stamp: That of the account when the change was asked for.
            acting: The session that may live on, though the address changes.

        Raises:
            IdentityTakenError: another user has this address or name by now.
            InvalidTokenError: the account changed since.
        """
        now, client = self._clock(), client or Client()
        held = await hold_as(work, user_id, stamp)
        draft = Draft(act="change", strategy=strategy, fields=fields, user=held.user, client=client, confirmed_at=now)
        changes = {"confirmed_at": now} if "email" in fields else EMPTY
        if changes:
            await self.free(work, fields["email"], strategy=strategy, client=client)
        found = await self._changes.write(
            work, held, draft, self._drafts.normalise_fields(fields), acting=acting, stamp=stamp, changes=changes
        )
        if changes:
            claimed = held.account.confirmed_at is None
            work.emit(UserConfirmed(at=now, user_id=user_id, claimed=claimed))
        return found

    async def revert_change(
        self, work: Work[U], user_id: str, email: str, *, strategy: str | None = None, client: Client | None = None
    ) -> Found[U]:
        """Give an account back to the owner of its earlier address, inside a transaction.

        The person who changed it knew the password. So the password is removed, with every session, mail token and
        pending change. An account that has taken this address meanwhile, and never proven it, loses it.

        Raises:
            IdentityTakenError: another user has proven this address by now.
            ValidationError: the user is gone.
        """
        now, fields = self._clock(), {"email": email}
        held = await hold_as(work, user_id)
        draft = Draft(
            act="change",
            strategy=strategy,
            fields=fields,
            user=held.user,
            client=client or Client(),
            confirmed_at=now,
        )
        # Else a thief would register the earlier address of a stolen account, and nothing could be taken back.
        other = await self._changes.owner_of(work, email)
        if other is not None and other.account.user_id != user_id and other.account.confirmed_at is None:
            await self.take_address(work, other, strategy, draft.client)
        changes = {"confirmed_at": now, "password_hash": None}
        return await self._changes.write(
            work, held, draft, self._drafts.normalise_fields(fields), changes=changes, reverted=True
        )

    async def free(
        self, work: Work[U], email: str, *, strategy: str | None = None, client: Client | None = None
    ) -> None:
        """Take an address from an account that changed to it and never proved it, inside a transaction.

        For who proves the mailbox by mail, and not from a session of that account. The account falls back to the
        address that it proved last (to none, if another account has proven that one by now); its sessions, mail tokens
        and pending changes die. Nothing happens if no such account has the address.
        """
        found = await self._changes.owner_of(work, email)
        if found is not None and is_moved(found.account):
            await self.take_address(work, found, strategy, client or Client())

    async def fall_back(self, found: Found[U], strategy: str | None, client: Client, work: Work[U]) -> None:
        """Take its unproven address from an account, which must be as it was when the proof began.

        Raises:
            InvalidTokenError: the account changed since.
        """
        held = await hold_as(work, found.account.user_id, found.account.stamp)
        await self.take_address(work, held, strategy, client)

    async def take_address(
        self,
        work: Work[U],
        found: Found[U],
        strategy: str | None,
        client: Client,
        waiting: frozenset[str] = frozenset(),
    ) -> None:
        """Take its unproven address from an account, which falls back to the one that it proved last, if there is one.

        If another account has that one without a proof, it loses it first. *waiting* are the accounts that are being
        handled, so that two of them never wait for each other.
        """
        held = await hold(work, found.account.user_id)
        if held is None or held.account != found.account or held.account.disabled_at is not None:
            return  # something else came first
        user_id, earlier = held.account.user_id, held.account.proven_email
        other = None if earlier is None else await self._changes.owner_of(work, earlier)
        if other is not None and other.account.confirmed_at is None and other.account.user_id not in waiting:
            await self.take_address(work, other, strategy, client, waiting | {user_id})
            other = await self._changes.owner_of(work, str(earlier))
        email = earlier if other is None else None
        draft = Draft(
            act="change",
            strategy=strategy,
            fields={"email": email},
            user=held.user,
            client=client,
            confirmed_at=None if email is None else self._clock(),
        )
        fields, changes = self._drafts.normalise_fields(draft.fields), {"confirmed_at": draft.confirmed_at}
        await self._changes.write(work, held, draft, fields, changes={**changes, "proven_email": None}, reverted=True)


def is_moved(account: Account) -> bool:
    """Whether an account changed to an address that it never proved, and had proven another one before.

    Such an address never carries the account: who proves it by mail gets the address and nothing else.
    """
    return account.confirmed_at is None and account.proven_email is not None and account.disabled_at is None


def address_freed() -> InvalidTokenError:
    """What to tell the user who proved an address that an account had only changed to: that account is not theirs."""
    return InvalidTokenError(
        "the account had changed to this address without a proof", fields={"email": _FREED}, cause="unproven_address"
    )
