"""The records of a store and the protocols that it implements.

A store of your own implements these protocols and passes ``testing.stores.StoreSuite``. It holds no policy, reads no
clock (``now`` is a parameter) and never logs a value. If two requests can race for a row, one statement decides and
tells each caller whether it won. A store that cannot answer raises ``StoreUnavailableError``.

``Store.scope`` binds every protocol here to one ``subject_name``. A caller never sees rows of another kind of user.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from asgi_auth.events import Event
from asgi_auth.types import EMPTY, Account, Job, Session

U = TypeVar("U")


class Found(NamedTuple, Generic[U]):
    """A user and their account, read together."""

    user: U
    account: Account


class Loaded(NamedTuple, Generic[U]):
    """A live session and its user, read together."""

    session: Session
    user: U


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """The stored record of a single-purpose token. Only the client has the token itself."""

    token_hash: bytes = field(repr=False)
    purpose: str
    user_id: str | None
    """None if there is no user yet."""
    stamp: bytes | None = field(repr=False)
    """The stamp of the account when the token was issued. None if there is no user, or if a change of the account must
    not end the token, such as the token of the link that reverts a change."""
    created_at: datetime
    expires_at: datetime
    extra_data: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """Data that the client must not see."""


InvitationStatus = Literal["pending", "accepted", "revoked", "declined", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationRecord:
    """An invitation. Its token is a separate ``TokenRecord``, which names the invitation and its version."""

    id: str
    scope: str | None = None
    """The application's name for the target of the invitation (a team's id); None: the application as a whole."""
    email: str
    """The recipient of the mail, as it was entered and parsed. Empty after ``forget``."""
    email_key: str
    """The normalised address, for comparison; a keyed hash of it after ``forget``."""
    grant: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """JSON data of the application. Its callback writes them when a user accepts."""
    strategies: tuple[str, ...] = ()
    """The strategies with which the invited person may register; empty: any."""
    inviter_id: str | None = None
    """The user who invites; None: the application itself."""
    status: InvitationStatus = "pending"
    """A pending invitation counts as expired from ``expires_at``, also before pruning writes ``expired``."""
    version: int = 1
    """Counts the tokens of the invitation. Only the newest token is live."""
    created_at: datetime
    expires_at: datetime
    sent_count: int = 1
    last_sent_at: datetime
    delivery: Literal["waiting", "sent", "failed"] = "waiting"
    """The delivery state of the newest mail."""
    accepted_by: str | None = None
    """The user who accepted."""
    accepted_via: str | None = None
    """The strategy with which this user registered; None if the user already had an account."""
    ended_at: datetime | None = None
    """When it left ``pending``; for an expired invitation, the time of expiry."""
    ended_by: str | None = None
    """The user who revoked it; None: the application or a policy revoked it, or it was not revoked."""
    reason: str | None = None
    """Why it was revoked: ``revoked``, ``superseded``, ``inviter_lost_authority``, or the application's own reason."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The state of a counter."""

    count: int
    """The count so far. The result of ``count`` includes the call itself."""
    expires_at: datetime
    """When the counter starts again."""


class UserStore(Protocol[U]):
    """The users, in a table of the store or of the application.

    A store with a fixed set of fields may have an attribute ``field_names``, a frozenset of logical names.
    ``register_fields`` is then checked at the start.
    """

    @property
    def identity_fields(self) -> frozenset[str]:
        """The fields by which the store can find a user: ``email``, ``username`` or both."""
        ...

    def user_id(self, user: U) -> str:
        """The id of *user* as text."""
        ...

    def values(self, user: U) -> Mapping[str, Any]:
        """The fields of *user* by logical name: ``email``, ``username`` and the extra fields."""
        ...

    async def find(self, field: str, key: str) -> Found[U] | None:
        """The user whose *field* (``email``, ``username``) has this normalised *key*; one round trip."""
        ...

    async def get(self, user_id: str) -> Found[U] | None:
        """The user with this id; one round trip. Returns None also for a text that is not an id."""
        ...

    async def insert(
        self, proposed_id: str, fields: Mapping[str, Any], keys: Mapping[str, str], account: Account, *, now: datetime
    ) -> Found[U]:
        """Create a user and, with its real id, the *account*.

        Args:
            proposed_id: A fresh UUID4. A store that has another source of ids ignores it.
            fields: Values by logical name.
            keys: The normalised form of each identity in *fields*; unique.
            account: The account to store. The store replaces its ``user_id`` by the id of the new user.
            now: The time of creation, for a store that keeps it.

        Raises:
            IdentityTakenError: another user has one of *keys*; ``fields`` names it.
        """
        ...

    async def update(self, user_id: str, fields: Mapping[str, Any], keys: Mapping[str, str]) -> Found[U] | None:
        """Write *fields* and *keys*. Returns None if there is no such user. Raises IdentityTakenError as ``insert``.

        In a transaction, this locks the user until the end of the transaction, also if *fields* is empty.
        """
        ...

    async def replace(self, user_id: str, fields: Mapping[str, Any], keys: Mapping[str, str]) -> Found[U] | None:
        """Write *fields* and *keys*, and reset every other field to its value in a new user.

        Returns None if there is no such user.

        Raises:
            IdentityTakenError: as ``insert``.
            ValidationError: *fields* lacks a required field; ``fields`` of the error names every such field.
        """
        ...

    async def delete(self, user_id: str) -> bool:
        """Delete the user and all of the library's rows for the user. Only the call that deletes returns True."""
        ...


class AccountStore(Protocol):
    """The library's own row for each user."""

    async def update(
        self, user_id: str, changes: Mapping[str, Any], *, expected: Mapping[str, Any] = EMPTY
    ) -> Account | None:
        """Compare-and-set in one statement: write *changes* if every column of *expected* still has that value.

        Columns: ``stamp``, ``password_hash``, ``confirmed_at``, ``disabled_at``, ``proven_email``. Returns the new row.
        Returns None if nothing matched.
        """
        ...

    async def highest_bcrypt_cost(self, at_most: int) -> int | None:
        """The highest cost of the stored bcrypt hashes that is not over *at_most*; None if there is none."""
        ...


MAX_SECRETS = 8
"""The maximum of sessions that one statement ends by the secrets of their cookies."""


class SessionStore(Protocol[U]):
    """The sessions of the users."""

    async def insert(self, session: Session, secret_hash: bytes) -> None:
        """Store *session* under the hash of its cookie's secret."""
        ...

    async def load(self, secret_hash: bytes, *, now: datetime) -> Loaded[U] | None:
        """The live session under this hash, with its user, in one round trip.

        A session is live if it is not revoked, not idle too long and not expired at *now*, and if the account is not
        disabled and still has the session's stamp.
        """
        ...

    async def load_by_id(self, session_id: str, *, now: datetime) -> Loaded[U] | None:
        """As ``load``, by the public id of the session."""
        ...

    async def touch(self, session_id: str, *, last_seen_at: datetime, idle_expires_at: datetime) -> None:
        """Write that the session was used. Never sets an earlier time, and never revives a revoked session."""
        ...

    async def restamp(self, session_id: str, stamp: bytes) -> bool:
        """Write a new stamp to the session that made a change, so that it stays live. False if it was revoked."""
        ...

    async def revoke(self, session_id: str, *, user_id: str | None = None, now: datetime) -> bool:
        """End a session; with *user_id* only a session of this user. Only the call that ends it returns True."""
        ...

    async def revoke_by_secrets(self, secret_hashes: Sequence[bytes], *, now: datetime) -> Sequence[Session]:
        """End the sessions under these hashes, in one statement for up to ``MAX_SECRETS`` of them.

        Returns the sessions that this call ended, in any order. Only one call returns each session.
        """
        ...

    async def revoke_all(self, user_id: str, *, except_id: str | None = None, now: datetime) -> int:
        """End every session of the user except *except_id*. Returns how many were live."""
        ...

    async def list(self, user_id: str, *, now: datetime) -> Sequence[Session]:
        """The live sessions of the user, last seen first."""
        ...

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Delete up to *limit* rows that ended before *now*. Returns how many."""
        ...


class TokenStore(Protocol):
    """Single-purpose tokens, by the hash of each."""

    async def insert(self, record: TokenRecord) -> None:
        """Store *record*."""
        ...

    async def peek(self, purpose: str, token_hash: bytes, *, now: datetime) -> TokenRecord | None:
        """The live token of exactly this purpose; changes nothing.

        A token is live if it is not expired at *now*, its account (if any) is not disabled, and that account still has
        the token's stamp (if the token has one).
        """
        ...

    async def consume(self, purpose: str, token_hash: bytes, *, now: datetime) -> TokenRecord | None:
        """As ``peek``, and delete the token, in one statement. Of concurrent calls, one gets it, the others None."""
        ...

    async def latest(self, purpose: str, user_id: str, *, now: datetime) -> TokenRecord | None:
        """The live token of *purpose* that was inserted last for this user; changes nothing."""
        ...

    async def retire(self, purpose: str, user_id: str, *, older_than: bytes | None = None) -> int:
        """Delete the user's tokens of *purpose* that were inserted before the one with hash *older_than*.

        None deletes all of them. Returns how many.
        """
        ...

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Delete up to *limit* rows that expired before *now*. Returns how many."""
        ...


class InvitationStore(Protocol):
    """Invitations. At most one is pending for each address and scope; None is a scope like any other."""

    async def insert(self, record: InvitationRecord) -> bool:
        """Store *record*. Returns False and writes nothing if another one is pending for its scope and address.

        An invitation that expired by ``record.created_at`` is not pending. The same transaction marks it ``expired``.
        """
        ...

    async def get(self, invitation_id: str) -> InvitationRecord | None:
        """The invitation with this id. Returns None also for a text that is not an id."""
        ...

    async def find(self, scope: str | None, email_key: str, *, now: datetime) -> InvitationRecord | None:
        """The pending invitation of this address and scope that is not expired at *now*."""
        ...

    async def list(
        self,
        *,
        inviter_id: str | None = None,
        scope: str | None = None,
        status: InvitationStatus | None = None,
        before: InvitationRecord | None = None,
        limit: int = 50,
    ) -> Sequence[InvitationRecord]:
        """Invitations after *before*, the newest first by (``created_at``, ``id``). A None does not filter."""
        ...

    async def renew(
        self,
        invitation_id: str,
        *,
        version: int,
        now: datetime,
        expires_at: datetime,
        sent_before: datetime,
        sent_at_most: int,
        grant: Mapping[str, Any] | None = None,
    ) -> InvitationRecord | None:
        """Write the next version, in one statement. Returns None if the invitation does not match.

        It matches if it is pending, not expired at *now*, still of *version*, was last sent at *sent_before* or
        earlier, and was sent fewer than *sent_at_most* times. Then the version and the count rise by one,
        ``last_sent_at`` is *now*, ``expires_at`` is written, ``delivery`` is ``waiting``, and *grant* is replaced
        unless it is None.
        """
        ...

    async def end(
        self,
        invitation_id: str,
        status: InvitationStatus,
        *,
        now: datetime,
        version: int | None = None,
        accepted_by: str | None = None,
        accepted_via: str | None = None,
        ended_by: str | None = None,
        reason: str | None = None,
    ) -> InvitationRecord | None:
        """Set a pending invitation to *status*, in one statement. Of concurrent calls, one gets it, the others None.

        It matches if it is pending, not expired at *now* and, if *version* is given, of this version.
        """
        ...

    async def attribute(self, invitation_id: str, accepted_by: str) -> None:
        """Write the user who accepted, if ``end`` did not know the user yet. Only the first call writes."""
        ...

    async def note_delivery(self, invitation_id: str, version: int, delivery: Literal["sent", "failed"]) -> None:
        """Write the delivery state of the mail of this version. Writes nothing if there is a newer version."""
        ...

    async def expire(self, *, now: datetime, limit: int) -> int:
        """Mark up to *limit* pending invitations as ``expired`` if they expired by *now*. Returns how many."""
        ...

    async def aged(self, *, before: datetime, limit: int) -> Sequence[InvitationRecord]:
        """Up to *limit* invitations that ended before *before* and still have their address."""
        ...

    async def forget(self, invitation_id: str, email_key: str) -> None:
        """Delete the address and the grant of an ended invitation. Store *email_key*, a keyed hash, as its key."""
        ...


class CounterStore(Protocol):
    """Counters with an expiry.

    Each call commits by itself, so that a limit also holds if the act fails. Only ``Work.counters`` belong to the
    transaction of the act: they count the effects of the act and are rolled back with it.
    """

    async def count(self, name: str, key: bytes, *, now: datetime, expires_at: datetime) -> Counted:
        """Add one under *name* and *key*, in one statement that is safe under concurrency.

        A counter that expired by *now* starts again with 1 and *expires_at*. Otherwise its expiry stays the same.
        """
        ...

    async def get(self, name: str, key: bytes, *, now: datetime) -> Counted | None:
        """The counter, unchanged. Returns None if there is none, or if it expired by *now*."""
        ...

    async def uncount(self, name: str, key: bytes, *, now: datetime) -> None:
        """Subtract one, unless the counter has expired; never below 0."""
        ...

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Delete up to *limit* counters that expired before *now*. Returns how many."""
        ...


class Stores(Protocol[U]):
    """The capabilities of a store, by name. A store that lacks one does not have the attribute."""

    @property
    def users(self) -> UserStore[U]: ...
    @property
    def accounts(self) -> AccountStore: ...
    @property
    def sessions(self) -> SessionStore[U]: ...
    @property
    def tokens(self) -> TokenStore: ...
    @property
    def invitations(self) -> InvitationStore: ...
    @property
    def counters(self) -> CounterStore: ...


_LACKING: Any = None
"""The value in ``Work`` if the store lacks a capability. Each part that needs it was rejected at the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[U]):
    """An open transaction: the stores bound to it, and the driver's connection for the application's own rows."""

    users: UserStore[U]
    accounts: AccountStore
    sessions: SessionStore[U]
    tokens: TokenStore
    invitations: InvitationStore = _LACKING
    counters: CounterStore = _LACKING
    connection: Any
    """The driver's connection (such as ``aiosqlite.Connection``). Never commit or roll back on it."""
    jobs: list[Job] = field(default_factory=list, repr=False)
    events: list[Event] = field(default_factory=list, repr=False)

    def emit(self, event: Event) -> None:
        """Add *event*. Every hook receives it before the commit."""
        self.events.append(event)

    def after_commit(self, job: Job) -> None:
        """Run *job* after the commit. It is dropped if the transaction is rolled back."""
        self.jobs.append(job)


class ScopedStore(Stores[U], Protocol[U]):
    """A store bound to one ``subject_name``. Each call outside ``transaction`` commits by itself."""

    def transaction(self) -> AbstractAsyncContextManager[Work[U]]:
        """One transaction: committed at the end of the block, rolled back if the block raises."""
        ...


class Store(Protocol[U]):
    """A database with users in it."""

    async def open(self) -> None:
        """Open the store. In an empty database this creates the newest schema. A second call does nothing.

        Raises:
            ConfigurationError: the schema is older (run ``migrate``) or unknown.
            StoreUnavailableError: the database does not answer.
        """
        ...

    async def close(self) -> None:
        """Release all resources. A second call does nothing. A closed store may be opened again."""
        ...

    async def versions(self) -> tuple[int, int]:
        """The version of the database's schema (0 without a schema) and the newest one. Writes nothing.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        ...

    async def migrate(self) -> tuple[int, int]:
        """Upgrade any released schema to the newest one. Returns the versions before and after."""
        ...

    def scope(self, subject_name: str) -> ScopedStore[U]:
        """The same store, for one kind of user."""
        ...


def id_of(users: UserStore[U], user: U | str) -> str:
    """The id of a user who is given as an object or as an id."""
    return user if isinstance(user, str) else users.user_id(user)
