"""Tries: counts guesses at every secret that a client may guess, wrong passwords above all."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from asgi_auth.errors import AuthenticationFailedError, StoreUnavailableError
from asgi_auth.limits import Limit, Limiter, Limits
from asgi_auth.runtime.jobs import logger

Kind = Literal["sign_in", "current_password"]
"""What is guessed, by the name of its limit in ``Limits``."""


class Tries:
    """Counts a try before the secret is looked at, so that tries at once are counted, too."""

    def __init__(self, limiter: Limiter, limits: Limits) -> None:
        self._limiter, self._limits = limiter, limits

    @asynccontextmanager
    async def attempt(self, kind: Kind, keys: Sequence[str]) -> AsyncIterator[None]:
        """Check a secret within this block; raise AuthenticationFailedError there if it is wrong.

        The try stays counted if the block raises that, or is cancelled. In every other case it is given back.

        Args:
            kind: What is guessed. One without a limit is not counted.
            keys: By what it is counted, such as the account.

        Raises:
            RateLimitedError: there were enough; the block is not run.
            StoreUnavailableError: the database does not answer; the block is not run.
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
        except StoreUnavailableError as exc:  # what the secret was, is known: that goes on
            logger.warning("a try could not be given back: %s", exc.reason)
