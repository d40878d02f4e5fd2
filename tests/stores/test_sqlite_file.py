"""The file of SQLiteStore: the acts that make it, the files that are rejected, and the errors that are temporary."""

import asyncio
import logging
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.store import ScopedStore
from asgi_auth.stores import SQLiteStore
from asgi_auth.stores.sqlite_file import LostFileError, broken
from asgi_auth.testing.stores.records import NOW, add_session, add_user, together
from asgi_auth.types import User
from tests.support import PATIENCE, make_auth


@pytest.fixture(params=[False, True], ids=["threads", "inline"])
async def store(path: Path, request: pytest.FixtureRequest) -> AsyncIterator[SQLiteStore]:
    """An opened store on an empty database."""
    store = SQLiteStore(path, inline_reads=request.param)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The log of the library."""
    monkeypatch.setattr(logging.getLogger("asgi_auth"), "disabled", False)  # import-linter's tests switch it off
    caplog.set_level(logging.INFO, logger="asgi_auth")
    return caplog


def logged(log: pytest.LogCaptureFixture, level: int) -> list[str]:
    """The messages of a level."""
    return [record.getMessage() for record in log.records if record.levelno == level]


def empty_the_log(path: Path) -> None:
    """Move the content of the write-ahead log into the file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def size(path: Path) -> int | None:
    """The size of the file; None if there is none."""
    return path.stat().st_size if path.exists() else None


def names(directory: Path) -> list[str]:
    """The names of the files in a directory."""
    return sorted(path.name for path in directory.iterdir())


def make_empty(path: Path) -> None:
    """Make an empty file, as an operator or ``mkstemp`` does."""
    path.touch()


def remove(path: Path) -> None:
    """Delete the file."""
    path.unlink()


def tables(path: Path) -> list[str]:
    """The names of the tables."""
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


# --- making the file -------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_first_opening_makes_the_file_and_logs_its_path(path: Path, log: pytest.LogCaptureFixture) -> None:
    """The log names the file, and whether it is new. The second opening by the same store logs nothing."""
    for expected in ("made the tables in", "opened"):
        log.clear()
        store = SQLiteStore(path)
        for _ in range(2):
            await store.open()
            await store.close()
        assert logged(log, logging.INFO) == [f"SQLiteStore: {expected} {path}"]


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["a b.db", "50%?#&x=1.db", "é'\".db"])
async def test_name_of_the_file_may_contain_any_character(tmp_path: Path, name: str) -> None:
    """SQLite reads no part of a path as an option."""
    store = SQLiteStore(tmp_path / name)
    await add_user(store.scope("user"))
    await store.close()
    assert names(tmp_path) == [name]


@pytest.mark.anyio
async def test_versions_makes_nothing(path: Path) -> None:
    """Reading the version makes no file and no table, and changes none."""
    store = SQLiteStore(path)
    assert await store.versions() == (0, 3)
    assert size(path) is None
    make_empty(path)
    assert await store.versions() == (0, 3)
    assert size(path) == 0
    await store.open()
    assert await store.versions() == (3, 3)
    await store.close()


@pytest.mark.anyio
async def test_opening_after_versions_makes_no_file(path: Path) -> None:
    """After ``versions`` has found a database, the store does not make it again, even if it vanishes before opening."""
    await asyncio.to_thread(asyncio.run, SQLiteStore(path).migrate())
    store = SQLiteStore(path)
    assert await store.versions() == (3, 3)
    remove(path)
    with pytest.raises(LostFileError, match="is gone"):
        await store.open()
    assert size(path) is None


@pytest.mark.anyio
async def test_prune_makes_no_database(path: Path) -> None:
    """If pruning is the first use of a wrong path, it makes no database. The error names the path."""
    auth = make_auth(path.parent)
    with pytest.raises(ConfigurationError, match=rf"{path} does not exist or lacks tables"):
        await auth.prune()
    assert size(path) is None
    make_empty(path)
    with pytest.raises(ConfigurationError, match=rf"{path} does not exist or lacks tables"):
        await auth.prune()
    assert size(path) == 0
    await auth.open()
    await auth.close()
    assert await auth.prune() == 0
    await auth.close()


# --- a file that is lost ---------------------------------------------------------------------------------------------


def delete(path: Path) -> Callable[[], object]:
    """Move the file away; return a function that moves it back."""
    aside = path.with_name("aside")
    path.rename(aside)
    return lambda: aside.rename(path)


def empty(path: Path) -> Callable[[], object]:
    """Truncate the file; return a function that writes it back."""
    empty_the_log(path)
    whole = path.read_bytes()
    path.write_bytes(b"")
    return lambda: path.write_bytes(whole)


def replace(path: Path) -> Callable[[], object]:
    """Replace the file with a complete copy; return a function that puts the file back."""
    empty_the_log(path)
    whole, back = path.read_bytes(), delete(path)
    path.write_bytes(whole)
    return back


def take_the_directory(path: Path) -> Callable[[], object]:
    """Replace the directory with a file; return a function that puts the directory back."""
    aside = path.parent.with_name(f"{path.parent.name}-aside")
    path.parent.rename(aside)
    path.parent.touch()

    def back() -> None:
        path.parent.unlink()
        aside.rename(path.parent)

    return back


LOSSES = [
    pytest.param(delete, "app.db is gone", id="deleted"),
    pytest.param(empty, "app.db is empty", id="emptied"),
    pytest.param(replace, "app.db was replaced by another file", id="replaced"),
    pytest.param(take_the_directory, r"app.db cannot be found \(Not a directory\)", id="directory"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("lose", "told"), LOSSES)
async def test_lost_file_is_an_error_until_it_is_back(
    path: Path, scoped: ScopedStore[User], lose: Callable[[Path], Callable[[], object]], told: str
) -> None:
    """FT-6: while the file is lost, the store writes to no file and makes none. Reads fail as well."""
    alice = await add_user(scoped)
    back = await asyncio.to_thread(lose, path)
    before = size(path)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=told):
            await add_user(scoped, "bob")
        with pytest.raises(StoreUnavailableError, match=told):
            await scoped.users.get(alice.account.user_id)
    assert size(path) == before

    await asyncio.to_thread(back)
    assert await scoped.users.get(alice.account.user_id) == alice
    assert await scoped.users.find("email", "bob@example.com") is None
    await add_user(scoped, "bob")


@pytest.mark.anyio
async def test_lost_file_is_noticed_by_a_prune(path: Path, log: pytest.LogCaptureFixture) -> None:
    """Each prune checks the file, even if nothing has expired. The log reports each loss once."""
    auth = make_auth(path.parent)
    await auth.open()
    for _ in range(2):
        back = await asyncio.to_thread(replace, path)
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match="was replaced"):
                await auth.prune()
        await asyncio.to_thread(back)
        assert await auth.prune() == 0
    [first, second] = [line for line in logged(log, logging.ERROR) if line.startswith("SQLiteStore: ")]
    assert first == second
    assert first.startswith(f"SQLiteStore: {path} was replaced by another file: put back the file")
    assert f"remove {path}-wal and {path}-shm" in first
    await auth.close()


@pytest.mark.anyio
async def test_emptied_file_is_named_by_the_read_that_fails(path: Path, scoped: ScopedStore[User]) -> None:
    """The first look-up after the loss names the cause, and so does each concurrent look-up."""
    user_id = (await add_user(scoped)).account.user_id
    await asyncio.to_thread(empty, path)
    answers = await together(scoped.users.get(user_id) for _ in range(4))
    assert [str(answer).partition(": put")[0] for answer in answers] == [f"sqlite: {path} is empty"] * 4
    assert size(path) == 0


@pytest.mark.anyio
async def test_file_without_its_tables_is_lost(path: Path, store: SQLiteStore, scoped: ScopedStore[User]) -> None:
    """If the schema of a known file is gone, neither opening nor migrating makes a new one."""
    alice = await add_user(scoped)
    await store.close()
    whole = await asyncio.to_thread(path.read_bytes)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_master")
        connection.commit()
    for act in (store.open, store.migrate, store.versions, lambda: scoped.users.get("a")):
        with pytest.raises(LostFileError, match=r"app\.db has lost its tables"):
            await act()
    assert tables(path) == []
    await asyncio.to_thread(path.write_bytes, whole)
    assert await scoped.users.get(alice.account.user_id) == alice


@pytest.mark.anyio
async def test_reopening_makes_no_file(path: Path, store: SQLiteStore, scoped: ScopedStore[User]) -> None:
    """The next use opens a closed store again. The file must exist then."""
    await store.close()
    remove(path)
    acts: list[Callable[[], Awaitable[Any]]] = [store.open, store.migrate, store.versions, lambda: add_user(scoped)]
    for act in acts:
        with pytest.raises(LostFileError, match=rf"{path} is gone"):
            await act()
    with pytest.raises(LostFileError):
        await asyncio.to_thread(asyncio.run, scoped.users.get("a"))  # another event loop of the same process
    assert names(path.parent) == []


# --- temporary errors ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("inline_reads", [False, True])
async def test_file_that_was_read_only_can_be_written_later(
    path: Path, monkeypatch: pytest.MonkeyPatch, inline_reads: bool
) -> None:
    """FT-6: on a read-only file reads work, and writes fail. Once the file is writable, the same store writes."""
    owner = SQLiteStore(path)
    alice = await add_user(owner.scope("user"))
    connect: Any = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda name, **options: connect(name.replace("mode=rw", "mode=ro"), **options)
    )
    store = SQLiteStore(path, inline_reads=inline_reads)
    scoped = store.scope("user")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError) as error:
            await scoped.users.delete(alice.account.user_id)
        assert error.value.reason == (
            f"sqlite: SQLITE_READONLY: {path}: the file, a file beside it, or the directory is read-only"
        )
        assert await scoped.users.get(alice.account.user_id) == alice
    monkeypatch.undo()
    assert await scoped.users.delete(alice.account.user_id)
    await store.close()
    await owner.close()


RIGHTS = """
import asyncio, os, sys
from asgi_auth.errors import StoreUnavailableError
from asgi_auth.stores import SQLiteStore, schema
from asgi_auth.testing.stores.records import add_user

schema.steps("sqlite")  # the package itself may be where only root can read
directory, inline, what = sys.argv[1], sys.argv[2] == "inline", sys.argv[3]
if os.geteuid() == 0:  # whom mode bits do not bind
    os.chown(directory, 65534, 65534)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
path = os.path.join(directory, "app.db")
target, writable, read_only = (path, 0o600, 0o400) if what == "file" else (directory, 0o700, 0o500)

async def attempt(act):
    try:
        print((await act).user.email)
    except StoreUnavailableError as exc:
        print(exc.reason.replace(directory, ""))

async def main():
    first = SQLiteStore(path)
    alice = await add_user(first.scope("user"))
    await first.close()
    os.chmod(target, read_only)
    store = SQLiteStore(path, inline_reads=inline)
    scoped = store.scope("user")
    await attempt(add_user(scoped, "bob"))
    await attempt(scoped.users.get(alice.account.user_id))
    os.chmod(target, writable)
    await attempt(add_user(scoped, "bob"))
    await attempt(scoped.users.get(alice.account.user_id))
    await store.close()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("reads", ["threads", "inline"])
@pytest.mark.parametrize(
    ("what", "told"),
    [
        (
            "file",
            [
                "sqlite: SQLITE_READONLY: /app.db: the file, a file beside it, or the directory is read-only",
                "alice@example.com",
            ],
        ),
        ("directory", [r"sqlite: SQLITE_(READONLY_DIRECTORY|CANTOPEN): /app\.db: .+"] * 2),
    ],
)
def test_restored_rights_are_sufficient(reads: str, what: str, told: list[str]) -> None:
    """Without the right to write, acts fail with path and cause. Once the right is back, the same store works."""
    with TemporaryDirectory() as directory:  # only the owner can read pytest's directory
        ended = subprocess.run(
            [sys.executable, "-c", RIGHTS, directory, reads, what],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            # The script cannot write coverage data: it gave up the necessary rights.
            env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        )
    assert ended.stderr == ""
    printed = ended.stdout.splitlines()
    assert [bool(re.fullmatch(pattern, line)) for pattern, line in zip(told, printed, strict=False)] == [True, True]
    assert printed[2:] == ["bob@example.com", "alice@example.com"]


@pytest.mark.anyio
async def test_log_of_another_mode_gets_the_mode_of_the_file(path: Path, scoped: ScopedStore[User]) -> None:
    """FS-1: opening corrects the mode of a log that a read-only file left behind, or that other users can read."""
    await add_user(scoped)
    await asyncio.to_thread(path.with_name("app.db-wal").chmod, 0o400)
    await asyncio.to_thread(path.with_name("app.db-shm").chmod, 0o644)
    second = SQLiteStore(path)
    await second.open()
    modes = {name: stat.S_IMODE(path.with_name(name).stat().st_mode) for name in names(path.parent)}
    await second.close()
    assert modes == {"app.db": 0o600, "app.db-wal": 0o600, "app.db-shm": 0o600}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("READONLY", "CANTOPEN", "IOERR", "CORRUPT", "NOTADB")),
        *((name, True) for name in ("READONLY_DBMOVED", "IOERR_SHORT_READ", "CANTOPEN_FULLPATH")),
        *((name, False) for name in ("FULL", "BUSY", "ERROR", "CONSTRAINT_UNIQUE")),
    ],
)
def test_broken_connections_are_replaced(name: str, expected: bool) -> None:
    """A full disk or a lock is temporary. Other errors stay with a connection, also with extended codes."""
    said = sqlite3.OperationalError()
    said.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{name}")
    passed_on = StoreUnavailableError("")
    passed_on.__cause__ = said
    assert (broken(said), broken(passed_on)) == (expected, expected)


@pytest.mark.anyio
async def test_error_of_the_application_replaces_the_connection(
    path: Path, store: SQLiteStore, scoped: ScopedStore[User]
) -> None:
    """An error of the application's own statement in a transaction of the store replaces the connection as well."""

    async def meet() -> None:
        async with scoped.transaction() as work:
            error = sqlite3.DatabaseError()
            error.sqlite_errorcode, connections[0] = sqlite3.SQLITE_CORRUPT, work.connection
            raise error

    connections: list[Any] = [None, None]
    with pytest.raises(sqlite3.DatabaseError):
        await meet()
    async with scoped.transaction() as work:
        connections[1] = work.connection
    assert connections[0] is not connections[1]


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_errors_of_opening_name_path_and_cause(tmp_path: Path) -> None:
    """The error names the file and the problem."""
    (tmp_path / "text").write_text("no database" * 100)
    (tmp_path / "directory").mkdir()
    told = {
        "text": f"sqlite: SQLITE_NOTADB: {tmp_path}/text: the file is not a SQLite database",
        "directory": f"sqlite: SQLITE_CANTOPEN: {tmp_path}/directory: the file, or a file beside it, cannot be opened",
        "missing/app.db": f"sqlite: FileNotFoundError: {tmp_path}/missing/app.db: No such file or directory",
    }
    for name, reason in told.items():
        store = SQLiteStore(tmp_path / name)
        for act in (store.open, store.migrate):
            with pytest.raises(StoreUnavailableError) as error:
                await act()
            assert error.value.reason == reason
        with pytest.raises(StoreUnavailableError, match=rf"sqlite: \w+: {tmp_path}"):
            await store.versions()


@pytest.mark.anyio
async def test_missing_write_ahead_log_is_logged(
    path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without shared memory the store works without a write-ahead log, and logs the disadvantage."""
    connect: Any = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name, **options: connect(f"{name}&vfs=unix-dotfile", **options))
    store = SQLiteStore(path)
    scoped = store.scope("user")
    _, secret_hash = await add_session(scoped, await add_user(scoped))
    assert await scoped.sessions.load(secret_hash, now=NOW) is not None
    await store.close()
    [told] = logged(log, logging.WARNING)
    assert told.startswith(f"SQLiteStore: {path} stays in journal mode delete: ")
