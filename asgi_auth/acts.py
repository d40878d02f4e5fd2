"""What is about to be done: Draft, Proof, Attempt; and Way, what may be. No behaviour."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from asgi_auth.types import EMPTY, Account, Activity, Client

if TYPE_CHECKING:
    from asgi_auth.store import Found, Work

Spend = Callable[["Work[Any]"], Awaitable[None]]
"""Consumes the token that was shown, in the transaction of what it is shown for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing that is done, by whom and from where. Every event of it bears its id."""

    id: str = field(default_factory=lambda: str(uuid4()))
    activity: Activity
    client: Client = Client()
    actor: str | None = None
    """The id of the user who does it; None: nobody who is signed in, or the application."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A user about to be created or changed, for ``Hook.prepare`` to look at, refuse or alter."""

    act: Literal["create", "change"]
    strategy: str | None
    """None when the application itself asks."""
    fields: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """What will be written, by logical name (``email``, ``username`` or a declared extra field)."""
    params: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """What the client sent, without its passwords, for a hook that takes a parameter of its own. Empty in an event."""
    user: Any = None
    """Who is changed; None for a new one."""
    provided: bool = False
    """True if *fields* are what a provider says of the user, not what the client typed."""
    pending: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """Fields that a hook has taken out of *fields*, because they count only once their mailbox is proven."""
    confirmed_at: datetime | None = None
    """When the address was proven, as the caller vouches; None: it is not proven."""
    invited: bool = False
    """Set by the hook that found an invitation: opens a registration that is otherwise by invitation only."""
    spend: Spend | None = field(default=None, repr=False)
    """Consumes what opened the registration, in its transaction, before the user is written."""
    follow_up: "Callable[[Work[Any], Found[Any]], Awaitable[None]] | None" = field(default=None, repr=False)
    """What follows from it, in the same transaction, once the user is written."""
    notes: Mapping[str, Any] = field(default=EMPTY, repr=False)
    """What a hook wants to find again in ``within``, by its own name."""
    is_password_of: "Callable[[Account], Awaitable[bool]] | None" = field(default=None, repr=False)
    """For ``Hook.taken``: whether an account has the password that was chosen, which costs a hash; elsewhere None."""
    client: Client = Client()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A user proved who they are: the account as it was when the proof began, the factor, the instant."""

    account: Account
    factor: str
    at: datetime
    earlier: Mapping[str, datetime] = EMPTY
    """Factors proven before in the same sign-in or session, with their times."""

    @property
    def factors(self) -> dict[str, datetime]:
        """Every factor of this sign-in, with its time."""
        return {**self.earlier, self.factor: self.at}

    def then(self, factor: str, at: datetime) -> "Proof":
        """This proof and one more *factor*, proven at *at*."""
        return Proof(account=self.account, factor=factor, at=at, earlier=self.factors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A sign-in about to happen, for ``Hook.admit`` to pass, refuse or ask more of."""

    user: Any
    proof: Proof
    client: Client
    remember: bool = False
    registered: bool = False
    """True for the sign-in that ends a registration."""


@dataclass(frozen=True, slots=True)
class FactorRequired:
    """One more factor is needed: any of these, by the names of their strategies."""

    factors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way in that a user has, as ``Hook.ways_in`` names it."""

    name: str
    """Of the strategy that takes it."""
    factor: str
    """What a session notes once it was proven."""
    first: bool
    """True if a sign-in can begin with it; False if it only follows another factor."""
    label: str
    """What to call it on an account page. The user may have chosen it."""
    since: datetime | None = None
    """Since when the user has it; None if that is not known."""
