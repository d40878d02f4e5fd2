"""Engines on an empty database, made as applications make them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Dialect, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.postgres import database

Engines = Callable[..., AsyncEngine]
"""Makes another engine on the same database with the given options."""


@asynccontextmanager
async def engines(dialect: str, directory: Path) -> AsyncIterator[Engines]:
    """Yield a function that makes engines. Every engine is disposed of at the end."""
    made: list[AsyncEngine] = []

    def keep(engine: AsyncEngine) -> AsyncEngine:
        made.append(engine)
        return engine

    try:
        if dialect == "sqlite":
            yield lambda **options: keep(create_async_engine(f"sqlite+aiosqlite:///{directory}/app.db", **options))
        else:
            async with database() as dsn:
                yield lambda **options: keep(
                    create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn), **options)
                )
    finally:
        for engine in made:
            await engine.dispose()


async def make(engine: AsyncEngine, model: Any) -> None:
    """Create every table, as an application does without Alembic."""
    async with engine.begin() as connection:
        await connection.run_sync(model.metadata.create_all)


def dialect_of(name: str) -> Dialect:
    """The dialect of an engine with this driver."""
    return make_url(f"{name}://").get_dialect()()
