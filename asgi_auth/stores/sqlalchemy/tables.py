"""The library's own tables, in the metadata of the application's model, where Alembic sees them.

Instants are whole microseconds since the epoch, what is JSON is text: alike in every database, and nothing in a
migration needs this package. ``user_id`` is of the type of the model's own id and refers to it, so that a row of a user
that the application deletes by itself takes along what hangs on it, and a reused id opens nothing.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from asgi_auth.stores.sqlalchemy.model import primary_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The library's tables for one model."""

    accounts: Table
    sessions: Table
    tokens: Table


def make_tables(model: type[Any], *, prefix: str = "asgi_auth_") -> Tables:
    """Put the library's tables into the metadata of *model*; those that are there already are returned.

    Call it beside the models, so that Alembic sees the tables without making the store.

    Args:
        model: The mapped class of the users.
        prefix: What the names begin with; two models in one database need one each.

    Raises:
        ConfigurationError: *model* is not mapped, or its primary key is not one column.
    """
    users = primary_key(model)
    metadata, schema = users.table.metadata, users.table.schema
    name = f"{schema}.{prefix}accounts" if schema else f"{prefix}accounts"
    if name in metadata.tables:
        found = (metadata.tables[name.removesuffix("accounts") + each] for each in ("accounts", "sessions", "tokens"))
        return Tables(**dict(zip(("accounts", "sessions", "tokens"), found, strict=True)))
    accounts = _accounts(metadata, prefix, users)
    return Tables(
        accounts=accounts,
        sessions=_sessions(metadata, prefix, users, accounts),
        tokens=_tokens(metadata, prefix, users, accounts),
    )


def _user_id(users: Column[Any], *, nullable: bool = False) -> Column[Any]:
    return Column("user_id", users.type, nullable=nullable, autoincrement=False)


def _accounts(metadata: MetaData, prefix: str, users: Column[Any]) -> Table:
    name = f"{prefix}accounts"
    return Table(
        name,
        metadata,
        Column("subject_name", Text, nullable=False),
        _user_id(users),
        Column("email_key", Text),
        Column("username_key", Text),
        Column("stamp", LargeBinary, nullable=False),
        Column("password_hash", Text),
        Column("bcrypt_cost", Integer),
        Column("confirmed_at", BigInteger),
        Column("disabled_at", BigInteger),
        PrimaryKeyConstraint("subject_name", "user_id", name=f"{name}_pkey"),
        ForeignKeyConstraint(["user_id"], [users], ondelete="CASCADE", name=f"{name}_user_id_fkey"),
        Index(f"{name}_user_id", "user_id"),
        Index(f"{name}_email_key", "subject_name", "email_key", unique=True),
        Index(f"{name}_username_key", "subject_name", "username_key", unique=True),
        Index(f"{name}_bcrypt_cost", "subject_name", "bcrypt_cost"),
        schema=users.table.schema,
    )


def _sessions(metadata: MetaData, prefix: str, users: Column[Any], accounts: Table) -> Table:
    name = f"{prefix}sessions"
    return Table(
        name,
        metadata,
        Column("subject_name", Text, nullable=False),
        Column("secret_hash", LargeBinary, nullable=False),
        Column("id", Text, nullable=False),
        _user_id(users),
        Column("stamp", LargeBinary, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("last_seen_at", BigInteger, nullable=False),
        Column("idle_expires_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("label", Text, nullable=False),
        Column("factors", Text, nullable=False),
        Column("remembered", Boolean, nullable=False),
        Column("revoked_at", BigInteger),
        PrimaryKeyConstraint("subject_name", "secret_hash", name=f"{name}_pkey"),
        _of_account(name, accounts),
        Index(f"{name}_id", "subject_name", "id", unique=True),
        Index(f"{name}_user_id", "subject_name", "user_id"),
        # A session is over by any of three clocks; pruning asks each.
        *(Index(f"{name}_{end}", "subject_name", end) for end in ("idle_expires_at", "expires_at", "revoked_at")),
        schema=users.table.schema,
    )


def _tokens(metadata: MetaData, prefix: str, users: Column[Any], accounts: Table) -> Table:
    name = f"{prefix}tokens"
    return Table(
        name,
        metadata,
        Column("seq", BigInteger().with_variant(Integer, "sqlite"), autoincrement=True, nullable=False),
        Column("subject_name", Text, nullable=False),
        Column("token_hash", LargeBinary, nullable=False),
        Column("purpose", Text, nullable=False),
        _user_id(users, nullable=True),
        Column("stamp", LargeBinary),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("extra_data", Text, nullable=False),
        PrimaryKeyConstraint("seq", name=f"{name}_pkey"),
        _of_account(name, accounts),
        Index(f"{name}_token_hash", "subject_name", "token_hash", unique=True),
        Index(f"{name}_user_id", "subject_name", "user_id", "purpose"),
        Index(f"{name}_expires_at", "subject_name", "expires_at"),
        schema=users.table.schema,
        sqlite_autoincrement=True,  # the order of insertion is asked for, so that no number may come back
    )


def _of_account(name: str, accounts: Table) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["subject_name", "user_id"],
        [accounts.c.subject_name, accounts.c.user_id],
        ondelete="CASCADE",
        name=f"{name}_account_fkey",
    )
