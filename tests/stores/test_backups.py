"""The documented commands for backups, run unchanged by a shell with the databases' own programs."""

import asyncio
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asgi_auth.__main__ import _advice
from asgi_auth.stores import PostgresStore, SQLiteStore
from asgi_auth.testing.stores.records import add_user
from tests.postgres import another_database, execute

DOCS = Path(__file__).parent.parent.parent / "docs"

Shell = Callable[[str, Path], "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["sqlite3", *["python"] * (sys.version_info >= (3, 12))])
def shell(request: pytest.FixtureRequest) -> Shell:
    """Run a line in a directory by a shell with the usual umask, once with each command for SQLite."""
    if request.param == "sqlite3" and shutil.which("sqlite3") is None:
        pytest.skip("not installed: sqlite3 (Debian: sqlite3)")
    command = "sqlite3" if request.param == "sqlite3" else f"{shlex.quote(sys.executable)} -m sqlite3"

    def run(line: str, directory: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/bin/sh", "-c", f"umask 022; {line.replace('sqlite3', command)}"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def documented(heading: str, page: str = "stores.md") -> list[str]:
    """The commands below a heading of a page."""
    section = (DOCS / page).read_text("utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    return re.findall(r"^\$ (.+)$", section, re.MULTILINE)


def mode(path: Path) -> int:
    """The permissions of the file."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.anyio
async def test_documented_backup_is_complete_and_for_its_owner_only(tmp_path: Path, shell: Shell) -> None:
    """FS-1: a backup made while the application runs is a separate database. It is never overwritten."""
    store = SQLiteStore(tmp_path / "app.db")
    scoped = store.scope("user")
    alice = await add_user(scoped)
    [backup] = documented("Backup")
    done = await asyncio.to_thread(shell, backup, tmp_path)
    await add_user(scoped, "bob")
    again = await asyncio.to_thread(shell, backup, tmp_path)
    await store.close()

    assert (done.returncode, done.stderr) == (0, "")
    assert again.returncode != 0
    assert "already exists" in again.stdout + again.stderr
    assert mode(tmp_path / "backup.db") == 0o600
    copy = SQLiteStore(tmp_path / "backup.db")
    assert await copy.scope("user").users.get(alice.account.user_id) == alice
    assert await copy.scope("user").users.find("email", "bob@example.com") is None
    await copy.close()


LEAVES_ITS_LOG = """
import asyncio, os, sys
from asgi_auth.stores import PostgresStore, SQLiteStore
from asgi_auth.testing.stores.records import add_user

async def main():
    await add_user(SQLiteStore(sys.argv[1]).scope("user"), "bob")
    os._exit(0)

asyncio.run(main())
"""


@pytest.mark.anyio
async def test_documented_restore_brings_back_only_the_backup(tmp_path: Path, shell: Shell) -> None:
    """FS-1: the restored file ignores the log that a killed worker has left. Only its owner may read it."""
    store = SQLiteStore(tmp_path / "app.db")
    alice = await add_user(store.scope("user"))
    await store.close()
    [backup] = documented("Backup")
    await asyncio.to_thread(shell, backup, tmp_path)
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", LEAVES_ITS_LOG, str(tmp_path / "app.db")], check=True
    )
    left = (tmp_path / "app.db-wal").stat().st_size
    for line in documented("Restoring"):
        done = await asyncio.to_thread(shell, line, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")

    assert left > 0
    assert mode(tmp_path / "app.db") == 0o600
    store = SQLiteStore(tmp_path / "app.db")
    assert await store.scope("user").users.get(alice.account.user_id) == alice
    assert await store.scope("user").users.find("email", "bob@example.com") is None
    await store.close()


@pytest.mark.anyio
async def test_backup_command_that_migrate_prints_works(tmp_path: Path, shell: Shell) -> None:
    """The line that the command prints runs unchanged, even with quotes and dollar signs in the path."""
    directory = tmp_path / "it's $HOME's"
    directory.mkdir()
    store = SQLiteStore(directory / "app.db")
    await store.open()
    [line] = re.findall(r"\(umask .+\)$", _advice(store, 2, 3))
    done = await asyncio.to_thread(shell, line, tmp_path)
    await store.close()

    assert (done.returncode, done.stderr) == (0, "")
    assert mode(tmp_path / "schema-2.db") == 0o600
    assert await SQLiteStore(tmp_path / "schema-2.db").versions() == (3, 3)


@pytest.fixture
def addresses() -> Iterator[tuple[str, str]]:
    """The addresses of two empty databases."""
    with another_database() as source, another_database() as target:
        yield source, target


@pytest.mark.anyio
async def test_documented_backup_of_postgres_is_complete_and_for_its_owner_only(
    tmp_path: Path, addresses: tuple[str, str]
) -> None:
    """FS-1: a backup of PostgreSQL is complete too, with the programs of the server's own version."""
    source, target = addresses
    [[programs]] = await execute(source, "SELECT setting FROM pg_config WHERE name = 'BINDIR'")
    if shutil.which("pg_dump", path=programs) is None:
        pytest.skip("not installed: pg_dump (Debian: postgresql-client)")
    store = PostgresStore(source)
    alice = await add_user(store.scope("user"))
    environment = {"PATH": f"{programs}:{os.defpath}", "DATABASE_URL": source, "EMPTY_DATABASE_URL": target}
    for line in documented("Backup", "postgres.md"):
        command = ["/bin/sh", "-c", f"umask 022; {line}"]
        await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, env=environment, check=True)
    await store.close()

    assert mode(tmp_path / "backup.dump") == 0o600
    copy = PostgresStore(target)
    assert await copy.versions() == (3, 3)
    assert await copy.scope("user").users.get(alice.account.user_id) == alice
    await copy.close()
