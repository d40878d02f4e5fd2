"""SQLAlchemy's engine on either database, for the peers that use SQLAlchemy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.peers.peer import Database


@asynccontextmanager
async def engine_on(database: Database) -> AsyncIterator[AsyncEngine]:
    """The engine with default options."""
    if database.postgres:  # asyncpg parses the address: SQLAlchemy does not know all its parameters
        engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(database.address))
    else:
        engine = create_async_engine(f"sqlite+aiosqlite:///{database.address}")
    try:
        yield engine
    finally:
        await engine.dispose()
