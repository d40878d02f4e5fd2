"""SQLAlchemy's engine on either database, for whoever uses SQLAlchemy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.peers.peer import Database


@asynccontextmanager
async def engine_on(database: Database) -> AsyncIterator[AsyncEngine]:
    """The engine, as it is by default."""
    if database.postgres:  # the driver reads the address: SQLAlchemy does not know all that may be in it
        engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(database.address))
    else:
        engine = create_async_engine(f"sqlite+aiosqlite:///{database.address}")
    try:
        yield engine
    finally:
        await engine.dispose()
