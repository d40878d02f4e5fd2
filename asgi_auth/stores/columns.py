"""The columns of each record, declared once. The statements, and the functions that read and write rows, use them.

A new field of a record (``types.Session``, or one of ``store``) needs a schema file of each dialect in ``schema``, and
a column in ``sqlalchemy.tables``; nothing else. A record has a column for each field, with the name of the field. The
type of a field says how its values are stored. An id is text in every record, so the declaration names the fields that
are ids.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum, auto
from functools import partial
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from asgi_auth.store import Counted, InvitationRecord, TokenRecord
from asgi_auth.stores.values import (
    Codec,
    dump,
    dump_instants,
    dump_names,
    or_none,
    parse,
    parse_instants,
    parse_names,
    same,
)
from asgi_auth.types import EMPTY, Account, Session, User

R = TypeVar("R")
Row = Sequence[Any]
Convert = Callable[[Any], Any]


class Kind(Enum):
    """How the values of a column are stored."""

    PLAIN = auto()
    """Unchanged: text, numbers, bytes."""
    TRUTH = auto()
    INSTANT = auto()
    ID = auto()
    """An id that the library has made."""
    USER_ID = auto()
    """An id of the table of users, which may be the application's."""
    VALUES = auto()
    """A JSON object."""
    INSTANTS = auto()
    """A JSON object of instants."""
    NAMES = auto()
    """A JSON list of texts."""


_KINDS: Mapping[Any, Kind] = {
    datetime: Kind.INSTANT,
    bool: Kind.TRUTH,
    Mapping[str, Any]: Kind.VALUES,
    Mapping[str, datetime]: Kind.INSTANTS,
    tuple[str, ...]: Kind.NAMES,
}
_JSON: Mapping[Kind, tuple[Convert, Convert]] = {
    Kind.VALUES: (dump, parse),
    Kind.INSTANTS: (dump_instants, parse_instants),
    Kind.NAMES: (dump_names, parse_names),
}
_TYPES = {Kind.TRUTH: "boolean", Kind.INSTANT: "timestamptz", Kind.ID: "uuid", **dict.fromkeys(_JSON, "text::jsonb")}
_PLAIN_TYPES = {str: "text", bytes: "bytea", int: "bigint"}


@dataclass(frozen=True, slots=True)
class Column:
    """The column of one field of a record, and how its values are stored."""

    field: str
    name: str
    kind: Kind
    type: str
    """The PostgreSQL type, for parameters whose type PostgreSQL cannot infer."""
    optional: bool
    """Whether it may be None."""

    def writer(self, codec: Codec) -> Convert:
        """The function from a value of the record to the value in the row."""
        writers: dict[Kind, Convert] = {kind: write for kind, (write, _) in _JSON.items()}
        writers |= {Kind.INSTANT: codec.store_instant, Kind.ID: codec.store_id, Kind.USER_ID: codec.store_user_id}
        write = writers.get(self.kind, same)
        return partial(or_none, write) if self.optional else write

    def reader(self, codec: Codec) -> Convert:
        """The function from a value in the row, which is not None, to the value of the record."""
        readers: dict[Kind, Convert] = {kind: read for kind, (_, read) in _JSON.items()}
        readers |= {Kind.INSTANT: codec.read_instant, Kind.ID: codec.read_id, Kind.USER_ID: codec.read_user_id}
        readers[Kind.TRUTH] = bool  # SQLite stores numbers
        return readers.get(self.kind, same)


class Columns(Generic[R]):
    """The columns of one kind of record, in the order of its fields.

    Args:
        record: A dataclass.
        names: The column of each field whose column has another name.
        kinds: How a field is stored, if its type does not say it.
    """

    def __init__(self, record: type[R], *, names: Mapping[str, str] = EMPTY, **kinds: Kind) -> None:
        hints = get_type_hints(record)
        self.record: Callable[..., R] = record
        self.every = tuple(
            _column(name, names.get(name, name), hints[name], kinds.get(name))
            for name in (field.name for field in fields(record))  # type: ignore[arg-type]  # every record is a dataclass
        )
        self.width = len(self.every)
        self.names = tuple(column.name for column in self.every)
        self.listed = ", ".join(self.names)

    def position(self, field: str) -> int:
        """The place of *field* in a row, from 0."""
        return [column.field for column in self.every].index(field)

    # --- SQL

    def selected(self, table: str = "", **elsewhere: str) -> str:
        """The list of a SELECT or RETURNING: columns of *table*; for the fields in *elsewhere*, of that table."""
        return ", ".join(self._selected(column, elsewhere.get(column.field, table)) for column in self.every)

    def _selected(self, column: Column, table: str) -> str:
        return f"{table}{'.' if table else ''}{column.name}{'::text' if column.kind in _JSON else ''}"

    def parameter(self, field: str, first: int) -> str:
        """The parameter of *field*, if the first parameter of the record has the number *first*."""
        return f"${first + self.position(field)}"

    def values(self, first: int) -> str:
        """Parameters for VALUES. The table gives their types; JSON is passed as text."""
        return ", ".join(self._value(column, first, typed=column.kind in _JSON) for column in self.every)

    def values_of_account(self, first: int) -> str:
        """Parameters for a SELECT from the accounts, with their types, because no column gives them.

        The user's id is the column of the account, because its type is the application's.
        """
        return ", ".join(
            "user_id" if column.kind is Kind.USER_ID else self._value(column, first, typed=True)
            for column in self.every
        )

    def _value(self, column: Column, first: int, *, typed: bool) -> str:
        return f"{self.parameter(column.field, first)}{'::' + column.type if typed else ''}"

    # --- rows

    def reader(self, codec: Codec, *, start: int = 0) -> Callable[[Row], R]:
        """The function from a row to the record, whose columns begin at the position *start*."""
        # One expression, made as dataclasses makes __init__. Every request calls it, and a loop takes a quarter more
        # time.
        names: dict[str, Any] = {"record": self.record}
        arguments = list[str]()
        for place, column in enumerate(self.every, start):
            value, read = f"row[{place}]", column.reader(codec)
            if read is not same:
                names[f"read_{column.field}"] = read
                unless_none = f"None if {value} is None else " if column.optional else ""
                value = f"{unless_none}read_{column.field}({value})"
            arguments.append(f"{column.field}={value}")
        made: Callable[[Row], R] = eval(f"lambda row: record({', '.join(arguments)})", names)  # noqa: S307  # of names
        return made

    def writers(self, codec: Codec) -> dict[str, Convert]:
        """The function of each field from its value to the value in the row."""
        return {column.field: column.writer(codec) for column in self.every}


def _column(field: str, name: str, hint: Any, kind: Kind | None) -> Column:
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    [given] = (option for option in options if option is not NoneType)
    kind = kind or _KINDS.get(given, Kind.PLAIN)
    kept = _TYPES.get(kind) or _PLAIN_TYPES[str if get_origin(given) is Literal else given]
    return Column(field, name, kind, kept, NoneType in options)


# --- records ---------------------------------------------------------------------------------------------------------

USER = Columns(User, id=Kind.USER_ID)
ACCOUNT = Columns(Account, user_id=Kind.USER_ID)
SESSION = Columns(Session, id=Kind.ID, user_id=Kind.USER_ID)
TOKEN = Columns(TokenRecord, user_id=Kind.USER_ID)
# An invitation outlives the users whom it names, so their ids are stored like the library's own.
INVITATION = Columns(
    InvitationRecord,
    names={"grant": "grant_data"},  # a reserved word
    **dict.fromkeys(("id", "inviter_id", "accepted_by", "ended_by"), Kind.ID),
)
COUNTED = Columns(Counted)
