"""The only writer of users: create, change, set_password, confirm, disable, enable, delete."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Literal, TypeVar
from uuid import uuid4

from asgi_auth.errors import ForbiddenError, InvalidTokenError, StoreUnavailableError, ValidationError
from asgi_auth.hooks import Commit, Hook, logger
from asgi_auth.passwords import Passwords
from asgi_auth.protocol.email import parse_email, parse_username
from asgi_auth.sessions import Sessions
from asgi_auth.store import Found, ScopedStore, Work
from asgi_auth.tokens import new_stamp
from asgi_auth.types import (
    EMPTY,
    Account,
    Client,
    Clock,
    Draft,
    PasswordSet,
    Session,
    Spend,
    UserChanged,
    UserConfirmed,
    UserCreated,
    UserDeleted,
    UserDisabled,
    UserEnabled,
)

U = TypeVar("U")

Registration = Literal["open", "invite_only", "closed"]


class Accounts(Generic[U]):
    """The users of one ``Authentication``, and what the library knows of each."""

    def __init__(
        self,
        store: ScopedStore[U],
        *,
        clock: Clock,
        commit: Commit[U],
        hooks: Sequence[Hook],
        sessions: Sessions[U],
        passwords: Passwords,
        registration: Registration,
        special_use: bool,
    ) -> None:
        """Args: special_use: Whether addresses such as ``a@x.test`` are taken: on loopback only."""
        self._store, self._clock, self._commit, self._hooks = store, clock, commit, hooks
        self._sessions, self._passwords = sessions, passwords
        self._registration, self._special_use = registration, special_use

    # --- reading

    def identity(self, field: str, text: str) -> tuple[str, str]:
        """An address or user name as it is kept, and the key by which it is compared.

        Raises:
            ValidationError: it is not one; ``fields`` says why.
        """
        try:
            return parse_email(text, special_use=self._special_use) if field == "email" else parse_username(text)
        except ValueError as exc:
            raise ValidationError(f"{field} refused", fields={field: str(exc)}) from exc

    async def find(self, field: str, text: str) -> Found[U] | None:
        """The user with this address or user name, however it is spelled. ValidationError as ``identity``."""
        return await self._store.users.find(field, self.identity(field, text)[1])

    async def get(self, user_id: str) -> Found[U] | None:
        """The user with this id and their account; None if there is none."""
        return await self._store.users.get(user_id)

    def user_id(self, user: U) -> str:
        """The id of *user* as text."""
        return self._store.users.user_id(user)

    # --- creating and changing

    async def create(
        self,
        fields: Mapping[str, Any],
        *,
        password: str | None = None,
        password_hash: str | None = None,
        confirmed: bool = False,
    ) -> U:
        """Create a user for the application itself, whatever the registration mode is.

        Args:
            fields: ``email`` or ``username``, and extra fields of the application's choice.
            password: None: the user cannot sign in by password until a reset, unless there is a hash.
            password_hash: In place of a password, the hash that another system made of it, kept as it is.
            confirmed: True if the application vouches for the address.

        Raises:
            TypeError: both a password and a hash.
            ValidationError: a field or the password does not do.
            IdentityTakenError: there is a user with this address or name.
            StoreUnavailableError: the database does not answer.
        """
        if password is not None and password_hash is not None:
            raise TypeError("a password or its hash, not both")
        confirmed_at = self._clock() if confirmed else None
        draft = Draft(act="create", strategy=None, fields=fields, confirmed_at=confirmed_at)
        return (await self.register(draft, password=password, password_hash=password_hash)).user

    async def register(
        self, draft: Draft, *, password: str | None, password_hash: str | None = None, identity: str | None = None
    ) -> Found[U]:
        """The one function that creates users, for every strategy.

        Args:
            draft: Whom to create, before the hooks have looked at it.
            password: None: no password, unless there is a hash.
            password_hash: Of another system, kept as it is.
            identity: The field that must be there once they have; None: any.

        Raises:
            ValidationError, IdentityTakenError, StoreUnavailableError: as ``create``.
            ForbiddenError: registration is closed, or by invitation only and no hook found one.
            OverloadedError: too many passwords wait to be hashed.
        """
        draft = await self._prepare(draft)
        self._check_registration(draft)
        values, keys = self._normalise(draft.fields)
        if not keys or (identity is not None and identity not in keys):
            raise ValidationError("no identity", fields={identity or "email": "is needed"})
        if password is not None:
            password_hash = await self._hash(password, values, draft.client)
        account = Account(user_id="", stamp=new_stamp(), password_hash=password_hash, confirmed_at=draft.confirmed_at)

        async def act(work: Work[U]) -> Found[U]:
            found = await work.users.insert(str(uuid4()), values, keys, account, now=self._clock())
            work.emit(
                UserCreated(
                    at=self._clock(),
                    user_id=found.account.user_id,
                    strategy=draft.strategy,
                    client=draft.client,
                    user=found.user,
                    draft=draft,
                )
            )
            return found

        return await self._commit(act)

    def _check_registration(self, draft: Draft) -> None:
        if draft.strategy is None or self._registration == "open":
            return
        if self._registration == "closed" or not draft.invited:
            raise ForbiddenError(f"registration is {self._registration}")

    async def change(
        self,
        user: U,
        fields: Mapping[str, Any],
        *,
        acting: Session | None = None,
        client: Client | None = None,
        strategy: str | None = None,
    ) -> U:
        """Write fields of a user. A new address or name ends every session but the *acting* one, and every mail token.

        A new address is unconfirmed, unless a hook knows better. None takes an address or name away.

        Raises:
            ValidationError: a field does not do, or the user is gone.
            IdentityTakenError: another user has this address or name.
            InvalidTokenError: the account changed since *acting* was loaded, a reset perhaps; nothing was written.
        """
        user_id = self.user_id(user)
        draft = await self._prepare(
            Draft(act="change", strategy=strategy, fields=fields, user=user, client=client or Client())
        )
        values, keys = self._normalise(draft.fields)

        async def act(work: Work[U]) -> Found[U]:
            # Held, not only read: else an address that somebody else writes meanwhile would pass for unchanged.
            before = await work.users.update(user_id, {}, {})
            if before is None:
                raise ValidationError("the user is gone")
            changed = _changed_identities(self._store.users.values(before.user), values)
            if changed:
                changes = {"confirmed_at": draft.confirmed_at} if "email" in changed else {}
                renewed = await self._sessions.renew_stamp(
                    work, user_id, acting=acting, changes=changes, expected=_stamp_of(acting, user_id)
                )
                if renewed is None:
                    raise InvalidTokenError("the acting session ended in the meantime")
            found = await work.users.update(user_id, values, keys) or before  # held, so that it is still there
            work.emit(
                UserChanged(
                    at=self._clock(),
                    user_id=user_id,
                    strategy=strategy,
                    client=draft.client,
                    user=found.user,
                    draft=draft,
                )
            )
            return found

        return (await self._commit(act)).user

    async def _prepare(self, draft: Draft) -> Draft:
        for hook in self._hooks:
            draft = await hook.prepare(draft)
            if not isinstance(draft, Draft):
                raise TypeError(f"{type(hook).__name__}.prepare returned {type(draft).__name__}, not the draft")
        return draft

    def _normalise(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        values, keys, problems = dict(fields), dict[str, str](), dict[str, str]()
        for field in ("email", "username"):
            value = fields.get(field)
            if value is None:
                continue
            if not isinstance(value, str):
                problems[field] = "must be text"
                continue
            try:
                values[field], keys[field] = self.identity(field, value)
            except ValidationError as exc:
                problems.update(exc.fields)
        unknown = keys.keys() - self._store.users.identity_fields
        problems.update(dict.fromkeys(unknown, "is not kept by this store"))
        if problems:
            raise ValidationError("fields refused", fields=problems)
        return values, keys

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
            acting: The session that may live on.
            spend: Consumes the token that was shown, in the same transaction.
            proves_mailbox: The token came by mail: an account that was never confirmed is confirmed by it.

        Raises:
            ValidationError: the password does not do; the token stays usable.
            InvalidTokenError: the token is spent, or the account changed in the meantime.
            OverloadedError, StoreUnavailableError: nothing was changed.
        """
        client, now = client or Client(), self._clock()
        password_hash = await self._hash(password, self._store.users.values(found.user), client)
        claimed = proves_mailbox and found.account.confirmed_at is None
        changes: dict[str, Any] = {"password_hash": password_hash}
        if claimed:
            changes["confirmed_at"] = now

        async def act(work: Work[U]) -> Found[U]:
            if spend is not None:
                await spend(work)
            user_id = found.account.user_id
            renewed = await self._sessions.renew_stamp(
                work, user_id, acting=acting, changes=changes, expected={"stamp": found.account.stamp}
            )
            changed = await work.users.get(user_id)
            if renewed is None or changed is None:
                raise InvalidTokenError("the account changed in the meantime")
            work.emit(PasswordSet(at=now, user_id=user_id, strategy=strategy, client=client, user=changed.user))
            if claimed:
                work.emit(UserConfirmed(at=now, user_id=user_id, strategy=strategy, client=client, claimed=True))
            return changed

        return await self._commit(act)

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

    async def _hash(self, password: object, values: Mapping[str, Any], client: Client) -> str:
        if not isinstance(password, str):
            raise ValidationError("password is not text", fields={"password": "must be text"})
        context = [value for value in values.values() if isinstance(value, str)]
        try:
            return await self._passwords.set(password, context=context, client=client.address)
        except ValueError as exc:
            raise ValidationError("password refused", fields={"password": str(exc)}) from exc

    # --- states

    async def confirm(self, user_id: str) -> bool:
        """The application vouches for the address; True for the one call that confirmed it."""
        now = self._clock()

        async def act(work: Work[U]) -> bool:
            account = await work.accounts.update(user_id, {"confirmed_at": now}, expected={"confirmed_at": None})
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


def _changed_identities(before: Mapping[str, Any], written: Mapping[str, Any]) -> set[str]:
    return {field for field in ("email", "username") if field in written and written[field] != before.get(field)}


def _stamp_of(acting: Session | None, user_id: str) -> Mapping[str, Any]:
    """What must still hold for a session to act on its own account."""
    return EMPTY if acting is None or acting.user_id != user_id else {"stamp": acting.stamp}


def as_of(account: Account, stamp: bytes | None) -> Account:
    """*account* with the stamp that was read when the proof began, so that what hangs on it dies with that stamp."""
    return replace(account, stamp=stamp or b"")
