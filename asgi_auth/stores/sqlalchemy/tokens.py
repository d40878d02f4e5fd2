"""``TokenStore`` in the library's own table."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, insert, literal, or_, select

from asgi_auth.errors import ValidationError
from asgi_auth.store import TokenRecord
from asgi_auth.stores.rows import dump, instant, micros, parse, storable
from asgi_auth.stores.sqlalchemy.database import Executor, rows
from asgi_auth.stores.sqlalchemy.model import Model
from asgi_auth.stores.sqlalchemy.tables import Tables

_COLUMNS = ("token_hash", "purpose", "user_id", "stamp", "created_at", "expires_at", "extra_data")


def _to_token(row: Any) -> TokenRecord:
    return TokenRecord(
        token_hash=row[0],
        purpose=row[1],
        user_id=None if row[2] is None else str(row[2]),
        stamp=row[3],
        created_at=instant(row[4]),
        expires_at=instant(row[5]),
        extra_data=parse(row[6]),
    )


class Tokens:
    """``TokenStore``."""

    def __init__(self, executor: Executor, model: Model, tables: Tables, subject_name: str) -> None:
        self._executor, self._model, self._tables, self._subject_name = executor, model, tables, subject_name
        self._columns = tuple(tables.tokens.c[name] for name in _COLUMNS)

    async def insert(self, record: TokenRecord) -> None:
        extra_data = dump(record.extra_data)
        if not storable((record.purpose, record.user_id)):
            raise ValidationError("a value cannot be stored")
        key = None if record.user_id is None else self._model.to_id(record.user_id)
        times = (micros(record.created_at), micros(record.expires_at))
        row = (record.token_hash, record.purpose, key, record.stamp, *times, extra_data)
        values = {"subject_name": self._subject_name, **dict(zip(_COLUMNS, row, strict=True))}
        tokens, accounts = self._tables.tokens, self._tables.accounts.c
        source = select(*(literal(value, tokens.c[name].type) for name, value in values.items()))
        if record.user_id is not None:  # as with sessions
            theirs = (accounts.subject_name == self._subject_name, accounts.user_id == key)
            source = source.where(*theirs).with_for_update(read=True, key_share=True)
        statement = insert(tokens).from_select(list(values), source)
        await rows(self._executor, statement)

    async def peek(self, purpose: str, token_hash: bytes, *, now: datetime) -> TokenRecord | None:
        if not storable(purpose):
            return None
        statement = select(*self._columns).where(*self._live_one(purpose, token_hash, now))
        found = await rows(self._executor, statement)
        return _to_token(found[0]) if found else None

    async def consume(self, purpose: str, token_hash: bytes, *, now: datetime) -> TokenRecord | None:
        if not storable(purpose):
            return None
        condition = self._live_one(purpose, token_hash, now)
        statement = delete(self._tables.tokens).where(*condition).returning(*self._columns)
        found = await rows(self._executor, statement)
        return _to_token(found[0]) if found else None

    async def latest(self, purpose: str, user_id: str, *, now: datetime) -> TokenRecord | None:
        columns, key = self._tables.tokens.c, self._model.to_id(user_id)
        if key is None or not storable(purpose):
            return None
        live = self._live(now, columns.purpose == purpose, columns.user_id == key)
        statement = select(*self._columns).where(*live).order_by(columns.seq.desc()).limit(1)
        found = await rows(self._executor, statement)
        return _to_token(found[0]) if found else None

    async def retire(self, purpose: str, user_id: str, *, older_than: bytes | None = None) -> int:
        columns, key = self._tables.tokens.c, self._model.to_id(user_id)
        if key is None or not storable(purpose):
            return 0
        mine = columns.subject_name == self._subject_name
        conditions = [mine, columns.purpose == purpose, columns.user_id == key]
        if older_than is not None:
            newest = select(columns.seq).where(mine, columns.token_hash == older_than).scalar_subquery()
            conditions.append(columns.seq < newest)
        return await self._delete(*conditions)

    async def prune(self, *, now: datetime, limit: int) -> int:
        columns = self._tables.tokens.c
        over = (columns.subject_name == self._subject_name, columns.expires_at <= micros(now))
        batch = select(columns.seq).where(*over).order_by(columns.expires_at).limit(limit)
        return await self._delete(columns.seq.in_(batch))

    async def _delete(self, *conditions: ColumnElement[bool]) -> int:
        statement = delete(self._tables.tokens).where(*conditions).returning(self._tables.tokens.c.seq)
        return len(await rows(self._executor, statement))

    def _live_one(self, purpose: str, token_hash: bytes, now: datetime) -> tuple[ColumnElement[bool], ...]:
        columns = self._tables.tokens.c
        return self._live(now, columns.purpose == purpose, columns.token_hash == token_hash)

    def _live(self, now: datetime, *conditions: ColumnElement[bool]) -> tuple[ColumnElement[bool], ...]:
        columns, accounts = self._tables.tokens.c, self._tables.accounts.c
        the_proof_holds = exists().where(
            accounts.subject_name == columns.subject_name,
            accounts.user_id == columns.user_id,
            or_(columns.stamp.is_(None), accounts.stamp == columns.stamp),
            accounts.disabled_at.is_(None),
        )
        return (
            columns.subject_name == self._subject_name,
            *conditions,
            columns.expires_at > micros(now),
            or_(columns.user_id.is_(None), the_proof_holds.correlate(self._tables.tokens)),
        )
