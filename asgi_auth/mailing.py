"""Mailing: counts a message, passes it to its sender, and undoes the count if it is not sent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlencode

from asgi_auth.accounts import Accounts
from asgi_auth.commit import Commit
from asgi_auth.errors import ConfigurationError, ValidationError
from asgi_auth.events import DeliveryFailed
from asgi_auth.limits import Limit, Limiter
from asgi_auth.localization import Localization
from asgi_auth.mail_texts import mail_texts
from asgi_auth.runtime.failures import reason_of, traceback_of
from asgi_auth.runtime.jobs import logger
from asgi_auth.runtime.threads import SenderThreads
from asgi_auth.sender import Sender, SenderFunction, as_sender
from asgi_auth.tokens import IssuedToken, Tokens
from asgi_auth.types import EMPTY, Clock, FrozenDict

U = TypeVar("U")

SENDER_TIMEOUT = timedelta(seconds=60)
"""The longest time that a sender may take."""

Token = IssuedToken | Callable[[], Awaitable[IssuedToken]]
"""A stored token, or a function that issues one after the message is counted."""


class Quota(NamedTuple):
    """A limit of messages, with the counter and the key by which they are counted."""

    counter: str
    key: str
    limit: Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The target of the link of a mail."""

    strategy: str
    """The name of the strategy or add-on."""
    phase: str
    parameter: str
    """The query parameter with the token."""
    url: str | None = None
    """The application's own page; None: the page of the phase."""


class Mailing(Generic[U]):
    """Sends the messages of strategies and add-ons to users."""

    def __init__(
        self,
        *,
        app_name: str,
        root: str,
        local: bool,
        clock: Clock,
        commit: Commit[U],
        tokens: Tokens[U],
        accounts: Accounts[U],
        limiter: Limiter,
        localization: Localization,
    ) -> None:
        """Args: root: The public address of the plug. local: True for a local instance."""
        self._app_name, self._root, self._local, self._clock = app_name, root, local, clock
        self._commit, self._tokens, self._accounts, self._limiter = commit, tokens, accounts, limiter
        self._localization = localization
        self.senders: list[tuple[str, Sender | SenderFunction]] = []
        """Every sender in use, with the name of its option."""
        self.threads = SenderThreads()
        """The threads for senders that are not async."""

    def sender(self, sender: Sender | SenderFunction, *, parameter: str) -> Sender:
        """Return a sender or a function as a ``Sender``.

        Raises:
            ConfigurationError: it is neither, or it is for local use and this is not a local instance.
        """
        adapted = as_sender(sender, parameter=parameter, threads=self.threads)
        if getattr(sender, "local_only", False) and not self._local:
            raise ConfigurationError(f"{parameter}: {type(sender).__name__} is for local use, not for https")
        self.senders.append((parameter, sender))
        return adapted

    def quota(self, counter: str, address: str, limit: Limit) -> Quota:
        """A limit for one address in every spelling (RL-4)."""
        return Quota(counter, self.address_key(address), limit)

    def address_key(self, address: str) -> str:
        """One key for every spelling of *address*. A text that is no mail address is its own key."""
        try:
            return self._accounts.normalise("email", address)[1]
        except ValidationError:
            return address

    @asynccontextmanager
    async def counted(self, quota: Quota) -> AsyncIterator[None]:
        """Count a message that this block sends. If the block raises, the count is undone.

        Pass the quota to ``send`` as *counted*, so that the count is also undone if the message is not sent.

        Raises:
            RateLimitedError: the limit is reached.
            StoreUnavailableError: the database does not answer.
        """
        await self._limiter.take(*quota)
        try:
            yield
        except Exception:  # not a cancellation: the act then still finishes and sends its message
            # As a job: if the database is down, the client must not wait for it twice.
            await self._commit.schedule(partial(self.give_back, quota))
            raise

    async def give_back(self, quota: Quota) -> None:
        """Undo the count of a message that is not sent."""
        await self._limiter.give_back(quota.counter, quota.key)

    async def send(
        self,
        sender: Sender,
        user: U | None,
        *,
        purpose: str,
        address: str,
        token: Token | None = None,
        link: Link | None = None,
        quotas: Sequence[Quota] = (),
        counted: Sequence[Quota] = (),
        details: Mapping[str, Any] = EMPTY,
        retires: bool = True,
    ) -> bool:
        """Send one message, unless a limit is reached. Call this in a job, as it may take long.

        A failure of the sender becomes a log line and an event. The counts are undone if the message is not sent. After
        the sender returns, the user's older tokens of the purpose are retired.

        Args:
            sender: Sends the message.
            user: The recipient; None if there is no user yet.
            purpose: The purpose of the message, for ``opts``.
            address: The address of the recipient.
            token: The token in the message; None for a notice.
            link: The target of the link; None for a code or a notice.
            quotas: Limits to count first. Nothing is sent if one of them is reached.
            counted: Limits that the caller has counted already.
            details: Further values in ``opts``.
            retires: False if the older tokens of the purpose stay valid.

        Returns:
            True if it was sent.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        sent, taken = False, [*counted]
        try:
            for quota in quotas:
                if not await self._limiter.allows(*quota):
                    return False
                taken.append(quota)
            issued = await token() if callable(token) else token
            locale = self._localization.of_mail(user, self._commit.locale)
            opts: dict[str, Any] = {**details, "purpose": purpose, "address": address, "app_name": self._app_name}
            opts["locale"] = locale
            if issued is not None:
                opts["expires_at"] = issued.record.expires_at
                if link is not None:
                    opts["url"] = self._url(link, issued.token)
            opts["texts"] = mail_texts(opts, partial(self._localization.say, locale=locale))
            sent = await self._deliver(sender, user, issued and issued.token, opts)
        finally:
            if not sent:  # or a mail server that is down would use up the limit of the address
                for quota in taken:
                    await self.give_back(quota)
        if sent and issued is not None and retires:
            await self._tokens.retire_older(issued.record)
        return sent

    def _url(self, link: Link, token: str) -> str:
        if link.url is None:
            return phase_url(self._root, link.strategy, link.phase, **{link.parameter: token})
        return f"{link.url}{'&' if '?' in link.url else '?'}{urlencode({link.parameter: token})}"

    async def _deliver(self, sender: Sender, user: U | None, token: str | None, opts: dict[str, Any]) -> bool:
        limit, purpose = asyncio.timeout(SENDER_TIMEOUT.total_seconds()), opts["purpose"]
        try:
            async with limit:
                await sender.send(user, token, FrozenDict(opts))
        except Exception as exc:  # the application's code may raise anything
            reason = f"no end within {SENDER_TIMEOUT.total_seconds():g} s" if limit.expired() else reason_of(exc)
            traceback = traceback_of(exc, local=self._local)
            logger.error("a %s message could not be sent: %s", purpose, reason, exc_info=traceback)
            user_id = None if user is None else self._accounts.user_id(user)
            await self._commit.note(DeliveryFailed(at=self._clock(), user_id=user_id, purpose=purpose, reason=reason))
            return False
        return True


def phase_url(root: str, strategy: str, phase: str, **query: str) -> str:
    """The URL of a phase below *root*."""
    url = f"{root}/{strategy}/{phase}"
    return f"{url}?{urlencode(query)}" if query else url
