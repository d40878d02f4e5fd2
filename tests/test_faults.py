"""A locked, full, read-only, broken or missing database: 503, no partial changes, recovery without a restart."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_auth.authentication import Authentication
from asgi_auth.events import Event, PasswordSet, UserCreated
from asgi_auth.hooks import Hook
from asgi_auth.passwords import Bcrypt
from asgi_auth.senders import MemorySender
from asgi_auth.store import Work
from asgi_auth.stores import PostgresStore, SQLiteStore
from asgi_auth.strategies.password import Password, Resettable
from tests.asgi import execute
from tests.postgres import database
from tests.served import APP, application, real_auth
from tests.servers import uvicorn_process
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    LocalAuthentication,
    credentials,
    make_auth,
    register,
    registration,
)
from tests.workers import count_rows, reset_token, resetting, valid_passwords

pytestmark = pytest.mark.anyio

SHORT = timedelta(milliseconds=50)
HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""
UNAVAILABLE = (503, "1", None)


def impatient_auth(directory: Path, *, inline_reads: bool = False, **options: Any) -> LocalAuthentication:
    """An Authentication that waits only briefly for a lock."""
    store = SQLiteStore(directory / "app.db", busy_timeout=SHORT, inline_reads=inline_reads)
    return make_auth(directory, store=store, **options)


@asynccontextmanager
async def asking(auth: Authentication[Any]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this process."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application(auth)), base_url=auth.base_url) as client:
        yield client


@contextmanager
def held_elsewhere(directory: Path) -> Iterator[None]:
    """Another process holds the write lock until the end of the block."""
    arguments = [sys.executable, "-c", HOLD, str(directory / "app.db")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            process.communicate()


async def answer(client: httpx.AsyncClient, phase: str, data: dict[str, str]) -> tuple[int, str | None, str | None]:
    """The status of an answer, its Retry-After and its Set-Cookie."""
    response = await client.post(f"/auth/{phase}", data=data)
    return response.status_code, response.headers.get("Retry-After"), response.headers.get("Set-Cookie")


async def change_everything(client: httpx.AsyncClient, token: str) -> list[tuple[int, str | None, str | None]]:
    """The answers to all requests that write."""
    return [
        await answer(client, "password/reset", resetting(token)),
        await answer(client, "password/sign_in", credentials()),
        await answer(client, "password/register", registration(OTHER_EMAIL)),
        await answer(client, "sign_out", {}),
    ]


async def test_locked_database_is_unavailable_for_writes(tmp_path: Path) -> None:
    """FT-1: another process writes: 503 and Retry-After in bounded time; reads work; the reset link stays valid."""
    auth = impatient_auth(tmp_path)
    async with auth.running(), asking(auth) as client:
        assert (await answer(client, "password/register", registration()))[0] == 200
        token = await reset_token(auth)
        auth.clock.advance(timedelta(minutes=2))  # so that the next request would record the use of the session
        with held_elsewhere(tmp_path):
            began = time.monotonic()
            assert await change_everything(client, token) == [UNAVAILABLE] * 4
            assert (await client.get("/me")).text == EMAIL
            assert (await answer(client, "password/reset_request", {"email": EMAIL}))[0] == 200
            assert time.monotonic() - began < 5
            async with asking(impatient_auth(tmp_path, clock=auth.clock)) as late:  # started while the lock is held
                late.cookies = client.cookies
                assert (await late.get("/me")).text == EMAIL
                assert await answer(late, "password/sign_in", credentials()) == UNAVAILABLE

        assert (await client.get("/me")).text == EMAIL
        assert (await answer(client, "password/reset", resetting(token)))[0] == 200
        assert await valid_passwords(auth, PASSWORD, NEW_PASSWORD) == [NEW_PASSWORD]


@pytest.mark.slow
async def test_exhausted_pool_is_unavailable(tmp_path: Path) -> None:
    """FT-1: no free PostgreSQL connection: 503 and Retry-After in bounded time; the reset link stays valid."""
    async with database() as dsn:
        auth = make_auth(tmp_path, store=PostgresStore(dsn, max_connections=1, timeout=timedelta(seconds=0.5)))
        async with auth.running(), asking(auth) as client:
            assert (await answer(client, "password/register", registration()))[0] == 200
            token = await reset_token(auth)
            async with auth.store.scope("user").transaction():
                began = time.monotonic()
                # In separate tasks: Python 3.11 does not trace the callers of a coroutine that timed out.
                answers, response = await asyncio.gather(change_everything(client, token), client.get("/me"))
                assert answers == [UNAVAILABLE] * 4
                assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
                assert time.monotonic() - began < 5

            assert (await client.get("/me")).text == EMAIL
            assert (await answer(client, "password/reset", resetting(token)))[0] == 200
            assert await valid_passwords(auth, PASSWORD, NEW_PASSWORD) == [NEW_PASSWORD]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux takes away the disk of a running process")
async def test_full_disk_is_unavailable_for_writes(tmp_path: Path) -> None:
    """FT-6: while a server cannot write, it signs no user in; when it can write again, it works without a restart."""
    import resource

    auth = real_auth(tmp_path)
    async with auth.running(), uvicorn_process(*APP, directory=tmp_path) as server, server.client() as client:
        assert (await answer(client, "password/register", registration()))[0] == 200
        token = await reset_token(auth)
        before = [count_rows(tmp_path, table) for table in ("users", "sessions", "tokens")]
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
        assert await change_everything(client, token) == [UNAVAILABLE] * 4
        assert (await client.get("/me")).text == EMAIL
        assert [count_rows(tmp_path, table) for table in ("users", "sessions", "tokens")] == before

        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        assert (await client.get("/me")).text == EMAIL
        answers = await change_everything(client, token)
        assert [status for status, *_ in answers] == [200, 401, 200, 200]
        assert (await answer(client, "password/sign_in", credentials(EMAIL, NEW_PASSWORD)))[0] == 200


LAUNCHER = """#!{python}
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE: modes hold for root, too
os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""


def launcher(directory: Path) -> str:
    """A Python that respects file modes, even as root."""
    path = directory / "python"
    path.write_text(LAUNCHER.format(python=sys.executable))
    path.chmod(0o700)
    return str(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux makes root mind the mode of a file")
async def test_read_only_database_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-6: while the file and the directory are not writable, the answer is 503 for every credential."""
    auth, directory = real_auth(tmp_path), tmp_path / "database"
    directory.mkdir()
    async with auth.running():
        _, token = await register(auth)
    shutil.move(tmp_path / "app.db", directory)
    monkeypatch.setattr(sys, "executable", launcher(tmp_path))
    modes = {directory / "app.db": (0o400, 0o600), directory: (0o500, 0o700)}
    for path, (mode, _) in modes.items():
        path.chmod(mode)

    cookies = {auth.site.session_cookie: token.cookie}
    async with (
        uvicorn_process(*APP, "--lifespan=off", directory=directory) as server,
        server.client(cookies=cookies) as client,
    ):
        assert await answer(client, "password/sign_in", credentials()) == UNAVAILABLE
        assert (await client.get("/me")).status_code == 503
        for path, (_, mode) in modes.items():
            path.chmod(mode)
        assert (await client.get("/me")).text == EMAIL
        assert (await answer(client, "password/sign_in", credentials()))[0] == 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux makes root mind the mode of a file")
async def test_read_only_file_is_unavailable_for_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-6: a server on a read-only file still reads; when the file is writable again, it writes without a restart."""
    auth, directory = real_auth(tmp_path), tmp_path / "database"
    directory.mkdir()
    async with auth.running():
        _, token = await register(auth)
    path = Path(shutil.move(tmp_path / "app.db", directory))
    monkeypatch.setattr(sys, "executable", launcher(tmp_path))
    await asyncio.to_thread(path.chmod, 0o400)
    async with (
        uvicorn_process(*APP, directory=directory) as server,
        server.client(cookies={auth.site.session_cookie: token.cookie}) as client,
    ):
        assert (await client.get("/me")).text == EMAIL
        for _ in range(2):
            assert await answer(client, "password/sign_in", credentials()) == UNAVAILABLE
        assert (await client.get("/me")).text == EMAIL
        await asyncio.to_thread(path.chmod, 0o600)
        assert (await answer(client, "password/sign_in", credentials()))[0] == 200


@pytest.mark.parametrize("lose", ["delete", "empty", "replace"])
async def test_lost_database_is_unavailable_until_it_is_restored(tmp_path: Path, lose: str) -> None:
    """FT-6: a server does not write to a removed or replaced file and does not create a new one."""
    auth, path, aside = real_auth(tmp_path), tmp_path / "app.db", tmp_path / "aside"
    async with auth.running():
        _, token = await register(auth)
    async with (
        uvicorn_process(*APP, directory=tmp_path) as server,
        server.client(cookies={auth.site.session_cookie: token.cookie}) as client,
    ):
        assert (await client.get("/me")).text == EMAIL
        whole = path.read_bytes()
        if lose == "empty":
            path.write_bytes(b"")
        else:
            path.rename(aside)
        if lose == "replace":
            path.write_bytes(whole)
        before = path.stat().st_size if path.exists() else None
        for _ in range(2):
            assert await answer(client, "password/sign_in", credentials()) == UNAVAILABLE
            assert (await client.get("/me")).status_code == 503
        assert (path.stat().st_size if path.exists() else None) == before

        if lose == "empty":
            path.write_bytes(whole)
        else:
            aside.rename(path)
        assert (await client.get("/me")).text == EMAIL
        assert (await answer(client, "password/sign_in", credentials()))[0] == 200


@pytest.mark.parametrize("table", ["sessions", "accounts", "users"])
@pytest.mark.parametrize("inline_reads", [False, True], ids=["threads", "inline"])
async def test_missing_table_fails_closed(tmp_path: Path, table: str, inline_reads: bool) -> None:
    """TK-14: without a table, a valid credential gets 503 and keeps its cookie; with the table it works again."""
    auth = impatient_auth(tmp_path, inline_reads=inline_reads)
    async with auth.running(), asking(auth) as client:
        _, token = await register(auth)
        credentials_shown = [
            {"Cookie": f"{auth.site.session_cookie}={token.cookie}"},
            {"Authorization": f"Bearer {token}"},
        ]
        await execute(tmp_path, f"ALTER TABLE asgi_auth_{table} RENAME TO elsewhere")
        for headers in credentials_shown:
            response = await client.get("/me", headers=headers)
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
            assert "Set-Cookie" not in response.headers
        assert await answer(client, "password/sign_in", credentials()) == UNAVAILABLE
        assert (await client.get("/me")).text == "-"

        await execute(tmp_path, f"ALTER TABLE elsewhere RENAME TO asgi_auth_{table}")
        assert [(await client.get("/me", headers=headers)).text for headers in credentials_shown] == [EMAIL, EMAIL]
        assert (await answer(client, "password/sign_in", credentials()))[0] == 200


async def test_missing_directory_is_unavailable(tmp_path: Path) -> None:
    """TK-14: while the store cannot be opened, a credential and a sign-in get 503; afterwards it is opened."""
    signed_in, late = make_auth(tmp_path), impatient_auth(tmp_path / "late")
    async with signed_in.running(), asking(late) as client:
        _, token = await register(signed_in)
        headers = {"Cookie": f"{late.site.session_cookie}={token.cookie}"}
        assert (await client.get("/me", headers=headers)).status_code == 503
        assert await answer(client, "password/sign_in", credentials()) == UNAVAILABLE
        (tmp_path / "late").mkdir()
        assert (await client.get("/me", headers=headers)).text == "-"
        assert (await answer(client, "password/register", registration()))[0] == 200
        assert (await client.get("/me")).text == EMAIL
    await late.close()


async def test_broken_file_is_unavailable(tmp_path: Path) -> None:
    """TK-14: while the file is not a database, the answer is 503."""
    auth = impatient_auth(tmp_path)
    async with auth.running():
        _, token = await register(auth)
    good = (tmp_path / "app.db").read_bytes()
    (tmp_path / "app.db").write_bytes(b"not a database " * 1000)
    async with asking(auth) as client:
        client.cookies.set(auth.site.session_cookie, token.cookie)
        assert (await client.get("/me")).status_code == 503
        assert await answer(client, "password/sign_in", credentials()) == UNAVAILABLE
        (tmp_path / "app.db").write_bytes(good)
        assert (await client.get("/me")).text == EMAIL
        assert (await answer(client, "password/sign_in", credentials()))[0] == 200
    await auth.close()


@pytest.mark.parametrize("inline_reads", [False, True], ids=["threads", "inline"])
async def test_database_that_breaks_while_open_is_unavailable(tmp_path: Path, inline_reads: bool) -> None:
    """TK-14: if the file breaks while connections are open, the answer is 503 until the file is restored."""
    auth = impatient_auth(tmp_path, inline_reads=inline_reads)
    async with auth.running(), asking(auth) as client:
        _, token = await register(auth)
        client.cookies.set(auth.site.session_cookie, token.cookie)
        assert (await client.get("/me")).text == EMAIL
        # After another connection's change, every connection reads its pages from the file again.
        await execute(tmp_path, "CREATE TABLE other (id)")
        await execute(tmp_path, "PRAGMA wal_checkpoint(TRUNCATE)")
        with (tmp_path / "app.db").open("r+b") as file:
            good = file.read()
            file.seek(0)
            file.write(b"\xff" * len(good))
        assert (await client.get("/me")).status_code == 503
        assert await answer(client, "password/sign_in", credentials()) == UNAVAILABLE
        with (tmp_path / "app.db").open("r+b") as file:
            file.write(good)
        assert (await client.get("/me")).text == EMAIL
        assert (await answer(client, "password/sign_in", credentials()))[0] == 200


async def test_failed_rehash_does_not_fail_the_sign_in(tmp_path: Path) -> None:
    """PW-9: if the database refuses the new hash, the sign-in succeeds and the old hash stays."""
    older, auth = make_auth(tmp_path, hasher=Bcrypt(cost=5)), make_auth(tmp_path)
    async with older.running(), auth.running():
        user, _ = await register(older)
        await execute(
            tmp_path,
            "CREATE TRIGGER refuse BEFORE UPDATE OF password_hash ON asgi_auth_accounts"
            " BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        _, token = await auth.strategy("password").sign_in(credentials())
        assert (await auth.sessions.load(token.cookie)).user == user
        found = await auth.accounts.get(user.id)
        assert found is not None
        assert "$2b$05$" in str(found.account.password_hash)


class Locksmith(Hook):
    """Locks the database with another connection as soon as an event of one kind is committed."""

    name = "locksmith"

    def __init__(self, directory: Path, act: type[Event]) -> None:
        self._path, self._act = directory / "app.db", act
        self._connections: list[sqlite3.Connection] = []

    async def within(self, event: Event, work: Work[Any]) -> None:
        """Take the lock after the commit of this transaction."""
        if isinstance(event, self._act):
            work.after_commit(self._lock)

    async def _lock(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        self._connections.append(connection)

    def unlock(self) -> None:
        """Release the lock."""
        while self._connections:
            self._connections.pop().close()


@pytest.mark.parametrize("act", [UserCreated, PasswordSet])
async def test_committed_act_is_not_reported_as_unavailable(tmp_path: Path, act: type[Event]) -> None:
    """FT-1: if the database fails between a registration or reset and its sign-in, the committed act is accepted."""
    locksmith, sender = Locksmith(tmp_path, act), MemorySender()
    strategy = Password(resettable=Resettable(sender=sender, sign_in=True))
    auth = impatient_auth(tmp_path, add_ons=[locksmith], strategies=[strategy], sender=sender)
    async with auth.running():
        user, token = await register(auth)
        assert (token is None) == (act is UserCreated)
        locksmith.unlock()
        changed, token = await auth.strategy("password").reset(resetting(await reset_token(auth)))
        assert (changed.id, token is None) == (user.id, act is PasswordSet)
        locksmith.unlock()
        assert await valid_passwords(auth, PASSWORD, NEW_PASSWORD) == [NEW_PASSWORD]
