"""The limiter: how often something may happen, counted in the database: workers share it, restarts keep it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from asgi_auth.checks import check_count, check_duration
from asgi_auth.errors import ConfigurationError, RateLimitedError
from asgi_auth.protocol.client import client_network
from asgi_auth.store import Counted, ScopedStore
from asgi_auth.types import Clock, Digest


@dataclass(frozen=True, slots=True)
class Limit:
    """At most *count* times within *window*, which begins with the first.

    Raises:
        ConfigurationError: *count* or *window* is not positive.
    """

    count: int
    window: timedelta

    def __post_init__(self) -> None:
        check_count("Limit: count", self.count)
        check_duration("Limit: window", self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of an ``Authentication``. Limits of mails or of one add-on are options of the strategy or add-on.

    Args:
        identity_taken: How often one client address may learn from a registration that an address or user name is
            taken, by any strategy. After that it cannot register until the window ends.
        current_password: How often a signed-in user may enter a wrong current password, by account. None: no limit; a
            store without counters requires this.
        sign_in: How often the password of a sign-in may be wrong, by the given address or user name, even if there is
            no such account. None: no limit.

    Raises:
        ConfigurationError: a value is not a ``Limit``.
    """

    identity_taken: Limit = Limit(20, timedelta(hours=1))
    current_password: Limit | None = Limit(10, timedelta(hours=1))
    sign_in: Limit | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if name == "identity_taken" or getattr(self, name) is not None:
                check_limit(f"Limits: {name}", getattr(self, name))


def check_limit(parameter: str, limit: object) -> None:
    """Raise ConfigurationError with the name of the *parameter* if *limit* is not a ``Limit``."""
    if not isinstance(limit, Limit):
        raise ConfigurationError(f"{parameter} must be a Limit(count, window)")


class Limiter:
    """Counts by name and key. The store has only a keyed hash of the key, which may be an address."""

    def __init__(self, store: ScopedStore[Any], *, digest: Digest, clock: Clock) -> None:
        self._store, self._digest, self._clock = store, digest, clock

    async def take(self, name: str, key: str, limit: Limit) -> None:
        """Count one more of *name* for *key*, unless the limit is reached.

        Raises:
            RateLimitedError: the limit is reached; ``headers`` has the time to wait (RFC 9110 section 10.2.3).
            StoreUnavailableError: the database does not answer.
        """
        now = self._clock()
        counted = await self._store.counters.count(
            name, self._digest("counter", key), now=now, expires_at=now + limit.window
        )
        if counted.count > limit.count:
            await self.give_back(name, key)  # or rejected calls would use up what others give back
            raise _refusal(name, counted, now)

    async def check(self, name: str, key: str, limit: Limit) -> None:
        """Raise as ``take`` would, but do not count.

        Raises:
            RateLimitedError, StoreUnavailableError: as ``take``.
        """
        now = self._clock()
        counted = await self._store.counters.get(name, self._digest("counter", key), now=now)
        if counted is not None and counted.count >= limit.count:
            raise _refusal(name, counted, now)

    async def allows(self, name: str, key: str, limit: Limit) -> bool:
        """As ``take``, but return False instead of raising RateLimitedError."""
        try:
            await self.take(name, key, limit)
        except RateLimitedError:
            return False
        return True

    async def give_back(self, name: str, key: str) -> None:
        """Undo one count, for something that did not happen."""
        await self._store.counters.uncount(name, self._digest("counter", key), now=self._clock())


class SourceLimiter:
    """One limit by client address. A whole /64 of IPv6 is one client.

    A client without an address is not counted, such as one behind an untrusted UNIX socket. All such clients would
    share one limit, and one of them could block the others. The plug and ``doctor`` warn about this.
    """

    def __init__(self, limiter: Limiter, name: str, limit: Limit) -> None:
        self._limiter, self._name, self._limit = limiter, name, limit

    async def check(self, address: str | None) -> None:
        """As ``Limiter.check``."""
        if (source := client_network(address)) is not None:
            await self._limiter.check(self._name, source, self._limit)

    async def take(self, address: str | None) -> None:
        """As ``Limiter.take``."""
        if (source := client_network(address)) is not None:
            await self._limiter.take(self._name, source, self._limit)


def _refusal(name: str, counted: Counted, now: datetime) -> RateLimitedError:
    seconds = max(1, ceil((counted.expires_at - now).total_seconds()))
    return RateLimitedError(f"too many: {name}", headers={"Retry-After": str(seconds)})
