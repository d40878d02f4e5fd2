"""``CounterStore`` in the library's own table."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import case, delete, select, tuple_, update

from asgi_auth.errors import ValidationError
from asgi_auth.store import Counted
from asgi_auth.stores.rows import instant, micros, storable
from asgi_auth.stores.sqlalchemy.database import Executor, Upsert, rows
from asgi_auth.stores.sqlalchemy.tables import Tables


class Counters:
    """``CounterStore``."""

    def __init__(self, executor: Executor, upsert: Upsert, tables: Tables, subject_name: str) -> None:
        self._executor, self._upsert, self._table = executor, upsert, tables.counters
        self._subject_name = subject_name

    async def count(self, name: str, key: bytes, *, now: datetime, expires_at: datetime) -> Counted:
        if not storable(name):
            raise ValidationError("a value cannot be stored")
        columns = self._table.c
        first = {"subject_name": self._subject_name, "name": name, "key": key, "count": 1}
        statement = self._upsert(self._table).values({**first, "expires_at": micros(expires_at)})
        is_over = columns.expires_at <= micros(now)
        statement = statement.on_conflict_do_update(
            index_elements=["subject_name", "name", "key"],
            set_={
                "count": case((is_over, 1), else_=columns["count"] + 1),
                "expires_at": case((is_over, statement.excluded.expires_at), else_=columns.expires_at),
            },
        )
        row: Sequence[int] = (await rows(self._executor, statement.returning(columns["count"], columns.expires_at)))[0]
        return Counted(row[0], instant(row[1]))

    async def uncount(self, name: str, key: bytes, *, now: datetime) -> None:
        columns = self._table.c
        if storable(name):
            this = (columns.subject_name == self._subject_name, columns.name == name, columns.key == key)
            statement = (
                update(self._table)
                .where(*this, columns.expires_at > micros(now), columns["count"] > 0)
                .values({"count": columns["count"] - 1})
            )
            await rows(self._executor, statement)

    async def prune(self, *, now: datetime, limit: int) -> int:
        columns = self._table.c
        over = (columns.subject_name == self._subject_name, columns.expires_at <= micros(now))
        batch = select(columns.name, columns.key).where(*over).order_by(columns.expires_at).limit(limit)
        taken = batch.with_for_update(skip_locked=True).cte("batch")  # as with what expires of invitations
        these = tuple_(columns.name, columns.key).in_(select(taken.c.name, taken.c.key))
        statement = delete(self._table).where(over[0], these).returning(columns.name)
        return len(await rows(self._executor, statement))
