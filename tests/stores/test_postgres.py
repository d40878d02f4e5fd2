"""PostgresStore: the suite, and the behaviour that only PostgreSQL has."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4

import asyncpg
import pytest

from asgi_auth import stores
from asgi_auth.errors import ConfigurationError, IdentityTakenError, StoreUnavailableError
from asgi_auth.stores import PostgresStore
from asgi_auth.stores.executor import ConflictError
from asgi_auth.testing import CounterSuite, InvitationSuite, StoreSuite
from asgi_auth.testing.stores.records import NOW, add_session, add_token, add_user
from asgi_auth.types import Account
from tests.postgres import database, execute
from tests.stores.caching import listening
from tests.stores.cancelling import cancel_everywhere
from tests.stores.statements import STATEMENTS
from tests.support import EMAIL, credentials, make_auth, register
from tests.workers import shown


@pytest.fixture
async def dsn() -> AsyncIterator[str]:
    """The address of an empty database."""
    async with database() as address:
        yield address


class TestPostgresStore(StoreSuite, InvitationSuite, CounterSuite):
    """The suite."""

    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    async def store(self, dsn: str) -> AsyncIterator[PostgresStore]:
        """An opened store on an empty database."""
        store = PostgresStore(dsn, **self.options)
        await store.open()
        yield store
        await store.close()

    second = store


@pytest.mark.slow
class TestPostgresStoreBehindPooler(TestPostgresStore):
    """The suite, with a transaction for each statement."""

    options: ClassVar[dict[str, Any]] = {"statement_cache_size": 0}


@pytest.mark.slow
class TestPostgresStoreOnSerializable(TestPostgresStore):
    """The suite, on a database whose default isolation is SERIALIZABLE."""

    @pytest.fixture
    async def dsn(self, serializable: str) -> AsyncIterator[str]:
        """The address of an empty database with that isolation."""
        async with database(serializable) as address:
            yield address


@pytest.mark.slow
class TestPostgresStoreWithCache(StoreSuite):
    """The suite, with cached look-ups."""

    @pytest.fixture
    async def store(self, dsn: str) -> AsyncIterator[PostgresStore]:
        """A store with its cache on, on an empty database."""
        store = await listening(PostgresStore(dsn, session_cache=timedelta(seconds=60)))
        yield store
        await store.close()

    second = store


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresStore]:
    """An opened store on an empty database."""
    store = PostgresStore(dsn)
    await store.open()
    yield store
    await store.close()


@asynccontextmanager
async def traced(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """Every statement of the connections that are made in the block."""
    statements: list[str] = []
    make: Any = asyncpg.create_pool

    async def init(connection: Any) -> None:
        connection.add_query_logger(lambda record: statements.append(record.query))

    with monkeypatch.context() as patch:
        patch.setattr(asyncpg, "create_pool", lambda *args, **options: make(*args, init=init, **options))
        yield statements


async def settled(statements: list[str]) -> list[str]:
    """The first word of each statement, once the event loop has called the loggers."""
    await asyncio.sleep(0)
    return [text.split()[0].rstrip(";") for text in statements]


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"dsn": "postgresql:///a", "pool": lambda: None}, {"dsn": "hunter2"}, {"dsn": "postgresql+asyncpg://hunter2"}],
    ids=["neither", "both", "no address", "of SQLAlchemy"],
)
def test_postgres_requires_one_address(options: dict[str, Any]) -> None:
    """A missing, invalid or second address is refused at once. The error does not quote it: it may hold a password."""
    with pytest.raises(ConfigurationError, match="PostgresStore: ") as error:
        PostgresStore(**options)
    assert "hunter2" not in str(error.value)


@pytest.mark.anyio
@pytest.mark.parametrize("dsn", ["postgresql://hunter2:hunter3/a", "postgresql://[hunter2/a"])
async def test_postgres_malformed_address_is_refused(dsn: str) -> None:
    """A malformed address raises ConfigurationError. The error does not quote the address."""
    with pytest.raises(ConfigurationError, match="dsn cannot be read") as error:
        await PostgresStore(dsn).open()
    assert "hunter" not in str(error.value)


def test_postgres_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without asyncpg the error names the extra to install."""
    for name in [name for name in sys.modules if name.startswith("asgi_auth.stores.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'asgi-auth\[postgres\]'"):
        stores.PostgresStore  # noqa: B018  # the look-up fails


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_postgres_stores_native_types(dsn: str, store: PostgresStore) -> None:
    """Instants, ids, truth values and JSON are stored in native types, for other programs that read the tables."""
    scoped = store.scope("user")
    alice = await add_user(scoped, password_hash="$2b$12$abc")
    session, secret_hash = await add_session(scoped, alice, factors={"password": NOW})
    await add_token(scoped, alice, extra_data={"a": [1]})
    [row] = await execute(dsn, "SELECT * FROM asgi_auth_sessions")
    assert (row["id"], row["secret_hash"], row["remembered"]) == (UUID(session.id), secret_hash, False)
    assert (row["created_at"], row["ended_at"]) == (session.created_at, session.idle_expires_at)
    types = await execute(
        dsn,
        "SELECT pg_typeof(data)::text, pg_typeof(bcrypt_cost)::text, bcrypt_cost "
        "FROM asgi_auth_users, asgi_auth_accounts",
    )
    assert [tuple(row) for row in types] == [("jsonb", "smallint", 12)]
    assert [tuple(row) for row in await execute(dsn, "SELECT extra_data->'a'->>0 FROM asgi_auth_tokens")] == [("1",)]


@pytest.mark.anyio
async def test_postgres_finds_an_id_only_in_its_returned_spelling(store: PostgresStore) -> None:
    """An id is found only as the store returned it: not in capitals, not without dashes. No user has the nil id."""
    users = store.scope("user").users
    user_id = (await add_user(store.scope("user"))).account.user_id
    for spelling in (
        user_id.upper(),
        user_id.replace("-", ""),
        f"{{{user_id}}}",
        f"urn:uuid:{user_id}",
        f"{user_id[:-1]}g",
        str(UUID(int=0)),
    ):
        assert await users.get(spelling) is None
    assert await users.get(user_id) is not None
    with pytest.raises(ConflictError):
        await users.insert("alice", {}, {}, Account(user_id="", stamp=b"s"), now=NOW)


@pytest.mark.anyio
async def test_postgres_stores_floats_exactly(store: PostgresStore) -> None:
    """A float is read back equal in each form that PostgreSQL writes, and can be stored again."""
    users = store.scope("user").users
    numbers = {"large": 1e300, "small": 1e-300, "whole": 1e18, "tenth": 0.1, "integer": 2**63 - 1}
    found = await users.insert(str(uuid4()), numbers, {}, Account(user_id="", stamp=b"s"), now=NOW)
    assert found.user.data == numbers
    changed = await users.update(found.account.user_id, {"more": 1}, {})
    assert changed is not None
    assert changed.user.data == {**numbers, "more": 1}


@pytest.mark.anyio
async def test_postgres_errors_quote_no_value(store: PostgresStore) -> None:
    """TK-17: errors of the driver quote rows. Errors of the store name only constraints and kinds."""
    scoped = store.scope("user")
    await add_user(scoped)
    with pytest.raises(IdentityTakenError) as taken:
        await add_user(scoped)
    cause = taken.value.__cause__
    assert str(cause) == "postgres: UniqueViolationError: asgi_auth_users_email_key"
    assert cause is not None
    assert cause.__cause__ is None
    assert cause.__suppress_context__


# --- transactions ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_postgres_transaction_includes_rows_of_the_application(dsn: str, store: PostgresStore) -> None:
    """Rows that the driver's connection writes are committed or undone with the rest. Its errors stay unchanged."""
    scoped = store.scope("user")

    async def invite(name: str, note: str | None) -> None:
        async with scoped.transaction() as work:
            await add_user(work, name)
            await work.connection.execute("INSERT INTO notes VALUES ($1)", note)

    await execute(dsn, "CREATE TABLE notes (text TEXT NOT NULL)")
    await invite("alice", "hello")
    with pytest.raises(asyncpg.NotNullViolationError):
        await invite("bob", None)
    assert [row["text"] for row in await execute(dsn, "SELECT text FROM notes")] == ["hello"]
    assert await scoped.users.find("email", "alice@example.com") is not None
    assert await scoped.users.find("email", "bob@example.com") is None


@pytest.mark.anyio
async def test_postgres_transaction_continues_after_a_refused_insert(store: PostgresStore) -> None:
    """A caller that catches IdentityTakenError may continue in the same transaction, as on SQLite."""
    scoped = store.scope("user")
    alice = await add_user(scoped)
    async with scoped.transaction() as work:
        with pytest.raises(IdentityTakenError):
            await add_user(work)
        await add_user(work, "bob")
    assert await scoped.users.find("email", "alice@example.com") == alice
    assert await scoped.users.find("email", "bob@example.com") is not None


@pytest.mark.anyio
async def test_postgres_swallowed_error_fails_the_commit(store: PostgresStore) -> None:
    """The commit of a transaction after an error fails, even if the caller swallowed the error."""
    scoped = store.scope("user")

    async def swallow() -> None:
        async with scoped.transaction() as work:
            await add_user(work)
            with pytest.raises(asyncpg.UndefinedTableError):
                await work.connection.execute("SELECT 1 FROM nothing")

    with pytest.raises(StoreUnavailableError, match="InFailedSQLTransactionError"):
        await swallow()
    assert await scoped.users.find("email", "alice@example.com") is None


@pytest.mark.anyio
async def test_postgres_failed_commit_undoes_everything(dsn: str, store: PostgresStore) -> None:
    """If a constraint fails at the commit, everything is undone, and the next transaction works."""
    scoped = store.scope("user")
    await execute(dsn, "CREATE TABLE notes (id int, text int UNIQUE DEFERRABLE INITIALLY DEFERRED)")

    async def fail() -> None:
        async with scoped.transaction() as work:
            await add_user(work)
            await work.connection.execute("INSERT INTO notes VALUES (1, 1), (2, 1)")

    with pytest.raises(ConflictError, match="notes_text_key"):
        await fail()
    assert await scoped.users.find("email", "alice@example.com") is None
    await add_user(scoped)


@pytest.mark.anyio
async def test_postgres_work_ends_with_its_transaction(store: PostgresStore) -> None:
    """The stores of a finished transaction refuse every call: their connection may serve another user by now."""
    async with store.scope("user").transaction() as work:
        pass
    with pytest.raises(ConfigurationError, match="transaction is over"):
        await work.users.find("email", "alice@example.com")


@pytest.mark.anyio
async def test_postgres_cancelled_transaction_is_all_or_nothing(store: PostgresStore) -> None:
    """FT-2: a transaction that is cancelled at any point is done or undone as a whole, and its connection is free."""
    scoped = store.scope("user")
    ended: list[bool] = []

    async def act() -> None:
        async with scoped.transaction() as work:
            await add_user(work, "a")
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
async def test_postgres_can_be_used_after_a_cancelled_opening(dsn: str) -> None:
    """The store can be used after a cancellation at any point of opening, a look-up or closing."""
    # Over TCP asyncpg asks for TLS first. If it is cancelled then, it leaves an exception that is never retrieved.
    store = PostgresStore(f"{dsn}{'&' if '?' in dsn else '?'}sslmode=disable")

    async def act() -> None:
        await store.open()
        await store.scope("user").users.get(str(uuid4()))
        await store.close()

    async def check() -> None:
        assert await store.scope("user").users.get("a") is None
        await store.close()

    assert await cancel_everywhere(act, check) >= 4


# --- costs -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_postgres_loads_a_session_with_one_statement(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a session costs one statement: no BEGIN, no setting before it, no reset after it."""
    async with traced(monkeypatch) as statements:
        store = PostgresStore(dsn)
        scoped = store.scope("user")
        session, secret_hash = await add_session(scoped, await add_user(scoped))
        await settled(statements)
        statements.clear()
        assert await scoped.sessions.load(secret_hash, now=NOW) is not None
        assert await scoped.sessions.load_by_id(session.id, now=NOW) is not None
        assert await settled(statements) == ["SELECT", "SELECT"]
        await store.close()


@pytest.mark.anyio
async def test_postgres_request_costs_one_statement(dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A request with a cookie or a bearer token costs one statement. A sign-in costs three beside its transaction."""
    async with traced(monkeypatch) as statements:
        auth = make_auth(tmp_path, store=PostgresStore(dsn))
        async with auth.running():
            _, token = await register(auth)
            await settled(statements)
            statements.clear()
            assert await shown(auth, token) == [EMAIL, EMAIL]
            assert await settled(statements) == ["SELECT", "SELECT"]
            statements.clear()
            await auth.strategy("password").sign_in(credentials())
            counted = [word for word in await settled(statements) if word not in ("BEGIN", "COMMIT")]
        assert len(counted) <= 3


@pytest.mark.anyio
async def test_postgres_behind_a_pooler_keeps_each_statement_together(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a statement cache each statement is a transaction, which a pooler sends to one server as a whole."""
    async with traced(monkeypatch) as statements:
        store = PostgresStore(dsn, statement_cache_size=0)
        await store.scope("user").sessions.load(b"h", now=NOW)
        await settled(statements)
        statements.clear()
        await store.scope("user").sessions.load(b"h", now=NOW)
        assert await settled(statements) == ["BEGIN", "SELECT", "COMMIT"]
        await store.close()


SAMPLES = {"text": "{}", "bytea": b"x", "uuid": UUID(int=1), "timestamptz": NOW, "int8": 1, "bool": True}


@pytest.mark.anyio
@pytest.mark.parametrize("name", STATEMENTS)
async def test_postgres_finds_by_index(store: PostgresStore, name: str) -> None:
    """No statement has to read a whole table."""
    async with store.scope("user").transaction() as work:
        await work.connection.execute("SET LOCAL enable_seqscan = off")
        statement = await work.connection.prepare(STATEMENTS[name])
        values = [SAMPLES[parameter.name] for parameter in statement.get_parameters()]
        plan = str(await statement.explain(*values))
    assert "Seq Scan" not in plan
