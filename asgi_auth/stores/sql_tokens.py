"""``TokenStore`` in SQL for every database."""
# ruff: noqa: S608  # the statements are put together from constants of this package; values are always parameters

from collections.abc import Sequence
from datetime import datetime

from asgi_auth.store import TokenRecord
from asgi_auth.stores.columns import TOKEN, Row
from asgi_auth.stores.table import Table

# A comparison, not EXISTS, as with sessions; a token without a stamp outlives changes of the account, not the account.
_LIVE_TOKEN = """
WHERE subject_name = $1 AND purpose = $2 AND expires_at > $4 AND (user_id IS NULL OR (
    SELECT a.stamp = coalesce(asgi_auth_tokens.stamp, a.stamp) FROM asgi_auth_accounts a
    WHERE a.subject_name = asgi_auth_tokens.subject_name AND a.user_id = asgi_auth_tokens.user_id
        AND a.disabled_at IS NULL
)) AND """
_INSERT = f"INSERT INTO asgi_auth_tokens (subject_name, {TOKEN.listed})"
INSERT_TOKEN = f"{_INSERT} VALUES ($1, {TOKEN.values(2)})"
# A token of a deleted user is not stored, as with sessions.
INSERT_TOKEN_OF_USER = f"""{_INSERT}
SELECT $1::text, {TOKEN.values_of_account(2)}
FROM asgi_auth_accounts WHERE subject_name = $1 AND user_id = {TOKEN.parameter("user_id", 2)} FOR KEY SHARE"""
PEEK_TOKEN = f"SELECT {TOKEN.selected()} FROM asgi_auth_tokens {_LIVE_TOKEN} token_hash = $3"
CONSUME_TOKEN = f"DELETE FROM asgi_auth_tokens {_LIVE_TOKEN} token_hash = $3 RETURNING {TOKEN.selected()}"
LATEST_TOKEN = f"""
SELECT {TOKEN.selected()} FROM asgi_auth_tokens /* INDEXED BY asgi_auth_tokens_user_id */ {_LIVE_TOKEN} user_id = $3
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
        statement = INSERT_TOKEN if record.user_id is None else INSERT_TOKEN_OF_USER
        await self._put(statement, *self._rows.of(TOKEN).write(record))

    async def peek(self, purpose: str, token_hash: bytes, *, now: datetime) -> TokenRecord | None:
        return self._first(await self._find(PEEK_TOKEN, purpose, token_hash, self._instant(now)))

    async def consume(self, purpose: str, token_hash: bytes, *, now: datetime) -> TokenRecord | None:
        return self._first(await self._change(CONSUME_TOKEN, purpose, token_hash, self._instant(now)))

    async def latest(self, purpose: str, user_id: str, *, now: datetime) -> TokenRecord | None:
        return self._first(await self._find(LATEST_TOKEN, purpose, self._user_id(user_id), self._instant(now)))

    async def retire(self, purpose: str, user_id: str, *, older_than: bytes | None = None) -> int:
        theirs = (purpose, self._user_id(user_id))
        if older_than is None:
            return len(await self._change(RETIRE_TOKENS, *theirs))
        return len(await self._change(RETIRE_OLDER_TOKENS, *theirs, older_than))

    async def prune(self, *, now: datetime, limit: int) -> int:
        return len(await self._change(PRUNE_TOKENS, self._instant(now), limit))

    def _first(self, rows: Sequence[Row]) -> TokenRecord | None:
        return self._rows.of(TOKEN).read(rows[0]) if rows else None
