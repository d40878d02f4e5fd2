"""PostgresStore through a real PgBouncer in transaction mode: each transaction runs on whichever server is free."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

import pytest

from asgi_auth.stores import PostgresStore
from asgi_auth.testing import CounterSuite, InvitationSuite, StoreSuite
from tests.gate import PATIENCE
from tests.postgres import execute, server

pytestmark = pytest.mark.slow

PORT = 6432
CONFIGURATION = """\
[databases]
* = {upstream}
[pgbouncer]
listen_addr =
unix_socket_dir = {directory}
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 500
"""


@pytest.fixture(scope="module")
def pooler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of its socket."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")  # where not everybody looks
    if program is None:
        pytest.skip("not installed: pgbouncer (Debian: pgbouncer)")
    directory = Path("/tmp") / f"pgbouncer-{uuid4().hex[:8]}"  # noqa: S108  # the path of a socket has 107 bytes at most
    directory.mkdir(mode=0o700)
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(CONFIGURATION.format(upstream=_upstream(), directory=directory, port=PORT))
    command = [program, "-q", str(configuration)]
    if os.getuid() == 0:  # as whom it refuses to run
        owner = pwd.getpwuid(_cluster_owner())
        os.chown(directory, owner.pw_uid, owner.pw_gid)
        os.chown(configuration, owner.pw_uid, owner.pw_gid)
        command += ["-u", owner.pw_name]
    process = subprocess.Popen(command, cwd=directory)
    try:
        _wait_for(directory / f".s.PGSQL.{PORT}", process)
        yield directory
    finally:
        process.terminate()
        process.wait(PATIENCE)
        shutil.rmtree(directory)


def _upstream() -> str:
    """The server, as PgBouncer has it."""
    dsn = urlsplit(server().dsn)
    host = parse_qs(dsn.query).get("host", [dsn.hostname])[0]
    parts = {"host": host, "port": dsn.port or 5432, "user": dsn.username or "postgres", "password": dsn.password}
    return " ".join(f"{name}={value}" for name, value in parts.items() if value)


def _cluster_owner() -> int:
    """Who may open the socket of the throw-away cluster; nobody in particular for a server elsewhere."""
    host = parse_qs(urlsplit(server().dsn).query).get("host", [""])[0]
    return os.stat(host).st_uid if host else pwd.getpwnam("nobody").pw_uid


def _wait_for(socket: Path, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + PATIENCE
    while not socket.exists():
        assert process.poll() is None, "pgbouncer has ended"
        assert time.monotonic() < until, "pgbouncer does not listen"
        time.sleep(0.01)


@pytest.fixture
async def dsn(pooler: Path) -> AsyncIterator[str]:
    """The address of an empty database behind the pooler: what an address sets for the session does not count there."""
    name = f"test_{uuid4().hex}"
    await execute(server().dsn, f"CREATE DATABASE {name}")
    yield f"postgresql://app@/{name}?host={quote(str(pooler), safe='')}&port={PORT}"
    await execute(server().dsn, f"DROP DATABASE {name} WITH (FORCE)")


class TestPostgresStoreBehindPgBouncer(StoreSuite, InvitationSuite, CounterSuite):
    """The suite."""

    @pytest.fixture
    async def store(self, dsn: str) -> AsyncIterator[PostgresStore]:
        """An opened store on an empty database."""
        store = PostgresStore(dsn, statement_cache_size=0)
        await store.open()
        yield store
        await store.close()

    second = store
