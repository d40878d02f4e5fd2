"""``AccountStore`` in the library's own table."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, select, update

from asgi_auth.errors import ConfigurationError, ValidationError
from asgi_auth.protocol.password_hashes import bcrypt_cost
from asgi_auth.stores.rows import instant, micros, or_none, storable
from asgi_auth.stores.sqlalchemy.database import Executor, rows
from asgi_auth.stores.sqlalchemy.model import Model
from asgi_auth.stores.sqlalchemy.tables import Tables
from asgi_auth.types import EMPTY, Account

_ENCODE: Mapping[str, Callable[[Any], Any]] = {
    "stamp": bytes,
    "password_hash": str,
    "confirmed_at": micros,
    "disabled_at": micros,
    "proven_email": str,
}


def account_columns(tables: Tables) -> tuple[ColumnElement[Any], ...]:
    """What ``to_account`` reads."""
    columns = tables.accounts.c
    times = (columns.confirmed_at, columns.disabled_at)
    return columns.user_id, columns.stamp, columns.password_hash, *times, columns.proven_email


def to_account(row: Any) -> Account:
    """The row of ``account_columns``."""
    user_id, stamp, password_hash, confirmed_at, disabled_at, proven_email = row
    return Account(
        user_id=str(user_id),
        stamp=stamp,
        password_hash=password_hash,
        confirmed_at=or_none(instant, confirmed_at),
        disabled_at=or_none(instant, disabled_at),
        proven_email=proven_email,
    )


def encode_account(values: Mapping[str, Any]) -> dict[str, Any]:
    """*values* as they are stored; ValidationError if they cannot be."""
    encoded = {column: or_none(_ENCODE[column], value) for column, value in values.items()}
    if not storable(encoded):
        raise ValidationError("a value cannot be stored")
    if "password_hash" in encoded:
        encoded["bcrypt_cost"] = or_none(bcrypt_cost, encoded["password_hash"])
    return encoded


class Accounts:
    """``AccountStore``."""

    def __init__(self, executor: Executor, model: Model, tables: Tables, subject_name: str) -> None:
        self._executor, self._model, self._tables, self._subject_name = executor, model, tables, subject_name

    async def update(
        self, user_id: str, changes: Mapping[str, Any], *, expected: Mapping[str, Any] = EMPTY
    ) -> Account | None:
        if not changes or not _ENCODE.keys() >= {*changes, *expected}:
            raise ConfigurationError(f"accounts: changes and expected name columns of {', '.join(_ENCODE)}")
        new, key = encode_account(changes), self._model.to_id(user_id)
        old = {column: or_none(_ENCODE[column], value) for column, value in expected.items()}
        if key is None or not storable(old):
            return None
        accounts = self._tables.accounts
        guards = (accounts.c[column] == value for column, value in old.items())  # IS NULL for None
        statement = (
            update(accounts)
            .where(accounts.c.subject_name == self._subject_name, accounts.c.user_id == key, *guards)
            .values(new)
            .returning(*account_columns(self._tables))
        )
        found = await rows(self._executor, statement)
        return to_account(found[0]) if found else None

    async def highest_bcrypt_cost(self, at_most: int) -> int | None:
        accounts = self._tables.accounts.c
        statement = select(func.max(accounts.bcrypt_cost)).where(
            accounts.subject_name == self._subject_name, accounts.bcrypt_cost <= at_most
        )
        cost: int | None = (await rows(self._executor, statement))[0][0]
        return cost
