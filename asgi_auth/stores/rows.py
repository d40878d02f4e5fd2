"""Converts rows to records, and records to rows."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar

from asgi_auth.store import Found, Loaded
from asgi_auth.stores.columns import ACCOUNT, SESSION, USER, Columns, Row
from asgi_auth.stores.values import Codec, instant, micros
from asgi_auth.types import User

R = TypeVar("R")

FOUND = f"{USER.selected('u', confirmed_at='a')}, {ACCOUNT.selected('a')}"
"""The columns that ``Rows.found`` reads: of the users ``u`` and their accounts ``a``."""
LOADED = f"{SESSION.selected('asgi_auth_sessions')}, {USER.selected('u', confirmed_at='a')}"
"""The columns that ``Rows.loaded`` reads."""
_DATA = SESSION.width + USER.position("data")


class Records(Generic[R]):
    """The records of one kind, in the rows of one database."""

    def __init__(self, columns: Columns[R], codec: Codec) -> None:
        self.read: Callable[[Row], R] = columns.reader(codec)
        """The record of a row that begins with the columns of the record."""
        self._writers = columns.writers(codec)

    def write(self, record: R) -> tuple[Any, ...]:
        """The values of *record* as they are stored, in the order of its columns.

        Raises:
            ValidationError: a value cannot be stored.
        """
        return tuple(write(getattr(record, field)) for field, write in self._writers.items())

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The stored values of some fields of a record, by name."""
        return {field: self._writers[field](value) for field, value in values.items()}


class Rows:
    """Records from rows, converted by a ``Codec``."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._records: dict[Columns[Any], Records[Any]] = {}
        self._session, self._user = SESSION.reader(codec), USER.reader(codec)
        self._account_of_found = ACCOUNT.reader(codec, start=USER.width)
        self._user_of_loaded = USER.reader(codec, start=SESSION.width)
        # Most requests read the same row as the request before. Comparing it is cheaper than decoding it.
        self._remembered = lru_cache(maxsize=1024)(self._loaded)

    def of(self, columns: Columns[R]) -> Records[R]:
        """The records with these columns."""
        if columns not in self._records:
            self._records[columns] = Records(columns, self.codec)
        return self._records[columns]

    def found(self, row: Row) -> Found[User]:
        """The row of ``FOUND``."""
        return Found(self._user(row), self._account_of_found(row))

    def loaded(self, row: Row) -> Loaded[User]:
        """The row of ``LOADED``. Equal rows may return the same object, which is immutable."""
        data: str = row[_DATA]
        if data.count("{") == 1 and "[" not in data:
            return self._remembered(tuple(row))
        return self._loaded(row)  # nested values are mutable: each caller gets its own

    def _loaded(self, row: Row) -> Loaded[User]:
        return Loaded(self._session(row), self._user_of_loaded(row))


TEXT_ROWS = Rows(Codec(micros, instant, str, str, str, str))
"""For databases with numbers and text only: instants are whole microseconds since the epoch, exact and ordered."""
