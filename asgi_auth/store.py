"""What a store is: its records, and the protocols that it implements.

A store of your own implements these, and passes ``testing.stores.StoreSuite``. It holds no policy, reads no clock
(``now`` is a parameter) and never logs a value. Whatever two requests can race for is one statement that tells the
caller whether it won. A store that cannot answer raises ``StoreUnavailableError``.

Every protocol here is bound to one ``subject_name`` by ``Store.scope``: nothing of another kind of user is ever seen.
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
    """What is known of a single-purpose token. The token itself is in nobody's hands but its bearer's."""

    token_hash: bytes = field(repr=False)
    purpose: str
    user_id: str | None
    """None where there is no user yet."""
    stamp: bytes | None = field(repr=False)
    """The stamp of the account when the token was made. None where there is no user, or for a token of a user that
    outlives whatever happens to the account, such as the link that takes a change back."""
    created_at: datetime
    expires_at: datetime
    extra_data: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """What the client must not hold."""


InvitationStatus = Literal["pending", "accepted", "revoked", "declined", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationRecord:
    """An invitation. Its token is a ``TokenRecord`` of its own, which names it and its version."""

    id: str
    scope: str | None = None
    """What one is invited to, in the application's words (a team's id); None where there is only the application."""
    email: str
    """As it was entered, parsed: where the mail goes. Empty once it was forgotten."""
    email_key: str
    """What is compared; a keyed hash of it once the address was forgotten."""
    grant: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """Data of the application, as JSON values. The application's own callback writes it at the acceptance."""
    strategies: tuple[str, ...] = ()
    """The strategies by which one may register with it; empty: any."""
    inviter_id: str | None = None
    """Who invites; None: the application itself."""
    status: InvitationStatus = "pending"
    """A pending one whose time is over counts as expired, whether or not a sweep has written it down."""
    version: int = 1
    """Counts the tokens; only the newest one's is live."""
    created_at: datetime
    expires_at: datetime
    sent_count: int = 1
    last_sent_at: datetime
    delivery: Literal["waiting", "sent", "failed"] = "waiting"
    """What became of the newest mail."""
    accepted_by: str | None = None
    """The user who accepted."""
    accepted_via: str | None = None
    """The strategy by which they registered; None if they had an account."""
    ended_at: datetime | None = None
    """When it left ``pending``; of an expired one, when its time was over."""
    ended_by: str | None = None
    """Who revoked it; None: the application, a policy, or nobody."""
    reason: str | None = None
    """Why it was revoked: ``revoked``, ``superseded``, ``inviter_lost_authority``, or the application's own word."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a counter says."""

    count: int
    """How often so far; of ``count``, with this one."""
    expires_at: datetime
    """When the counter begins anew."""


class UserStore(Protocol[U]):
    """The users, in a table of the store's or the application's own.

    A store that keeps certain fields only may say so by an attribute ``field_names``, a frozenset of logical names.
    Then ``register_fields`` is checked at start.
    """

    @property
    def identity_fields(self) -> frozenset[str]:
        """The fields by which a user can be found: of ``email`` and ``username``."""
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
        """The user with this id; one round trip. None for whatever is not an id, too."""
        ...

    async def insert(
        self, proposed_id: str, fields: Mapping[str, Any], keys: Mapping[str, str], account: Account, *, now: datetime
    ) -> Found[U]:
        """Create a user and, with its real id, the *account*.

        Args:
            proposed_id: A fresh UUID4; a store whose ids come from elsewhere ignores it.
            fields: Values by logical name.
            keys: The normalised form of each identity in *fields*; unique.
            account: Its ``user_id`` is replaced by that of the new user.
            now: When the user was created, for a store that keeps that.

        Raises:
            IdentityTakenError: another user has one of *keys*; ``fields`` names which.
        """
        ...

    async def update(self, user_id: str, fields: Mapping[str, Any], keys: Mapping[str, str]) -> Found[U] | None:
        """Write *fields* (and *keys*); None if there is no such user. IdentityTakenError as in ``insert``.

        In a transaction nobody else writes the user from here to its end, also if *fields* is empty.
        """
        ...

    async def replace(self, user_id: str, fields: Mapping[str, Any], keys: Mapping[str, str]) -> Found[U] | None:
        """Write *fields* (and *keys*) and keep no other: what they leave out is as in a new user.

        None if there is no such user.

        Raises:
            IdentityTakenError: as ``insert``.
            ValidationError: a field that they leave out may not be empty; ``fields`` names every such one.
        """
        ...

    async def delete(self, user_id: str) -> bool:
        """Delete the user and everything of the library that hangs on them; True for the one call that did."""
        ...


class AccountStore(Protocol):
    """The library's own row for each user."""

    async def update(
        self, user_id: str, changes: Mapping[str, Any], *, expected: Mapping[str, Any] = EMPTY
    ) -> Account | None:
        """Compare-and-set in one statement: write *changes* if every column of *expected* still has that value.

        Columns: ``stamp``, ``password_hash``, ``confirmed_at``, ``disabled_at``, ``proven_email``. Returns the new row,
        None for a miss.
        """
        ...

    async def highest_bcrypt_cost(self, at_most: int) -> int | None:
        """The dearest cost of any stored bcrypt hash that is not over *at_most*; None if there is none."""
        ...


MAX_SECRETS = 8
"""How many sessions one statement ends by the secrets of their cookies."""


class SessionStore(Protocol[U]):
    """Who is signed in where."""

    async def insert(self, session: Session, secret_hash: bytes) -> None:
        """Keep *session* under the hash of its cookie's secret."""
        ...

    async def load(self, secret_hash: bytes, *, now: datetime) -> Loaded[U] | None:
        """The live session under this hash, with its user, in one round trip.

        Live: not revoked, neither clock run out at *now*, and the account has still the session's stamp and is not
        disabled.
        """
        ...

    async def load_by_id(self, session_id: str, *, now: datetime) -> Loaded[U] | None:
        """The same by the public id."""
        ...

    async def touch(self, session_id: str, *, last_seen_at: datetime, idle_expires_at: datetime) -> None:
        """Note that the session was used. Never moves a clock back, never revives a revoked session."""
        ...

    async def restamp(self, session_id: str, stamp: bytes) -> bool:
        """Hand a new stamp to the session that acts; it survives its own change. False if it was revoked."""
        ...

    async def revoke(self, session_id: str, *, user_id: str | None = None, now: datetime) -> bool:
        """End a session; True for the one call that found it alive. With *user_id* only if it is that user's."""
        ...

    async def revoke_by_secrets(self, secret_hashes: Sequence[bytes], *, now: datetime) -> Sequence[Session]:
        """End the sessions under these hashes, in one statement for up to ``MAX_SECRETS`` of them.

        Returns those that were alive, each to the one call that ended it; in no order.
        """
        ...

    async def revoke_all(self, user_id: str, *, except_id: str | None = None, now: datetime) -> int:
        """End every session of the user but one; how many were alive."""
        ...

    async def list(self, user_id: str, *, now: datetime) -> Sequence[Session]:
        """The live sessions of the user, last seen first."""
        ...

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Delete up to *limit* rows that ended before *now*; how many went."""
        ...


class TokenStore(Protocol):
    """Single-purpose tokens, by the hash of each."""

    async def insert(self, record: TokenRecord) -> None:
        """Keep *record*."""
        ...

    async def peek(self, purpose: str, token_hash: bytes, *, now: datetime) -> TokenRecord | None:
        """The live token of exactly this purpose; changes nothing.

        Live: not expired at *now*, and the account, if there is one, is not disabled and has still the token's stamp,
        if the token has one.
        """
        ...

    async def consume(self, purpose: str, token_hash: bytes, *, now: datetime) -> TokenRecord | None:
        """As ``peek``, and take it away, in one statement: of many concurrent calls one gets it, the others None."""
        ...

    async def latest(self, purpose: str, user_id: str, *, now: datetime) -> TokenRecord | None:
        """The live token of *purpose* that was inserted last for this user; changes nothing."""
        ...

    async def retire(self, purpose: str, user_id: str, *, older_than: bytes | None = None) -> int:
        """Take away the user's tokens of *purpose* that were inserted before the one with hash *older_than*.

        None takes all of them away. Returns how many went.
        """
        ...

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Delete up to *limit* rows that expired before *now*; how many went."""
        ...


class InvitationStore(Protocol):
    """Who is invited. At most one invitation is pending for an address in a scope; None is a scope like any other."""

    async def insert(self, record: InvitationRecord) -> bool:
        """Keep *record*; False, and nothing is written, if another one is pending for its scope and address.

        One that expired by ``record.created_at`` is none: it is marked ``expired`` in the same transaction.
        """
        ...

    async def get(self, invitation_id: str) -> InvitationRecord | None:
        """The invitation with this id; None for whatever is not an id, too."""
        ...

    async def find(self, scope: str | None, email_key: str, *, now: datetime) -> InvitationRecord | None:
        """The one that is pending for this address in this scope and not expired at *now*."""
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
        """The newest first, by (``created_at``, ``id``), after *before*; of every inviter, scope, status where None."""
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
        """Make the next version, in one statement; None for a miss.

        It hits if the invitation is pending, not expired at *now*, still of *version*, was last sent at *sent_before*
        or earlier, and fewer than *sent_at_most* times. Then the version and the count rise by one, ``last_sent_at``
        is *now*, ``expires_at`` is written, ``delivery`` is ``waiting``, and the *grant* is replaced unless it is None.
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
        """Bring it from ``pending`` to *status*, in one statement: of many concurrent calls one gets it, others None.

        It hits if the invitation is pending, not expired at *now* and, if one is given, of *version*.
        """
        ...

    async def attribute(self, invitation_id: str, accepted_by: str) -> None:
        """Note who accepted it, when that was not known at the moment of ``end``; only once."""
        ...

    async def note_delivery(self, invitation_id: str, version: int, delivery: Literal["sent", "failed"]) -> None:
        """Note what became of the mail of this version; nothing if there is a newer one."""
        ...

    async def expire(self, *, now: datetime, limit: int) -> int:
        """Write down up to *limit* pending ones whose time is over as ``expired``; how many."""
        ...

    async def aged(self, *, before: datetime, limit: int) -> Sequence[InvitationRecord]:
        """Up to *limit* that ended before *before* and still have their address."""
        ...

    async def forget(self, invitation_id: str, email_key: str) -> None:
        """Empty the address and the grant of one that has ended, and keep *email_key*, a keyed hash, in its place."""
        ...


class CounterStore(Protocol):
    """How often something happened within a time.

    A count commits by itself, so that a limit holds whatever becomes of the act. Only ``Work.counters`` are part of the
    transaction of the act: they count what the act does, and are rolled back with it.
    """

    async def count(self, name: str, key: bytes, *, now: datetime, expires_at: datetime) -> Counted:
        """Count one more under *name* and *key*, in one statement, however many do so at once.

        A counter that has run out at *now* begins anew with 1 and *expires_at*; else its own end holds.
        """
        ...

    async def get(self, name: str, key: bytes, *, now: datetime) -> Counted | None:
        """What was counted so far; None if nothing was, or if the counter has run out at *now*. Counts nothing."""
        ...

    async def uncount(self, name: str, key: bytes, *, now: datetime) -> None:
        """Take one back, unless the counter has run out; never below 0."""
        ...

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Delete up to *limit* counters that ran out before *now*; how many went."""
        ...


class Stores(Protocol[U]):
    """The capabilities of a store, by name. One that a store lacks is an attribute that it does not have."""

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
"""In a ``Work`` of a store that does not have it. Whoever needs it was refused at the start."""


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
    """What the driver calls a connection (``aiosqlite.Connection``). Never commit or roll back on it."""
    jobs: list[Job] = field(default_factory=list, repr=False)
    events: list[Event] = field(default_factory=list, repr=False)

    def emit(self, event: Event) -> None:
        """Say what happened; every hook is told before the commit."""
        self.events.append(event)

    def after_commit(self, job: Job) -> None:
        """Run *job* once everything is committed; it is dropped if the transaction is rolled back."""
        self.jobs.append(job)


class ScopedStore(Stores[U], Protocol[U]):
    """A store bound to one ``subject_name``. What is called on it directly commits by itself."""

    def transaction(self) -> AbstractAsyncContextManager[Work[U]]:
        """One transaction: committed at the end of the block, rolled back if the block raises."""
        ...


class Store(Protocol[U]):
    """A database with users in it."""

    async def open(self) -> None:
        """Open it; the first opening brings an empty database to the newest schema. Opening twice is opening once.

        Raises:
            ConfigurationError: the schema is older (run ``migrate``) or is not known.
            StoreUnavailableError: the database does not answer.
        """
        ...

    async def close(self) -> None:
        """Give everything back; closing twice is closing once. A closed store may be opened again."""
        ...

    async def versions(self) -> tuple[int, int]:
        """The version of the schema that is there, 0 if there is none, and the newest one. Makes and changes nothing.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        ...

    async def migrate(self) -> tuple[int, int]:
        """Bring any released schema to the newest; the versions before and after."""
        ...

    def scope(self, subject_name: str) -> ScopedStore[U]:
        """The same store, for one kind of user."""
        ...


def id_of(users: UserStore[U], user: U | str) -> str:
    """The id of a user who is named by object or by id."""
    return user if isinstance(user, str) else users.user_id(user)
