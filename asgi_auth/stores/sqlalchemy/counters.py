"""``CounterStore`` in the library's own table."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, case, delete, select, tuple_, update

from asgi_auth.errors import ValidationError
from asgi_auth.store import Counted
from asgi_auth.stores.rows import instant, micros, storable
from asgi_auth.stores.sqlalchemy.database import Runner, Upsert, rows
from asgi_auth.stores.sqlalchemy.tables import Tables


def _to_counted(row: Sequence[int]) -> Counted:
    return Counted(row[0], instant(row[1]))


class Counters:
    """``CounterStore``."""

    def __init__(self, runner: Runner, upsert: Upsert, tables: Tables, subject_name: str) -> None:
        self._runner, self._upsert, self._table = runner, upsert, tables.counters
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
        return _to_counted((await rows(self._runner, statement.returning(columns["count"], columns.expires_at)))[0])

    async def get(self, name: str, key: bytes, *, now: datetime) -> Counted | None:
        if not storable(name):
            return None
        statement = select(self._table.c["count"], self._table.c.expires_at).where(*self._running(name, key, now))
        found = await rows(self._runner, statement)
        return _to_counted(found[0]) if found else None

    async def uncount(self, name: str, key: bytes, *, now: datetime) -> None:
        count = self._table.c["count"]
        if storable(name):
            these = (*self._running(name, key, now), count > 0)
            await rows(self._runner, update(self._table).where(*these).values({"count": count - 1}))

    def _running(self, name: str, key: bytes, now: datetime) -> tuple[ColumnElement[bool], ...]:
        columns = self._table.c
        this = (columns.subject_name == self._subject_name, columns.name == name, columns.key == key)
        return *this, columns.expires_at > micros(now)

    async def prune(self, *, now: datetime, limit: int) -> int:
        columns = self._table.c
        over = (columns.subject_name == self._subject_name, columns.expires_at <= micros(now))
        batch = select(columns.name, columns.key).where(*over).order_by(columns.expires_at).limit(limit)
        taken = batch.with_for_update(skip_locked=True).cte("batch")  # as with what expires of invitations
        these = tuple_(columns.name, columns.key).in_(select(taken.c.name, taken.c.key))
        statement = delete(self._table).where(over[0], these).returning(columns.name)
        return len(await rows(self._runner, statement))
