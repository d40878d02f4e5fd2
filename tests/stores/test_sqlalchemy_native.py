"""``SQLAlchemyStore`` translates the shared statements for each driver, for any tables and any type of id."""
# ruff: noqa: S608  # the tables' names are constants of this file

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Dialect, MetaData, event, text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from asgi_auth.store import TokenRecord
from asgi_auth.stores import SQLAlchemyStore
from asgi_auth.stores.sqlalchemy import make_tables
from asgi_auth.stores.sqlalchemy.native import Native
from asgi_auth.testing.stores.records import NOW, add_session, add_token, add_user
from asgi_auth.types import UserMixin
from tests.stores.engines import engines, make
from tests.stores.models import IntUser

SQLITE, ASYNCPG, PSYCOPG = SQLiteDialect_aiosqlite(), PGDialect_asyncpg(), PGDialectAsync_psycopg()  # type: ignore[no-untyped-call]
STATEMENT = """
UPDATE asgi_auth_tokens /* INDEXED BY asgi_auth_tokens_user_id */ SET extra_data = $3::text::jsonb
WHERE asgi_auth_tokens.subject_name = $1 AND stamp = $2::bytea AND seq IN (
    SELECT seq FROM asgi_auth_tokens WHERE subject_name = $1 AND created_at < $4::timestamptz AND id = $5::uuid
    FOR UPDATE SKIP LOCKED
) RETURNING extra_data::text, 7 % 2"""
VALUES = ("user", b"s", "{}", 1, "a")


class InSchema(DeclarativeBase):
    """A base with a schema whose name must be quoted."""

    metadata = MetaData(schema="my crm")


class Member(UserMixin, InSchema):
    """A user whose library tables get a prefix."""

    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


class _Connection:
    """The part of a connection that a translation uses."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    def get_execution_options(self) -> dict[str, Any]:
        """The options that the constructor received."""
        return self._options


def native(dialect: Dialect, model: Any, prefix: str = "asgi_auth_") -> Native:
    """The translator for the tables of *model*."""
    return Native(dialect, make_tables(model, prefix=prefix))


def words(statement: str) -> str:
    """The statement in one line."""
    return " ".join(statement.split())


@pytest.mark.parametrize(
    ("dialect", "expected", "values"),
    [
        (
            SQLITE,
            "UPDATE asgi_auth_tokens INDEXED BY asgi_auth_tokens_user_id SET extra_data = ? "
            "WHERE asgi_auth_tokens.subject_name = ? AND stamp = ? AND seq IN ( "
            "SELECT seq FROM asgi_auth_tokens WHERE subject_name = ? AND created_at < ? AND id = ? "
            ") RETURNING extra_data, 7 % 2",
            ("{}", "user", b"s", "user", 1, "a"),
        ),
        (
            ASYNCPG,
            "UPDATE asgi_auth_tokens SET extra_data = $3::text "
            "WHERE asgi_auth_tokens.subject_name = $1 AND stamp = $2::bytea AND seq IN ( "
            "SELECT seq FROM asgi_auth_tokens WHERE subject_name = $1 AND created_at < $4::bigint AND id = $5::text "
            "FOR UPDATE SKIP LOCKED ) RETURNING extra_data::text, 7 % 2",
            VALUES,
        ),
        (
            PSYCOPG,
            "UPDATE asgi_auth_tokens SET extra_data = %(p3)s::text "
            "WHERE asgi_auth_tokens.subject_name = %(p1)s AND stamp = %(p2)s::bytea AND seq IN ( "
            "SELECT seq FROM asgi_auth_tokens WHERE subject_name = %(p1)s AND created_at < %(p4)s::bigint "
            "AND id = %(p5)s::text FOR UPDATE SKIP LOCKED ) RETURNING extra_data::text, 7 %% 2",
            {"p1": "user", "p2": b"s", "p3": "{}", "p4": 1, "p5": "a"},
        ),
    ],
    ids=["aiosqlite", "asyncpg", "psycopg"],
)
def test_statement_is_translated_for_the_driver(dialect: Dialect, expected: str, values: object) -> None:
    """Parameters, casts, locks and hints are in the form of the database and its driver. Each text is made once."""
    connection: Any = _Connection()
    translated = native(dialect, IntUser)
    statement = translated.statement(STATEMENT, connection)
    assert words(statement.text) == expected
    assert statement.bind(VALUES) == values
    assert translated.statement(STATEMENT, connection) is statement


@pytest.mark.anyio
async def test_engine_with_another_parameter_style_is_supported(tmp_path: Path) -> None:
    """An engine may use named parameters for its own statements. The library's statements use the driver's style."""
    async with engines("sqlite", tmp_path) as made:
        engine = made(paramstyle="named")
        await make(engine, IntUser)
        scoped = SQLAlchemyStore(engine, IntUser).scope("user")
        token = await add_token(scoped, await add_user(scoped))
        assert await scoped.tokens.consume("reset", token.token_hash, now=NOW) == token


@pytest.mark.parametrize("dialect", [SQLITE, ASYNCPG], ids=["sqlite", "postgresql"])
def test_statement_names_the_tables_of_the_model(dialect: Dialect) -> None:
    """The statement has prefix and schema, quoted where necessary. The name of a column or an index has no schema."""
    sql = """SELECT asgi_auth_tokens.seq
        FROM asgi_auth_tokens, asgi_auth_accounts a /* INDEXED BY asgi_auth_tokens_seq */
        WHERE purpose = $1 OR purpose = $2"""
    connection: Any = _Connection()
    hint, parameters = (' INDEXED BY "My-tokens_seq"', "??") if dialect is SQLITE else ("", ("$1", "$2"))
    assert words(native(dialect, Member, "My-").statement(sql, connection).text) == (
        f'SELECT "My-tokens".seq FROM "my crm"."My-tokens", "my crm"."My-accounts" a{hint} '
        f"WHERE purpose = {parameters[0]} OR purpose = {parameters[1]}"
    )


def test_statement_follows_the_schema_of_the_connection() -> None:
    """An application with a schema for each tenant sets it in the options of the connection."""
    translated = native(ASYNCPG, IntUser)
    for schemas, expected in (
        ({None: "tenant"}, "tenant.asgi_auth_tokens"),
        ({"other": "tenant"}, "asgi_auth_tokens"),
        (None, "asgi_auth_tokens"),
    ):
        connection: Any = _Connection(schema_translate_map=schemas)
        assert translated.statement("DELETE FROM asgi_auth_tokens", connection).text == f"DELETE FROM {expected}"


@pytest.mark.anyio
async def test_joined_session_of_a_tenant_uses_the_schema_of_the_tenant(tmp_path: Path) -> None:
    """In a joined transaction the store uses the schema of the connection, for users and for tokens."""
    async with engines("postgresql", tmp_path) as made:
        await make(made(), IntUser)
        async with made().begin() as connection:
            schema = f"{await connection.scalar(text('SELECT current_schema()'))}_tenant"
            await connection.execute(text(f"CREATE SCHEMA {schema}"))
        tenant = made().execution_options(schema_translate_map={None: schema})
        await make(tenant, IntUser)
        store = SQLAlchemyStore(made(), IntUser)
        scoped = store.scope("user")
        async with AsyncSession(tenant) as session, session.begin(), store.joined(session):
            alice = await add_user(scoped)
            token = await add_token(scoped, alice)
            found, secret_hash = await add_session(scoped, alice)
            assert await scoped.sessions.load(secret_hash, now=NOW) == (found, alice.user)
            assert await scoped.tokens.peek("reset", token.token_hash, now=NOW) == token
        assert await scoped.users.get(alice.account.user_id) is None
        assert await scoped.tokens.peek("reset", token.token_hash, now=NOW) is None
        async with made().begin() as connection:
            await connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))


# --- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_token_with_invalid_user_id_is_not_stored(engine: AsyncEngine, store: SQLAlchemyStore[IntUser]) -> None:
    """A text that is not an id of the model is never stored as NULL: the token would belong to no user."""
    scoped = store.scope("user")
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    record = TokenRecord(
        token_hash=b"h",
        purpose="reset",
        user_id="nobody",
        stamp=b"s",
        created_at=NOW,
        expires_at=NOW.replace(year=2031),
    )
    await scoped.tokens.insert(record)
    assert await scoped.tokens.retire("reset", "nobody") == 0
    assert statements == []
    assert await scoped.tokens.peek("reset", b"h", now=NOW) is None
