"""The interface of a peer: the same route with and without authentication, the same user, the same database."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiosqlite
import asyncpg

from benchmarks.middleware import LOOK_UP, NUMBERED

Ask = Callable[[bytes], Any]  # an awaitable of the row that belongs to the hash of a session's secret


@dataclass(frozen=True)
class Database:
    """One database for all peers: a SQLite file, or the address of a PostgreSQL server."""

    address: str

    @property
    def postgres(self) -> bool:
        """Whether the database is PostgreSQL."""
        return self.address.startswith("postgresql://")


@dataclass(frozen=True)
class Peer:
    """An application with ``/me`` for users and ``/ping`` for all, and one with ``/me`` without authentication."""

    app: Any
    bare: Any
    credential: tuple[str, str] = field(repr=False)


Builder = Callable[[Database], AbstractAsyncContextManager[Mapping[str, Peer]]]


@asynccontextmanager
async def look_up(database: Database, *, pooled: bool = True) -> AsyncIterator[Ask]:
    """The statement that loads a session and its user, through the driver alone; asyncpg's pool adds a round trip."""
    if database.postgres:
        async with asyncpg.create_pool(database.address) as pool, pool.acquire() as one:
            source: Any = pool if pooled else one
            yield lambda secret_hash: source.fetchrow(NUMBERED, "user", secret_hash)
    else:
        async with aiosqlite.connect(database.address, isolation_level=None) as connection:

            async def ask(secret_hash: bytes) -> sqlite3.Row | tuple[Any, ...] | None:
                return next(iter(await connection.execute_fetchall(LOOK_UP, ("user", secret_hash))), None)

            yield ask
