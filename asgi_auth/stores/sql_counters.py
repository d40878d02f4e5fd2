"""``CounterStore`` in SQL for every database. No count is lost, even if many requests count at once."""
# ruff: noqa: S608  # the statements are put together from constants of this package; values are always parameters

from datetime import datetime

from asgi_auth.store import Counted
from asgi_auth.stores.columns import COUNTED
from asgi_auth.stores.table import Table

COUNT = f"""
INSERT INTO asgi_auth_counters (subject_name, name, key, count, expires_at) VALUES ($1, $2, $3, 1, $5)
ON CONFLICT (subject_name, name, key) DO UPDATE SET
    count = CASE WHEN asgi_auth_counters.expires_at <= $4 THEN 1 ELSE asgi_auth_counters.count + 1 END,
    expires_at = CASE WHEN asgi_auth_counters.expires_at <= $4 THEN excluded.expires_at
        ELSE asgi_auth_counters.expires_at END
RETURNING {COUNTED.selected("asgi_auth_counters")}"""
GET_COUNTER = f"""
SELECT {COUNTED.selected()} FROM asgi_auth_counters
WHERE subject_name = $1 AND name = $2 AND key = $3 AND expires_at > $4"""
UNCOUNT = """
UPDATE asgi_auth_counters SET count = count - 1
WHERE subject_name = $1 AND name = $2 AND key = $3 AND expires_at > $4 AND count > 0"""
PRUNE_COUNTERS = """
WITH batch AS MATERIALIZED (
    SELECT name, key FROM asgi_auth_counters WHERE subject_name = $1 AND expires_at <= $2
    ORDER BY expires_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
DELETE FROM asgi_auth_counters WHERE subject_name = $1 AND (name, key) IN (SELECT name, key FROM batch)
RETURNING 1"""


class SQLCounters(Table):
    """``CounterStore``."""

    async def count(self, name: str, key: bytes, *, now: datetime, expires_at: datetime) -> Counted:
        [row] = await self._put(COUNT, name, key, self._instant(now), self._instant(expires_at))
        return self._rows.of(COUNTED).read(row)

    async def get(self, name: str, key: bytes, *, now: datetime) -> Counted | None:
        rows = await self._find(GET_COUNTER, name, key, self._instant(now))
        return self._rows.of(COUNTED).read(rows[0]) if rows else None

    async def uncount(self, name: str, key: bytes, *, now: datetime) -> None:
        await self._change(UNCOUNT, name, key, self._instant(now))

    async def prune(self, *, now: datetime, limit: int) -> int:
        return len(await self._change(PRUNE_COUNTERS, self._instant(now), limit))
