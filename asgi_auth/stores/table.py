"""The base of every capability in SQL: an executor, and the subject of its statements.

The statements are written for PostgreSQL, with casts for parameters whose type it cannot infer and with the locks that
many writers require. A parameter that is the id of a user has no cast, because its type may be the application's. Its
first use must be a comparison with a column. Tables and their indexes are called ``asgi_auth_…``. A
hint for SQLite is a comment. ``translation`` and ``sqlalchemy.native`` translate the statements.
"""

from collections.abc import Sequence
from typing import Any

from asgi_auth.errors import ValidationError
from asgi_auth.stores.columns import Row
from asgi_auth.stores.executor import Executor
from asgi_auth.stores.values import NOBODY, storable


class Table:
    """One capability, bound to a *subject_name* that is the first parameter, ``$1``, of every statement."""

    def __init__(self, executor: Executor, subject_name: str) -> None:
        self._executor, self._subject_name, self._rows = executor, subject_name, executor.rows
        codec = executor.rows.codec
        self._instant, self._id, self._user_id = codec.store_instant, codec.store_id, codec.store_user_id

    async def _find(self, sql: str, *values: Any) -> Sequence[Row]:
        return await self._executor.read(sql, (self._subject_name, *values)) if storable(values) else ()

    async def _change(self, sql: str, *values: Any) -> Sequence[Row]:
        """Change the rows that *values* find. A value that cannot be stored finds no row."""
        return await self._executor.write(sql, (self._subject_name, *values)) if storable(values) else ()

    async def _put(self, sql: str, *values: Any) -> Sequence[Row]:
        """Store new *values*. Raises ValidationError if one cannot be stored. A row of ``NOBODY`` is not stored."""
        if any(value is NOBODY for value in values):
            return ()
        if not storable(values):
            raise ValidationError("a value cannot be stored")
        return await self._executor.write(sql, (self._subject_name, *values))
