"""What every strategy needs of a store, in SQL that every database answers alike, over a small executor.

They are written for PostgreSQL, with a cast where it could not tell the type and with the locks that many writers need;
SQLite's executor leaves out both, and reads what stands in comments.
"""
# ruff: noqa: S608  # the statements are put together from constants of this file; values are always parameters

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import count
from typing import Any

from asgi_auth.errors import ConfigurationError, IdentityTakenError, StoreUnavailableError, ValidationError
from asgi_auth.store import MAX_SECRETS, Found, Loaded, TokenRecord, Work
from asgi_auth.stores.executor import Executor
from asgi_auth.stores.rows import (
    ACCOUNT,
    SESSION,
    TOKEN,
    TOKEN_COLUMNS,
    USER,
    dump,
    micros,
    or_none,
    parse,
    storable,
)
from asgi_auth.stores.sql_counters import SQLCounters
from asgi_auth.stores.sql_invitations import SQLInvitations
from asgi_auth.stores.table import Table
from asgi_auth.types import EMPTY, Account, Session, User


class ConflictError(StoreUnavailableError):
    """A statement would have broken a constraint. ``reason`` names the constraint or its columns, never a value."""


# --- users -----------------------------------------------------------------------------------------------------------

_FOUND = f"""
SELECT {USER}, a.user_id, a.stamp, a.password_hash, a.confirmed_at, a.disabled_at, a.proven_email
FROM asgi_auth_users u JOIN asgi_auth_accounts a ON a.subject_name = u.subject_name AND a.user_id = u.id
WHERE u.subject_name = $1 AND u."""
FIND_USER = {"email": _FOUND + "email_key = $2", "username": _FOUND + "username_key = $2"}
GET_USER = _FOUND + "id = $2"
INSERT_USER = """
INSERT INTO asgi_auth_users (subject_name, id, email, email_key, username, username_key, data, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8)"""
INSERT_ACCOUNT = f"""
INSERT INTO asgi_auth_accounts (subject_name, {ACCOUNT}) VALUES ($1, $2, $3, $4, $5, $6, $7)"""
# Changes nothing and locks the row, also where several may write at once.
HOLD_USER = """
UPDATE asgi_auth_users SET id = id WHERE subject_name = $1 AND id = $2
RETURNING email, email_key, username, username_key, data::text"""
UPDATE_USER = """
UPDATE asgi_auth_users SET email = $3, email_key = $4, username = $5, username_key = $6, data = $7::text::jsonb
WHERE subject_name = $1 AND id = $2"""
DELETE_USER = "DELETE FROM asgi_auth_users WHERE subject_name = $1 AND id = $2 RETURNING 1"

_TAKEN = {"email": "There is an account with this address already", "username": "This name is taken"}


def _check(fields: Mapping[str, Any], keys: Mapping[str, str]) -> None:
    refused = [name for name, value in fields.items() if not (storable(value) and storable(keys.get(name)))]
    if refused:
        raise ValidationError("a value cannot be stored", fields=dict.fromkeys(refused, "cannot be stored"))


def _columns(fields: Mapping[str, Any], keys: Mapping[str, str]) -> tuple[Any, ...]:
    data = {name: value for name, value in fields.items() if name not in FIND_USER}
    return fields.get("email"), keys.get("email"), fields.get("username"), keys.get("username"), dump(data)


class SQLUsers(Table):
    """``UserStore`` in a table of the store's own."""

    identity_fields = frozenset(FIND_USER)

    def user_id(self, user: User) -> str:
        return user.id

    def values(self, user: User) -> Mapping[str, Any]:
        return {"email": user.email, "username": user.username, **user.data}

    async def find(self, field: str, key: str) -> Found[User] | None:
        rows = await self._find(FIND_USER[field], key)
        return self._rows.found(rows[0]) if rows else None

    async def get(self, user_id: str) -> Found[User] | None:
        rows = await self._find(GET_USER, self._id(user_id))
        return self._rows.found(rows[0]) if rows else None

    async def insert(
        self, proposed_id: str, fields: Mapping[str, Any], keys: Mapping[str, str], account: Account, *, now: datetime
    ) -> Found[User]:
        _check(fields, keys)
        user_id = self._id(proposed_id)
        async with self._transaction() as users:
            await users._put(INSERT_USER, user_id, *_columns(fields, keys), self._instant(now))
            times = (or_none(self._instant, at) for at in (account.confirmed_at, account.disabled_at))
            values = (account.stamp, account.password_hash, *times, account.proven_email)
            await users._put(INSERT_ACCOUNT, user_id, *values)
            return await users._reread(proposed_id)

    async def update(self, user_id: str, fields: Mapping[str, Any], keys: Mapping[str, str]) -> Found[User] | None:
        _check(fields, keys)
        async with self._transaction() as users:
            rows = await users._change(HOLD_USER, self._id(user_id))
            if not rows:
                return None
            email, email_key, username, username_key, data = rows[0]
            held = {"email": email, "username": username, **parse(data), **fields}
            held_keys = {"email": email_key, "username": username_key, **dict.fromkeys(fields), **keys}
            await users._put(UPDATE_USER, self._id(user_id), *_columns(held, held_keys))
            return await users._reread(user_id)

    async def replace(self, user_id: str, fields: Mapping[str, Any], keys: Mapping[str, str]) -> Found[User] | None:
        _check(fields, keys)
        async with self._transaction() as users:
            if not await users._change(HOLD_USER, self._id(user_id)):
                return None
            await users._put(UPDATE_USER, self._id(user_id), *_columns(fields, keys))
            return await users._reread(user_id)

    async def delete(self, user_id: str) -> bool:
        return bool(await self._change(DELETE_USER, self._id(user_id)))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator["SQLUsers"]:
        try:
            async with self._executor.transaction() as executor:
                yield SQLUsers(executor, self._subject_name)
        except ConflictError as exc:
            taken = {field: text for field, text in _TAKEN.items() if f"{field}_key" in exc.reason}
            if not taken:
                raise
            raise IdentityTakenError("identity taken", fields=taken) from exc

    async def _reread(self, user_id: str) -> Found[User]:
        return self._rows.found((await self._find(GET_USER, self._id(user_id)))[0])


# --- accounts --------------------------------------------------------------------------------------------------------

_COLUMNS = ("stamp", "password_hash", "confirmed_at", "disabled_at", "proven_email")
BCRYPT_COST = "SELECT max(bcrypt_cost) FROM asgi_auth_accounts WHERE subject_name = $1 AND bcrypt_cost <= $2::bigint"


class SQLAccounts(Table):
    """``AccountStore``."""

    async def update(
        self, user_id: str, changes: Mapping[str, Any], *, expected: Mapping[str, Any] = EMPTY
    ) -> Account | None:
        if not changes or not {*changes, *expected}.issubset(_COLUMNS):
            raise ConfigurationError(f"accounts: changes and expected name columns of {', '.join(_COLUMNS)}")
        new = {column: self._encode(changes[column]) for column in sorted(changes)}
        old = {column: self._encode(expected[column]) for column in sorted(expected)}
        if not storable(new):
            raise ValidationError("a value cannot be stored")
        values = [*new.values(), *(value for value in old.values() if value is not None)]
        rows = await self._change(_update_account(tuple(new), tuple(old.items())), self._id(user_id), *values)
        return self._rows.account(rows[0]) if rows else None

    async def highest_bcrypt_cost(self, at_most: int) -> int | None:
        rows = await self._find(BCRYPT_COST, at_most)
        cost: int | None = rows[0][0]
        return cost

    def _encode(self, value: Any) -> Any:
        return self._instant(value) if isinstance(value, datetime) else value


def _update_account(new: Sequence[str], old: Sequence[tuple[str, Any]]) -> str:
    numbers = count(3)
    changes = ", ".join(f"{column} = ${next(numbers)}" for column in new)
    guards = (f" AND {column} {'IS NULL' if value is None else f'= ${next(numbers)}'}" for column, value in old)
    return (
        f"UPDATE asgi_auth_accounts SET {changes} WHERE subject_name = $1 AND user_id = $2{''.join(guards)} "
        f"RETURNING {ACCOUNT}"
    )


# --- sessions --------------------------------------------------------------------------------------------------------

_INSIDE_CLOCKS = "asgi_auth_sessions.idle_expires_at > $3 AND asgi_auth_sessions.expires_at > $3"
_LIVE = f"""asgi_auth_sessions.revoked_at IS NULL AND {_INSIDE_CLOCKS}
    AND a.stamp = asgi_auth_sessions.stamp AND a.disabled_at IS NULL"""
_THEIR_ACCOUNT = "a.subject_name = asgi_auth_sessions.subject_name AND a.user_id = asgi_auth_sessions.user_id"
_LOAD = f"""
SELECT {SESSION}, {USER}
FROM asgi_auth_sessions
JOIN asgi_auth_accounts a ON {_THEIR_ACCOUNT}
JOIN asgi_auth_users u ON u.subject_name = a.subject_name AND u.id = a.user_id
WHERE asgi_auth_sessions.subject_name = $1 AND {_LIVE} AND """
LOAD_SESSION = _LOAD + "asgi_auth_sessions.secret_hash = $2"
LOAD_SESSION_BY_ID = _LOAD + "asgi_auth_sessions.id = $2"
# Such hints are for SQLite, which without statistics takes it that few rows share a subject, and would read everybody's
# sessions.
_BY_USER = "/* INDEXED BY asgi_auth_sessions_user_id */"
LIST_SESSIONS = f"""
SELECT {SESSION} FROM asgi_auth_sessions {_BY_USER} JOIN asgi_auth_accounts a ON {_THEIR_ACCOUNT}
WHERE asgi_auth_sessions.subject_name = $1 AND asgi_auth_sessions.user_id = $2 AND {_LIVE}
ORDER BY asgi_auth_sessions.last_seen_at DESC, asgi_auth_sessions.created_at DESC, asgi_auth_sessions.id"""
# A session of a user who is gone by now is not kept: it would be as dead as one with an old stamp.
INSERT_SESSION = """
INSERT INTO asgi_auth_sessions (
    subject_name, secret_hash, id, user_id, stamp, created_at, last_seen_at, idle_expires_at, expires_at, label,
    factors, remembered
)
SELECT $1::text, $2::bytea, $3::uuid, $4::uuid, $5::bytea, $6::timestamptz, $7::timestamptz, $8::timestamptz,
    $9::timestamptz, $10::text, $11::text::jsonb, $12::boolean
FROM asgi_auth_accounts WHERE subject_name = $1 AND user_id = $4 FOR KEY SHARE"""
TOUCH_SESSION = """
UPDATE asgi_auth_sessions SET
    last_seen_at = CASE WHEN last_seen_at < $3 THEN $3 ELSE last_seen_at END,
    idle_expires_at = CASE WHEN idle_expires_at < $4 THEN $4 ELSE idle_expires_at END
WHERE subject_name = $1 AND id = $2 AND revoked_at IS NULL AND idle_expires_at > $3 AND expires_at > $3"""
RESTAMP_SESSION = """
UPDATE asgi_auth_sessions SET stamp = $3 WHERE subject_name = $1 AND id = $2 AND revoked_at IS NULL RETURNING 1"""
# Whatever is not revoked gets revoked, also what is dead for another reason that may pass (a disabled account); the
# answer says whether it was alive.
_REVOKE = "SET revoked_at = $3 WHERE subject_name = $1 AND revoked_at IS NULL AND"
# A comparison, not EXISTS, for which PostgreSQL may read all accounts into a hash table.
_WAS_LIVE = f"""{_INSIDE_CLOCKS} AND asgi_auth_sessions.stamp = (
    SELECT a.stamp FROM asgi_auth_accounts a WHERE {_THEIR_ACCOUNT} AND a.disabled_at IS NULL
)"""
REVOKE_SESSION = f"""
UPDATE asgi_auth_sessions {_REVOKE} id = $2 AND ($4::uuid IS NULL OR user_id = $4::uuid) RETURNING {_WAS_LIVE}"""
# One text for any number of values, so that it is prepared once: what is missing is filled up by `_padded`.
_VALUES = ", ".join(("$2", *(f"${number}" for number in range(4, MAX_SECRETS + 3))))
REVOKE_SESSIONS_BY_SECRET = f"""
UPDATE asgi_auth_sessions {_REVOKE} secret_hash IN ({_VALUES}) RETURNING {SESSION}, {_WAS_LIVE}"""
REVOKE_SESSIONS = f"""
UPDATE asgi_auth_sessions {_BY_USER} {_REVOKE} user_id = $2 AND ($4::uuid IS NULL OR id <> $4::uuid)
RETURNING {_WAS_LIVE}"""
WERE_LIVE = f"""
SELECT id FROM asgi_auth_sessions /* INDEXED BY asgi_auth_sessions_id */
WHERE subject_name = $1 AND id IN ({_VALUES}) AND {_WAS_LIVE}"""
# The batch comes first: of a subquery PostgreSQL may ask again for every row, and take more than the limit.
PRUNE_SESSIONS = """
WITH batch AS MATERIALIZED (
    SELECT secret_hash FROM asgi_auth_sessions WHERE subject_name = $1 AND ended_at <= $2
    ORDER BY ended_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
DELETE FROM asgi_auth_sessions WHERE subject_name = $1 AND secret_hash IN (SELECT secret_hash FROM batch)
RETURNING 1"""


def _padded(values: Sequence[Any], now: Any) -> tuple[Any, ...]:
    """The parameters from ``$2`` on of a statement that takes ``_VALUES`` and, as ``$3``, *now*."""
    first, *rest = values
    return first, now, *rest, *(first for _ in range(MAX_SECRETS - len(values)))


class SQLSessions(Table):
    """``SessionStore``."""

    async def insert(self, session: Session, secret_hash: bytes) -> None:
        clocks = (session.created_at, session.last_seen_at, session.idle_expires_at, session.expires_at)
        await self._put(
            INSERT_SESSION,
            *(secret_hash, self._id(session.id), self._id(session.user_id), session.stamp),
            *(*map(self._instant, clocks), session.label),
            *(dump({name: micros(at) for name, at in session.factors.items()}), session.remembered),
        )

    async def load(self, secret_hash: bytes, *, now: datetime) -> Loaded[User] | None:
        # A hash and an instant can always be stored: this runs at every request, so nothing is asked twice.
        rows = await self._executor.read(LOAD_SESSION, (self._subject_name, secret_hash, self._instant(now)))
        return self._rows.loaded(rows[0]) if rows else None

    async def load_by_id(self, session_id: str, *, now: datetime) -> Loaded[User] | None:
        if not storable(session_id):
            return None
        values = (self._subject_name, self._id(session_id), self._instant(now))
        rows = await self._executor.read(LOAD_SESSION_BY_ID, values)
        return self._rows.loaded(rows[0]) if rows else None

    async def touch(self, session_id: str, *, last_seen_at: datetime, idle_expires_at: datetime) -> None:
        times = (self._instant(last_seen_at), self._instant(idle_expires_at))
        await self._change(TOUCH_SESSION, self._id(session_id), *times)

    async def restamp(self, session_id: str, stamp: bytes) -> bool:
        return bool(await self._change(RESTAMP_SESSION, self._id(session_id), stamp))

    async def revoke(self, session_id: str, *, user_id: str | None = None, now: datetime) -> bool:
        owner = or_none(self._id, user_id)
        rows = await self._change(REVOKE_SESSION, self._id(session_id), self._instant(now), owner)
        return bool(rows) and bool(rows[0][0] or await self._were_live([session_id], now))

    async def revoke_by_secrets(self, secret_hashes: Sequence[bytes], *, now: datetime) -> Sequence[Session]:
        ended = list[Session]()
        for first in range(0, len(secret_hashes), MAX_SECRETS):
            values = _padded(secret_hashes[first : first + MAX_SECRETS], self._instant(now))
            rows = await self._change(REVOKE_SESSIONS_BY_SECRET, *values)
            live = await self._were_live([self._read_id(row[0]) for row in rows if not row[-1]], now)
            ended += [session for row in rows if (session := self._rows.session(row)).id in live or row[-1]]
        return ended

    async def _were_live(self, ids: Sequence[str], now: datetime) -> set[str]:
        """Ask once more: a revocation that waited for a new stamp has the session as it is, the account as it was."""
        if not ids:
            return set()
        values = _padded([self._id(session_id) for session_id in ids], self._instant(now))
        return {self._read_id(row[0]) for row in await self._find(WERE_LIVE, *values)}

    async def revoke_all(self, user_id: str, *, except_id: str | None = None, now: datetime) -> int:
        excepted = or_none(self._id, except_id)
        rows = await self._change(REVOKE_SESSIONS, self._id(user_id), self._instant(now), excepted)
        return sum(bool(row[0]) for row in rows)

    async def list(self, user_id: str, *, now: datetime) -> Sequence[Session]:
        rows = await self._find(LIST_SESSIONS, self._id(user_id), self._instant(now))
        return [self._rows.session(row) for row in rows]

    async def prune(self, *, now: datetime, limit: int) -> int:
        return len(await self._change(PRUNE_SESSIONS, self._instant(now), limit))


# --- tokens ----------------------------------------------------------------------------------------------------------

# A comparison again; a token without a stamp outlives changes of the account, not the account.
_LIVE_TOKEN = """
WHERE subject_name = $1 AND purpose = $2 AND expires_at > $4 AND (user_id IS NULL OR (
    SELECT a.stamp = coalesce(asgi_auth_tokens.stamp, a.stamp) FROM asgi_auth_accounts a
    WHERE a.subject_name = asgi_auth_tokens.subject_name AND a.user_id = asgi_auth_tokens.user_id
        AND a.disabled_at IS NULL
)) AND """
INSERT_TOKEN = f"""
INSERT INTO asgi_auth_tokens (subject_name, {TOKEN_COLUMNS})
SELECT $1::text, $2::bytea, $3::text, $4::uuid, $5::bytea, $6::timestamptz, $7::timestamptz, $8::text::jsonb
WHERE $4::uuid IS NULL OR EXISTS (
    SELECT 1 FROM asgi_auth_accounts WHERE subject_name = $1 AND user_id = $4 FOR KEY SHARE
)"""
PEEK_TOKEN = f"SELECT {TOKEN} FROM asgi_auth_tokens {_LIVE_TOKEN} token_hash = $3"
CONSUME_TOKEN = f"DELETE FROM asgi_auth_tokens {_LIVE_TOKEN} token_hash = $3 RETURNING {TOKEN}"
LATEST_TOKEN = f"""
SELECT {TOKEN} FROM asgi_auth_tokens /* INDEXED BY asgi_auth_tokens_user_id */ {_LIVE_TOKEN} user_id = $3
ORDER BY seq DESC LIMIT 1"""
_RETIRE = "DELETE FROM asgi_auth_tokens WHERE subject_name = $1 AND purpose = $2 AND user_id = $3"
RETIRE_TOKENS = _RETIRE + " RETURNING 1"
RETIRE_OLDER_TOKENS = f"""{_RETIRE} AND seq < (
    SELECT seq FROM asgi_auth_tokens WHERE subject_name = $1 AND token_hash = $4
) RETURNING 1"""
PRUNE_TOKENS = """
WITH batch AS MATERIALIZED (
    SELECT seq FROM asgi_auth_tokens WHERE subject_name = $1 AND expires_at <= $2
    ORDER BY expires_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
DELETE FROM asgi_auth_tokens WHERE seq IN (SELECT seq FROM batch) RETURNING 1"""


class SQLTokens(Table):
    """``TokenStore``."""

    async def insert(self, record: TokenRecord) -> None:
        owner = (record.token_hash, record.purpose, or_none(self._id, record.user_id), record.stamp)
        times = (self._instant(record.created_at), self._instant(record.expires_at))
        await self._put(INSERT_TOKEN, *owner, *times, dump(record.extra_data))

    async def peek(self, purpose: str, token_hash: bytes, *, now: datetime) -> TokenRecord | None:
        rows = await self._find(PEEK_TOKEN, purpose, token_hash, self._instant(now))
        return self._rows.token(rows[0]) if rows else None

    async def consume(self, purpose: str, token_hash: bytes, *, now: datetime) -> TokenRecord | None:
        rows = await self._change(CONSUME_TOKEN, purpose, token_hash, self._instant(now))
        return self._rows.token(rows[0]) if rows else None

    async def latest(self, purpose: str, user_id: str, *, now: datetime) -> TokenRecord | None:
        rows = await self._find(LATEST_TOKEN, purpose, self._id(user_id), self._instant(now))
        return self._rows.token(rows[0]) if rows else None

    async def retire(self, purpose: str, user_id: str, *, older_than: bytes | None = None) -> int:
        theirs = (purpose, self._id(user_id))
        if older_than is None:
            return len(await self._change(RETIRE_TOKENS, *theirs))
        return len(await self._change(RETIRE_OLDER_TOKENS, *theirs, older_than))

    async def prune(self, *, now: datetime, limit: int) -> int:
        return len(await self._change(PRUNE_TOKENS, self._instant(now), limit))


# --- together --------------------------------------------------------------------------------------------------------


class SQLScopedStore:
    """``ScopedStore`` over an executor."""

    def __init__(self, executor: Executor, subject_name: str) -> None:
        self._executor, self._subject_name = executor, subject_name
        self.users = SQLUsers(executor, subject_name)
        self.accounts = SQLAccounts(executor, subject_name)
        self.sessions = SQLSessions(executor, subject_name)
        self.tokens = SQLTokens(executor, subject_name)
        self.invitations = SQLInvitations(executor, subject_name)
        self.counters = SQLCounters(executor, subject_name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Work[User]]:
        async with self._executor.transaction() as executor:
            bound = SQLScopedStore(executor, self._subject_name)
            yield Work(
                users=bound.users,
                accounts=bound.accounts,
                sessions=bound.sessions,
                tokens=bound.tokens,
                invitations=bound.invitations,
                counters=bound.counters,
                connection=executor.connection,
            )
