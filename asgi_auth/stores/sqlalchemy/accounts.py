"""``AccountStore`` in the library's own table."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column

from asgi_auth.errors import ValidationError
from asgi_auth.protocol.password_hashes import bcrypt_cost
from asgi_auth.stores.columns import ACCOUNT
from asgi_auth.stores.rows import TEXT_ROWS
from asgi_auth.stores.sql_accounts import SQLAccounts
from asgi_auth.stores.sqlalchemy.tables import Tables
from asgi_auth.stores.values import or_none, storable


def account_columns(tables: Tables) -> tuple[Column[Any], ...]:
    """The columns of an account, for a query of the ORM. ``TEXT_ROWS`` reads the row."""
    return tuple(tables.accounts.c[name] for name in ACCOUNT.names)


def encode_account(values: Mapping[str, Any]) -> dict[str, Any]:
    """The stored values of fields of an account, for the ORM. Raises ValidationError if they cannot be stored."""
    encoded = with_cost(TEXT_ROWS.of(ACCOUNT).encode(values))
    if not storable(encoded):
        raise ValidationError("a value cannot be stored")
    return encoded


def with_cost(encoded: Mapping[str, Any]) -> dict[str, Any]:
    """*encoded*, with the cost of its password hash if it has one. In these tables the database does not compute it."""
    if "password_hash" not in encoded:
        return {**encoded}
    return {**encoded, "bcrypt_cost": or_none(bcrypt_cost, encoded["password_hash"])}


class Accounts(SQLAccounts):
    """``AccountStore``."""

    def _changed(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        return with_cost(super()._changed(changes))
