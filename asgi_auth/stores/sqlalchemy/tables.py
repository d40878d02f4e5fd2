"""The library's own tables, in the metadata of the application's model, where Alembic sees them.

Instants are whole microseconds since the epoch, and JSON is text, in every database. A migration does not require this
package. ``user_id`` has the type of the model's id and refers to it. If the application itself deletes a user, the
user's rows here are deleted too, and a reused id grants nothing. The ids of inviters and of accepting users are text
without a reference, because an invitation outlives them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

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
    TextClause,
    text,
)

from asgi_auth.errors import ConfigurationError
from asgi_auth.stores.sqlalchemy.model import primary_key

# Text, not expressions: values must not be parameters, or the database cannot match the condition of the index.
PENDING_IN_SCOPE: Final = text("status = 'pending' AND scope IS NOT NULL")
PENDING_WITHOUT_SCOPE: Final = text("status = 'pending' AND scope IS NULL")

_OWNER: Final = "asgi_auth_owner"
"""The key in the ``info`` of the table of accounts. Its value names the class that the table was made for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The library's tables for one model."""

    accounts: Table
    sessions: Table
    tokens: Table
    invitations: Table
    counters: Table

    @property
    def every(self) -> tuple[Table, ...]:
        """All tables, each after those that it refers to."""
        return self.accounts, self.sessions, self.tokens, self.invitations, self.counters


def make_tables(model: type[Any], *, prefix: str = "asgi_auth_") -> Tables:
    """Put the library's tables into the metadata of *model*. Tables that exist there are returned.

    Call it beside the models, so that Alembic sees the tables without the store.

    Classes whose ids are in one column may share tables: those of one hierarchy, by single-table or joined-table
    inheritance. Other classes may not, because one id would name a user of each class.

    Args:
        model: The mapped class of the users.
        prefix: The prefix of the table names. Two models in one database require different prefixes.

    Raises:
        ConfigurationError: *model* is not mapped, its primary key is not one column, or the tables belong to another
            class; the message names both.
    """
    users = primary_key(model)
    metadata, schema = users.table.metadata, users.table.schema

    def put(name: str, make: Callable[..., Table], *refers_to: Table) -> Table:
        there = metadata.tables.get(f"{schema}.{prefix}{name}" if schema else f"{prefix}{name}")
        return make(metadata, f"{prefix}{name}", users, *refers_to) if there is None else there

    accounts = put("accounts", _accounts)
    check_owner(accounts, model)
    accounts.info.setdefault(_OWNER, _full_name(model))
    return Tables(
        accounts=accounts,
        sessions=put("sessions", _sessions, accounts),
        tokens=put("tokens", _tokens, accounts),
        invitations=put("invitations", _invitations),
        counters=put("counters", _counters),
    )


def _full_name(model: type[Any]) -> str:
    return f"{model.__module__}.{model.__qualname__}"  # two modules may have a class User each


def check_owner(accounts: Table, model: type[Any]) -> None:
    """Raise ConfigurationError if *accounts* refers to other users than those of *model*."""
    mine = primary_key(model).table.fullname
    for users in {key.target_fullname.rpartition(".")[0] for key in accounts.c.user_id.foreign_keys} - {mine}:
        raise refuse_sharing(accounts, model, accounts.info.get(_OWNER, f"the table {users}"))


def refuse_sharing(accounts: Table, model: type[Any], other: str) -> ConfigurationError:
    """The error for *model* if *accounts* belongs to *other*."""
    return ConfigurationError(
        f"SQLAlchemyStore: {_full_name(model)} cannot use {accounts.fullname} and the other tables with this prefix, "
        f"because they belong to {other}: call make_tables({model.__name__}, "
        f'prefix="{model.__name__.lower()}_auth_") and give the result to the store as tables'
    )


def _user_id(users: Column[Any], *, nullable: bool = False) -> Column[Any]:
    return Column("user_id", users.type, nullable=nullable, autoincrement=False)


def _accounts(metadata: MetaData, name: str, users: Column[Any]) -> Table:
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
        Column("proven_email", Text),
        PrimaryKeyConstraint("subject_name", "user_id", name=f"{name}_pkey"),
        ForeignKeyConstraint(["user_id"], [users], ondelete="CASCADE", name=f"{name}_user_id_fkey"),
        Index(f"{name}_user_id", "user_id"),
        Index(f"{name}_email_key", "subject_name", "email_key", unique=True),
        Index(f"{name}_username_key", "subject_name", "username_key", unique=True),
        Index(f"{name}_bcrypt_cost", "subject_name", "bcrypt_cost"),
        schema=users.table.schema,
    )


def _sessions(metadata: MetaData, name: str, users: Column[Any], accounts: Table) -> Table:
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
        # Any of three clocks ends a session. Pruning checks each.
        *(Index(f"{name}_{end}", "subject_name", end) for end in ("idle_expires_at", "expires_at", "revoked_at")),
        schema=users.table.schema,
    )


def _tokens(metadata: MetaData, name: str, users: Column[Any], accounts: Table) -> Table:
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
        sqlite_autoincrement=True,  # numbers give the order of insertion, so none may be reused
    )


def _invitations(metadata: MetaData, name: str, users: Column[Any]) -> Table:
    return Table(
        name,
        metadata,
        Column("subject_name", Text, nullable=False),
        Column("id", Text, nullable=False),
        Column("scope", Text),
        Column("email", Text, nullable=False),
        Column("email_key", Text, nullable=False),
        Column("grant_data", Text, nullable=False),
        Column("strategies", Text, nullable=False),
        Column("inviter_id", Text),
        Column("status", Text, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("sent_count", BigInteger, nullable=False),
        Column("last_sent_at", BigInteger, nullable=False),
        Column("delivery", Text, nullable=False),
        *(Column(column, Text) for column in ("accepted_by", "accepted_via")),
        Column("ended_at", BigInteger),
        *(Column(column, Text) for column in ("ended_by", "reason")),
        PrimaryKeyConstraint("subject_name", "id", name=f"{name}_pkey"),
        # Two indexes, because to a unique index NULLs differ from each other.
        _partial(f"{name}_pending_in_scope", "scope", "email_key", where=PENDING_IN_SCOPE, unique=True),
        _partial(f"{name}_pending_without_scope", "email_key", where=PENDING_WITHOUT_SCOPE, unique=True),
        _partial(f"{name}_expires_at", "expires_at", where=text("status = 'pending'")),
        _partial(f"{name}_ended_at", "ended_at", where=text("email <> ''")),
        Index(f"{name}_created_at", "subject_name", "created_at", "id"),
        *(Index(f"{name}_{by}", "subject_name", by, "created_at", "id") for by in ("inviter_id", "scope", "status")),
        schema=users.table.schema,
    )


def _partial(name: str, *columns: str, where: TextClause, unique: bool = False) -> Index:
    return Index(name, "subject_name", *columns, unique=unique, sqlite_where=where, postgresql_where=where)


def _counters(metadata: MetaData, name: str, users: Column[Any]) -> Table:
    return Table(
        name,
        metadata,
        Column("subject_name", Text, nullable=False),
        Column("name", Text, nullable=False),
        Column("key", LargeBinary, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        PrimaryKeyConstraint("subject_name", "name", "key", name=f"{name}_pkey"),
        Index(f"{name}_expires_at", "subject_name", "expires_at"),
        schema=users.table.schema,
    )


def _of_account(name: str, accounts: Table) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["subject_name", "user_id"],
        [accounts.c.subject_name, accounts.c.user_id],
        ondelete="CASCADE",
        name=f"{name}_account_fkey",
    )
