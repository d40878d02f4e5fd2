"""The only writer of users: creates, changes, confirms, disables and deletes them, and sets their passwords."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

from asgi_auth.acts import Draft, Spend, Way
from asgi_auth.changes import Changes, hold_as, user_gone
from asgi_auth.claims import Claims, address_freed, is_moved
from asgi_auth.commit import Commit
from asgi_auth.drafts import Drafts
from asgi_auth.errors import InvalidTokenError, StoreUnavailableError
from asgi_auth.events import PasswordSet, UserConfirmed, UserDeleted, UserDisabled, UserEnabled
from asgi_auth.hooks import Hook
from asgi_auth.limits import SourceLimiter
from asgi_auth.passwords import Passwords
from asgi_auth.registration import Registration, Registrations
from asgi_auth.runtime.jobs import logger
from asgi_auth.sessions import Sessions
from asgi_auth.store import Found, ScopedStore, Work, id_of
from asgi_auth.types import Account, Activity, Client, Clock, Session

U = TypeVar("U")

NAME_LIMIT = 100
"""The longest name on a page or in a mail, in characters. The user chose it and must not put a message in it."""


class Accounts(Generic[U]):
    """The users of one ``Authentication``, with their accounts.

    A *user* is the application's own user object or the user's id. An *actor* is the user who acts, in the same forms;
    the events have the actor. None is the application itself.
    """

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
        identity_taken: SourceLimiter,
        special_use: bool,
    ) -> None:
        """Args: special_use: True if addresses such as ``a@x.test`` are valid; for loopback only."""
        self._store, self._clock, self._commit, self._hooks = store, clock, commit, hooks
        self._sessions = sessions
        self._drafts = Drafts(store, hooks=hooks, passwords=passwords, special_use=special_use)
        self._changes = Changes(store, clock=clock, sessions=sessions, drafts=self._drafts)
        self.claims = Claims(
            store, clock=clock, hooks=hooks, sessions=sessions, drafts=self._drafts, changes=self._changes
        )
        self.registrations = Registrations(
            store,
            clock=clock,
            commit=commit,
            hooks=hooks,
            passwords=passwords,
            drafts=self._drafts,
            claims=self.claims,
            mode=registration,
            taken=identity_taken,
        )

    # --- reading

    def normalise(self, field: str, text: str) -> tuple[str, str]:
        """An address or user name in its stored form, and its key for comparison.

        Raises:
            ValidationError: it is invalid; ``fields`` has the reason.
        """
        return self._drafts.normalise(field, text)

    async def find(self, field: str, text: str) -> Found[U] | None:
        """The user with this address or user name, in any spelling. Raises ValidationError as ``normalise``."""
        return await self._store.users.find(field, self.normalise(field, text)[1])

    async def get(self, user: U | str) -> Found[U] | None:
        """Read a user and their account again. Returns None if the user does not exist any more."""
        return await self._store.users.get(self.user_id(user))

    def user_id(self, user: U | str) -> str:
        """The id of *user* as text."""
        return id_of(self._store.users, user)

    def display_name(self, user: U) -> str:
        """The name of *user* on a page or in a mail: ``display_name``, the address, the user name or the id.

        The user chose it. It is therefore cut to 100 characters, without unprintable ones.
        """
        values = self._store.users.values(user)
        name = getattr(user, "display_name", None) or values.get("email") or values.get("username")
        return "".join(each for each in str(name or self.user_id(user)) if each.isprintable())[:NAME_LIMIT]

    def _actor(self, actor: U | str | None) -> str | None:
        return None if actor is None else self.user_id(actor)

    async def ways_in(self, user: U | str) -> Sequence[Way]:
        """Every way to sign in that a user has, by all strategies and add-ons; empty if the user does not exist.

        One transaction reads them all. The result is the same for a disabled user, or one whom a hook refuses.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        async with self._store.transaction() as work:
            found = await work.users.get(self.user_id(user))
            if found is None:
                return ()
            return [way for hook in self._hooks for way in await hook.ways_in(found, work)]

    # --- creating

    async def create(
        self,
        fields: Mapping[str, Any],
        *,
        password: str | None = None,
        password_hash: str | None = None,
        confirmed: bool = False,
        actor: U | str | None = None,
    ) -> U:
        """Create a user for the application itself, in every registration mode.

        Args:
            fields: ``email`` or ``username``, and extra fields of the application's choice.
            password: The password. None: the user cannot sign in by password until a reset, unless there is a hash.
            password_hash: Instead of a password, its hash from another system, which is stored unchanged. The hasher
                must be able to verify it: bcrypt, unless the application has a hasher of its own.
            confirmed: True if the application vouches for the address.

        Raises:
            TypeError: both a password and a hash are given.
            ValidationError: a field or the password is invalid, or the hash cannot be verified.
            IdentityTakenError: another user has this address or name.
            StoreUnavailableError: the database does not answer.
        """
        if password is not None and password_hash is not None:
            raise TypeError("a password or its hash, not both")
        confirmed_at = self._clock() if confirmed else None
        draft = Draft(act="create", strategy=None, fields=fields, confirmed_at=confirmed_at)
        with self._commit.acting(Activity(None, "create"), actor=self._actor(actor)):
            return (await self.registrations.create(draft, password=password, password_hash=password_hash)).user

    # --- changing

    async def change(
        self,
        user: U | str,
        fields: Mapping[str, Any],
        *,
        acting: Session | None = None,
        client: Client | None = None,
        strategy: str | None = None,
        confirmed: bool = False,
        actor: U | str | None = None,
    ) -> U:
        """Write fields of a user. A new address or name ends every session except *acting*, and every mail token.

        A new address is unconfirmed, unless *confirmed* is True and the application vouches for it. ``Confirmation``
        writes an unconfirmed address only after its proof. The value None deletes an address or name.

        Raises:
            ValidationError: a field is invalid, or the user does not exist any more.
            IdentityTakenError: another user has this address or name.
            InvalidTokenError: *acting* has ended since it was loaded, such as by a reset. Nothing was written.
        """
        user_id = self.user_id(user)
        draft = Draft(
            act="change",
            strategy=strategy,
            fields=fields,
            user=await self._user(user),
            client=client or Client(),
            confirmed_at=self._clock() if confirmed else None,
        )
        draft = await self._drafts.prepare(draft)
        written = self._drafts.normalise_fields(draft.fields)

        async def act(work: Work[U]) -> Found[U]:
            held = await hold_as(work, user_id)
            return await self._changes.write(work, held, draft, written, acting=acting)

        return (await self._commit(act, verb="change", client=client, actor=self._actor(actor))).user

    async def _user(self, user: U | str) -> U:
        if not isinstance(user, str):
            return user
        found = await self.get(user)
        if found is None:
            raise user_gone()
        return found.user

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
        actor: U | str | None = None,
    ) -> Found[U]:
        """Set a password. This ends every other session, mail token and unfinished sign-in of the user.

        Args:
            found: The user and account when the proof began. The account must not have changed since.
            acting: The session that stays live. It must still be live, as the request may have been delayed.
            spend: Consumes the token of the client, in the same transaction.
            proves_mailbox: True if the token came by mail. It claims an account that was never confirmed. An account
                that changed to this address and never proved it gets back the address that it proved last, and keeps
                its password: reading the mail of such an address does not prove the ownership of the account.

        Raises:
            ValidationError: the password is rejected. The token stays valid.
            InvalidTokenError: the account got back an earlier address, and ``fields`` explains this to the client; or
                the token was consumed before, *acting* has ended, or the account has changed in the meantime.
            OverloadedError, StoreUnavailableError: the act failed. Nothing was changed.
        """
        client, now = client or Client(), self._clock()
        if proves_mailbox and is_moved(found.account):
            await self._commit(partial(self.claims.fall_back, found, strategy, client))
            raise address_freed()
        password_hash = await self._drafts.hash(password, self._store.users.values(found.user), client)
        claims = proves_mailbox and found.account.confirmed_at is None

        async def act(work: Work[U]) -> Found[U]:
            if spend is not None:
                await spend(work)
            user_id = found.account.user_id
            if claims:
                changed = await self.claims.claim(work, found, password_hash=password_hash, acting=acting)
            else:
                changed = await self._replace_password(work, found, password_hash, acting)
            if changed is None:
                raise InvalidTokenError("the account changed in the meantime", cause="account_changed")
            work.emit(PasswordSet(at=now, user_id=user_id, user=changed.user))
            return changed

        return await self._commit(act, verb="set_password", client=client, actor=self._actor(actor))

    async def _replace_password(
        self, work: Work[U], found: Found[U], password_hash: str, acting: Session | None
    ) -> Found[U] | None:
        user_id, expected = found.account.user_id, {"stamp": found.account.stamp}
        changes = {"password_hash": password_hash}
        renewed = await self._sessions.renew_stamp(work, user_id, acting=acting, changes=changes, expected=expected)
        return None if renewed is None else await work.users.get(user_id)

    async def rehash(self, account: Account, replacement: str) -> None:
        """Store a newer hash of a password that was just verified, unless the hash has changed in the meantime.

        A failure is logged only. The sign-in continues (PW-9).
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

    async def confirm(self, user: U | str, *, actor: U | str | None = None) -> bool:
        """Confirm the address, because the application vouches for it. Only the call that confirms returns True."""
        user_id, now = self.user_id(user), self._clock()

        async def act(work: Work[U]) -> bool:
            changes = {"confirmed_at": now, "proven_email": None}
            account = await work.accounts.update(user_id, changes, expected={"confirmed_at": None})
            if account is not None:
                work.emit(UserConfirmed(at=now, user_id=user_id))
            return account is not None

        return await self._commit(act, verb="confirm", actor=self._actor(actor))

    async def disable(self, user: U | str, *, actor: U | str | None = None) -> bool:
        """Disable a user and end all of their sessions at once. Returns True if the user was not disabled before."""
        user_id, now = self.user_id(user), self._clock()

        async def act(work: Work[U]) -> bool:
            account = await self._sessions.renew_stamp(
                work, user_id, changes={"disabled_at": now}, expected={"disabled_at": None}
            )
            if account is not None:
                work.emit(UserDisabled(at=now, user_id=user_id))
            return account is not None

        return await self._commit(act, verb="disable", actor=self._actor(actor))

    async def enable(self, user: U | str, *, actor: U | str | None = None) -> bool:
        """Enable a disabled user. Earlier sessions and tokens stay ended. Returns True if the user was disabled."""
        user_id = self.user_id(user)

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

        return await self._commit(act, verb="enable", actor=self._actor(actor))

    async def delete(self, user: U | str, *, actor: U | str | None = None) -> bool:
        """Delete a user and all of the library's rows for the user. Only the call that deletes returns True."""
        user_id = self.user_id(user)

        async def act(work: Work[U]) -> bool:
            deleted = await work.users.delete(user_id)
            if deleted:
                work.emit(UserDeleted(at=self._clock(), user_id=user_id))
            return deleted

        return await self._commit(act, verb="delete", actor=self._actor(actor))


def as_of(account: Account, stamp: bytes | None) -> Account:
    """*account* with the stamp that was read when the proof began. A later change of the stamp then ends its tokens."""
    return replace(account, stamp=stamp or b"")
