"""A database with many users. The database itself generates the rows, in the tables that the store has created.

Every value is computed from a number, so that a test knows each user without a list.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from asgi_auth.stores.values import micros
from asgi_auth.testing.stores.records import NOW

SESSIONS_OF_EACH = 5
EXPIRED_SESSIONS = 10
"""One row in this many has ended."""
EXPIRED_TOKENS = 2


def id_of(text: str) -> str:
    """The id of a user or session by its name."""
    return str(UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()))


def hash_of(text: str) -> bytes:
    """The hash under which a session or token is stored."""
    return hashlib.sha256(text.encode()).digest()


def address_of(number: int) -> str:
    """The address of a user."""
    return f"user{number}@mail.example.org"


def _instant_of(seconds: int) -> int:
    return micros(NOW + timedelta(seconds=seconds))


_NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) "
_USERS = """
INSERT INTO asgi_auth_users (subject_name, id, email, email_key, data, created_at)
SELECT 'user', id_of('user ' || n), 'user' || n || '@mail.example.org', 'user' || n || '@mail.example.org', '{{}}',
    instant_of(-604800) FROM numbers"""
_ACCOUNTS = """
INSERT INTO asgi_auth_accounts (subject_name, user_id, stamp, password_hash, confirmed_at)
SELECT 'user', id_of('user ' || n), substr(hash_of('stamp ' || n), 1, 16),
    '{{asgi_auth-1}}$2b$12$' || 'R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW', instant_of(-604800)
FROM numbers"""
# A user's sessions are not adjacent: their numbers differ by the number of users.
_SESSIONS = """
INSERT INTO asgi_auth_sessions (subject_name, secret_hash, id, user_id, stamp, created_at, last_seen_at,
    idle_expires_at, expires_at, label, factors, remembered)
SELECT 'user', hash_of('session ' || n), id_of('session ' || n), id_of('user ' || (n % {users} + 1)),
    substr(hash_of('stamp ' || (n % {users} + 1)), 1, 16), instant_of(-172800), instant_of(-86400),
    instant_of(CASE WHEN n % {expired} = 0 THEN -60 - n % 80000 ELSE 43200 END), instant_of(432000),
    'Firefox on Linux', '{{"password": 1893380645678901}}', n % 3 = 0 FROM numbers"""
_TOKENS = """
INSERT INTO asgi_auth_tokens (subject_name, token_hash, purpose, user_id, stamp, created_at, expires_at, extra_data)
SELECT 'user', hash_of('token ' || n), 'reset', id_of('user ' || n), substr(hash_of('stamp ' || n), 1, 16),
    instant_of(-86400), instant_of(CASE WHEN n % {expired} = 0 THEN -60 - n % 80000 ELSE 3600 END),
    '{{"factor": "password"}}' FROM numbers"""
_INVITATIONS = """
INSERT INTO asgi_auth_invitations (subject_name, id, scope, email, email_key, grant_data, strategies, inviter_id,
    status, version, created_at, expires_at, sent_count, last_sent_at, delivery, ended_at)
SELECT 'user', id_of('invitation ' || n), 'team ' || (n % 1000), 'guest' || n || '@mail.example.org',
    'guest' || n || '@mail.example.org', '{{}}', '[]', id_of('user ' || (n / 5 + 1)),
    CASE WHEN n % 3 = 0 THEN 'pending' ELSE 'declined' END, 1, instant_of(-86400 - n),
    instant_of(CASE WHEN n % {expired} = 0 THEN -60 - n % 80000 ELSE 518400 END), 1, instant_of(-86400 - n), 'sent',
    CASE WHEN n % 3 = 0 THEN NULL ELSE instant_of(-60 - n % 80000) END FROM numbers"""
_COUNTERS = """
INSERT INTO asgi_auth_counters (subject_name, name, key, count, expires_at)
SELECT 'user', 'mail', hash_of('address ' || n), 1,
    instant_of(CASE WHEN n % {expired} = 0 THEN -60 - n % 80000 ELSE 3600 END) FROM numbers"""

_IN_POSTGRES = f"""
CREATE FUNCTION id_of(text) RETURNS uuid LANGUAGE sql AS 'SELECT md5($1)::uuid';
CREATE FUNCTION hash_of(text) RETURNS bytea LANGUAGE sql AS 'SELECT sha256($1::bytea)';
CREATE FUNCTION instant_of(integer) RETURNS timestamptz LANGUAGE sql
    AS 'SELECT timestamptz ''{NOW.isoformat()}'' + make_interval(secs => $1)';
SET maintenance_work_mem = '512MB';
SET session_replication_role = replica; -- who a row belongs to is not looked up for every row
"""


def statements(users: int) -> list[str]:
    """The statements that fill the tables. They are the same for every database that has the three functions above."""
    sessions = users * SESSIONS_OF_EACH
    return [
        (_NUMBERS + text).format(count=count, users=users, expired=expired)
        for text, count, expired in (
            (_USERS, users, 0),
            (_ACCOUNTS, users, 0),
            (_SESSIONS, sessions, EXPIRED_SESSIONS),
            (_TOKENS, users, EXPIRED_TOKENS),
            (_INVITATIONS, users, EXPIRED_SESSIONS),
            (_COUNTERS, users, EXPIRED_SESSIONS),
        )
    ]


def populate_sqlite(path: Path, users: int) -> None:
    """Fill an empty database that no program has open."""
    functions: list[Callable[[Any], Any]] = [id_of, hash_of, _instant_of]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for function in functions:
            connection.create_function(function.__name__.strip("_"), 1, function, deterministic=True)
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -4000000")
        # Creating an index after all rows is faster than updating it for each row.
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql <> ''"
        ).fetchall()
        for statement in ["BEGIN", *between(indexes, statements(users)), "COMMIT"]:
            connection.execute(statement)


async def populate_postgres(dsn: str, users: int) -> None:
    """Fill an empty database and analyse it for the planner, as the server would do later by itself."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_IN_POSTGRES)
        indexes = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() AND indexname !~ '_pkey$'"
        )
        for statement in [*between(indexes, statements(users)), "VACUUM ANALYZE"]:
            await connection.execute(statement)
    finally:
        await connection.close()


def between(indexes: Sequence[Any], statements: list[str]) -> list[str]:
    """The *statements*, with the *indexes* (names and definitions) dropped before them and created again after them."""
    dropped, made = zip(*indexes, strict=True)
    return [*(f"DROP INDEX {name}" for name in dropped), *statements, *made]
