"""The values that acts consist of: Act, Draft, Proof, Attempt, FactorRequired; and Way. No behaviour."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from asgi_auth.types import EMPTY, Account, Activity, Client

if TYPE_CHECKING:
    from asgi_auth.store import Found, Work

Spend = Callable[["Work[Any]"], Awaitable[None]]
"""Consumes the token that the client sent, in the transaction of the act that requires it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act, its client and its actor. Every event of the act has its id."""

    id: str = field(default_factory=lambda: str(uuid4()))
    activity: Activity
    client: Client = Client()
    actor: str | None = None
    """The id of the user who acts; None: the client is not signed in, or the application acts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A user who is about to be created or changed. ``Hook.prepare`` may check, refuse or alter it."""

    act: Literal["create", "change"]
    strategy: str | None
    """None if the application itself asks."""
    fields: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """The values to write, by logical name (``email``, ``username`` or a declared extra field)."""
    params: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """The client's parameters without passwords, for a hook with a parameter of its own. Empty in an event."""
    user: Any = None
    """The user to change; None for a new user."""
    provided: bool = False
    """True if a provider gave *fields*; False if the client did."""
    pending: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """Fields that a hook moved out of *fields*. They are written once the user proves the mailbox."""
    confirmed_at: datetime | None = None
    """When a provider, an invitation or the application proved the address; None: it is unproven."""
    invited: bool = False
    """True if a hook found an invitation. It allows a registration that is otherwise by invitation only."""
    spend: Spend | None = field(default=None, repr=False)
    """Consumes the token that allowed the registration, in its transaction, before the user is written."""
    follow_up: "Callable[[Work[Any], Found[Any]], Awaitable[None]] | None" = field(default=None, repr=False)
    """Runs in the same transaction after the user is written."""
    notes: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """Values that a hook passes on to its ``within``, by the name of the hook."""
    is_password_of: "Callable[[Account], Awaitable[bool]] | None" = field(default=None, repr=False)
    """For ``Hook.taken``: tells whether an account has the chosen password, at the cost of a hash. Elsewhere None."""
    client: Client = Client()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A user proved a factor: the account as it was when the proof began, the factor and the instant."""

    account: Account
    factor: str
    at: datetime
    earlier: Mapping[str, datetime] = EMPTY
    """Factors that the user proved before in the same sign-in or session, with their times."""

    @property
    def factors(self) -> dict[str, datetime]:
        """Every factor of this sign-in, with its time."""
        return {**self.earlier, self.factor: self.at}

    def then(self, factor: str, at: datetime) -> "Proof":
        """Return this proof with one more *factor*, proven at *at*."""
        return Proof(account=self.account, factor=factor, at=at, earlier=self.factors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A sign-in that is about to succeed. ``Hook.admit`` may allow it, refuse it or require another factor."""

    user: Any
    proof: Proof
    client: Client
    remember: bool = False
    registered: bool = False
    """True for the sign-in at the end of a registration."""


@dataclass(frozen=True, slots=True)
class FactorRequired:
    """One more factor is required: any one of *factors*, which are names of strategies."""

    factors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to sign in that a user has, as ``Hook.ways_in`` returns it."""

    name: str
    """The name of the strategy."""
    factor: str
    """The factor that a session stores after this proof."""
    first: bool
    """True if a sign-in can begin with it; False if it can only follow another factor."""
    label: str
    """The label on an account page. The user may have chosen it."""
    since: datetime | None = None
    """When the user got it; None if that is not known."""
