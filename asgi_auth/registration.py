"""Registrations: the one function that creates users, whatever the strategy, and the claim of who proves a mailbox."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Literal, NamedTuple, TypeVar
from uuid import uuid4

from asgi_auth.acts import Draft
from asgi_auth.errors import ForbiddenError, IdentityTakenError, ValidationError
from asgi_auth.events import UserChanged, UserConfirmed, UserCreated
from asgi_auth.hooks import Commit, Hook
from asgi_auth.limits import SourceLimiter
from asgi_auth.passwords import Passwords
from asgi_auth.protocol.email import parse_email, parse_username
from asgi_auth.sessions import Sessions
from asgi_auth.store import Found, ScopedStore, Work
from asgi_auth.tokens import new_stamp
from asgi_auth.types import EMPTY, Account, Client, Clock, Session

U = TypeVar("U")

Registration = Literal["open", "invite_only", "closed"]

Fields = tuple[Mapping[str, Any], Mapping[str, str]]
"""What is written of a user, by logical name, and the normalised form of each identity in it."""


class _Candidate(NamedTuple):
    """Who is about to be created: what the hooks have made of it, normalised, with the password's hash."""

    draft: Draft
    values: dict[str, Any]
    keys: dict[str, str]
    account: Account


class Registrations(Generic[U]):
    """The half of ``Accounts`` that makes users: look-ups, create, register, claim."""

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
        taken_answers: SourceLimiter,
        special_use: bool,
    ) -> None:
        """Args: special_use: Whether addresses such as ``a@x.test`` are taken: on loopback only."""
        self._store, self._clock, self._commit, self._hooks = store, clock, commit, hooks
        self._sessions, self._passwords = sessions, passwords
        self._registration, self._taken_answers, self._special_use = registration, taken_answers, special_use

    # --- reading

    @property
    def registration(self) -> Registration:
        """Who may register."""
        return self._registration

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

    # --- creating

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
            password_hash: In place of a password, the hash that another system made of it, kept as it is. Only what
                the hasher can verify: bcrypt, unless the application has a hasher of its own.
            confirmed: True if the application vouches for the address.

        Raises:
            TypeError: both a password and a hash.
            ValidationError: a field or the password is invalid, or the hash cannot be verified.
            IdentityTakenError: there is a user with this address or name.
            StoreUnavailableError: the database does not answer.
        """
        if password is not None and password_hash is not None:
            raise TypeError("a password or its hash, not both")
        confirmed_at = self._clock() if confirmed else None
        draft = Draft(act="create", strategy=None, fields=fields, confirmed_at=confirmed_at)
        candidate = await self._candidate(draft, password=password, password_hash=password_hash)
        return (await self._add(candidate)).user

    async def register(
        self, draft: Draft, *, password: str | None, password_hash: str | None = None, identity: str | None = None
    ) -> Found[U] | None:
        """The one function that creates users, for every strategy.

        Args:
            draft: Whom to create, before the hooks have looked at it.
            password: None: no password, unless there is a hash.
            password_hash: Of another system, as in ``create``.
            identity: The field that must be there once they have; None: any.

        Returns:
            The new user; None if the address is taken and nobody but its owner is to know (EN-4): answer ``Accepted``,
            as to any registration that has yet to be confirmed.

        Raises:
            ValidationError, IdentityTakenError, StoreUnavailableError: as ``create``.
            ForbiddenError: registration is closed, or by invitation only and no hook found one.
            InvalidTokenError: the invitation is not live.
            RateLimitedError: this client was told too often that an identity is taken (EN-4); nothing was created.
            OverloadedError: too many passwords wait to be hashed.
        """
        candidate = await self._candidate(draft, password=password, password_hash=password_hash, identity=identity)
        candidate = candidate._replace(draft=replace(candidate.draft, is_password_of=self._comparing(password, draft)))
        await self._check_source(candidate.draft)  # again: many may have waited to be hashed since it was first asked
        # Whoever hangs up must not keep the rest from being done: the answer is counted, the owner is told.
        return await self._commit.jobs.shielded(self._settle(candidate))

    def _comparing(self, password: str | None, draft: Draft) -> Callable[[Account], Awaitable[bool]]:
        async def is_password_of(account: Account) -> bool:  # a closure, which no repr looks into
            if password is None or account.password_hash is None:
                return False
            client = draft.client.address
            return (await self._passwords.verify(password, account.password_hash, client=client)).valid

        return is_password_of

    async def _settle(self, candidate: "_Candidate") -> Found[U] | None:
        try:
            return await self._add(candidate)
        except IdentityTakenError as exc:
            if candidate.draft.invited:
                raise
            await self._answer_taken(candidate, exc)
            return None

    async def _candidate(
        self, draft: Draft, *, password: str | None, password_hash: str | None, identity: str | None = None
    ) -> "_Candidate":
        self._check_hash(password_hash)
        draft = await self._prepare(draft)
        self._check_registration(draft)
        values, keys = self._normalise(draft.fields)
        if not keys or (identity is not None and identity not in keys):
            raise ValidationError("no identity", fields={identity or "email": "is needed"})
        await self._check_source(draft)
        if password is not None:
            password_hash = await self._hash(password, values, draft.client)
        account = Account(user_id="", stamp=new_stamp(), password_hash=password_hash, confirmed_at=draft.confirmed_at)
        return _Candidate(draft, values, keys, account)

    async def _add(self, candidate: "_Candidate") -> Found[U]:
        draft = candidate.draft

        async def act(work: Work[U]) -> Found[U]:
            if draft.spend is not None:
                await draft.spend(work)
            found = await self._insert(work, candidate)
            if draft.settle is not None:
                await draft.settle(work, found)
            return found

        return await self._commit(act)

    async def _insert(self, work: Work[U], candidate: "_Candidate") -> Found[U]:
        draft, values, keys, account = candidate
        # Whoever was invited has proven the mailbox; what is registered under it without a proof is a stranger's. It is
        # looked for before, because a database may go on with nothing once an insert has failed.
        claimed = await self._claim_unproven(work, candidate) if draft.invited else None
        if claimed is not None:
            return claimed
        found = await work.users.insert(str(uuid4()), values, keys, account, now=self._clock())
        work.emit(
            UserCreated(
                at=self._clock(),
                user_id=found.account.user_id,
                strategy=draft.strategy,
                client=draft.client,
                user=found.user,
                account=found.account,
                draft=as_told(draft),
            )
        )
        return found

    async def _claim_unproven(self, work: Work[U], candidate: "_Candidate") -> Found[U] | None:
        draft, values, keys, account = candidate
        found = await work.users.find("email", keys.get("email", ""))
        if found is None or account.confirmed_at is None or not any(hook.proves_addresses for hook in self._hooks):
            return None
        return await self.claim(
            work,
            found,
            registration=(values, keys),
            password_hash=account.password_hash,
            strategy=draft.strategy,
            client=draft.client,
        )

    async def _answer_taken(self, candidate: "_Candidate", error: IdentityTakenError) -> None:
        """Tell that an identity is taken, and count it; return if nobody but the owner of the address is to know."""
        told = await self._told(candidate, error)
        if told is not None:
            # Only what is told is counted, before it is told (RL-5). Counting all registrations while they last would
            # refuse many of one office that come at once, though none of them has learnt anything.
            await self._taken_answers.take(candidate.draft.client.address)
            raise told

    async def _told(self, candidate: "_Candidate", error: IdentityTakenError) -> IdentityTakenError | None:
        """What whoever registers may know of *error*; None: nothing."""
        draft, values, keys, account = candidate
        if "email" not in error.fields:
            return error
        # A user name is public: it is told of whether or not the address is taken, or it would tell which.
        if "username" in keys and await self._store.users.find("username", keys["username"]) is not None:
            return IdentityTakenError("identity taken", fields={"username": "is taken"})
        draft = replace(draft, fields=values)
        concealed = [await hook.taken(draft, account) for hook in self._hooks]
        return None if any(concealed) else error

    async def _check_source(self, draft: Draft) -> None:
        """RL-2: before anything is hashed, and whatever the address is, or the refusal would tell."""
        if not draft.invited:
            await self._taken_answers.check(draft.client.address)

    async def claim(
        self,
        work: Work[U],
        found: Found[U],
        *,
        registration: Fields | None = None,
        password_hash: str | None = None,
        acting: Session | None = None,
        strategy: str | None = None,
        client: Client | None = None,
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
            strategy: By which the proof was given.
            client: Who gave it.

        Returns:
            The account as it is now; None, and nothing is written, if it is confirmed or has changed since *found*.

        Raises:
            IdentityTakenError: another user has an identity of *registration*.
            ValidationError: a field may not be empty, has no default, and *registration* does not give it.
            InvalidTokenError: *acting* has ended.
        """
        now, user_id = self._clock(), found.account.user_id
        # The user is held first, as in every change, so that nobody waits in a circle.
        held = await work.users.update(user_id, {}, {})
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
        work.emit(UserConfirmed(at=now, user_id=user_id, strategy=strategy, client=client or Client(), claimed=first))
        return await work.users.get(user_id)

    async def _is_contested(self, work: Work[U], found: Found[U]) -> bool:
        return any([await hook.is_contested(found, work) for hook in self._hooks])

    async def _forget_fields(self, work: Work[U], held: Found[U]) -> None:
        values = self._store.users.values(held.user)
        kept = {name: values.get(name) for name in self._store.users.identity_fields}
        try:
            await work.users.replace(held.account.user_id, *self._normalise(kept))
        except ValidationError as exc:  # raised before anything is written
            required = {name: values[name] for name in exc.fields}
            await work.users.replace(held.account.user_id, *self._normalise({**kept, **required}))

    async def free(
        self, work: Work[U], email: str, *, strategy: str | None = None, client: Client | None = None
    ) -> None:
        """Take an address from an account that changed to it and never proved it, inside a transaction.

        For who proves the mailbox by mail, and not from a session of that account. The account falls back to the
        address that it proved last (to none, if another account has proven that one by now); its sessions, mail tokens
        and pending changes die. Nothing happens if no such account has the address.
        """
        found = await self._owner_of(work, email)
        if found is not None and is_moved(found.account):
            await self._take_address(work, found, strategy, client or Client())

    async def _take_address(
        self,
        work: Work[U],
        found: Found[U],
        strategy: str | None,
        client: Client,
        waiting: frozenset[str] = frozenset(),
    ) -> None:
        """Take its unproven address from an account, which falls back to the one that it proved last, if there is one.

        Another account that has that one without a proof loses it first, unless it is itself *waiting* for this.
        """
        held = await work.users.update(found.account.user_id, {}, {})
        if held is None or held.account != found.account or held.account.disabled_at is not None:
            return  # something else came first
        user_id, earlier = held.account.user_id, held.account.proven_email
        other = None if earlier is None else await self._owner_of(work, earlier)
        if other is not None and other.account.confirmed_at is None and other.account.user_id not in waiting:
            await self._take_address(work, other, strategy, client, waiting | {user_id})
            other = await self._owner_of(work, str(earlier))
        await self._set_address(work, held, earlier if other is None else None, strategy, client)

    async def _owner_of(self, work: Work[U], email: str) -> Found[U] | None:
        return await work.users.find("email", self.identity("email", email)[1])

    async def _set_address(
        self, work: Work[U], held: Found[U], email: str | None, strategy: str | None, client: Client
    ) -> Found[U]:
        now, user_id = self._clock(), held.account.user_id
        fields = {"email": email}
        draft = Draft(
            act="change",
            strategy=strategy,
            fields=fields,
            user=held.user,
            client=client,
            confirmed_at=None if email is None else now,
        )
        changes = {"confirmed_at": draft.confirmed_at, "proven_email": None}
        await self._sessions.renew_stamp(work, user_id, changes=changes)
        found = await work.users.update(user_id, *self._normalise(fields)) or held  # held, so that it is still there
        work.emit(
            UserChanged(
                at=now,
                user_id=user_id,
                strategy=strategy,
                client=client,
                user=found.user,
                account=found.account,
                draft=draft,
                before={"email": self._store.users.values(held.user).get("email")},
                reverted=True,
            )
        )
        return found

    def _check_registration(self, draft: Draft) -> None:
        if draft.strategy is None or self._registration == "open":
            return
        if self._registration == "closed" or not draft.invited:
            raise ForbiddenError(f"registration is {self._registration}")

    # --- parts

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

    def _check_hash(self, password_hash: str | None) -> None:
        try:
            if password_hash is not None:
                self._passwords.check_hash(password_hash)
        except ValueError as exc:
            raise ValidationError("password hash refused", fields={"password_hash": str(exc)}) from exc

    async def _hash(self, password: object, values: Mapping[str, Any], client: Client) -> str:
        if not isinstance(password, str):
            raise ValidationError("password is not text", fields={"password": "must be text"})
        context = [value for value in values.values() if isinstance(value, str)]
        try:
            return await self._passwords.set(password, context=context, client=client.address)
        except ValueError as exc:
            raise ValidationError("password refused", fields={"password": str(exc)}) from exc


def as_told(draft: Draft) -> Draft:
    """*draft* as an event has it: nothing that was sent, which may be secret, and nothing to be called again."""
    return replace(draft, params=EMPTY, spend=None, settle=None, is_password_of=None)


def is_moved(account: Account) -> bool:
    """Whether an account changed to an address that it never proved, and had proven another one before.

    Such an address never carries the account: who proves it by mail gets the address and nothing else.
    """
    return account.confirmed_at is None and account.proven_email is not None and account.disabled_at is None
