"""Finds the columns of a constraint of the application's tables, by the name that the database reports."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    CheckConstraint,
    Column,
    Constraint,
    Dialect,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy.schema import ColumnCollectionConstraint

from asgi_auth.stores.sqlalchemy.broken import Broken

Columns = Sequence[Column[Any]]


class Unique(NamedTuple):
    """Columns whose values are unique together."""

    columns: Columns
    plain: bool
    """Whether the values themselves are unique in all rows, without an expression or a condition."""


class Constraints:
    """The constraints and unique indexes of the model's tables."""

    def __init__(self, tables: Sequence[Table], dialect: Dialect) -> None:
        self.tables = tables
        self._preparer = dialect.identifier_preparer
        self._named = {name: columns for table in tables for name, columns in self._of_table(table) if name}

    def columns_of(self, broken: Broken) -> Columns:
        """The columns of the rule; empty if they are unknown."""
        tables = [table for table in self.tables if broken.table in ("", table.name)]
        if broken.columns:
            return [column for table in tables for column in table.c if column.name in broken.columns]
        if broken.name in self._named:
            return self._named[broken.name]
        # The metadata has no name for it, or does not have it. Then SQLite reports the condition. PostgreSQL makes a
        # name from the table and the columns, and people choose such names too.
        return [column for table in tables for column in _in_words(table, broken.name) or _in_name(table, broken.name)]

    @cached_property
    def unique(self) -> Sequence[Unique]:
        """Every unique constraint and unique index."""
        constraints = [each for table in self.tables for each in table.constraints]
        indexes = [each for table in self.tables for each in table.indexes if each.unique]
        return [
            *(Unique([*each.columns], True) for each in constraints if isinstance(each, UniqueConstraint)),
            *(Unique(_of_index(each), _is_plain(each)) for each in indexes),
        ]

    def _of_table(self, table: Table) -> Iterator[tuple[str, Columns]]:
        of_columns = (each for column in table.c for each in column.constraints)
        constraints = {*table.constraints, *of_columns}
        for constraint in constraints:
            name = self._name(constraint)
            if not name and isinstance(constraint, PrimaryKeyConstraint):
                name = f"{table.name}_pkey"  # PostgreSQL's name
            yield name, _of_constraint(table, constraint)
        for index in table.indexes:
            yield self._name(index), _of_index(index)

    def _name(self, item: Constraint | Index) -> str:
        """The name in the database, by the naming convention of the metadata; empty if that gives no name."""
        formatted = None if item.name is None else self._preparer.format_constraint(item)
        return "" if formatted is None else formatted.strip('"')


def _of_constraint(table: Table, constraint: Constraint) -> Columns:
    if isinstance(constraint, CheckConstraint):
        return _in_words(table, str(constraint.sqltext))
    columns: Columns = [*constraint.columns] if isinstance(constraint, ColumnCollectionConstraint) else []
    return columns


def _of_index(index: Index) -> Columns:
    return [*index.columns] or _in_words(cast("Table", index.table), " ".join(map(str, index.expressions)))


def _is_plain(index: Index) -> bool:
    """Whether *index* is over whole columns and all rows."""
    partial = (index.dialect_options[dialect]["where"] is not None for dialect in ("sqlite", "postgresql"))
    return not any(partial) and all(isinstance(each, Column) for each in index.expressions)


def _in_words(table: Table, condition: str) -> Columns:
    """The columns that a condition in SQL names."""
    words = {word.lower() for word in re.findall(r"\w+", re.sub(r"'[^']*'", "", condition))}
    return [column for column in table.c if column.name.lower() in words]


def _in_name(table: Table, name: str) -> Columns:
    """The columns whose names are part of the *name* of a constraint, such as ``users_nickname_key``."""
    rest = name.replace(table.name, "", 1)
    found = [each for each in table.c if re.search(rf"(?:^|_){re.escape(each.name)}(?:_|\d|$)", rest)]
    return [each for each in found if not any(each.name in other.name for other in found if other is not each)]
