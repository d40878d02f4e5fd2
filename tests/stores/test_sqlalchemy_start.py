"""SQLAlchemyStore at start: the models and engines that it rejects, its tables, and the package without SQLAlchemy."""

import sqlite3
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import (
    Dialect,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    TypeDecorator,
    Uuid,
    text,
)
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship
from sqlalchemy.pool import NullPool

from asgi_auth import stores
from asgi_auth.doctor import examine
from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.stores import SQLAlchemyStore
from asgi_auth.stores.sqlalchemy import make_tables
from asgi_auth.stores.sqlalchemy.model import Model
from asgi_auth.strategies import Password
from asgi_auth.testing.stores.records import NOW, add_user, together
from asgi_auth.types import UserMixin
from tests.stores.engines import dialect_of, engines, make
from tests.stores.models import RENAMED, IntUser, TextUser, UuidUser
from tests.support import make_auth


class Base(DeclarativeBase):
    """The base of the models of this file."""


class Nobody(UserMixin, Base):
    """A user without an identity: the address is an expression, which the store cannot write."""

    __tablename__ = "nobodies"
    id: Mapped[int] = mapped_column(primary_key=True)
    local: Mapped[str] = mapped_column()
    email = column_property(local + "@example.com")


class Pair(UserMixin, Base):
    """A user with two ids."""

    __tablename__ = "pairs"
    a: Mapped[int] = mapped_column(primary_key=True)
    b: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


class Plain(Base):
    """A model that does not derive from ``UserMixin``."""

    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


class Blob(UserMixin, Base):
    """A user with an id that has no text form."""

    __tablename__ = "blobs"
    id: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    email: Mapped[str]


class Opaque(TypeDecorator[Path]):
    """A type whose values are neither numbers nor UUIDs nor text. The database stores them as text."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Path | None, dialect: Dialect) -> str | None:
        """The stored form."""
        return value if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Path | None:
        """The value for a stored form."""
        return value if value is None else Path(value)


class Strange(UserMixin, Base):
    """A user with an id of the type ``Opaque``."""

    __tablename__ = "strange"
    id: Mapped[str] = mapped_column(Opaque, primary_key=True)
    email: Mapped[str]


class Apart(DeclarativeBase):
    """The base of ``Bare``, which has tables of its own."""


class Bare(UserMixin, Apart):
    """A user with a user name and no other field."""

    __tablename__ = "bare"
    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str]


make_tables(Bare)


def engine(directory: Path) -> AsyncEngine:
    """An engine that keeps no connection."""
    return create_async_engine(f"sqlite+aiosqlite:///{directory}/app.db", poolclass=NullPool)


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (object, {}, "<class 'object'> is not a mapped class"),
        (Nobody, {}, 'Nobody has neither email nor username: name the column, as in fields={"email": "login_mail"}'),
        (Nobody, {"email": "login"}, r"fields: Nobody has no column 'login' \('email'\)"),
        (Pair, {}, "the primary key of Pair must be one column"),
        (Plain, {}, r"Plain has no is_authenticated: derive it from asgi_auth\.UserMixin"),
        (Blob, {}, r"Blob\.id is LargeBinary\(\): ids are integers, UUIDs or text"),
        (Strange, {}, r"Strange\.id is Opaque\(\): ids are integers, UUIDs or text"),
    ],
)
def test_incomplete_model_is_rejected(tmp_path: Path, model: Any, fields: Any, message: str) -> None:
    """The constructor of the store rejects the model. The error names the missing part, in the model's names."""
    with pytest.raises(ConfigurationError, match=f"^SQLAlchemyStore: {message}$"):
        SQLAlchemyStore(engine(tmp_path), model, fields=fields)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (TextUser, {"register_fields": ["name", "age"]}, "the store does not keep 'age'; it keeps: name, years"),
        (Bare, {"register_fields": ["name"]}, "the store does not keep 'name'; it keeps: no extra field"),
        (Bare, {"register_fields": ["email"]}, "the store cannot find users by 'email'"),
    ],
)
def test_field_that_the_model_lacks_cannot_be_registered(
    tmp_path: Path, model: Any, options: dict[str, Any], message: str
) -> None:
    """The name is rejected at start. The error lists the names that the store keeps."""
    store = SQLAlchemyStore(engine(tmp_path), model)
    by: Any = "email" if model is TextUser else "username"
    with pytest.raises(ConfigurationError, match=f"^register_fields: {message}$"):
        make_auth(tmp_path, store=store, strategies=[Password(identity_field=by, **options)])


def test_field_that_the_model_has_can_be_registered(tmp_path: Path) -> None:
    """``register_fields`` contains its logical name: the name of the attribute, or the name in ``fields``."""
    store = SQLAlchemyStore(engine(tmp_path), UuidUser, fields=RENAMED)
    make_auth(tmp_path, store=store, strategies=[Password(register_fields=["name", "age"])])


def test_model_that_cannot_be_mapped_is_rejected(tmp_path: Path) -> None:
    """The constructor of the store reports the error that SQLAlchemy finds in the model."""

    class Own(DeclarativeBase):
        pass

    class Lonely(UserMixin, Own):
        __tablename__ = "lonely"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str]
        friend: Mapped[Any] = relationship("Friend")

    with pytest.raises(ConfigurationError, match="'Friend'"):
        SQLAlchemyStore(engine(tmp_path), Lonely)


def test_unsupported_bind_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store requires an engine that can have several connections, to SQLite or PostgreSQL."""
    for bind in (async_sessionmaker(), cast("Any", "sqlite://")):
        with pytest.raises(ConfigurationError, match="an AsyncEngine, or an async_sessionmaker bound to one"):
            SQLAlchemyStore(bind, IntUser)
    with pytest.raises(ConfigurationError, match="in memory"):
        SQLAlchemyStore(create_async_engine("sqlite+aiosqlite://"), IntUser)
    other = engine(tmp_path)
    monkeypatch.setattr(other.dialect, "name", "mysql")
    with pytest.raises(ConfigurationError, match="mysql is not supported: SQLite and PostgreSQL are"):
        SQLAlchemyStore(other, IntUser)


@pytest.mark.parametrize("name", ["sslmode", "channel_binding", "connect_timeout"])
def test_engine_with_a_parameter_that_asyncpg_rejects_is_rejected(name: str) -> None:
    """The parameter would be a TypeError at every connection. Parameters of asyncpg and SQLAlchemy are accepted."""
    taken = "ssl=require&timeout=5&prepared_statement_cache_size=0"
    engine = create_async_engine(f"postgresql+asyncpg://db.example.com/app?{taken}")
    SQLAlchemyStore(engine, IntUser)
    with pytest.raises(ConfigurationError, match=f"has {name}, which asyncpg.connect does not take") as error:
        SQLAlchemyStore(create_async_engine(f"{engine.url}&{name}=hunter2"), IntUser)
    assert "hunter2" not in str(error.value)


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_missing_tables_are_named(tmp_path: Path, dialect: str) -> None:
    """Opening makes no table. ``migrate`` makes the library's tables, once, beside the tables of the application."""
    async with engines(dialect, tmp_path) as made:
        store = SQLAlchemyStore(made(), IntUser)
        with pytest.raises(ConfigurationError, match=r"has no asgi_auth_accounts, .*, users: .*asgi_auth migrate"):
            await store.open()
        with pytest.raises(ConfigurationError, match="make the application's own tables first: users"):
            await store.migrate()
        async with made().begin() as connection:
            await connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, username TEXT)"))
        with pytest.raises(ConfigurationError, match=r"asgi_auth_tokens, users\.age, users\.name: "):
            await store.open()
        async with made().begin() as connection:
            for column in ("name TEXT", "age INTEGER"):
                await connection.execute(text(f"ALTER TABLE users ADD {column}"))
        assert await store.migrate() == (0, 3)
        assert await store.migrate() == (3, 3)
        await store.open()


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("made_by", ["migrate", "create_tables"])
async def test_older_tables_are_updated_to_the_newest(tmp_path: Path, dialect: str, version: int, made_by: str) -> None:
    """Opening names the newer tables and columns. ``migrate`` or ``create_tables`` adds them and keeps every row."""
    async with engines(dialect, tmp_path) as made:
        older = SQLAlchemyStore(made(), IntUser, create_tables=True)
        await older.open()
        alice = await add_user(older.scope("user"))
        async with made().begin() as connection:
            await connection.execute(text("ALTER TABLE asgi_auth_accounts DROP COLUMN proven_email"))
            for table in ("invitations", "counters") if version == 1 else ():
                await connection.execute(text(f"DROP TABLE asgi_auth_{table}"))
        with pytest.raises(ConfigurationError, match=r"has no asgi_auth_accounts\.proven_email.*: run "):
            await SQLAlchemyStore(made(), IntUser).open()
        newer = SQLAlchemyStore(made(), IntUser, create_tables=made_by == "create_tables")
        if made_by == "migrate":
            assert [await newer.migrate(), await newer.migrate()] == [(version, 3), (3, 3)]
        await newer.open()
        found = await newer.scope("user").users.get(alice.account.user_id)
        assert found is not None
        assert found.account == alice.account


@pytest.mark.anyio
@pytest.mark.parametrize("made_by", ["migrate", "create_tables"])
async def test_missing_indexes_are_named(tmp_path: Path, made_by: str) -> None:
    """Statements for SQLite name indexes. A database without one is rejected at open, not at the first request."""
    async with engines("sqlite", tmp_path) as made:
        await make(made(), IntUser)
        async with made().begin() as connection:
            await connection.execute(text("DROP INDEX asgi_auth_sessions_user_id"))
        with pytest.raises(ConfigurationError, match="the database has no asgi_auth_sessions_user_id: run "):
            await SQLAlchemyStore(made(), IntUser).open()
        store = SQLAlchemyStore(made(), IntUser, create_tables=made_by == "create_tables")
        if made_by == "migrate":
            assert await store.migrate() == (3, 3)
        await store.open()
        assert await store.scope("user").sessions.list("1", now=NOW) == []


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_create_tables_makes_the_tables(tmp_path: Path, dialect: str) -> None:
    """With ``create_tables`` several workers can start at once on an empty database. Each finds every table."""
    async with engines(dialect, tmp_path) as made:
        workers = [SQLAlchemyStore(made(), IntUser, create_tables=True) for _ in range(3)]
        assert await together(store.open() for store in workers) == [None] * 3
        await add_user(workers[0].scope("user"))


def test_tables_are_in_the_metadata_of_the_model() -> None:
    """The metadata for Alembic contains the library's tables, which refer to the user by an id of the native type."""
    for model, users, type_ in ((IntUser, "users.id", Integer), (UuidUser, "members.pk", Uuid)):
        tables = cast("Any", model).metadata.tables
        names = ("accounts", "sessions", "tokens", "invitations", "counters")
        assert {f"asgi_auth_{name}" for name in names} <= tables.keys()
        column = tables["asgi_auth_accounts"].c.user_id
        assert isinstance(column.type, type_)
        assert [(key.target_fullname, key.ondelete) for key in column.foreign_keys] == [(users, "CASCADE")]
    assert make_tables(IntUser).accounts is IntUser.metadata.tables["asgi_auth_accounts"]


def test_tables_follow_prefix_and_schema() -> None:
    """Two models in one database have separate tables, each in the schema of its model."""

    class Elsewhere(DeclarativeBase):
        metadata = MetaData(schema="crm")

    class Admin(UserMixin, Elsewhere):
        __tablename__ = "admins"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str]

    tables = make_tables(Admin, prefix="admin_auth_")
    assert (tables.accounts.fullname, tables.tokens.fullname) == ("crm.admin_auth_accounts", "crm.admin_auth_tokens")
    assert make_tables(Admin, prefix="admin_auth_") == tables


@pytest.mark.parametrize(
    ("model", "text", "key"),
    [
        (IntUser, "7", 7),
        (IntUser, "-7", -7),
        (IntUser, "07", None),
        (IntUser, " 7", None),
        (IntUser, "٧", None),
        (IntUser, "7" * 5000, None),
        (IntUser, "2147483647", 2147483647),
        (IntUser, "2147483648", None),
        (UuidUser, "6E8BC430-9C3A-11D9-9669-0800200C9A66", None),
        (TextUser, "7", "7"),
        (TextUser, "7\0", None),
    ],
)
def test_id_has_one_spelling(model: Any, text: str, key: object) -> None:
    """RP-8: a text is an id only in the spelling that ``user_id`` has."""
    names = {"email": "login_mail"} if model is UuidUser else {}
    assert Model(model, names, dialect_of("postgresql+asyncpg")).to_id(text) == key


def test_id_is_as_wide_as_its_type() -> None:
    """SQLite stores 64 bits for every integer type. A UUID may be stored as text."""

    class Small(UserMixin, Base):
        __tablename__ = "small"
        id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
        email: Mapped[str]

    class Textual(UserMixin, Base):
        __tablename__ = "textual"
        id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
        email: Mapped[str]

    assert Model(IntUser, {}, dialect_of("sqlite+aiosqlite")).to_id("2147483648") == 2147483648
    assert [Model(Small, {}, dialect_of("postgresql+asyncpg")).to_id(number) for number in ("32767", "32768")] == [
        32767,
        None,
    ]
    user_id = "6e8bc430-9c3a-11d9-9669-0800200c9a66"
    assert [Model(Textual, {}, dialect_of("postgresql+asyncpg")).to_id(each) for each in (user_id, "nobody")] == [
        user_id,
        None,
    ]


def test_sqlalchemy_without_its_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SQLAlchemy the package works. The error for the missing store names the command that installs it."""
    for name in [name for name in sys.modules if name.startswith("asgi_auth.stores.sqlalchemy")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(stores, "sqlalchemy", raising=False)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(
        ConfigurationError, match=r"SQLAlchemyStore needs sqlalchemy: pip install 'asgi-auth\[sqlalchemy\]'"
    ):
        _ = stores.SQLAlchemyStore


# --- the making of files and tables -----------------------------------------------------------------------------------


def names(directory: Path) -> list[str]:
    """The names of the files in a directory."""
    return [path.name for path in directory.iterdir()]


@pytest.mark.anyio
@pytest.mark.parametrize("create_tables", [False, True])
async def test_inspection_makes_no_missing_file(tmp_path: Path, create_tables: bool) -> None:
    """``versions``, pruning and the doctor make no file, even if a start would make the tables."""
    async with engines("sqlite", tmp_path) as made:
        store = SQLAlchemyStore(made(), IntUser, create_tables=create_tables)
        assert await store.versions() == (0, 3)
        auth = make_auth(tmp_path, store=store)
        with pytest.raises(ConfigurationError, match="lacks tables of the library" if create_tables else "has no asgi"):
            await auth.prune()
        told = [finding for finding in await examine(auth) if finding.parameter == "store"]
    assert [finding.unsafe for finding in told] == [not create_tables]
    assert names(tmp_path) == []


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_reopening_makes_no_tables(tmp_path: Path, dialect: str) -> None:
    """If a database has lost tables, the store makes no new tables while the application runs."""
    async with engines(dialect, tmp_path) as made:
        store = SQLAlchemyStore(made(), IntUser, create_tables=True)
        await store.open()
        assert await store.versions() == (3, 3)
        await store.close()
        async with made().begin() as connection:
            await connection.execute(text("DROP TABLE asgi_auth_tokens"))
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="the database has lost asgi_auth_tokens"):
                await store.open()


@pytest.mark.anyio
async def test_engine_can_write_after_a_read_only_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-6: the application's pool does not keep a connection that can never write again."""
    connect: Any = sqlite3.connect
    async with engines("sqlite", tmp_path) as made:
        await make(made(), IntUser)
        scoped = SQLAlchemyStore(made(), IntUser).scope("user")
        monkeypatch.setattr(
            sqlite3, "connect", lambda name, **options: connect(f"file:{name}?mode=ro", uri=True, **options)
        )
        with pytest.raises(StoreUnavailableError, match="sqlalchemy: OperationalError: SQLITE_READONLY"):
            await add_user(scoped)
        monkeypatch.undo()
        await add_user(scoped)


@pytest.mark.anyio
async def test_tables_of_a_later_release_are_accepted(tmp_path: Path) -> None:
    """The tables of an own model have no version. A worker of an earlier release starts, as docs/own_models.md says."""
    async with engines("sqlite", tmp_path) as made:
        await make(made(), IntUser)
        async with made().begin() as connection:
            await connection.execute(text("ALTER TABLE asgi_auth_accounts ADD COLUMN of_tomorrow INTEGER"))
        store = SQLAlchemyStore(made(), IntUser)
        await store.open()
        await add_user(store.scope("user"))
