"""``AccountStore`` in SQL for every database."""
# ruff: noqa: S608  # the statements are put together from constants of this package; values are always parameters

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from asgi_auth.errors import ConfigurationError, ValidationError
from asgi_auth.stores.columns import ACCOUNT
from asgi_auth.stores.table import Table
from asgi_auth.stores.values import storable
from asgi_auth.types import EMPTY, Account

BCRYPT_COST = "SELECT max(bcrypt_cost) FROM asgi_auth_accounts WHERE subject_name = $1 AND bcrypt_cost <= $2::bigint"
_WRITTEN = tuple(name for name in ACCOUNT.names if name != "user_id")


class SQLAccounts(Table):
    """``AccountStore``."""

    async def update(
        self, user_id: str, changes: Mapping[str, Any], *, expected: Mapping[str, Any] = EMPTY
    ) -> Account | None:
        if not changes or not {*changes, *expected}.issubset(_WRITTEN):
            raise ConfigurationError(f"accounts: changes and expected name columns of {', '.join(_WRITTEN)}")
        new, old = self._changed(changes), sorted(self._rows.of(ACCOUNT).encode(expected).items())
        if not storable(new):
            raise ValidationError("a value cannot be stored")
        values = [*new.values(), *(value for _, value in old if value is not None)]
        rows = await self._change(_update_account(tuple(new), old), self._user_id(user_id), *values)
        return self._rows.of(ACCOUNT).read(rows[0]) if rows else None

    async def highest_bcrypt_cost(self, at_most: int) -> int | None:
        rows = await self._find(BCRYPT_COST, at_most)
        cost: int | None = rows[0][0]
        return cost

    def _changed(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The columns to write, by name and in order, so that the same changes are the same statement."""
        return dict(sorted(self._rows.of(ACCOUNT).encode(changes).items()))


def _update_account(new: Sequence[str], old: Sequence[tuple[str, Any]]) -> str:
    numbers = count(3)
    changes = ", ".join(f"{column} = ${next(numbers)}" for column in new)
    guards = (f" AND {column} {'IS NULL' if value is None else f'= ${next(numbers)}'}" for column, value in old)
    return (
        f"UPDATE asgi_auth_accounts SET {changes} WHERE subject_name = $1 AND user_id = $2{''.join(guards)} "
        f"RETURNING {ACCOUNT.selected()}"
    )
