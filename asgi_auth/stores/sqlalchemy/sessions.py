"""``SessionStore`` in the library's own table, joined with the application's users."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    ColumnElement,
    Select,
    Update,
    and_,
    case,
    delete,
    exists,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.sql.base import ExecutableOption

from asgi_auth.errors import ValidationError
from asgi_auth.store import Loaded
from asgi_auth.stores.rows import dump, instant, micros, parse, storable
from asgi_auth.stores.sqlalchemy.database import Executor, rows
from asgi_auth.stores.sqlalchemy.model import Model
from asgi_auth.stores.sqlalchemy.tables import Tables
from asgi_auth.types import FrozenDict, Session

U = TypeVar("U")

_COLUMNS = (
    *("id", "user_id", "stamp", "created_at", "last_seen_at", "idle_expires_at", "expires_at"),
    *("label", "factors", "remembered"),
)


def _to_session(row: Any) -> Session:
    return Session(
        id=row[0],
        user_id=str(row[1]),
        stamp=row[2],
        created_at=instant(row[3]),
        last_seen_at=instant(row[4]),
        idle_expires_at=instant(row[5]),
        expires_at=instant(row[6]),
        label=row[7],
        factors=FrozenDict({name: instant(at) for name, at in parse(row[8]).items()}),
        remembered=row[9],
    )


class Sessions(Generic[U]):
    """``SessionStore``."""

    def __init__(
        self,
        executor: Executor,
        model: Model,
        tables: Tables,
        subject_name: str,
        options: Sequence[ExecutableOption],
    ) -> None:
        self._executor, self._model, self._tables, self._subject_name = executor, model, tables, subject_name
        self._options = options
        self._columns = tuple(tables.sessions.c[name] for name in _COLUMNS)

    async def insert(self, session: Session, secret_hash: bytes) -> None:
        factors = dump({name: micros(at) for name, at in session.factors.items()})
        if not storable((session.id, session.user_id, session.label)):
            raise ValidationError("a value cannot be stored")
        key = self._model.to_id(session.user_id)
        clocks = (session.created_at, session.last_seen_at, session.idle_expires_at, session.expires_at)
        row = (session.id, key, session.stamp, *map(micros, clocks), session.label, factors, session.remembered)
        values = {
            "subject_name": self._subject_name,
            "secret_hash": secret_hash,
            **dict(zip(_COLUMNS, row, strict=True)),
        }
        sessions, accounts = self._tables.sessions, self._tables.accounts
        # A session of a user who is gone by now is not kept: it would be as dead as one with an old stamp. PostgreSQL
        # waits for whoever deletes the user right now, instead of failing on the foreign key.
        typed = [literal(value, sessions.c[name].type) for name, value in values.items()]
        theirs = (accounts.c.subject_name == self._subject_name, accounts.c.user_id == key)
        source = select(*typed).where(*theirs).with_for_update(read=True, key_share=True)
        statement = insert(sessions).from_select(list(values), source)
        await rows(self._executor, statement)

    async def load(self, secret_hash: bytes, *, now: datetime) -> Loaded[U] | None:
        return await self._load(self._tables.sessions.c.secret_hash == secret_hash, now)

    async def load_by_id(self, session_id: str, *, now: datetime) -> Loaded[U] | None:
        if not storable(session_id):
            return None
        return await self._load(self._tables.sessions.c.id == session_id, now)

    async def _load(self, condition: ColumnElement[bool], now: datetime) -> Loaded[U] | None:
        accounts = self._tables.accounts.c
        statement = (
            self._select(*self._columns, self._model.cls)
            .join(self._model.cls, accounts.user_id == self._model.id)
            .where(condition, *self._live(now))
            .options(*self._options)
        )
        row = await self._executor.run(lambda orm: orm.execute(statement).unique().first())
        return None if row is None else Loaded(_to_session(row), row[-1])

    async def touch(self, session_id: str, *, last_seen_at: datetime, idle_expires_at: datetime) -> None:
        columns, seen, idle = self._tables.sessions.c, micros(last_seen_at), micros(idle_expires_at)
        await self._update(
            session_id,
            {
                "last_seen_at": case((columns.last_seen_at < seen, seen), else_=columns.last_seen_at),
                "idle_expires_at": case((columns.idle_expires_at < idle, idle), else_=columns.idle_expires_at),
            },
            *self._inside_clocks(last_seen_at),
        )

    async def restamp(self, session_id: str, stamp: bytes) -> bool:
        return await self._update(session_id, {"stamp": stamp})

    async def _update(self, session_id: str, values: dict[str, Any], *conditions: ColumnElement[bool]) -> bool:
        if not storable(session_id):
            return False
        this = self._tables.sessions.c.id
        statement = self._unrevoked(this == session_id, *conditions).values(values).returning(this)
        return bool(await rows(self._executor, statement))

    async def revoke(self, session_id: str, *, user_id: str | None = None, now: datetime) -> bool:
        columns = self._tables.sessions.c
        if not storable(session_id):
            return False
        owner = [] if user_id is None else [columns.user_id == self._model.to_id(user_id)]
        return any(row[-1] for row in await self._revoke(now, columns.id == session_id, *owner))

    async def revoke_by_secrets(self, secret_hashes: Sequence[bytes], *, now: datetime) -> Sequence[Session]:
        found = await self._revoke(now, self._tables.sessions.c.secret_hash.in_(secret_hashes))
        return [_to_session(row) for row in found if row[-1]]

    async def revoke_all(self, user_id: str, *, except_id: str | None = None, now: datetime) -> int:
        columns, key = self._tables.sessions.c, self._model.to_id(user_id)
        if key is None:
            return 0
        kept = [] if except_id is None else [columns.id != except_id]
        return sum(row[-1] for row in await self._revoke(now, columns.user_id == key, *kept))

    async def _revoke(self, now: datetime, *conditions: ColumnElement[bool]) -> Sequence[Any]:
        # Whatever is not revoked gets revoked, also what is dead for another reason that may pass (a disabled account);
        # the answer says whether it was alive.
        was_live = case((and_(*self._inside_clocks(now), self._their_account_is_live()), 1), else_=0)
        statement = self._unrevoked(*conditions).values(revoked_at=micros(now)).returning(*self._columns, was_live)
        return await rows(self._executor, statement)

    async def list(self, user_id: str, *, now: datetime) -> Sequence[Session]:
        columns, key = self._tables.sessions.c, self._model.to_id(user_id)
        if key is None:
            return []
        statement = (
            self._select(*self._columns)
            .where(columns.user_id == key, *self._live(now))
            .order_by(columns.last_seen_at.desc(), columns.created_at.desc(), columns.id)
        )
        return [_to_session(row) for row in await rows(self._executor, statement)]

    async def prune(self, *, now: datetime, limit: int) -> int:
        columns, gone = self._tables.sessions.c, 0
        # One clock after the other: SQLite finds no row by an index that ended by one of three.
        for clock in (columns.idle_expires_at, columns.expires_at, columns.revoked_at):
            gone += await self._prune(clock, now, limit - gone) if gone < limit else 0
        return gone

    async def _prune(self, clock: ColumnElement[int], now: datetime, limit: int) -> int:
        columns = self._tables.sessions.c
        mine = columns.subject_name == self._subject_name
        batch = select(columns.secret_hash).where(mine, clock <= micros(now)).order_by(clock).limit(limit)
        statement = delete(self._tables.sessions).where(mine, columns.secret_hash.in_(batch)).returning(columns.id)
        return len(await rows(self._executor, statement))

    # --- what is alive

    def _select(self, *columns: Any) -> Select[Any]:
        accounts, sessions = self._tables.accounts, self._tables.sessions
        return select(*columns).select_from(sessions).join(accounts, and_(*self._their_account()))

    def _unrevoked(self, *conditions: ColumnElement[bool]) -> Update:
        columns = self._tables.sessions.c
        return update(self._tables.sessions).where(
            columns.subject_name == self._subject_name, columns.revoked_at.is_(None), *conditions
        )

    def _live(self, now: datetime) -> tuple[ColumnElement[bool], ...]:
        columns = self._tables.sessions.c
        return (
            columns.subject_name == self._subject_name,
            columns.revoked_at.is_(None),
            *self._inside_clocks(now),
            *self._the_proof_holds(),
        )

    def _inside_clocks(self, now: datetime) -> tuple[ColumnElement[bool], ...]:
        columns = self._tables.sessions.c
        # Sums, so that SQLite does not look for all sessions of all users that are inside a clock.
        return columns.idle_expires_at + 0 > micros(now), columns.expires_at + 0 > micros(now)

    def _their_account(self) -> tuple[ColumnElement[bool], ...]:
        accounts, columns = self._tables.accounts.c, self._tables.sessions.c
        return accounts.subject_name == columns.subject_name, accounts.user_id == columns.user_id

    def _the_proof_holds(self) -> tuple[ColumnElement[bool], ...]:
        accounts, columns = self._tables.accounts.c, self._tables.sessions.c
        return *self._their_account(), accounts.stamp == columns.stamp, accounts.disabled_at.is_(None)

    def _their_account_is_live(self) -> ColumnElement[bool]:
        """For RETURNING, where SQLAlchemy leaves out the names of SQLite's tables: columns with names of their own."""
        accounts, columns = self._tables.accounts.c, self._tables.sessions.c
        owner = ("subject_name", "user_id", "stamp", "disabled_at")
        theirs = select(*(accounts[name].label(f"account_{name}") for name in owner)).subquery().c
        same = (theirs[f"account_{name}"] == columns[name] for name in ("subject_name", "user_id", "stamp"))
        return exists().where(*same, theirs.account_disabled_at.is_(None)).correlate(self._tables.sessions)
