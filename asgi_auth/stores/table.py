"""What every capability in SQL is made of: an executor and the subject that its statements are bound to.

The statements are written for PostgreSQL, with a cast where it could not tell the type of a parameter and with the
locks that many writers need. A parameter that is the id of a user has no cast, because its type may be the
application's: compare it with a column before anything else. Tables and their indexes are called ``asgi_auth_…``. A
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
        """For a change of what is found by *values*: whatever cannot be stored is not found."""
        return await self._executor.write(sql, (self._subject_name, *values)) if storable(values) else ()

    async def _put(self, sql: str, *values: Any) -> Sequence[Row]:
        """For new *values*: ValidationError for whatever cannot be stored. A row of ``NOBODY`` is not kept."""
        if any(value is NOBODY for value in values):
            return ()
        if not storable(values):
            raise ValidationError("a value cannot be stored")
        return await self._executor.write(sql, (self._subject_name, *values))
