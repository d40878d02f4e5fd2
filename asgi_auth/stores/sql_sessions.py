"""``SessionStore`` in SQL for every database."""
# ruff: noqa: S608  # the statements are put together from constants of this package; values are always parameters

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from asgi_auth.store import MAX_SECRETS, Loaded
from asgi_auth.stores.columns import SESSION, Row
from asgi_auth.stores.rows import LOADED
from asgi_auth.stores.table import Table
from asgi_auth.stores.values import or_none, storable
from asgi_auth.types import Session, User

_RETURNED = SESSION.selected("asgi_auth_sessions")
_INSIDE_CLOCKS = "asgi_auth_sessions.idle_expires_at > $3 AND asgi_auth_sessions.expires_at > $3"
_LIVE = f"""asgi_auth_sessions.revoked_at IS NULL AND {_INSIDE_CLOCKS}
    AND a.stamp = asgi_auth_sessions.stamp AND a.disabled_at IS NULL"""
_THEIR_ACCOUNT = "a.subject_name = asgi_auth_sessions.subject_name AND a.user_id = asgi_auth_sessions.user_id"
_LOAD = f"""
SELECT {LOADED}
FROM asgi_auth_sessions
JOIN asgi_auth_accounts a ON {_THEIR_ACCOUNT}
JOIN asgi_auth_users u ON u.subject_name = a.subject_name AND u.id = a.user_id
WHERE asgi_auth_sessions.subject_name = $1 AND {_LIVE} AND """
LOAD_SESSION = _LOAD + "asgi_auth_sessions.secret_hash = $2"
LOAD_SESSION_BY_ID = _LOAD + "asgi_auth_sessions.id = $2"
# Such hints are for SQLite. Without statistics it assumes that few rows share a subject, and would read the sessions of
# all users.
_BY_USER = "/* INDEXED BY asgi_auth_sessions_user_id */"
LIST_SESSIONS = f"""
SELECT {_RETURNED} FROM asgi_auth_sessions {_BY_USER} JOIN asgi_auth_accounts a ON {_THEIR_ACCOUNT}
WHERE asgi_auth_sessions.subject_name = $1 AND asgi_auth_sessions.user_id = $2 AND {_LIVE}
ORDER BY asgi_auth_sessions.last_seen_at DESC, asgi_auth_sessions.created_at DESC, asgi_auth_sessions.id"""
# A session of a deleted user is not stored. It would be as invalid as one with an old stamp.
INSERT_SESSION = f"""
INSERT INTO asgi_auth_sessions (subject_name, secret_hash, {SESSION.listed})
SELECT $1::text, $2::bytea, {SESSION.values_of_account(3)}
FROM asgi_auth_accounts WHERE subject_name = $1 AND user_id = {SESSION.parameter("user_id", 3)} FOR KEY SHARE"""
TOUCH_SESSION = """
UPDATE asgi_auth_sessions SET
    last_seen_at = CASE WHEN last_seen_at < $3 THEN $3 ELSE last_seen_at END,
    idle_expires_at = CASE WHEN idle_expires_at < $4 THEN $4 ELSE idle_expires_at END
WHERE subject_name = $1 AND id = $2 AND revoked_at IS NULL AND idle_expires_at > $3 AND expires_at > $3"""
RESTAMP_SESSION = """
UPDATE asgi_auth_sessions SET stamp = $3 WHERE subject_name = $1 AND id = $2 AND revoked_at IS NULL RETURNING 1"""
# Every unrevoked session is revoked, also one that is not live for a reason that may pass (a disabled account). The
# answer says whether it was live.
_REVOKE = "SET revoked_at = $3 WHERE subject_name = $1 AND revoked_at IS NULL AND"
# A comparison, because for EXISTS PostgreSQL may read all accounts into a hash table.
_WAS_LIVE = f"""{_INSIDE_CLOCKS} AND asgi_auth_sessions.stamp = (
    SELECT a.stamp FROM asgi_auth_accounts a WHERE {_THEIR_ACCOUNT} AND a.disabled_at IS NULL
)"""
# The comparison comes first: it tells PostgreSQL the type of a parameter that may be null.
REVOKE_SESSION = f"""
UPDATE asgi_auth_sessions {_REVOKE} id = $2 AND (user_id = $4 OR $4 IS NULL) RETURNING {_WAS_LIVE}"""
# One text for any number of values, so that it is prepared once. `_padded` fills the missing values.
_VALUES = ", ".join(("$2", *(f"${number}" for number in range(4, MAX_SECRETS + 3))))
REVOKE_SESSIONS_BY_SECRET = f"""
UPDATE asgi_auth_sessions {_REVOKE} secret_hash IN ({_VALUES}) RETURNING {_RETURNED}, {_WAS_LIVE}"""
REVOKE_SESSIONS = f"""
UPDATE asgi_auth_sessions {_BY_USER} {_REVOKE} user_id = $2 AND (id <> $4 OR $4 IS NULL)
RETURNING {_WAS_LIVE}"""
WERE_LIVE = f"""
SELECT id FROM asgi_auth_sessions /* INDEXED BY asgi_auth_sessions_id */
WHERE subject_name = $1 AND id IN ({_VALUES}) AND {_WAS_LIVE}"""


def prune_statement(ended_at: str) -> str:
    """Delete a batch of the sessions whose column *ended_at* is before ``$2``; ``$3`` is the limit."""
    # The batch comes first: PostgreSQL may run a subquery again for every row, and delete more than the limit.
    return f"""
WITH batch AS MATERIALIZED (
    SELECT secret_hash FROM asgi_auth_sessions WHERE subject_name = $1 AND {ended_at} <= $2
    ORDER BY {ended_at} LIMIT $3 FOR UPDATE SKIP LOCKED
)
DELETE FROM asgi_auth_sessions WHERE subject_name = $1 AND secret_hash IN (SELECT secret_hash FROM batch)
RETURNING 1"""


PRUNE_SESSIONS = prune_statement("ended_at")


def _padded(values: Sequence[Any], now: Any) -> tuple[Any, ...]:
    """The parameters from ``$2`` on, for a statement with ``_VALUES`` and with *now* as ``$3``."""
    first, *rest = values
    return first, now, *rest, *(first for _ in range(MAX_SECRETS - len(values)))


class SessionTable(Table):
    """``SessionStore`` without its look-ups. They return a user, and each store has its own table of users."""

    async def insert(self, session: Session, secret_hash: bytes) -> None:
        await self._put(INSERT_SESSION, secret_hash, *self._rows.of(SESSION).write(session))

    async def touch(self, session_id: str, *, last_seen_at: datetime, idle_expires_at: datetime) -> None:
        times = (self._instant(last_seen_at), self._instant(idle_expires_at))
        await self._change(TOUCH_SESSION, self._id(session_id), *times)

    async def restamp(self, session_id: str, stamp: bytes) -> bool:
        return bool(await self._change(RESTAMP_SESSION, self._id(session_id), stamp))

    async def revoke(self, session_id: str, *, user_id: str | None = None, now: datetime) -> bool:
        owner = or_none(self._user_id, user_id)
        rows = await self._change(REVOKE_SESSION, self._id(session_id), self._instant(now), owner)
        return bool(rows) and bool(_was_live(rows[0]) or await self._were_live([session_id], now))

    async def revoke_by_secrets(self, secret_hashes: Sequence[bytes], *, now: datetime) -> Sequence[Session]:
        ended = list[Session]()
        for first in range(0, len(secret_hashes), MAX_SECRETS):
            values = _padded(secret_hashes[first : first + MAX_SECRETS], self._instant(now))
            rows = await self._change(REVOKE_SESSIONS_BY_SECRET, *values)
            found = [(self._rows.of(SESSION).read(row), _was_live(row)) for row in rows]
            live = await self._were_live([session.id for session, was_live in found if not was_live], now)
            ended += [session for session, was_live in found if was_live or session.id in live]
        return ended

    async def _were_live(self, ids: Sequence[str], now: datetime) -> set[str]:
        """Ask again: a revocation that waited for a restamp sees the new session, but the account as it was before."""
        if not ids:
            return set()
        values = _padded([self._id(session_id) for session_id in ids], self._instant(now))
        read_id = self._rows.codec.read_id
        return {read_id(found) for (found,) in await self._find(WERE_LIVE, *values)}

    async def revoke_all(self, user_id: str, *, except_id: str | None = None, now: datetime) -> int:
        excepted = or_none(self._id, except_id)
        rows = await self._change(REVOKE_SESSIONS, self._user_id(user_id), self._instant(now), excepted)
        return sum(map(_was_live, rows))

    async def list(self, user_id: str, *, now: datetime) -> Sequence[Session]:
        rows = await self._find(LIST_SESSIONS, self._user_id(user_id), self._instant(now))
        return [self._rows.of(SESSION).read(row) for row in rows]

    async def prune(self, *, now: datetime, limit: int) -> int:
        return len(await self._change(PRUNE_SESSIONS, self._instant(now), limit))


def _was_live(row: Row) -> bool:
    """The value of ``_WAS_LIVE``, the last column of a revocation's row."""
    return bool(row[-1])


class SQLSessions(SessionTable):
    """``SessionStore`` for a store with its own table of users."""

    async def load(self, secret_hash: bytes, *, now: datetime) -> Loaded[User] | None:
        # A hash and an instant can always be stored. This runs at every request, so it has no check for that.
        rows = await self._executor.read(LOAD_SESSION, (self._subject_name, secret_hash, self._instant(now)))
        return self._rows.loaded(rows[0]) if rows else None

    async def load_by_id(self, session_id: str, *, now: datetime) -> Loaded[User] | None:
        if not storable(session_id):
            return None
        values = (self._subject_name, self._id(session_id), self._instant(now))
        rows = await self._executor.read(LOAD_SESSION_BY_ID, values)
        return self._rows.loaded(rows[0]) if rows else None
