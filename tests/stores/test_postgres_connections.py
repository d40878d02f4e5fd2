"""The connections of PostgresStore: pools, event loops, bounded waits, and servers that go away."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from asgi_auth.errors import StoreUnavailableError
from asgi_auth.stores import PostgresStore
from asgi_auth.testing.stores.records import NOW, add_session, add_token, add_user, together
from tests.postgres import database, execute, server

SHORT = timedelta(seconds=0.5)


@pytest.fixture
async def dsn() -> AsyncIterator[str]:
    """The address of an empty database."""
    async with database() as address:
        yield address


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresStore]:
    """An opened store on an empty database."""
    store = PostgresStore(dsn)
    await store.open()
    yield store
    await store.close()


@pytest.mark.anyio
async def test_postgres_uses_the_pool_of_the_application(dsn: str) -> None:
    """The store uses the application's pool and never closes it. It follows the application to a new pool."""
    pools = [await asyncpg.create_pool(dsn, min_size=0, max_size=2)]
    store, fixed = PostgresStore(pool=lambda: pools[-1]), PostgresStore(pool=pools[0])
    assert await store.migrate() == (0, 3)
    alice = await add_user(store.scope("user"))
    assert await fixed.scope("user").users.get(alice.account.user_id) == alice
    await fixed.close()
    await store.close()
    assert await pools[0].fetchval("SELECT count(*) FROM asgi_auth_users") == 1
    assert pools[0].get_idle_size() == pools[0].get_size()
    await pools[0].close()
    pools.append(await asyncpg.create_pool(dsn, min_size=0, max_size=2))
    assert await store.scope("user").users.get(alice.account.user_id) == alice
    await pools[1].close()
    with pytest.raises(StoreUnavailableError):
        await store.scope("user").users.get(alice.account.user_id)


@pytest.mark.anyio
async def test_postgres_exhausted_pool_fails_in_time(dsn: str) -> None:
    """FT-1: a caller that gets no connection fails within the bound. The token was not consumed and stays usable."""
    store = PostgresStore(dsn, max_connections=1, timeout=SHORT)
    scoped = store.scope("user")
    record = await add_token(scoped, None)
    async with scoped.transaction():
        started = asyncio.get_running_loop().time()
        with pytest.raises(StoreUnavailableError, match="TimeoutError"):
            await scoped.tokens.consume("reset", record.token_hash, now=NOW)
        assert asyncio.get_running_loop().time() - started < 2
        waiting = asyncio.create_task(scoped.tokens.consume("reset", record.token_hash, now=NOW))
        await asyncio.wait([waiting], timeout=0)
    assert await waiting == record
    await store.close()


@pytest.mark.anyio
async def test_postgres_locked_row_fails_in_time(dsn: str, store: PostgresStore) -> None:
    """FT-1: a statement that waits for a lock of another transaction ends within the bound, and nothing is lost."""
    impatient = PostgresStore(dsn, timeout=SHORT)
    await impatient.open()
    record = await add_token(store.scope("user"), None)
    async with store.scope("user").transaction() as work:
        await work.connection.execute("SELECT 1 FROM asgi_auth_tokens FOR UPDATE")
        with pytest.raises(StoreUnavailableError, match="TimeoutError"):
            await impatient.scope("user").tokens.consume("reset", record.token_hash, now=NOW)
    assert await impatient.scope("user").tokens.consume("reset", record.token_hash, now=NOW) == record
    await impatient.close()


@pytest.mark.anyio
async def test_postgres_unreachable_server_is_unavailable() -> None:
    """If the server cannot be reached, every call fails with StoreUnavailableError."""
    store = PostgresStore("postgresql://hunter2@127.0.0.1:1/x")
    acts: list[Callable[[], Awaitable[Any]]] = [store.open, store.migrate, lambda: add_user(store.scope("user"))]
    for act in acts:
        with pytest.raises(StoreUnavailableError) as error:
            await act()
        assert "hunter2" not in str(error.value)
    await store.close()


@pytest.mark.anyio
async def test_postgres_ended_connections_are_replaced(dsn: str, store: PostgresStore) -> None:
    """A connection that the server ends, in use or idle, costs at most one failure. A lost transaction is an error."""
    scoped = store.scope("user")

    async def interfere() -> None:
        async with scoped.transaction() as work:
            await add_user(work)
            pid = work.connection.get_server_pid()
            await execute(dsn, "SELECT pg_terminate_backend($1)", pid)

    with pytest.raises(StoreUnavailableError):
        await interfere()
    assert await scoped.users.find("email", "alice@example.com") is None
    async with scoped.transaction() as work:
        pid = work.connection.get_server_pid()
        gone = asyncio.Event()
        work.connection.add_termination_listener(lambda _: gone.set())
    await execute(dsn, "SELECT pg_terminate_backend($1)", pid)
    await gone.wait()
    assert await scoped.users.find("email", "alice@example.com") is None


@pytest.mark.anyio
async def test_postgres_recovers_from_a_restart_under_load(store: PostgresStore) -> None:
    """FT-5: while the server is down, calls fail. When it is back, they succeed; the application needs no restart."""
    if not server().restarts:  # pragma: no cover  # only with a server that the tests did not start
        pytest.skip("the server is not ours to restart")
    scoped = store.scope("user")
    _, secret_hash = await add_session(scoped, await add_user(scoped))
    over = asyncio.Event()
    answers: list[object] = []

    async def ask() -> None:
        while not over.is_set():
            [answer] = await together([scoped.sessions.load(secret_hash, now=NOW)])
            answers.append(answer)
            await asyncio.sleep(0.005)

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    await asyncio.to_thread(server().stop)
    await asyncio.to_thread(server().start)
    assert await scoped.sessions.load(secret_hash, now=NOW) is not None
    over.set()
    await asyncio.gather(*asking)
    kinds = {type(answer).__name__ for answer in answers}
    assert kinds == {"Loaded", "StoreUnavailableError"}
    await add_user(scoped, "bob")


def test_postgres_serves_several_event_loops() -> None:
    """The store is not bound to an event loop that has ended. Connections end with their loop, closed or not."""

    async def make() -> tuple[Any, str, str]:
        name = f"test_{uuid4().hex}"
        await execute(server().dsn, f"CREATE SCHEMA {name}")
        return None, name, f"{server().dsn}{'&' if '?' in server().dsn else '?'}search_path={name}"

    _, name, dsn = asyncio.run(make())
    store = PostgresStore(dsn)
    alice = asyncio.run(add_user(store.scope("user")))

    async def find() -> Any:
        return await store.scope("user").users.find("email", "alice@example.com")

    async def outer() -> None:
        assert await find() == alice
        assert await asyncio.to_thread(asyncio.run, find()) == alice
        assert await find() == alice

    for _ in range(2):
        asyncio.run(outer())
    asyncio.run(execute(dsn, f"DROP SCHEMA {name} CASCADE"))


SCRIPT = """
import asyncio, sys
from asgi_auth.errors import IdentityTakenError
from asgi_auth.stores import PostgresStore
from asgi_auth.testing.stores.records import add_user

store = PostgresStore(sys.argv[1])
try:
    asyncio.run(add_user(store.scope("user")))
    print("won")
except IdentityTakenError:
    print("lost")
"""


@pytest.mark.anyio
async def test_postgres_is_shared_by_processes(dsn: str) -> None:
    """AC-9: workers that start together make one schema and one user. They exit without close and print no warnings."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, dsn]
    started = [
        await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
    ]
    answers = [await worker.communicate() for worker in started]
    assert sorted(answers) == [(b"lost\n", b""), (b"lost\n", b""), (b"won\n", b"")]
