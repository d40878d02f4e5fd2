"""Services: what ``bind()`` is given."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from asgi_auth.accounts import Accounts
from asgi_auth.claims import Claims
from asgi_auth.errors import ConfigurationError, ValidationError
from asgi_auth.events import DeliveryFailed
from asgi_auth.hooks import Commit, Hook
from asgi_auth.limits import Limiter
from asgi_auth.passwords import Passwords
from asgi_auth.registration import Registrations
from asgi_auth.runtime.failures import reason_of, traceback_of
from asgi_auth.runtime.jobs import logger
from asgi_auth.runtime.telling import Telling
from asgi_auth.runtime.threads import SenderThreads
from asgi_auth.sender import Sender, SenderFunction, as_sender
from asgi_auth.sessions import Sessions
from asgi_auth.store import ScopedStore
from asgi_auth.tokens import IssuedToken, Tokens
from asgi_auth.types import EMPTY, Clock, Digest, FrozenDict

U = TypeVar("U")

SENDER_TIMEOUT = timedelta(seconds=60)
"""A sender that takes longer has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services(Generic[U]):
    """Everything that a strategy or an add-on may use."""

    app_name: str
    base_url: str
    mount_path: str
    subject_name: str
    local: bool
    """True on http, which only ``localhost`` and loopback addresses may use."""
    clock: Clock
    store: ScopedStore[U]
    commit: Commit[U]
    tokens: Tokens[U]
    sessions: Sessions[U]
    accounts: Accounts[U]
    passwords: Passwords
    hooks: Sequence[Hook]
    limiter: Limiter
    """For a strategy or an add-on that ``needs`` the store's ``counters``."""
    digest: Digest = field(repr=False)
    senders: list[tuple[str, Sender | SenderFunction]] = field(default_factory=list)
    """Every sender in use, with what the application calls the option."""
    sender_threads: SenderThreads = field(default_factory=SenderThreads, repr=False)
    """Where plain senders run."""

    @property
    def registrations(self) -> Registrations[U]:
        """Creates users, for every strategy."""
        return self.accounts.registrations

    @property
    def claims(self) -> Claims[U]:
        """Gives an account, or only its address, to who has proven the mailbox; inside a transaction."""
        return self.accounts.claims

    @property
    def telling(self) -> Telling:
        """Where the lines of an outage are counted, so that all its requests together write one a second."""
        return self.commit.jobs.telling

    def url(self, strategy: str, phase: str, **query: str) -> str:
        """The public address of a phase, from ``base_url`` and never from a request (HT-1)."""
        url = f"{self.base_url}{self.mount_path}/{strategy}/{phase}"
        return f"{url}?{urlencode(query)}" if query else url

    def link(self, url: str | None, strategy: str, phase: str, **query: str) -> str:
        """The link of a mail: to the phase's own page, or to *url*, the application's page in its place."""
        if url is None:
            return self.url(strategy, phase, **query)
        return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"

    def sender(self, sender: Sender | SenderFunction, *, parameter: str) -> Sender:
        """A sender or a function as a ``Sender``.

        Raises:
            ConfigurationError: it is neither, or it shows messages locally and this is not a local instance.
        """
        adapted = as_sender(sender, parameter=parameter, threads=self.sender_threads)
        if getattr(sender, "local_only", False) and not self.local:
            raise ConfigurationError(f"{parameter}: {type(sender).__name__} is for local use, not for https")
        self.senders.append((parameter, sender))
        return adapted

    async def deliver(
        self,
        sender: Sender,
        user: U | None,
        *,
        purpose: str,
        address: str,
        issued: IssuedToken | None = None,
        url: str | None = None,
        details: Mapping[str, Any] = EMPTY,
        retires: bool = True,
    ) -> bool:
        """Hand a message over. Meant to be a job: it takes as long as it takes, and its failure becomes an event.

        Once the sender has returned, the user's older tokens of the purpose are retired; if it fails, none is.

        Args:
            sender: Who hands it over.
            user: Whom it is for; None where there is no user yet.
            purpose: What it is about, for ``opts``.
            address: Where it goes.
            issued: The token that it bears; None for a notice.
            url: The link, with the token in it.
            details: What else the sender is told in ``opts``.
            retires: False if the older tokens of the purpose stay usable beside this one.

        Returns:
            Whether it was sent.
        """
        opts: dict[str, Any] = {**details, "purpose": purpose, "address": address, "app_name": self.app_name}
        if issued is not None:
            opts |= {"url": url, "expires_at": issued.record.expires_at}
        limit = asyncio.timeout(SENDER_TIMEOUT.total_seconds())
        try:
            async with limit:
                await sender.send(user, issued and issued.token, FrozenDict(opts))
        except Exception as exc:  # anybody's code
            reason = f"no end within {SENDER_TIMEOUT.total_seconds():g} s" if limit.expired() else reason_of(exc)
            traceback = traceback_of(exc, local=self.local)
            logger.error("a %s message could not be sent: %s", purpose, reason, exc_info=traceback)
            await self.commit.note(
                DeliveryFailed(
                    at=self.clock(),
                    user_id=None if user is None else self.accounts.user_id(user),
                    purpose=purpose,
                    reason=reason,
                )
            )
            return False
        if issued is not None and retires:
            await self.tokens.retire_older(issued.record)
        return True

    def address_key(self, address: str) -> str:
        """What mails to *address* are counted by: one key for every spelling of it (RL-4).

        Anything else that a sender reaches somebody by is its own key.
        """
        try:
            return self.accounts.normalise("email", address)[1]
        except ValidationError:
            return address

    def values(self, user: U) -> Mapping[str, Any]:
        """The fields of *user* by logical name."""
        return self.store.users.values(user)
