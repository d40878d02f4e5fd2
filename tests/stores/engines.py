"""Engines as applications make them, on an empty database."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Dialect, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.postgres import database

Engines = Callable[..., AsyncEngine]
"""Another engine on the same database, with these options."""


@asynccontextmanager
async def engines(dialect: str, directory: Path) -> AsyncIterator[Engines]:
    """What makes engines; every one is disposed of in the end."""
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
    """Every table, as an application makes it without Alembic."""
    async with engine.begin() as connection:
        await connection.run_sync(model.metadata.create_all)


def dialect_of(name: str) -> Dialect:
    """As an engine with this driver has it."""
    return make_url(f"{name}://").get_dialect()()
