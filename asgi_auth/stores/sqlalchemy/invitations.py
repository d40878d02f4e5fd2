"""``InvitationStore`` in the library's own table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Update, literal_column, select, tuple_, update

from asgi_auth.errors import ValidationError
from asgi_auth.store import InvitationRecord, InvitationStatus
from asgi_auth.stores.rows import dump, dump_names, instant, micros, or_none, parse, parse_names, storable
from asgi_auth.stores.sqlalchemy.database import Executor, Upsert, rows
from asgi_auth.stores.sqlalchemy.tables import PENDING_IN_SCOPE, PENDING_WITHOUT_SCOPE, Tables

_COLUMNS = tuple(field.name for field in fields(InvitationRecord))
_INSTANTS = ("created_at", "expires_at", "last_sent_at", "ended_at")
_ENCODE: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_INSTANTS, micros),
    "grant": dump,
    "strategies": dump_names,
}
_DECODE: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_INSTANTS, instant),
    "grant": parse,
    "strategies": parse_names,
}


def _encode(values: Mapping[str, Any]) -> dict[str, Any]:
    """*values* as they are stored; ValidationError if they cannot be."""
    encoded = {name: or_none(_ENCODE.get(name, _as_it_is), value) for name, value in values.items()}
    if not storable(encoded):
        raise ValidationError("a value cannot be stored")
    return encoded


def _to_invitation(row: Any) -> InvitationRecord:
    values = zip(_COLUMNS, row, strict=True)
    return InvitationRecord(**{name: or_none(_DECODE.get(name, _as_it_is), value) for name, value in values})


def _as_it_is(value: Any) -> Any:
    return value


class Invitations:
    """``InvitationStore``."""

    def __init__(self, executor: Executor, upsert: Upsert, tables: Tables, subject_name: str) -> None:
        self._executor, self._upsert, self._table = executor, upsert, tables.invitations
        self._subject_name = subject_name
        self._columns = tuple(tables.invitations.c[name] for name in _COLUMNS)

    async def insert(self, record: InvitationRecord) -> bool:
        columns = self._table.c
        values = _encode({name: getattr(record, name) for name in _COLUMNS})
        where = PENDING_WITHOUT_SCOPE if record.scope is None else PENDING_IN_SCOPE
        statement = (
            self._upsert(self._table)
            .values({"subject_name": self._subject_name, **values})
            .on_conflict_do_nothing(index_elements=_pending_columns(record.scope), index_where=where)
            .returning(columns.id)
        )
        over = (
            *self._pending(),
            columns.expires_at <= values["created_at"],
            *self._address(record.scope, record.email_key),
        )
        async with self._executor.transaction() as transaction:
            await rows(transaction, self._expire(*over))
            return bool(await rows(transaction, statement))

    async def get(self, invitation_id: str) -> InvitationRecord | None:
        return await self._one((invitation_id,), self._table.c.id == invitation_id)

    async def find(self, scope: str | None, email_key: str, *, now: datetime) -> InvitationRecord | None:
        live = (*self._pending(), self._table.c.expires_at > micros(now))
        return await self._one((scope, email_key), *live, *self._address(scope, email_key))

    async def list(
        self,
        *,
        inviter_id: str | None = None,
        scope: str | None = None,
        status: InvitationStatus | None = None,
        before: InvitationRecord | None = None,
        limit: int = 50,
    ) -> Sequence[InvitationRecord]:
        columns, wanted = self._table.c, {"inviter_id": inviter_id, "scope": scope, "status": status}
        if not storable((wanted, before and before.id)):
            return []
        conditions = [columns[name] == value for name, value in wanted.items() if value is not None]
        if before is not None:
            conditions.append(tuple_(columns.created_at, columns.id) < (micros(before.created_at), before.id))
        order = (columns.created_at.desc(), columns.id.desc())
        return await self._several(conditions, order, limit)

    async def renew(
        self,
        invitation_id: str,
        *,
        version: int,
        now: datetime,
        expires_at: datetime,
        sent_before: datetime,
        sent_at_most: int,
        grant: Mapping[str, Any] | None = None,
    ) -> InvitationRecord | None:
        columns = self._table.c
        changes = {"last_sent_at": now, "expires_at": expires_at, "delivery": "waiting"}
        guards = (
            *self._live(version, now),
            columns.last_sent_at <= micros(sent_before),
            columns.sent_count < sent_at_most,
        )
        return await self._update(
            (invitation_id, version, sent_at_most),
            {
                **_encode(changes if grant is None else {**changes, "grant": grant}),
                "version": columns.version + 1,
                "sent_count": columns.sent_count + 1,
            },
            *guards,
        )

    async def end(
        self,
        invitation_id: str,
        status: InvitationStatus,
        *,
        now: datetime,
        version: int | None = None,
        accepted_by: str | None = None,
        accepted_via: str | None = None,
        ended_by: str | None = None,
        reason: str | None = None,
    ) -> InvitationRecord | None:
        said = {"accepted_by": accepted_by, "accepted_via": accepted_via, "ended_by": ended_by, "reason": reason}
        changes = _encode({"status": status, "ended_at": now, **said})
        return await self._update((invitation_id, version), changes, *self._live(version, now))

    async def attribute(self, invitation_id: str, accepted_by: str) -> None:
        columns = self._table.c
        once = (columns.status == "accepted", columns.accepted_by.is_(None))
        await self._update((invitation_id, accepted_by), {"accepted_by": accepted_by}, *once)

    async def note_delivery(self, invitation_id: str, version: int, delivery: Literal["sent", "failed"]) -> None:
        newest = self._table.c.version == version
        await self._update((invitation_id, version), {"delivery": delivery}, newest)

    async def expire(self, *, now: datetime, limit: int) -> int:
        columns = self._table.c
        over = (*self._pending(), columns.expires_at <= micros(now))
        batch = select(columns.id).where(*over).order_by(columns.expires_at).limit(limit)
        # Not a subquery, which PostgreSQL may ask again for each row: it would find others when the first are changed.
        taken = batch.with_for_update(skip_locked=True).cte("batch")
        these = columns.id.in_(select(taken.c.id))
        return len(await rows(self._executor, self._expire(self._mine(), these).returning(columns.id)))

    async def aged(self, *, before: datetime, limit: int) -> Sequence[InvitationRecord]:
        columns = self._table.c
        aged = (columns.ended_at < micros(before), columns.email != literal_column("''"))
        return await self._several(aged, [columns.ended_at], limit)

    async def forget(self, invitation_id: str, email_key: str) -> None:
        changes = {"email": "", "grant": {}, "email_key": email_key}
        await self._update((invitation_id,), _encode(changes), self._table.c.status != "pending")

    # --- statements

    def _mine(self) -> ColumnElement[bool]:
        return self._table.c.subject_name == self._subject_name

    def _pending(self) -> tuple[ColumnElement[bool], ...]:
        # A word, not a parameter, so that the indexes of what is pending serve; so with the empty address.
        return self._mine(), self._table.c.status == literal_column("'pending'")

    def _expire(self, *conditions: ColumnElement[bool]) -> Update:
        ended = {"status": "expired", "ended_at": self._table.c.expires_at}
        return update(self._table).where(*conditions).values(ended)

    def _live(self, version: int | None, now: datetime) -> tuple[ColumnElement[bool], ...]:
        columns = self._table.c
        newest = () if version is None else (columns.version == version,)
        return *self._pending(), columns.expires_at > micros(now), *newest

    def _address(self, scope: str | None, email_key: str) -> tuple[ColumnElement[bool], ...]:
        columns = self._table.c
        return columns.scope == scope, columns.email_key == email_key  # IS NULL for None

    async def _one(self, given: object, *conditions: ColumnElement[bool]) -> InvitationRecord | None:
        """The one that *conditions* find; none if they were made of what cannot be stored."""
        if not storable(given):
            return None
        found = await rows(self._executor, select(*self._columns).where(self._mine(), *conditions))
        return _to_invitation(found[0]) if found else None

    async def _several(
        self, conditions: Sequence[ColumnElement[bool]], order: Sequence[ColumnElement[Any]], limit: int
    ) -> Sequence[InvitationRecord]:
        statement = select(*self._columns).where(self._mine(), *conditions).order_by(*order).limit(limit)
        return [_to_invitation(row) for row in await rows(self._executor, statement)]

    async def _update(
        self, given: Sequence[object], changes: Mapping[str, Any], *guards: ColumnElement[bool]
    ) -> InvitationRecord | None:
        """Write *changes* to the one whose id is the first of *given* if *guards* hold; what it is then."""
        if not storable(given):
            return None
        this = (self._mine(), self._table.c.id == given[0])
        statement = update(self._table).where(*this, *guards).values(changes).returning(*self._columns)
        found = await rows(self._executor, statement)
        return _to_invitation(found[0]) if found else None


def _pending_columns(scope: str | None) -> Sequence[str]:
    return ["subject_name", "email_key"] if scope is None else ["subject_name", "scope", "email_key"]
