"""SQLiteStore: the conformance suite, and behaviour of SQLite only."""

import asyncio
import gc
import logging
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth import stores
from asgi_auth.errors import ConfigurationError, IdentityTakenError
from asgi_auth.store import Found
from asgi_auth.stores import SQLiteStore
from asgi_auth.stores.translation import for_sqlite, question_marks
from asgi_auth.testing import CounterSuite, InvitationSuite, StoreSuite
from asgi_auth.testing.stores.records import NOW, add_session, add_user
from asgi_auth.types import User
from tests.stores.plans import is_quick_in_sqlite
from tests.stores.statements import STATEMENTS
from tests.stores.threads import left, workers
from tests.support import PATIENCE


class TestSQLiteStore(StoreSuite, InvitationSuite, CounterSuite):
    """The suite, with look-ups in a thread."""

    inline_reads = False

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SQLiteStore]:
        """An opened store on an empty database."""
        store = SQLiteStore(tmp_path / "app.db", inline_reads=self.inline_reads)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def second(self, tmp_path: Path) -> AsyncIterator[SQLiteStore]:
        """A second store on the same file."""
        second = SQLiteStore(tmp_path / "app.db", inline_reads=self.inline_reads)
        await second.open()
        yield second
        await second.close()


@pytest.mark.slow
class TestSQLiteStoreInline(TestSQLiteStore):
    """The suite, with look-ups on the event loop's thread."""

    inline_reads = True


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """An opened store on an empty database, which does not wait long."""
    store = SQLiteStore(tmp_path / "app.db", busy_timeout=timedelta(seconds=0.1))
    await store.open()
    yield store
    await store.close()


def files(directory: Path) -> dict[str, int]:
    """The modes of the files in a directory, by name."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


def test_stores_exports_every_public_name() -> None:
    """Every name in ``__all__`` exists. Another name is an AttributeError."""
    assert stores.__all__ == sorted(stores.__all__)
    assert all(getattr(stores, name) for name in stores.__all__)
    with pytest.raises(AttributeError, match="Nothing"):
        stores.Nothing  # noqa: B018  # the look-up is what fails


@pytest.mark.parametrize("path", [":memory:", "", "file::memory:?cache=shared", "file:app.db"])
def test_sqlite_requires_a_file(path: str) -> None:
    """A path that is not a file is rejected: several connections cannot share a database in memory."""
    with pytest.raises(ConfigurationError, match="several connections"):
        SQLiteStore(path)


@pytest.mark.anyio
async def test_sqlite_files_are_for_the_owner_only(tmp_path: Path) -> None:
    """FS-1: the database, its log and its shared memory get mode 0600 with any umask."""
    old = os.umask(0)
    try:
        store = SQLiteStore(tmp_path / "app.db")
        await add_user(store.scope("user"))
        modes = files(tmp_path)
        await store.close()
    finally:
        os.umask(old)
    assert modes == {"app.db": 0o600, "app.db-wal": 0o600, "app.db-shm": 0o600}


@pytest.mark.anyio
async def test_sqlite_keeps_the_mode_of_an_existing_file(tmp_path: Path) -> None:
    """If the operator made the file, the store keeps its mode."""
    path = tmp_path / "app.db"
    path.touch()
    path.chmod(0o640)
    store = SQLiteStore(path)
    await store.open()
    modes = files(tmp_path)
    await store.close()
    assert modes == {"app.db": 0o640, "app.db-wal": 0o640, "app.db-shm": 0o640}


@pytest.mark.anyio
async def test_sqlite_resolves_a_relative_path_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is resolved when the store is made. A later change of the working directory has no effect."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("app.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await store.open()
    await store.close()
    assert sorted(files(tmp_path)) == ["app.db", "elsewhere"]
    assert files(tmp_path / "elsewhere") == {}


@pytest.mark.anyio
async def test_old_sqlite_library_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite library that is too old is rejected at start, before the store makes a file."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(ConfigurationError, match=r"older than 3\.37"):
        await SQLiteStore(tmp_path / "app.db").open()
    assert files(tmp_path) == {}


# --- rows of the application ------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_sqlite_transaction_includes_rows_of_the_application(store: SQLiteStore) -> None:
    """Rows that the application writes through the driver's connection are committed and undone with the other rows."""
    scoped = store.scope("user")

    async def invite(name: str, note: str | None) -> None:
        async with scoped.transaction() as work:
            await add_user(work, name)
            await work.connection.execute("INSERT INTO notes VALUES (?)", (note,))

    async with scoped.transaction() as work:
        await work.connection.execute("CREATE TABLE notes (text TEXT NOT NULL)")
    await invite("alice", "hello")
    with pytest.raises(sqlite3.IntegrityError):
        await invite("bob", None)
    async with scoped.transaction() as work:
        assert await work.connection.execute_fetchall("SELECT text FROM notes") == [("hello",)]
    assert await scoped.users.find("email", "alice@example.com") is not None
    assert await scoped.users.find("email", "bob@example.com") is None


@pytest.mark.anyio
async def test_sqlite_stores_of_a_finished_transaction_reject_calls(store: SQLiteStore) -> None:
    """The stores of a finished transaction reject calls. Otherwise they would write in another user's transaction."""
    async with store.scope("user").transaction() as work:
        pass
    with pytest.raises(ConfigurationError, match="transaction is over"):
        await work.users.find("email", "alice@example.com")
    with pytest.raises(ConfigurationError, match="transaction is over"):
        await add_user(work)


# --- statements ------------------------------------------------------------------------------------------------------


def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The list to which every new connection adds its statements."""
    statements: list[str] = []
    connect: Any = sqlite3.connect

    def tracing(*args: Any, **options: Any) -> Any:
        connection = connect(*args, **options)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", tracing)
    return statements


@pytest.mark.anyio
@pytest.mark.parametrize("inline_reads", [False, True])
async def test_sqlite_loads_a_session_by_one_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inline_reads: bool
) -> None:
    """A credential costs one query for session, account and user, and no transaction."""
    statements = traced(monkeypatch)
    store = SQLiteStore(tmp_path / "app.db", inline_reads=inline_reads)
    scoped = store.scope("user")
    session, secret_hash = await add_session(scoped, await add_user(scoped))
    statements.clear()
    assert await scoped.sessions.load(secret_hash, now=NOW) is not None
    assert [text.split()[0] for text in statements] == ["SELECT"]
    assert await scoped.sessions.load_by_id(session.id, now=NOW) is not None
    assert len(statements) == 2
    await store.close()


@pytest.mark.anyio
@pytest.mark.parametrize("name", STATEMENTS)
async def test_sqlite_finds_by_index(store: SQLiteStore, name: str) -> None:
    """No statement reads a whole table, or all rows of a subject."""
    text, order = question_marks(for_sqlite(STATEMENTS[name]))
    async with store.scope("user").transaction() as work:
        plan = await work.connection.execute_fetchall(f"EXPLAIN QUERY PLAN {text}", [1] * len(order))
    assert [row[3] for row in plan if not is_quick_in_sqlite(name, row[3])] == []


@pytest.mark.anyio
async def test_sqlite_keeps_values_out_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TK-17: aiosqlite logs its statements. The log contains no addresses and no hashes, at any level."""
    caplog.set_level(logging.DEBUG, logger="aiosqlite")
    monkeypatch.setattr(logging.getLogger("aiosqlite"), "disabled", False)  # import-linter's tests switch it off
    store = SQLiteStore(tmp_path / "app.db")
    scoped = store.scope("user")
    alice = await add_user(scoped, stamp=b"the stamp is 16b", password_hash="$2b$12$abc")
    _, secret_hash = await add_session(scoped, alice)
    await scoped.sessions.load(secret_hash, now=NOW)
    with pytest.raises(IdentityTakenError) as error:
        await add_user(scoped)
    await store.close()
    assert "execute_fetchall" in caplog.text
    for text in (caplog.text, str(error.value), str(error.value.__cause__)):
        for value in ("alice@", "the stamp", "$2b$12$", repr(secret_hash)[2:-1]):
            assert value not in text


# --- event loops and threads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inline_reads", [False, True])
def test_sqlite_works_in_one_event_loop_after_the_other(tmp_path: Path, inline_reads: bool) -> None:
    """One store works in several event loops, one after the other. The threads of a closed loop end."""
    store = SQLiteStore(tmp_path / "app.db", inline_reads=inline_reads)
    alice = asyncio.run(add_user(store.scope("user")))
    for _ in range(3):
        assert asyncio.run(find(store)) == alice
    threads = workers()
    assert len(threads) == 3
    asyncio.run(store.close())
    assert left(threads) == []


async def find(store: SQLiteStore) -> Found[User] | None:
    """Return the user of the tests."""
    return await store.scope("user").users.find("email", "alice@example.com")


def test_sqlite_works_in_several_event_loops_at_once(tmp_path: Path) -> None:
    """Each of two loops in two threads has connections of its own."""
    store = SQLiteStore(tmp_path / "app.db")

    async def outer() -> None:
        alice = await add_user(store.scope("user"))
        assert await asyncio.to_thread(asyncio.run, find(store)) == alice
        assert await find(store) == alice
        await store.close()

    asyncio.run(outer())


def test_sqlite_garbage_collected_ends_its_threads(tmp_path: Path) -> None:
    """A store that is garbage-collected ends its threads, without a warning."""
    store = SQLiteStore(tmp_path / "app.db", inline_reads=True)
    asyncio.run(add_user(store.scope("user")))
    threads = workers()
    del store
    gc.collect()
    assert len(threads) == 3
    assert left(threads) == []


SCRIPT = """
import asyncio, sys
from asgi_auth.errors import IdentityTakenError
from asgi_auth.stores import SQLiteStore
from asgi_auth.testing.stores.records import add_user

store = SQLiteStore(sys.argv[1], inline_reads=sys.argv[2] == "inline")
try:
    asyncio.run(add_user(store.scope("user")))
    print("won")
except IdentityTakenError:
    print("lost")
"""


def start(path: Path, reads: str = "threads") -> subprocess.Popen[str]:
    """Start a worker that registers one address and ends without closing the store."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(path), reads],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("reads", ["threads", "inline"])
def test_sqlite_never_closed_does_not_block_the_end_of_the_script(tmp_path: Path, reads: str) -> None:
    """A script that forgets to close the store ends, without output, and leaves a clean database."""
    worker = start(tmp_path / "app.db", reads)
    assert worker.communicate(timeout=PATIENCE) == ("won\n", "")
    assert worker.returncode == 0
    assert list(files(tmp_path)) == ["app.db"]


@pytest.mark.slow
def test_sqlite_is_shared_by_processes(tmp_path: Path) -> None:
    """AC-9: several workers start at once without a file. They make one schema, and one user for one address."""
    workers = [start(tmp_path / "app.db") for _ in range(3)]
    answers = [worker.communicate(timeout=PATIENCE) for worker in workers]
    assert sorted(answers) == [("lost\n", ""), ("lost\n", ""), ("won\n", "")]


KILLED = """
import asyncio, itertools, sys
from asgi_auth.stores import SQLiteStore
from asgi_auth.testing.stores.records import add_token, add_user

async def main():
    scoped = SQLiteStore(sys.argv[1]).scope("user")
    alice = await scoped.users.find("email", "alice@example.com") or await add_user(scoped, password_hash="0")
    for number in itertools.count(int(alice.account.password_hash) + 1):
        async with scoped.transaction() as work:
            await work.accounts.update(alice.account.user_id, {"password_hash": str(number)})
            await work.connection.execute("DELETE FROM asgi_auth_tokens")
            await add_token(work, None, purpose=str(number))
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
def test_sqlite_killed_at_any_write_keeps_all_or_nothing(tmp_path: Path) -> None:
    """FT-2: a worker that is killed during its writes leaves whole transactions, and every write that it confirmed."""
    for kill in range(3):
        worker = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "app.db")], stdout=subprocess.PIPE, text=True
        )
        with worker:
            assert worker.stdout is not None
            answered = [int(worker.stdout.readline()) for _ in range(5 * kill + 1)]
            worker.kill()
        database = sqlite3.connect(tmp_path / "app.db")
        rows = database.execute("SELECT password_hash, purpose FROM asgi_auth_accounts, asgi_auth_tokens").fetchall()
        database.close()
        [(password_hash, purpose)] = rows
        assert password_hash == purpose
        assert int(purpose) >= answered[-1]
