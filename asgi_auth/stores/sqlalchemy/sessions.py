"""``SessionStore`` in the library's own table, joined with the application's users."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, bindparam, select
from sqlalchemy.sql.base import ExecutableOption

from asgi_auth.store import Loaded
from asgi_auth.stores.columns import SESSION
from asgi_auth.stores.rows import TEXT_ROWS
from asgi_auth.stores.sql_sessions import SessionTable, prune_statement
from asgi_auth.stores.sqlalchemy.database import in_session
from asgi_auth.stores.sqlalchemy.executor import SQLExecutor
from asgi_auth.stores.sqlalchemy.model import Model
from asgi_auth.stores.sqlalchemy.tables import Tables
from asgi_auth.stores.values import micros, storable

U = TypeVar("U")

# One statement for each clock, because these tables have no column for the end of a session.
_PRUNE = tuple(prune_statement(clock) for clock in ("idle_expires_at", "expires_at", "revoked_at"))


class LookUps:
    """The queries for a live session with its user, built once. The ORM makes objects of the application's class."""

    def __init__(self, model: Model, tables: Tables, options: Sequence[ExecutableOption]) -> None:
        self._model, self._tables, self._options = model, tables, options
        sessions = tables.sessions.c
        self.by_secret = self._query(sessions.secret_hash)
        self.by_id = self._query(sessions.id)

    def _query(self, column: ColumnElement[Any]) -> Any:
        accounts, sessions = self._tables.accounts.c, self._tables.sessions.c
        now = bindparam("now", type_=sessions.expires_at.type)
        return (
            select(*(sessions[name] for name in SESSION.names), self._model.cls)
            .select_from(self._tables.sessions)
            .join(
                self._tables.accounts,
                (accounts.subject_name == sessions.subject_name) & (accounts.user_id == sessions.user_id),
            )
            .join(self._model.cls, accounts.user_id == self._model.id)
            .where(
                column == bindparam("key", type_=column.type),
                sessions.subject_name == bindparam("subject_name"),
                sessions.revoked_at.is_(None),
                # Sums, so that SQLite does not use the index of a clock and read the live sessions of all users.
                sessions.idle_expires_at + 0 > now,
                sessions.expires_at + 0 > now,
                accounts.stamp == sessions.stamp,
                accounts.disabled_at.is_(None),
            )
            .options(*self._options)
        )


class Sessions(SessionTable, Generic[U]):
    """``SessionStore``."""

    def __init__(self, executor: SQLExecutor, subject_name: str, look_ups: LookUps) -> None:
        super().__init__(executor, subject_name)
        self._run, self._look_ups = executor.run, look_ups

    async def load(self, secret_hash: bytes, *, now: datetime) -> Loaded[U] | None:
        return await self._load(self._look_ups.by_secret, secret_hash, now)

    async def load_by_id(self, session_id: str, *, now: datetime) -> Loaded[U] | None:
        if not storable(session_id):
            return None
        return await self._load(self._look_ups.by_id, session_id, now)

    async def _load(self, query: Any, key: Any, now: datetime) -> Loaded[U] | None:
        values = {"subject_name": self._subject_name, "key": key, "now": micros(now)}
        row = await self._run(in_session(lambda session: session.execute(query, values).unique().first()))
        return None if row is None else Loaded(TEXT_ROWS.of(SESSION).read(row), row[-1])

    async def prune(self, *, now: datetime, limit: int) -> int:
        gone = 0
        for statement in _PRUNE:
            if gone < limit:
                gone += len(await self._change(statement, self._instant(now), limit - gone))
        return gone
