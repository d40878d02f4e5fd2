"""Translates the shared statements for the application's tables, driver and type of user ids."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple, cast

from sqlalchemy import Dialect
from sqlalchemy.engine import Connection
from sqlalchemy.engine.default import DefaultDialect

from asgi_auth.errors import ValidationError
from asgi_auth.stores.sqlalchemy.model import Model
from asgi_auth.stores.sqlalchemy.tables import Tables
from asgi_auth.stores.translation import for_sqlite, question_marks, replace_parameters
from asgi_auth.stores.values import NOBODY, Codec, instant, micros, storable

_HINT = re.compile(r"/\*.*?\*/")
_CAST = re.compile(r"::(timestamptz|uuid|jsonb)\b")
_CASTS = {"timestamptz": "::bigint", "uuid": "::text", "jsonb": ""}
"""The types of these tables: instants are numbers; the library's ids and JSON are text."""


class Statement(NamedTuple):
    """A statement for the driver."""

    text: str
    bind: Callable[[Sequence[Any]], Any]
    """The function from the values of ``$1``, ``$2``, … to the parameters of the driver."""


class Native:
    """Translates each statement once."""

    def __init__(self, dialect: Dialect, tables: Tables) -> None:
        self._dialect, self._preparer = dialect, dialect.identifier_preparer
        self._tables = {f"asgi_auth_{field.name}": getattr(tables, field.name) for field in fields(tables)}
        # A table, one of its indexes, or the qualifier of a column.
        longest_first = sorted(self._tables, key=len, reverse=True)
        self._name = re.compile(rf"\b({'|'.join(longest_first)})(_\w+)?(\.)?")
        self._schema = tables.accounts.schema
        # The style of the driver, not of the engine: the engine may use another style for SQLAlchemy's own statements.
        self._for_driver = _FOR_DRIVERS[cast("DefaultDialect", dialect).default_paramstyle]
        self._translated = lru_cache(maxsize=512)(self._translate)

    def statement(self, sql: str, connection: Connection) -> Statement:
        """The shared statement *sql* for *connection*, which may map the schema of the tables to another one."""
        schemas: Mapping[str | None, str | None] = connection.get_execution_options().get("schema_translate_map") or {}
        return self._translated(sql, schemas.get(self._schema, self._schema))

    def _translate(self, sql: str, schema: str | None) -> Statement:
        if self._dialect.name == "sqlite":
            sql = for_sqlite(sql)
        else:
            sql = _CAST.sub(lambda found: _CASTS[found[1]], _HINT.sub("", sql))
        sql = self._name.sub(lambda found: self._named(schema, *found.groups()), sql)
        return self._for_driver(sql)

    def _named(self, schema: str | None, table: str, suffix: str | None, dot: str | None) -> str:
        name = self._preparer.quote(self._tables[table].name + (suffix or ""))
        if schema is None or suffix or dot:  # an index is in the schema of its table; a qualifier is a table name
            return name + (dot or "")
        return f"{self._preparer.quote_schema(schema)}.{name}"


def _in_order(sql: str) -> Statement:
    text, order = question_marks(sql)
    return Statement(text, itemgetter(*order))  # every statement has two or more parameters, so this returns a tuple


def _by_number(sql: str) -> Statement:
    return Statement(sql, tuple)


def _by_name(sql: str) -> Statement:
    # A named parameter may be in several places. The database takes its type from the first place.
    text = replace_parameters(sql.replace("%", "%%"), lambda number: f"%(p{number})s")
    return Statement(text, lambda values: {f"p{number}": value for number, value in enumerate(values, 1)})


_FOR_DRIVERS: Mapping[str, Callable[[str], Statement]] = {
    "qmark": _in_order,  # aiosqlite
    "numeric_dollar": _by_number,  # asyncpg
    "pyformat": _by_name,  # psycopg
}


def codec(dialect: Dialect, model: Model, tables: Tables) -> Codec:
    """How the database stores values. The type of the application's primary key converts the ids of users."""
    kind = tables.accounts.c.user_id.type.dialect_impl(dialect)
    bind, result = kind.bind_processor(dialect), kind.result_processor(dialect, None)

    def store_user_id(text: str) -> Any:
        if not storable(text):
            return text  # the caller refuses it
        key = model.to_id(text)
        if key is None:
            return NOBODY
        try:
            return key if bind is None else bind(key)
        except (TypeError, ValueError, LookupError):
            refused = ValidationError("a value cannot be stored")
        raise refused  # without the error of the application's type, which may quote the id

    def read_user_id(value: Any) -> str:
        return str(value if result is None else result(value))

    return Codec(micros, instant, str, str, store_user_id, read_user_id)
