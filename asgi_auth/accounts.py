"""The only writer of users: create, register, claim (in ``registration``), change, set_password, confirm, delete."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from asgi_auth.acts import Draft, Spend
from asgi_auth.errors import InvalidTokenError, StoreUnavailableError, ValidationError
from asgi_auth.events import PasswordSet, UserChanged, UserConfirmed, UserDeleted, UserDisabled, UserEnabled
from asgi_auth.registration import Registrations, as_told, is_moved
from asgi_auth.runtime.jobs import logger
from asgi_auth.store import Found, Work
from asgi_auth.types import EMPTY, Account, Client, Session

U = TypeVar("U")


class Accounts(Registrations[U]):
    """The users of one ``Authentication``, and what the library knows of each."""

    # --- changing

    async def change(
        self,
        user: U,
        fields: Mapping[str, Any],
        *,
        acting: Session | None = None,
        client: Client | None = None,
        strategy: str | None = None,
        confirmed: bool = False,
    ) -> U:
        """Write fields of a user. A new address or name ends every session but the *acting* one, and every mail token.

        A new address is unconfirmed, unless it is *confirmed*: the application vouches for it. ``Confirmation`` keeps
        it back until it is. None takes an address or name away.

        Raises:
            ValidationError: a field does not do, or the user is gone.
            IdentityTakenError: another user has this address or name.
            InvalidTokenError: *acting* has ended since it was loaded, by a reset perhaps; nothing was written.
        """
        user_id = self.user_id(user)
        draft = Draft(
            act="change",
            strategy=strategy,
            fields=fields,
            user=user,
            client=client or Client(),
            confirmed_at=self._clock() if confirmed else None,
        )
        draft = await self._prepare(draft)
        written = self._normalise(draft.fields)

        async def act(work: Work[U]) -> Found[U]:
            held = await self._hold(work, user_id, None)
            return await self._write(work, held, draft, written, acting=acting)

        return (await self._commit(act)).user

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
        held = await self._hold(work, user_id, stamp)
        draft = Draft(act="change", strategy=strategy, fields=fields, user=held.user, client=client, confirmed_at=now)
        changes = {"confirmed_at": now} if "email" in fields else EMPTY
        if changes:
            await self.free(work, fields["email"], strategy=strategy, client=client)
        found = await self._write(
            work, held, draft, self._normalise(fields), acting=acting, stamp=stamp, changes=changes
        )
        if changes:
            claimed = held.account.confirmed_at is None
            work.emit(UserConfirmed(at=now, user_id=user_id, strategy=strategy, client=client, claimed=claimed))
        return found

    async def revert_change(
        self, work: Work[U], user_id: str, email: str, *, strategy: str | None = None, client: Client | None = None
    ) -> Found[U]:
        """Give an account back to the owner of its earlier address, inside a transaction.

        Whoever changed it knew the password, so that it goes, with every session, mail token and pending change. An
        account that has taken this address meanwhile, and never proven it, loses it.

        Raises:
            IdentityTakenError: another user has proven this address by now.
            ValidationError: the user is gone.
        """
        now, fields = self._clock(), {"email": email}
        held = await self._hold(work, user_id, None)
        draft = Draft(
            act="change",
            strategy=strategy,
            fields=fields,
            user=held.user,
            client=client or Client(),
            confirmed_at=now,
        )
        # Else a thief would register the earlier address of a stolen account, and nothing could be taken back.
        other = await self._owner_of(work, email)
        if other is not None and other.account.user_id != user_id and other.account.confirmed_at is None:
            await self._take_address(work, other, strategy, draft.client)
        changes = {"confirmed_at": now, "password_hash": None}
        return await self._write(work, held, draft, self._normalise(fields), changes=changes, reverted=True)

    async def _hold(self, work: Work[U], user_id: str, stamp: bytes | None) -> Found[U]:
        """The user as nobody else writes it from here to the end of the transaction."""
        # Held, not only read: else an address that somebody else writes meanwhile would pass for unchanged.
        held = await work.users.update(user_id, {}, {})
        if held is None:
            raise ValidationError("the user is gone")
        if stamp is not None and held.account.stamp != stamp:
            raise InvalidTokenError("the account changed in the meantime")
        return held

    async def _write(
        self,
        work: Work[U],
        held: Found[U],
        draft: Draft,
        written: tuple[dict[str, Any], dict[str, str]],
        *,
        acting: Session | None = None,
        stamp: bytes | None = None,
        changes: Mapping[str, Any] = EMPTY,
        reverted: bool = False,
    ) -> Found[U]:
        values, keys = written
        user_id, before = held.account.user_id, _identities_before(self._store.users.values(held.user), values)
        if "email" in before:
            changes = {"confirmed_at": draft.confirmed_at, **changes}
            proven = changes["confirmed_at"] is not None
            changes["proven_email"] = None if proven else _proven_last(held.account, before["email"])
        if before or changes:
            expected = EMPTY if stamp is None else {"stamp": stamp}
            renewed = await self._sessions.renew_stamp(work, user_id, acting=acting, changes=changes, expected=expected)
            if renewed is None:
                raise InvalidTokenError("the account changed in the meantime")
        else:
            await self._sessions.acting(work, acting, user_id)
        found = await work.users.update(user_id, values, keys) or held  # held, so that it is still there
        work.emit(
            UserChanged(
                at=self._clock(),
                user_id=user_id,
                strategy=draft.strategy,
                client=draft.client,
                user=found.user,
                account=found.account,
                draft=as_told(draft),
                before=before,
                was_confirmed=held.account.confirmed_at is not None,
                reverted=reverted,
            )
        )
        return found

    # --- passwords

    async def set_password(
        self,
        found: Found[U],
        password: str,
        *,
        acting: Session | None = None,
        client: Client | None = None,
        strategy: str | None = None,
        spend: Spend | None = None,
        proves_mailbox: bool = False,
    ) -> Found[U]:
        """Set a password; every other session, mail token and sign-in in flight of the user dies with the old one.

        Args:
            found: The user as they were when the proof began; if the account changed since, nothing happens.
            acting: The session that may live on. It must be alive still: a request may have been held back since.
            spend: Consumes the token that was shown, in the same transaction.
            proves_mailbox: The token came by mail. An account that was never confirmed is claimed by it. One that
                changed to this address and never proved it falls back to the address that it proved last, and keeps its
                password: who reads the mail of an address is not for that alone the owner of such an account.

        Raises:
            ValidationError: the password does not do; the token stays usable.
            InvalidTokenError: the account fell back to an earlier address, which ``fields`` tells the client; or the
                token is spent, *acting* has ended, or the account changed in the meantime.
            OverloadedError, StoreUnavailableError: nothing was changed.
        """
        client, now = client or Client(), self._clock()
        if proves_mailbox and is_moved(found.account):
            await self._commit(partial(self._free_held, found, strategy, client))
            raise address_freed()
        password_hash = await self._hash(password, self._store.users.values(found.user), client)
        claims = proves_mailbox and found.account.confirmed_at is None

        async def act(work: Work[U]) -> Found[U]:
            if spend is not None:
                await spend(work)
            user_id = found.account.user_id
            if claims:
                changed = await self.claim(
                    work, found, password_hash=password_hash, acting=acting, strategy=strategy, client=client
                )
            else:
                changed = await self._replace_password(work, found, password_hash, acting)
            if changed is None:
                raise InvalidTokenError("the account changed in the meantime")
            work.emit(PasswordSet(at=now, user_id=user_id, strategy=strategy, client=client, user=changed.user))
            return changed

        return await self._commit(act)

    async def _replace_password(
        self, work: Work[U], found: Found[U], password_hash: str, acting: Session | None
    ) -> Found[U] | None:
        user_id, expected = found.account.user_id, {"stamp": found.account.stamp}
        changes = {"password_hash": password_hash}
        renewed = await self._sessions.renew_stamp(work, user_id, acting=acting, changes=changes, expected=expected)
        return None if renewed is None else await work.users.get(user_id)

    async def _free_held(self, found: Found[U], strategy: str | None, client: Client, work: Work[U]) -> None:
        held = await self._hold(work, found.account.user_id, found.account.stamp)
        await self._take_address(work, held, strategy, client)

    async def rehash(self, account: Account, replacement: str) -> None:
        """Keep a newer hash of the password that was just verified; if the hash changed in the meantime, do not.

        A failure is logged and changes nothing: the sign-in that brought it goes on (PW-9).
        """
        try:
            await self._store.accounts.update(
                account.user_id,
                {"password_hash": replacement},
                expected={"password_hash": account.password_hash, "stamp": account.stamp},
            )
        except StoreUnavailableError as exc:
            logger.warning("a password could not be re-hashed: %s", exc.reason)

    # --- states

    async def confirm(self, user_id: str) -> bool:
        """The application vouches for the address; True for the one call that confirmed it."""
        now = self._clock()

        async def act(work: Work[U]) -> bool:
            changes = {"confirmed_at": now, "proven_email": None}
            account = await work.accounts.update(user_id, changes, expected={"confirmed_at": None})
            if account is not None:
                work.emit(UserConfirmed(at=now, user_id=user_id))
            return account is not None

        return await self._commit(act)

    async def disable(self, user_id: str) -> bool:
        """Lock a user out at once, everywhere; True if they were not locked before."""
        now = self._clock()

        async def act(work: Work[U]) -> bool:
            account = await self._sessions.renew_stamp(
                work, user_id, changes={"disabled_at": now}, expected={"disabled_at": None}
            )
            if account is not None:
                work.emit(UserDisabled(at=now, user_id=user_id))
            return account is not None

        return await self._commit(act)

    async def enable(self, user_id: str) -> bool:
        """Let a locked user in again; nothing from before the lock comes back. True if they were locked."""

        async def act(work: Work[U]) -> bool:
            found = await work.users.get(user_id)
            if found is None or found.account.disabled_at is None:
                return False
            account = await self._sessions.renew_stamp(
                work, user_id, changes={"disabled_at": None}, expected={"disabled_at": found.account.disabled_at}
            )
            if account is not None:
                work.emit(UserEnabled(at=self._clock(), user_id=user_id))
            return account is not None

        return await self._commit(act)

    async def delete(self, user_id: str) -> bool:
        """Delete a user and everything that hangs on them; True for the one call that did."""

        async def act(work: Work[U]) -> bool:
            deleted = await work.users.delete(user_id)
            if deleted:
                work.emit(UserDeleted(at=self._clock(), user_id=user_id))
            return deleted

        return await self._commit(act)


def address_freed() -> InvalidTokenError:
    """What to tell the user who proved an address that an account had only changed to: that account is not theirs."""
    text = (
        "This address was never confirmed for the account that used it. The account has its earlier address again: sign"
        " in with that one. If you have no account, you can register with this address now."
    )
    return InvalidTokenError("the account had changed to this address without a proof", fields={"email": text})


def _identities_before(values: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """The identities that *written* changes, as they are."""
    identities = ("email", "username")
    return {name: values.get(name) for name in identities if name in written and written[name] != values.get(name)}


def _proven_last(account: Account, email: str | None) -> str | None:
    """The address of *account*, which has *email*, that was proven last; None if none was."""
    return account.proven_email if account.confirmed_at is None else email


def as_of(account: Account, stamp: bytes | None) -> Account:
    """*account* with the stamp that was read when the proof began, so that what hangs on it dies with that stamp."""
    return replace(account, stamp=stamp or b"")
