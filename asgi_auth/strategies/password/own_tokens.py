"""The single-purpose tokens of one strategy."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from asgi_auth.accounts import as_of
from asgi_auth.acts import Spend
from asgi_auth.errors import InvalidTokenError
from asgi_auth.services import Services
from asgi_auth.store import Found, Work


class OwnTokens:
    """Tokens with the name of the strategy in them. A second password strategy rejects them."""

    def __init__(self, strategy: str, services: Services[Any]) -> None:
        self._strategy, self._services = strategy, services

    async def owner(self, purpose: str, token: str) -> tuple[Found[Any], Mapping[str, Any]]:
        """The user of a live token, with the stamp in the token, and the data of the token.

        Raises:
            InvalidTokenError: the token is not live, another strategy issued it, or its user does not exist any more.
        """
        record = await self._services.tokens.peek(purpose, token)
        if record.extra_data.get("factor") != self._strategy:
            raise InvalidTokenError("the token belongs to another strategy")
        found = None if record.user_id is None else await self._services.accounts.get(record.user_id)
        if found is None:
            raise InvalidTokenError("the user of the token is gone", cause="unknown_user")
        return Found(found.user, as_of(found.account, record.stamp)), record.extra_data

    def spend(self, purpose: str, token: str) -> Spend:
        """A function that consumes the token in the transaction of its effect."""
        return partial(self._consume, purpose, token)

    async def _consume(self, purpose: str, token: str, work: Work[Any]) -> None:
        await self._services.tokens.consume(work, purpose, token)
