"""Claims: what a first proof of a mailbox changes in the account with this address, inside a transaction."""

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
    """Gives an account, or only its address, to the user who proved the mailbox. Also reverts a change of address."""

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
        """Write the first proof of the mailbox of an account that was never confirmed, inside a transaction (AC-1).

        This drops everything that a stranger may have planted. The new stamp ends every session except *acting*, mail
        tokens and pending changes; the hooks get an event and drop their rows. A claim by a registration keeps only the
        values of this registration. A claim by mail keeps the password and the fields. If the address was registered
        more than once with different passwords, it keeps neither, except fields that may not be empty.

        Args:
            work: The transaction.
            found: The account as it was when the proof began.
            registration: The fields and keys of the registration that ends in this claim; None: no registration.
            password_hash: The hash of the password that the user chose with the proof; None: no password.
            acting: The session that stays live.

        Returns:
            The new account. None if it is already confirmed or has changed since *found*; nothing is then written.

        Raises:
            IdentityTakenError: another user has the address or user name of *registration*.
            ValidationError: *registration* lacks a required field that has no default.
            InvalidTokenError: *acting* has ended.
        """
        now, user_id = self._clock(), found.account.user_id
        # Every change locks the user first, so that no two transactions wait for each other.
        held = await hold(work, user_id)
        first = found.account.proven_email is None  # otherwise this proves a changed address and is no claim
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
        """Write a change that waited for a proof, inside a transaction. A proven address becomes confirmed.

        Args:
            stamp: The stamp of the account when the user asked for the change.
            acting: The session that stays live although the address changes.

        Raises:
            IdentityTakenError: another user has taken this address or name meanwhile.
            InvalidTokenError: the account has changed since.
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

        The person who changed the address knew the password. This therefore deletes the password and ends every
        session, mail token and pending change. Another account that took this address meanwhile and never proved it
        loses it.

        Raises:
            IdentityTakenError: another user has proven this address meanwhile.
            ValidationError: the user does not exist any more.
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
        # Otherwise a thief could register the earlier address of a stolen account and prevent the reversion.
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

        Call this if a user proves the mailbox by mail, and not from a session of that account. The account gets back
        the address that it proved last, or no address if another account has proven that one. Its sessions, mail tokens
        and pending changes end. Nothing happens if no such account has the address.
        """
        found = await self._changes.owner_of(work, email)
        if found is not None and is_moved(found.account):
            await self.take_address(work, found, strategy, client or Client())

    async def fall_back(self, found: Found[U], strategy: str | None, client: Client, work: Work[U]) -> None:
        """Take the unproven address from an account that has not changed since the proof began.

        Raises:
            InvalidTokenError: the account has changed since.
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
        """Take the unproven address from an account and give it back the address that it proved last, if any.

        Another account that has the earlier address without a proof loses it first. *waiting* holds the accounts in
        progress, so that two of them never wait for each other.
        """
        held = await hold(work, found.account.user_id)
        if held is None or held.account != found.account or held.account.disabled_at is not None:
            return  # the account has changed meanwhile
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
    """True if the account changed to an address that it never proved, and had proven another one before.

    Proving such an address by mail gives the user the address only, not the account.
    """
    return account.confirmed_at is None and account.proven_email is not None and account.disabled_at is None


def address_freed() -> InvalidTokenError:
    """The error for a user who proved an address to which another account had changed without a proof."""
    return InvalidTokenError(
        "the account had changed to this address without a proof", fields={"email": _FREED}, cause="unproven_address"
    )
