"""SQLiteStore with obstacles: other processes, full disks, cancelled tasks."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.store import ScopedStore
from asgi_auth.stores import SQLiteStore, sqlite_file
from asgi_auth.stores.sqlite_connections import Connection
from asgi_auth.testing.stores.records import NOW, add_session, add_token, add_user, together
from asgi_auth.types import User
from tests.stores.cancelling import cancel_everywhere
from tests.stores.threads import left, workers
from tests.support import PATIENCE


@pytest.fixture(params=[False, True], ids=["threads", "inline"])
async def store(path: Path, request: pytest.FixtureRequest) -> AsyncIterator[SQLiteStore]:
    """An opened store on an empty database, with a short timeout."""
    store = SQLiteStore(path, inline_reads=request.param, busy_timeout=timedelta(seconds=0.1))
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def other(path: Path) -> Iterator[sqlite3.Connection]:
    """A separate connection, which SQLite treats like another process."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    yield connection
    connection.close()


# --- databases that do not answer -------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])
async def test_locked_database_fails_writes_after_the_timeout(
    path: Path, scoped: ScopedStore[User], other: sqlite3.Connection, lock: str
) -> None:
    """FT-1: while another process writes, writes fail after the timeout, reads work, and a token stays valid."""
    record = await add_token(scoped, await add_user(scoped))
    other.execute(f"BEGIN {lock}")
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError) as error:
        await scoped.tokens.consume("reset", record.token_hash, now=NOW)
    waited = time.monotonic() - started
    assert await scoped.tokens.peek("reset", record.token_hash, now=NOW) == record
    other.execute("ROLLBACK")

    assert error.value.reason == f"sqlite: SQLITE_BUSY: {path}: another connection holds the lock"
    assert isinstance(error.value.__cause__, sqlite3.OperationalError)
    assert error.value.headers == {"Retry-After": "1"}
    assert 0.1 <= waited < 2
    assert await scoped.tokens.consume("reset", record.token_hash, now=NOW) == record


@pytest.mark.anyio
async def test_locked_database_fails_all_waiting_writes_together(
    scoped: ScopedStore[User], other: sqlite3.Connection
) -> None:
    """FT-1: the timeout includes every wait. Many writes that wait for each other and for a lock fail together."""
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    answers = await together(add_user(scoped, f"u{number}") for number in range(20))
    waited = time.monotonic() - started
    other.execute("ROLLBACK")
    assert [type(answer) for answer in answers] == [StoreUnavailableError] * 20
    assert waited < 1
    await add_user(scoped)


@pytest.mark.anyio
async def test_write_beside_an_open_transaction_fails_after_the_timeout(scoped: ScopedStore[User]) -> None:
    """While a transaction is open, another write fails after the timeout. The transaction is unaffected."""
    async with scoped.transaction() as work:
        answers = await together([add_user(scoped, "bob")])
        await add_user(work)
    assert [str(answer) for answer in answers] == ["sqlite: the writer is busy"]
    assert await scoped.users.find("email", "alice@example.com") is not None
    assert await scoped.users.find("email", "bob@example.com") is None


@pytest.mark.anyio
async def test_missing_table_fails_closed(path: Path, scoped: ScopedStore[User], other: sqlite3.Connection) -> None:
    """TK-14: without its tables a store accepts no credential and fails. Once they are restored it works again."""
    _, secret_hash = await add_session(scoped, await add_user(scoped))
    for table in ("sessions", "accounts"):
        other.execute(f"ALTER TABLE asgi_auth_{table} RENAME TO gone")
        with pytest.raises(StoreUnavailableError) as error:
            await scoped.sessions.load(secret_hash, now=NOW)
        assert error.value.reason == f"sqlite: SQLITE_ERROR: {path}"
        with pytest.raises(StoreUnavailableError):
            await scoped.sessions.revoke_by_secrets([secret_hash], now=NOW)
        other.execute(f"ALTER TABLE gone RENAME TO asgi_auth_{table}")
        assert await scoped.sessions.load(secret_hash, now=NOW) is not None


@pytest.mark.anyio
async def test_full_database_stores_nothing(path: Path, scoped: ScopedStore[User]) -> None:
    """FT-6: on a full disk a write changes nothing, and reads work. Once the disk has space, writes work again."""
    alice = await add_user(scoped)
    await set_pragma(scoped, "max_page_count = 1")
    with pytest.raises(StoreUnavailableError) as error:
        await add_user(scoped, "bob" * 10_000)
    assert error.value.reason == f"sqlite: SQLITE_FULL: {path}: the disk is full"
    assert await scoped.users.get(alice.account.user_id) == alice
    await set_pragma(scoped, "max_page_count = 100000")
    await add_user(scoped, "bob" * 10_000)


async def set_pragma(scoped: ScopedStore[User], pragma: str) -> None:
    """Change a setting of the writer."""
    async with scoped.transaction() as work:
        await work.connection.execute(f"PRAGMA {pragma}")


@pytest.mark.anyio
async def test_corrupt_row_fails_closed(scoped: ScopedStore[User], other: sqlite3.Connection) -> None:
    """A row that cannot be read is a failure of the store. The error does not quote the row."""
    alice = await add_user(scoped)
    other.execute("UPDATE asgi_auth_users SET data = 'secret {'")
    with pytest.raises(StoreUnavailableError, match="a stored value is corrupt"):
        await scoped.users.get(alice.account.user_id)


@pytest.mark.anyio
@pytest.mark.parametrize("act", ["get", "delete"])
async def test_corrupt_file_fails_closed_until_it_is_restored(
    path: Path, store: SQLiteStore, scoped: ScopedStore[User], act: str
) -> None:
    """A damaged page is a failure. Once the file is restored the same store works, without a restart."""
    user_id = (await add_user(scoped)).account.user_id
    await store.close()
    whole = await asyncio.to_thread(damage, path)
    with pytest.raises(StoreUnavailableError, match="SQLITE_CORRUPT"):
        await getattr(scoped.users, act)(user_id)
    await asyncio.to_thread(path.write_bytes, whole)
    assert await getattr(scoped.users, act)(user_id)


def damage(path: Path) -> bytes:
    """Overwrite the first page of the table of users; return the content of the file before that."""
    whole = path.read_bytes()
    connection = sqlite3.connect(path)
    [(page, size)] = connection.execute(
        "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size() WHERE name = 'asgi_auth_users'"
    ).fetchall()
    connection.close()
    path.write_bytes(whole[: (page - 1) * size] + b"\xff" * size + whole[page * size :])
    return whole


@pytest.mark.anyio
async def test_id_in_use_is_a_failure(scoped: ScopedStore[User]) -> None:
    """A broken constraint that does not concern an identity is a failure. The error names columns and no value."""
    alice = await add_user(scoped)
    with pytest.raises(StoreUnavailableError) as error:
        await scoped.users.insert(alice.account.user_id, {}, {}, alice.account, now=NOW)
    assert error.value.reason == ("sqlite: UNIQUE constraint failed: asgi_auth_users.subject_name, asgi_auth_users.id")


@pytest.mark.anyio
async def test_missing_directory_is_unavailable_until_it_exists(path: Path) -> None:
    """While a file cannot be opened, every act fails. Once the directory exists, the same store works."""
    store = SQLiteStore(path.parent / "later" / "app.db")
    for act in (store.open(), store.migrate(), add_user(store.scope("user"))):
        with pytest.raises(StoreUnavailableError, match=r"FileNotFoundError: .*later/app\.db: No such file"):
            await act
    (path.parent / "later").mkdir()
    assert await store.migrate() == (0, 3)
    await add_user(store.scope("user"))
    await store.close()


@pytest.mark.anyio
async def test_file_of_another_kind_is_unavailable(path: Path) -> None:
    """A file that is not a database is not changed."""
    content = "not a database, " * 100
    await asyncio.to_thread(path.write_text, content)
    with pytest.raises(StoreUnavailableError, match="SQLITE_NOTADB"):
        await SQLiteStore(path).open()
    assert await asyncio.to_thread(path.read_text) == content


@pytest.mark.anyio
async def test_unknown_schema_is_rejected(path: Path, store: SQLiteStore, other: sqlite3.Connection) -> None:
    """A database of a newer version is rejected, by opening and by migrating."""
    other.execute("UPDATE asgi_auth_schema SET version = 99")
    newcomer = SQLiteStore(path)
    with pytest.raises(ConfigurationError, match="99"):
        await newcomer.open()
    with pytest.raises(ConfigurationError, match="99"):
        await newcomer.migrate()
    with pytest.raises(ConfigurationError, match="99"):
        await newcomer.scope("user").users.get("a")


class Watch:
    """A clock that moves only when a caller sleeps. It replaces the module ``time``."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        """Seconds since the start."""
        return self.at

    def sleep(self, seconds: float) -> None:
        """Return at once, and advance the clock."""
        self.at += seconds


@pytest.mark.anyio
@pytest.mark.parametrize(("lock", "waited"), [("IMMEDIATE", 0.05), ("EXCLUSIVE", 0.0)])
async def test_switch_to_the_log_is_tried_until_the_timeout(
    path: Path, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, lock: str, waited: float
) -> None:
    """If another process locks a new file, the store tries again until its timeout ends."""
    watch = Watch()
    monkeypatch.setattr(sqlite_file, "time", watch)
    other.execute("CREATE TABLE notes (text TEXT)")
    other.execute(f"BEGIN {lock}")
    store = SQLiteStore(path, busy_timeout=timedelta(seconds=0.05))
    with pytest.raises(StoreUnavailableError, match="SQLITE_BUSY"):
        await store.open()
    assert watch.at == pytest.approx(waited, abs=0.011)
    other.execute("ROLLBACK")
    await store.open()
    await store.close()


# --- transactions that end badly --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_failed_commit_is_rolled_back(scoped: ScopedStore[User]) -> None:
    """A constraint that fails at the commit undoes the whole transaction. The next transaction works."""

    async def orphan() -> None:
        async with scoped.transaction() as work:
            await add_user(work)
            await work.connection.execute("PRAGMA defer_foreign_keys = ON")
            await work.connection.execute(
                "INSERT INTO asgi_auth_accounts (subject_name, user_id, stamp) VALUES ('user', 'nobody', x'00')"
            )

    with pytest.raises(StoreUnavailableError, match="FOREIGN KEY constraint failed"):
        await orphan()
    assert await scoped.users.find("email", "alice@example.com") is None
    await add_user(scoped)


@pytest.mark.anyio
async def test_transaction_rolled_back_early_fails(scoped: ScopedStore[User]) -> None:
    """After a rollback within the block, which SQLite does on some errors, the commit fails."""

    async def interfere() -> None:
        async with scoped.transaction() as work:
            await add_user(work)
            await work.connection.rollback()

    with pytest.raises(StoreUnavailableError, match="SQLITE_ERROR"):
        await interfere()
    assert await scoped.users.find("email", "alice@example.com") is None


@pytest.mark.anyio
async def test_failed_rollback_opens_another_writer(scoped: ScopedStore[User], monkeypatch: pytest.MonkeyPatch) -> None:
    """If a rollback fails, the writer is closed; closing rolls back. The next use opens another writer."""

    async def fail(connection: Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async def interfere() -> None:
        async with scoped.transaction() as work:
            await add_user(work)
            monkeypatch.setattr(Connection, "settle", fail)
            raise LookupError

    with pytest.raises(LookupError):
        await interfere()
    monkeypatch.undo()
    assert await scoped.users.find("email", "alice@example.com") is None
    await add_user(scoped)


# --- look-ups on the event loop's thread ------------------------------------------------------------------------------


class BusyConnection(sqlite3.Connection):
    """A connection whose database is always locked."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql.startswith("PRAGMA"):
            return super().execute(sql)
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error


@pytest.mark.anyio
async def test_busy_inline_read_moves_to_a_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop never waits for a lock. If a look-up meets a lock, a thread repeats it, and may wait."""
    made: list[float] = []
    connect: Any = sqlite3.connect

    def connect_busy(*args: Any, timeout: float, **options: Any) -> Any:
        made.append(timeout)
        factory = sqlite3.Connection if timeout else BusyConnection
        return connect(*args, timeout=timeout, factory=factory, **options)

    monkeypatch.setattr(sqlite3, "connect", connect_busy)
    store = SQLiteStore(path, inline_reads=True)
    alice = await add_user(store.scope("user"))
    assert await store.scope("user").users.get(alice.account.user_id) == alice
    assert made == [5, 5, 5, 0]
    await store.close()


# --- tasks that are cancelled -----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_cancelled_transaction_is_all_or_nothing(store: SQLiteStore, scoped: ScopedStore[User]) -> None:
    """FT-2: a transaction cancelled at any point is done or undone as a whole, and the writer is free."""
    ended: list[bool] = []

    async def act() -> None:
        async with scoped.transaction() as work:
            await add_user(work, "a")
            await work.connection.execute("SELECT 1")
            await add_user(work, "b")

    async def check() -> None:
        found = [await scoped.users.find("email", f"{name}@example.com") for name in "ab"]
        ended.append(None not in found)
        assert found.count(None) in (0, 2)
        for user in [*filter(None, found), await add_user(scoped, "c")]:
            assert await scoped.users.delete(user.account.user_id)

    assert await cancel_everywhere(act, check) >= 9
    assert (ended[0], ended[-1]) == (False, True)


@pytest.mark.anyio
async def test_cancelled_opening_leaves_nothing_behind(store: SQLiteStore, scoped: ScopedStore[User]) -> None:
    """After a cancelled opening, look-up or closing, at any point, the store works."""

    async def act() -> None:
        await store.open()
        await scoped.users.get("a")
        await store.close()

    async def check() -> None:
        assert await scoped.users.get("a") is None
        await store.close()

    assert await cancel_everywhere(act, check) >= 4


@pytest.mark.anyio
async def test_cancelled_wait_for_the_writer_keeps_the_queue(scoped: ScopedStore[User]) -> None:
    """A task that is cancelled while it waits for the writer leaves the writer to the next task."""
    async with scoped.transaction():
        waiting = [asyncio.create_task(add_user(scoped, name)) for name in ("a", "b")]
        await asyncio.wait(waiting, timeout=0)
        waiting[0].cancel()
    assert await waiting[1] == await scoped.users.find("email", "b@example.com")
    assert await scoped.users.find("email", "a@example.com") is None


@pytest.mark.anyio
async def test_cancelled_again_while_it_rolls_back(path: Path) -> None:
    """A task that is cancelled repeatedly still rolls back before it ends."""
    store = SQLiteStore(path)
    entered = asyncio.Event()

    async def act() -> None:
        async with store.scope("user").transaction() as work:
            await add_user(work)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(act())
    await entered.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    await add_user(store.scope("user"))
    await store.close()


@pytest.mark.anyio
async def test_cancelled_read_waits_for_its_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled look-up ends only once its thread is idle. The loop may then be closed at once."""
    reading, go_on = threading.Event(), threading.Event()
    connect: Any = sqlite3.connect

    def block(statement: str) -> None:
        if "FROM asgi_auth_users" in statement:
            reading.set()
            go_on.wait(PATIENCE)

    def connect_slow(*args: Any, **options: Any) -> Any:
        connection = connect(*args, **options)
        connection.set_trace_callback(block)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_slow)
    store = SQLiteStore(path)
    task = asyncio.create_task(store.scope("user").users.get("a"))
    await asyncio.to_thread(reading.wait, PATIENCE)
    for _ in range(3):
        task.cancel()
        await asyncio.wait([task], timeout=0)
    assert not task.done()
    go_on.set()
    await asyncio.wait([task])
    assert task.cancelled()
    await store.close()


def test_event_loop_that_ends_leaves_no_threads(path: Path) -> None:
    """Tasks that ``asyncio.run`` cancels at its end leave no thread that calls a closed loop."""
    store = SQLiteStore(path)

    async def leave() -> None:
        await store.open()
        scoped = store.scope("user")
        acts: list[Coroutine[Any, Any, Any]] = [scoped.users.get("a"), add_user(scoped), store.close()]
        await asyncio.wait([asyncio.create_task(act) for act in acts], timeout=0)

    for _ in range(3):
        asyncio.run(leave())
    asyncio.run(store.close())
    assert left(workers()) == []
