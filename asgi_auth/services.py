"""Services: the argument of ``bind()``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from asgi_auth.accounts import Accounts
from asgi_auth.claims import Claims
from asgi_auth.commit import Commit
from asgi_auth.hooks import Hook
from asgi_auth.limits import Limiter
from asgi_auth.mailing import Mailing, phase_url
from asgi_auth.passwords import Passwords
from asgi_auth.registration import Registrations
from asgi_auth.runtime.telling import Telling
from asgi_auth.sessions import Sessions
from asgi_auth.store import ScopedStore
from asgi_auth.tokens import Tokens
from asgi_auth.tries import Tries
from asgi_auth.types import Clock, Digest

U = TypeVar("U")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services(Generic[U]):
    """Everything that a strategy or an add-on may use."""

    app_name: str
    base_url: str
    mount_path: str
    subject_name: str
    local: bool
    """True on http, which only ``localhost``, names below it and loopback addresses may use."""
    clock: Clock
    store: ScopedStore[U]
    commit: Commit[U]
    tokens: Tokens[U]
    sessions: Sessions[U]
    accounts: Accounts[U]
    passwords: Passwords
    hooks: Sequence[Hook]
    mailing: Mailing[U]
    tries: Tries
    """Counts guesses at secrets. Like the limiter, it requires the store's ``counters``."""
    limiter: Limiter
    """For a strategy or an add-on that ``needs`` the store's ``counters``."""
    digest: Digest = field(repr=False)

    @property
    def registrations(self) -> Registrations[U]:
        """Creates users, for every strategy."""
        return self.accounts.registrations

    @property
    def claims(self) -> Claims[U]:
        """Gives an account, or only its address, to the user who proved the mailbox; inside a transaction."""
        return self.accounts.claims

    @property
    def telling(self) -> Telling:
        """Counts the log lines of an outage, so that all of its requests together write one a second."""
        return self.commit.jobs.telling

    def url(self, strategy: str, phase: str, **query: str) -> str:
        """The public address of a phase, from ``base_url`` and never from a request (HT-1)."""
        return phase_url(f"{self.base_url}{self.mount_path}", strategy, phase, **query)

    def values(self, user: U) -> Mapping[str, Any]:
        """The fields of *user* by logical name."""
        return self.store.users.values(user)
