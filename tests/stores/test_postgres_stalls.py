"""PostgresStore and a server that has stopped answering: each call ends shortly after ``timeout``."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from asgi_auth.store import Work
from asgi_auth.stores import PostgresStore, postgres_connections, postgres_waits
from asgi_auth.testing.stores.records import NOW, add_session, add_user
from tests.postgres import database, frozen
from tests.served import application
from tests.stores.caching import Relay
from tests.support import EMAIL, PATIENCE, credentials, make_auth, register

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TIMEOUT = 2.0
BOUND = 1.8 * TIMEOUT
"""Less than two timeouts, so that a second wait fails the test, but far above one: the machine may be busy."""


class Way:
    """A way to an empty database. A test can stall it."""

    def __init__(self, dsn: str, stalled: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self.dsn, self.stalled = dsn, stalled


@asynccontextmanager
async def swallowed(relay: Relay) -> AsyncIterator[None]:
    """The relay delivers nothing within the block."""
    relay.swallow()
    try:
        yield
    finally:
        relay.deliver()


@pytest.fixture
async def network() -> AsyncIterator[Way]:
    """The network to the whole server can stall."""
    async with database() as dsn, Relay(dsn).running() as relay:
        yield Way(relay.dsn, lambda: swallowed(relay))


@pytest.fixture
async def backend() -> AsyncIterator[Way]:
    """All server processes can stall, except the one that accepts new connections."""
    async with database() as dsn:
        yield Way(f"{dsn}&application_name=stalling", lambda: frozen(dsn, "stalling"))


@pytest.fixture(params=["network", "backend"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each of the two ways."""
    way: Way = request.getfixturevalue(request.param)
    return way


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the clean-up after a failure, so that the test does not mistake it for a second wait."""
    for module in (postgres_waits, postgres_connections):
        monkeypatch.setattr(module, "GRACE", 0.1)


@asynccontextmanager
async def reaching(way: Way, *, shared: bool, timeout: float = TIMEOUT) -> AsyncIterator[PostgresStore]:
    """A store on this way, with its own pool or with an application's pool that has no time limits."""
    pool = await asyncpg.create_pool(way.dsn, min_size=0, max_size=10) if shared else None
    store = PostgresStore(None if shared else way.dsn, pool=pool, timeout=timedelta(seconds=timeout))
    yield store
    await store.close()
    if pool is not None:
        pool.terminate()


async def timed(act: Awaitable[Any]) -> tuple[str, float]:
    """Return the name of the exception that the act raises, or ``None``, and the seconds that the act took."""
    name, loop = "None", asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(PATIENCE):
            # A separate task: an exception thrown into a coroutine ends the tracing of the coroutines that await it.
            await asyncio.ensure_future(act)
    except Exception as exc:
        name = type(exc).__name__
    return name, loop.time() - began


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
async def test_postgres_stalled_call_ends_in_time(way: Way, shared: bool) -> None:
    """FT-1: a look-up, a statement, a commit and a rollback wait for one timeout. None waits for a cancellation too."""
    async with reaching(way, shared=shared) as store:
        scoped = store.scope("user")
        _, secret_hash = await add_session(scoped, await add_user(scoped))
        begun, stalled = asyncio.Barrier(4), asyncio.Event()

        async def transact(last: Callable[[Work[Any]], Awaitable[None]]) -> None:
            async with scoped.transaction() as work:
                await work.sessions.load(secret_hash, now=NOW)
                await begun.wait()
                await stalled.wait()
                await last(work)

        async def load(work: Work[Any]) -> None:
            await work.sessions.load(secret_hash, now=NOW)

        async def commit(_: Work[Any]) -> None:
            pass

        async def fail(_: Work[Any]) -> None:
            raise KeyError

        transactions = [asyncio.create_task(transact(last)) for last in (load, commit, fail)]
        await begun.wait()
        await scoped.sessions.load(secret_hash, now=NOW)  # leaves an idle connection in the pool
        async with way.stalled():
            stalled.set()
            acts = [scoped.sessions.load(secret_hash, now=NOW), *transactions]
            ended = await asyncio.gather(*map(timed, acts))
        assert [name for name, _ in ended] == ["StoreUnavailableError"] * 3 + ["KeyError"]
        assert max(seconds for _, seconds in ended) < BOUND
        assert await scoped.sessions.load(secret_hash, now=NOW) is not None


async def test_postgres_stalled_close_ends_in_time(way: Way) -> None:
    """Closing waits for one timeout at most. The store can be opened again."""
    async with reaching(way, shared=False) as store:
        await add_user(store.scope("user"))
        async with way.stalled():
            name, seconds = await timed(store.close())
        assert (name, seconds < BOUND) == ("None", True)
        assert await store.scope("user").users.find("email", "alice@example.com") is not None


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
async def test_postgres_stalled_opening_ends_in_time(network: Way, shared: bool) -> None:
    """FT-1: simultaneous callers wait together, not one after the other. The check of the schema ends in time too."""
    async with reaching(network, shared=shared, timeout=TIMEOUT / 4) as store:
        if shared:
            await add_user(PostgresStore(pool=store._database._settings.shared).scope("user"))
        async with network.stalled():
            acts = [store.open(), *(store.scope("user").users.get("a") for _ in range(11))]
            ended = await asyncio.gather(*map(timed, acts))
        assert {name for name, _ in ended} == {"StoreUnavailableError"}
        assert max(seconds for _, seconds in ended) < BOUND
        await store.open()


async def test_postgres_stall_after_a_migration_is_no_failure(network: Way) -> None:
    """A committed migration succeeds, even if its connection stalls afterwards."""
    connections = PostgresStore(network.dsn)._database.connections()

    async def migrate(stack: AsyncExitStack) -> None:
        async with connections._alone():
            await stack.enter_async_context(network.stalled())

    async with AsyncExitStack() as stack:
        name, seconds = await timed(migrate(stack))
    assert (name, seconds < BOUND) == ("None", True)


async def test_postgres_stalled_request_is_unavailable_in_time(network: Way, tmp_path: Path) -> None:
    """FT-1: a request with a cookie and a sign-in get 503 within the bound. When the server is back, both succeed."""
    async with reaching(network, shared=False) as store:
        auth = make_auth(tmp_path, store=store)
        transport = httpx.ASGITransport(application(auth))
        async with auth.running(), httpx.AsyncClient(transport=transport, base_url=auth.base_url) as client:
            _, token = await register(auth)
            cookie = {"Cookie": f"{auth.site.session_cookie}={token.cookie}"}

            async def show() -> httpx.Response:
                return await client.get("/me", headers=cookie)

            async def sign_in() -> httpx.Response:
                return await client.post("/auth/password/sign_in", data=credentials())

            loop = asyncio.get_running_loop()
            async with network.stalled():
                for act in (show, sign_in):
                    began = loop.time()
                    response = await act()
                    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
                    assert loop.time() - began < BOUND
            assert (await show()).text == EMAIL
            assert (await sign_in()).status_code == 200
