"""PostgresStore through a real PgBouncer in transaction mode: each transaction runs on any server that is free."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

import pytest

from asgi_auth.errors import ConfigurationError
from asgi_auth.stores import PostgresStore
from asgi_auth.testing import CounterSuite, InvitationSuite, StoreSuite
from tests.postgres import another_database, execute, server
from tests.support import PATIENCE

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
pool_mode = {pool_mode}
ignore_startup_parameters = {ignored}
default_pool_size = 20
max_client_conn = 500
"""


@contextmanager
def pgbouncer(*, pool_mode: str = "transaction", ignored: str = "") -> Iterator[Path]:
    """Run a PgBouncer and yield the directory of its socket.

    Args:
        ignored: The settings in an address that PgBouncer ignores; it refuses all other settings.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")  # a directory that is not in every PATH
    if program is None:
        pytest.skip("not installed: pgbouncer (Debian: pgbouncer)")
    directory = Path("/tmp") / f"pgbouncer-{uuid4().hex[:8]}"  # noqa: S108  # the path of a socket has 107 bytes at most
    directory.mkdir(mode=0o700)
    configuration = directory / "pgbouncer.ini"
    places = {"upstream": _upstream(), "directory": directory, "port": PORT}
    configuration.write_text(CONFIGURATION.format(**places, pool_mode=pool_mode, ignored=ignored))
    command = [program, "-q", str(configuration)]
    if os.getuid() == 0:  # PgBouncer refuses to run as root
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
    """The server's address in PgBouncer's form."""
    dsn = urlsplit(server().dsn)
    host = parse_qs(dsn.query).get("host", [dsn.hostname])[0]
    parts = {"host": host, "port": dsn.port or 5432, "user": dsn.username or "postgres", "password": dsn.password}
    return " ".join(f"{name}={value}" for name, value in parts.items() if value)


def _cluster_owner() -> int:
    """The user id that may open the socket of the throw-away cluster, or that of ``nobody`` for another server."""
    host = parse_qs(urlsplit(server().dsn).query).get("host", [""])[0]
    return os.stat(host).st_uid if host else pwd.getpwnam("nobody").pw_uid


def _wait_for(socket: Path, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + PATIENCE
    while not socket.exists():
        assert process.poll() is None, "pgbouncer has ended"
        assert time.monotonic() < until, "pgbouncer does not listen"
        time.sleep(0.01)


def address_through(pooler: Path, address: str) -> str:
    """The address of the same database, behind the pooler."""
    return f"postgresql://app@{urlsplit(address).path}?host={quote(str(pooler), safe='')}&port={PORT}"


async def let_role_be_read_committed(address: str) -> None:
    """Give the role READ COMMITTED in this database. It overrides the database's own default."""
    [[role, name]] = await execute(address, "SELECT quote_ident(current_user), quote_ident(current_database())")
    setting = "default_transaction_isolation = 'read committed'"
    await execute(address, f"ALTER ROLE {role} IN DATABASE {name} SET {setting}")


async def end_connections(address: str) -> None:
    """End the pooler's connections: the settings of a role apply only to new connections."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    await execute(address, f"SELECT pg_terminate_backend(pid, 5000) {others}")


@pytest.fixture(scope="module")
def pooler() -> Iterator[Path]:
    """The directory of the socket of a PgBouncer in transaction mode."""
    with pgbouncer() as directory:
        yield directory


@pytest.fixture
async def dsn(pooler: Path, serializable: str) -> AsyncIterator[str]:
    """The address of an empty database behind the pooler. Session settings in an address have no effect there.

    The role has READ COMMITTED; the database's own default is SERIALIZABLE.
    """
    await let_role_be_read_committed(serializable)
    yield address_through(pooler, serializable)
    await execute(serializable, "DROP SCHEMA public CASCADE")
    await execute(serializable, "CREATE SCHEMA public")


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


@pytest.fixture
def strict() -> Iterator[str]:
    """The address, without a pooler, of a database whose default isolation is SERIALIZABLE for every role."""
    with another_database(default_transaction_isolation="serializable") as address:
        yield address


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "statement_cache_size"),
    [
        ({}, 0),
        ({"ignored": "default_transaction_isolation"}, 0),
        ({"pool_mode": "session"}, 100),
        ({"pool_mode": "session", "ignored": "default_transaction_isolation"}, 100),
    ],
    ids=str,
)
async def test_pooler_with_another_isolation_is_refused(
    strict: str, options: dict[str, str], statement_cache_size: int
) -> None:
    """The database's default decides in each mode, for a refused or ignored setting. The role's own overrides it."""
    with pgbouncer(**options) as pooler:
        store = PostgresStore(address_through(pooler, strict), statement_cache_size=statement_cache_size)
        with pytest.raises(ConfigurationError, match="ALTER ROLE … SET default_transaction_isolation"):
            await store.open()
        await let_role_be_read_committed(strict)
        await end_connections(strict)
        await store.open()
        await store.close()
