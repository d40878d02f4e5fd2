"""Tries: counts guesses of every secret that a client may guess, mainly of passwords."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from asgi_auth.errors import AuthenticationFailedError, StoreUnavailableError
from asgi_auth.limits import Limit, Limiter, Limits
from asgi_auth.runtime.jobs import logger

Kind = Literal["sign_in", "current_password"]
"""The kind of secret, by the name of its limit in ``Limits``."""


class Tries:
    """Counts a try before the secret is checked, so that concurrent tries are counted, too."""

    def __init__(self, limiter: Limiter, limits: Limits) -> None:
        self._limiter, self._limits = limiter, limits

    @asynccontextmanager
    async def attempt(self, kind: Kind, keys: Sequence[str]) -> AsyncIterator[None]:
        """Check a secret within this block; raise AuthenticationFailedError there if it is wrong.

        The try stays counted if the block raises this error or is cancelled. Otherwise the count is undone.

        Args:
            kind: The kind of secret. A kind without a limit is not counted.
            keys: The keys to count by, such as the account.

        Raises:
            RateLimitedError: the limit is reached. The block does not run.
            StoreUnavailableError: the database does not answer. The block does not run.
        """
        limit: Limit | None = getattr(self._limits, kind)
        counted = list[str]()
        try:
            if limit is not None:
                for key in keys:
                    await self._limiter.take(kind, key, limit)
                    counted.append(key)
            yield
        except AuthenticationFailedError:
            raise
        except Exception:
            await self._give_back(kind, counted)
            raise
        await self._give_back(kind, counted)

    async def _give_back(self, kind: Kind, keys: Sequence[str]) -> None:
        try:
            for key in keys:
                await self._limiter.give_back(kind, key)
        except StoreUnavailableError as exc:  # the secret is already checked, so the act continues
            logger.warning("a try could not be given back: %s", exc.reason)
