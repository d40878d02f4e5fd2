"""Registrations: the one function that creates users, for every strategy."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, Literal, NamedTuple, TypeVar
from uuid import uuid4

from asgi_auth.acts import Draft
from asgi_auth.claims import Claims
from asgi_auth.commit import Commit
from asgi_auth.drafts import Drafts, as_told
from asgi_auth.errors import ForbiddenError, IdentityTakenError, ValidationError
from asgi_auth.events import ActFailed, UserCreated
from asgi_auth.hooks import Hook
from asgi_auth.limits import SourceLimiter
from asgi_auth.messages import NAME_TAKEN, REQUIRED
from asgi_auth.passwords import Passwords
from asgi_auth.store import Found, ScopedStore, Work
from asgi_auth.tokens import new_stamp
from asgi_auth.types import Account, Clock

U = TypeVar("U")

Registration = Literal["open", "invite_only", "closed"]


class _Candidate(NamedTuple):
    """The user to create: the draft after the hooks, normalised, with the hash of the password."""

    draft: Draft
    values: dict[str, Any]
    keys: dict[str, str]
    account: Account


class Registrations(Generic[U]):
    """Creates users."""

    def __init__(
        self,
        store: ScopedStore[U],
        *,
        clock: Clock,
        commit: Commit[U],
        hooks: Sequence[Hook],
        passwords: Passwords,
        drafts: Drafts[U],
        claims: Claims[U],
        mode: Registration,
        taken: SourceLimiter,
    ) -> None:
        """Args: mode: Who may register. taken: Limits how often a client learns that a name is taken."""
        self._store, self._clock, self._commit, self._hooks = store, clock, commit, hooks
        self._passwords, self._drafts, self._claims = passwords, drafts, claims
        self._mode, self._taken = mode, taken

    @property
    def mode(self) -> Registration:
        """Who may register."""
        return self._mode

    async def create(self, draft: Draft, *, password: str | None, password_hash: str | None) -> Found[U]:
        """Create a user for the application itself, as ``Accounts.create``."""
        return await self._add(await self._candidate(draft, password=password, password_hash=password_hash))

    async def register(
        self, draft: Draft, *, password: str | None, password_hash: str | None = None, required: str | None = None
    ) -> Found[U] | None:
        """The one function that creates users, for every strategy.

        Args:
            draft: The user to create, before the hooks have seen it.
            password: The new password; None: no password, unless there is a hash.
            password_hash: A hash from another system, as in ``create``.
            required: The identity field that is required after the hooks, ``email`` or ``username``; None: either.

        Returns:
            The new user. None if the address is taken and only its owner may learn that (EN-4). Then answer
            ``Accepted``, as for any registration that still needs a confirmation.

        Raises:
            ValidationError, IdentityTakenError, StoreUnavailableError: as ``create``.
            ForbiddenError: registration is closed, or is by invitation only and no hook found an invitation.
            InvalidTokenError: the invitation is not live.
            RateLimitedError: this client learnt too often that a name is taken (EN-4). Nothing was created.
            OverloadedError: too many passwords wait to be hashed.
        """
        candidate = await self._candidate(draft, password=password, password_hash=password_hash, required=required)
        candidate = candidate._replace(draft=replace(candidate.draft, is_password_of=self._comparing(password, draft)))
        await self._check_source(candidate.draft)  # again: other requests may have been counted during hashing
        # A client that disconnects must not prevent the rest: the answer is counted and the owner gets a mail.
        return await self._commit.jobs.shielded(self._add_or_answer(candidate))

    def _comparing(self, password: str | None, draft: Draft) -> Callable[[Account], Awaitable[bool]]:
        async def is_password_of(account: Account) -> bool:  # a closure: its variables appear in no repr
            if password is None or account.password_hash is None:
                return False
            client = draft.client.address
            return (await self._passwords.verify(password, account.password_hash, client=client)).valid

        return is_password_of

    async def _add_or_answer(self, candidate: _Candidate) -> Found[U] | None:
        try:
            return await self._add(candidate)
        except IdentityTakenError as exc:
            if candidate.draft.invited:
                raise
            await self._answer_taken(candidate, exc)
            return None

    async def _candidate(
        self, draft: Draft, *, password: str | None, password_hash: str | None, required: str | None = None
    ) -> _Candidate:
        self._drafts.check_hash(password_hash)
        draft = await self._drafts.prepare(draft)
        self._check_registration(draft)
        values, keys = self._drafts.normalise_fields(draft.fields)
        if not keys or (required is not None and required not in keys):
            raise ValidationError("no address or user name", fields={required or "email": REQUIRED})
        await self._check_source(draft)
        if password is not None:
            password_hash = await self._drafts.hash(password, values, draft.client)
        account = Account(user_id="", stamp=new_stamp(), password_hash=password_hash, confirmed_at=draft.confirmed_at)
        return _Candidate(draft, values, keys, account)

    async def _add(self, candidate: _Candidate) -> Found[U]:
        draft = candidate.draft

        async def act(work: Work[U]) -> Found[U]:
            if draft.spend is not None:
                await draft.spend(work)
            found = await self._insert(work, candidate)
            if draft.follow_up is not None:
                await draft.follow_up(work, found)
            return found

        return await self._commit(act)

    async def _insert(self, work: Work[U], candidate: _Candidate) -> Found[U]:
        draft, values, keys, account = candidate
        # An invited user has proven the mailbox. An unproven account with this address then belongs to a stranger. Look
        # for it before the insert, because some databases reject every statement after a failed insert.
        claimed = await self._claim_unproven(work, candidate) if draft.invited else None
        if claimed is not None:
            return claimed
        found = await work.users.insert(str(uuid4()), values, keys, account, now=self._clock())
        work.emit(
            UserCreated(
                at=self._clock(),
                user_id=found.account.user_id,
                user=found.user,
                account=found.account,
                draft=as_told(draft),
            )
        )
        return found

    async def _claim_unproven(self, work: Work[U], candidate: _Candidate) -> Found[U] | None:
        _, values, keys, account = candidate
        found = await work.users.find("email", keys.get("email", ""))
        if found is None or account.confirmed_at is None or not any(hook.proves_addresses for hook in self._hooks):
            return None
        return await self._claims.claim(
            work,
            found,
            registration=(values, keys),
            password_hash=account.password_hash,
        )

    async def _answer_taken(self, candidate: _Candidate, error: IdentityTakenError) -> None:
        """Count and raise the error that a name is taken. Return if only the owner of the address may learn it."""
        disclosed = await self._disclosed(candidate, error)
        if disclosed is not None:
            # Only an answer that discloses something is counted, before it is sent (RL-5). Counting every registration
            # would reject simultaneous ones from one office, although no client has learnt anything.
            await self._taken.take(candidate.draft.client.address)
            raise disclosed
        # The client learns nothing; the hooks get an event.
        await self._commit.note(ActFailed(at=self._clock(), code=error.code, cause=error.cause))

    async def _disclosed(self, candidate: _Candidate, error: IdentityTakenError) -> IdentityTakenError | None:
        """The error that the client may see instead of *error*; None: nothing."""
        draft, values, keys, account = candidate
        if "email" not in error.fields:
            return error
        # Report a taken user name first, as names are public. Otherwise the error would reveal which one is taken.
        if "username" in keys and await self._store.users.find("username", keys["username"]) is not None:
            return IdentityTakenError("identity taken", fields={"username": NAME_TAKEN})
        draft = replace(draft, fields=values)
        concealed = [await hook.taken(draft, account) for hook in self._hooks]
        return None if any(concealed) else error

    async def _check_source(self, draft: Draft) -> None:
        """RL-2: check before hashing and for every address; otherwise the rejection would reveal a taken one."""
        if not draft.invited:
            await self._taken.check(draft.client.address)

    def _check_registration(self, draft: Draft) -> None:
        if draft.strategy is None or self._mode == "open":
            return
        if self._mode == "closed" or not draft.invited:
            raise ForbiddenError(f"registration is {self._mode}")
