"""``InvitationStore`` in SQL for every database.

If two requests can race, one guarded statement decides: the second request waits, sees the row that the first one has
changed, and changes nothing.
"""
# ruff: noqa: S608  # the statements are put together from constants of this file; values are always parameters

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import count, product
from typing import Any, Literal, NamedTuple

from asgi_auth.errors import ValidationError
from asgi_auth.store import InvitationRecord, InvitationStatus
from asgi_auth.stores.columns import INVITATION, Row
from asgi_auth.stores.table import Table
from asgi_auth.stores.values import dump, or_none, storable

_ONE = "UPDATE asgi_auth_invitations SET {} WHERE subject_name = $1 AND id = $2 AND {}"
_EXPIRED = "UPDATE asgi_auth_invitations SET status = 'expired', ended_at = expires_at WHERE "
_RETURNED = INVITATION.selected()


class Pending(NamedTuple):
    """The statements that use the unique index of pending invitations for an address in a scope."""

    replace_expired: str
    insert: str
    find: str


def pending_statements(in_scope: str, unique: str) -> Pending:
    """The statements in which *in_scope* compares the scope with ``$2``, and *unique* is the target of a conflict."""
    pending = f"subject_name = $1 AND {in_scope} AND email_key = $3 AND status = 'pending'"
    return Pending(
        f"{_EXPIRED} {pending} AND expires_at <= $4",
        f"""
INSERT INTO asgi_auth_invitations (subject_name, {INVITATION.listed}) VALUES ($1, {INVITATION.values(2)})
ON CONFLICT {unique} DO NOTHING
RETURNING 1""",
        f"SELECT {_RETURNED} FROM asgi_auth_invitations WHERE {pending} AND expires_at > $4",
    )


# As in the unique index: to a database two nulls are never equal, but two invitations without a scope have the same.
_SCOPE = "coalesce('=' || scope, '')"
REPLACE_EXPIRED_INVITATION, INSERT_INVITATION, FIND_INVITATION = PENDING = pending_statements(
    f"{_SCOPE} = $2", f"(subject_name, {_SCOPE}, email_key) WHERE status = 'pending'"
)
GET_INVITATION = f"SELECT {_RETURNED} FROM asgi_auth_invitations WHERE subject_name = $1 AND id = $2"
_LIVE = "status = 'pending' AND expires_at > $4"
RENEW_INVITATION = (
    _ONE.format(
        "version = version + 1, sent_count = sent_count + 1, last_sent_at = $4, expires_at = $5, delivery = 'waiting', "
        "grant_data = coalesce($8::text::jsonb, grant_data)",
        f"version = $3 AND {_LIVE} AND last_sent_at <= $6 AND sent_count < $7",
    )
    + f" RETURNING {_RETURNED}"
)
END_INVITATION = (
    _ONE.format(
        "status = $3, ended_at = $4, accepted_by = $6, accepted_via = $7, ended_by = $8, reason = $9",
        f"{_LIVE} AND ($5::bigint IS NULL OR version = $5::bigint)",
    )
    + f" RETURNING {_RETURNED}"
)
ATTRIBUTE_INVITATION = _ONE.format("accepted_by = $3", "status = 'accepted' AND accepted_by IS NULL")
NOTE_DELIVERY = _ONE.format("delivery = $4", "version = $3")
EXPIRE_INVITATIONS = f"""
WITH batch AS MATERIALIZED (
    SELECT id FROM asgi_auth_invitations WHERE subject_name = $1 AND status = 'pending' AND expires_at <= $2
    ORDER BY expires_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
{_EXPIRED} subject_name = $1 AND id IN (SELECT id FROM batch) RETURNING 1"""
AGED_INVITATIONS = f"""
SELECT {_RETURNED} FROM asgi_auth_invitations WHERE subject_name = $1 AND ended_at < $2 AND email <> ''
ORDER BY ended_at LIMIT $3"""
FORGET_INVITATION = _ONE.format("email = '', email_key = $3, grant_data = '{}'", "status <> 'pending'")


def _list(filters: Sequence[str], after: bool) -> str:
    numbers = count(2)
    guards = [f" AND {column} = ${next(numbers)}" for column in filters]
    if after:
        guards.append(f" AND (created_at, id) < (${next(numbers)}, ${next(numbers)})")
    return (
        f"SELECT {_RETURNED} FROM asgi_auth_invitations WHERE subject_name = $1{''.join(guards)} "
        f"ORDER BY created_at DESC, id DESC LIMIT ${next(numbers)}"
    )


_FILTERS = ("inviter_id", "scope", "status")
# One statement for each set of filters, so that each uses an index. `$2 IS NULL OR …` would read all rows.
LIST_INVITATIONS = {
    (*chosen, after): _list([column for column, wanted in zip(_FILTERS, chosen, strict=True) if wanted], after)
    for *chosen, after in product((False, True), repeat=4)
}


class SQLInvitations(Table):
    """``InvitationStore``."""

    async def insert(self, record: InvitationRecord) -> bool:
        statements, scope = self._pending(record.scope)
        values = self._rows.of(INVITATION).write(record)
        async with self._executor.transaction() as executor:
            bound = SQLInvitations(executor, self._subject_name)
            over = (scope, record.email_key, self._instant(record.created_at))
            await bound._change(statements.replace_expired, *over)
            return bool(await bound._put(statements.insert, *values))

    async def get(self, invitation_id: str) -> InvitationRecord | None:
        return self._first(await self._find(GET_INVITATION, self._id(invitation_id)))

    async def find(self, scope: str | None, email_key: str, *, now: datetime) -> InvitationRecord | None:
        statements, parameter = self._pending(scope)
        return self._first(await self._find(statements.find, parameter, email_key, self._instant(now)))

    async def list(
        self,
        *,
        inviter_id: str | None = None,
        scope: str | None = None,
        status: InvitationStatus | None = None,
        before: InvitationRecord | None = None,
        limit: int = 50,
    ) -> Sequence[InvitationRecord]:
        filters = (or_none(self._id, inviter_id), scope, status)
        page = (self._instant(before.created_at), self._id(before.id)) if before else ()
        statement = LIST_INVITATIONS[(*(value is not None for value in filters), before is not None)]
        wanted = [value for value in filters if value is not None]
        return [self._rows.of(INVITATION).read(row) for row in await self._find(statement, *wanted, *page, limit)]

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
        times = (self._instant(now), self._instant(expires_at), self._instant(sent_before))
        values = (self._id(invitation_id), version, *times, sent_at_most, or_none(dump, grant))
        return self._first(await self._change(RENEW_INVITATION, *values))

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
        if not storable((accepted_via, reason)):
            raise ValidationError("a value cannot be stored")
        found_by = (self._id(invitation_id), status, self._instant(now), version)
        new = (or_none(self._id, accepted_by), accepted_via, or_none(self._id, ended_by), reason)
        return self._first(await self._change(END_INVITATION, *found_by, *new))

    async def attribute(self, invitation_id: str, accepted_by: str) -> None:
        await self._change(ATTRIBUTE_INVITATION, self._id(invitation_id), self._id(accepted_by))

    async def note_delivery(self, invitation_id: str, version: int, delivery: Literal["sent", "failed"]) -> None:
        await self._change(NOTE_DELIVERY, self._id(invitation_id), version, delivery)

    async def expire(self, *, now: datetime, limit: int) -> int:
        return len(await self._change(EXPIRE_INVITATIONS, self._instant(now), limit))

    async def aged(self, *, before: datetime, limit: int) -> Sequence[InvitationRecord]:
        rows = await self._find(AGED_INVITATIONS, self._instant(before), limit)
        return [self._rows.of(INVITATION).read(row) for row in rows]

    async def forget(self, invitation_id: str, email_key: str) -> None:
        await self._change(FORGET_INVITATION, self._id(invitation_id), email_key)

    def _first(self, rows: Sequence[Row]) -> InvitationRecord | None:
        return self._rows.of(INVITATION).read(rows[0]) if rows else None

    def _pending(self, scope: str | None) -> tuple[Pending, str | None]:
        """The statements for *scope*, and their parameter ``$2``."""
        return PENDING, "" if scope is None else f"={scope}"
