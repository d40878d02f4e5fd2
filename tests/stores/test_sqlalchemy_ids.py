"""The ids of users: any type that returns integers, UUIDs or text, in any stored form."""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import BINARY, CHAR, BigInteger, Dialect, Integer, LargeBinary, String, TypeDecorator, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, orm_insert_sentinel
from sqlalchemy.types import TypeEngine, UserDefinedType

from asgi_auth.errors import ConfigurationError, ValidationError
from asgi_auth.stores import SQLAlchemyStore
from asgi_auth.stores.sqlalchemy import make_tables
from asgi_auth.stores.sqlalchemy.ids import IdType
from asgi_auth.stores.sqlalchemy.model import Model
from asgi_auth.testing.stores.records import NOW, add_session, add_token, add_user
from asgi_auth.types import UserMixin
from tests.stores.engines import dialect_of, engines, make


class Marked(TypeDecorator[str]):
    """Text that is stored with a prefix."""

    impl = String
    cache_ok = True
    python_type = str

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The stored form."""
        if value is not None and "!" in value:
            raise ValueError(value)
        return value if value is None else f"u-{value}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """The value of a stored form."""
        return value if value is None else value.removeprefix("u-")


class Negative(TypeDecorator[int]):
    """Numbers that are stored with the opposite sign."""

    impl = Integer
    cache_ok = True
    python_type = int

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """The stored form."""
        return value if value is None else -value

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:
        """The value of a stored form."""
        return value if value is None else -value


class Short(TypeDecorator[UUID]):
    """UUIDs that are stored as text without hyphens."""

    impl = String
    cache_ok = True
    python_type = UUID

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> str | None:
        """The stored form."""
        return value if value is None else value.hex

    def process_result_value(self, value: str | None, dialect: Dialect) -> UUID | None:
        """The value of a stored form."""
        return value if value is None else UUID(value)


class CharId(TypeDecorator[UUID]):
    """UUIDs in a type that declares text, as in fastapi-users."""

    impl = CHAR
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The UUID type, if the database has one."""
        return dialect.type_descriptor(Uuid() if dialect.name == "postgresql" else CHAR(36))

    def process_bind_param(self, value: UUID | str | None, dialect: Dialect) -> str | None:
        """The stored form, always as text."""
        return value if value is None else str(UUID(str(value)))

    def process_result_value(self, value: UUID | str | None, dialect: Dialect) -> UUID | None:
        """The value of a stored form."""
        return value if value is None or isinstance(value, UUID) else UUID(value)


class BinaryId(TypeDecorator[UUID]):
    """UUIDs, stored as bytes if the database has no UUID type, as in advanced-alchemy."""

    impl = BINARY(16)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The UUID type, if the database has one."""
        return dialect.type_descriptor(Uuid() if dialect.name == "postgresql" else BINARY(16))

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> Any:
        """The stored form."""
        return value if value is None else str(value) if dialect.name == "postgresql" else value.bytes

    def process_result_value(self, value: Any, dialect: Dialect) -> UUID | None:
        """The value of a stored form."""
        return value if value is None or isinstance(value, UUID) else UUID(bytes=value)


class Hashed(TypeDecorator[str]):
    """Text that is stored as a number."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> int | None:
        """The stored form."""
        return value if value is None else int(value.removeprefix("h"))

    def process_result_value(self, value: int | None, dialect: Dialect) -> str | None:
        """The value of a stored form."""
        return value if value is None else f"h{value}"


class Digits(TypeDecorator[int]):
    """Numbers that are stored as text."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        """The stored form."""
        return value if value is None else f"{value:d}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:
        """The value of a stored form."""
        return value if value is None else int(value)


class Slug(TypeDecorator[str]):
    """Text without conversion."""

    impl = String
    cache_ok = True


class Spelled(TypeDecorator[str]):
    """Text that is stored as a UUID."""

    impl = Uuid
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> UUID | None:
        """The stored form."""
        return value if value is None else UUID(value)

    def process_result_value(self, value: UUID | None, dialect: Dialect) -> str | None:
        """The value of a stored form."""
        return value if value is None else str(value)


class Prefixed(TypeDecorator[str]):
    """Text that must begin with a prefix. The samples of the library do not have it."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The stored form."""
        if value is not None and not value.startswith("usr_"):
            raise LookupError
        return value


class Flag(TypeDecorator[bool]):
    """Booleans that are stored as numbers."""

    impl = Integer
    cache_ok = True

    def process_result_value(self, value: int | None, dialect: Dialect) -> bool | None:
        """The value of a stored form."""
        return value if value is None else bool(value)


class Point(UserDefinedType[Any]):
    """A type that SQLAlchemy does not know and that declares no Python type."""

    cache_ok = True


class Base(DeclarativeBase):
    """The base class of the models in this file."""


class MarkedUser(UserMixin, Base):
    """Has text ids of the type ``Marked``."""

    __tablename__ = "marked"
    id: Mapped[str] = mapped_column(Marked, primary_key=True)
    email: Mapped[str]


class NegativeUser(UserMixin, Base):
    """Has numbers of the type ``Negative``."""

    __tablename__ = "negative"
    id: Mapped[int] = mapped_column(Negative, primary_key=True, default=lambda: 12)
    email: Mapped[str]


class TextualUser(UserMixin, Base):
    """Has UUIDs that the application sees as text."""

    __tablename__ = "textual"
    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    email: Mapped[str]


class CharUser(UserMixin, Base):
    """Has UUIDs that are stored as text."""

    __tablename__ = "chars"
    id: Mapped[UUID] = mapped_column(Uuid(native_uuid=False), primary_key=True)
    email: Mapped[str]


class ShortUser(UserMixin, Base):
    """Has UUIDs that are stored as text, with a type of the application."""

    __tablename__ = "short"
    id: Mapped[UUID] = mapped_column(Short, primary_key=True)
    email: Mapped[str]


class CharIdUser(UserMixin, Base):
    """Has ids as in fastapi-users."""

    __tablename__ = "char_ids"
    id: Mapped[UUID] = mapped_column(CharId, primary_key=True, default=uuid4)
    email: Mapped[str]


class BinaryIdUser(UserMixin, Base):
    """Has ids and a sentinel column of SQLAlchemy, as in advanced-alchemy."""

    __tablename__ = "binary_ids"
    id: Mapped[UUID] = mapped_column(BinaryId, primary_key=True, default=uuid4)
    email: Mapped[str]
    _sentinel: Mapped[int] = orm_insert_sentinel(name="sa_orm_sentinel")


class HashedUser(UserMixin, Base):
    """Has text that is stored as a number."""

    __tablename__ = "hashed"
    id: Mapped[str] = mapped_column(Hashed, primary_key=True, default=lambda: "h7")
    email: Mapped[str]


class DigitsUser(UserMixin, Base):
    """Has numbers that are stored as text."""

    __tablename__ = "digits"
    id: Mapped[int] = mapped_column(Digits, primary_key=True, default=lambda: 2**40)
    email: Mapped[str]


class SlugUser(UserMixin, Base):
    """Has text of a type without conversion."""

    __tablename__ = "slugs"
    id: Mapped[str] = mapped_column(Slug(40), primary_key=True, default=lambda: f"usr_{uuid4().hex}")
    email: Mapped[str]


class SpelledUser(UserMixin, Base):
    """Has text that is stored as a UUID."""

    __tablename__ = "spelled"
    id: Mapped[str] = mapped_column(Spelled, primary_key=True)
    email: Mapped[str]


class PrefixedUser(UserMixin, Base):
    """Has text that begins with a prefix."""

    __tablename__ = "prefixed"
    id: Mapped[str] = mapped_column(Prefixed, primary_key=True, default=lambda: f"usr_{uuid4().hex}")
    email: Mapped[str]


MODELS = (MarkedUser, NegativeUser, TextualUser, CharUser, ShortUser, CharIdUser, BinaryIdUser, HashedUser, DigitsUser)
MORE_MODELS = (SlugUser, SpelledUser, PrefixedUser)
TABLES = {model: make_tables(model, prefix=f"{model.__tablename__}_") for model in (*MODELS, *MORE_MODELS)}


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
async def test_id_of_any_type_finds_its_user(tmp_path: Path, dialect: str, model: Any) -> None:
    """Account, sessions and tokens of a user are found by the id as text, in any stored form."""
    async with engines(dialect, tmp_path) as made:
        engine = made()
        await make(engine, Base)
        scoped = SQLAlchemyStore(engine, model, tables=TABLES[model]).scope("user")
        alice = await add_user(scoped)
        user_id = alice.account.user_id
        assert str(alice.user.id) == user_id
        assert scoped.users.values(alice.user) == {"email": "alice@example.com"}
        session, secret_hash = await add_session(scoped, alice)
        token = await add_token(scoped, alice)
        loaded = await scoped.sessions.load(secret_hash, now=NOW)
        assert loaded
        assert (loaded.session, loaded.user.id) == (session, alice.user.id)
        assert await scoped.sessions.list(user_id, now=NOW) == [session]
        assert await scoped.tokens.latest("reset", user_id, now=NOW) == token
        assert await scoped.accounts.update(user_id, {"stamp": alice.account.stamp}) == alice.account
        assert await scoped.sessions.revoke(session.id, user_id=user_id, now=NOW)
        assert await scoped.users.delete(user_id)
        assert await scoped.tokens.peek("reset", token.token_hash, now=NOW) is None


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_rejected_id_is_not_quoted(tmp_path: Path, dialect: str) -> None:
    """SE-13: an id that its type rejects is a ValidationError, not a failure of the database, and is not quoted."""
    async with engines(dialect, tmp_path) as made:
        engine = made()
        await make(engine, Base)
        scoped = SQLAlchemyStore(engine, MarkedUser, tables=TABLES[MarkedUser]).scope("user")
        for call in (scoped.sessions.list("hunter2!", now=NOW), scoped.users.get("hunter2!")):
            with pytest.raises(ValidationError, match="a value cannot be stored") as error:
                await call
            assert (error.value.__cause__, error.value.__context__) == (None, None)


@pytest.mark.parametrize("dialect", ["sqlite+aiosqlite", "postgresql+asyncpg"])
@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        (Integer(), int),
        (Uuid(), UUID),
        (Uuid(as_uuid=False), str),
        (BigInteger().with_variant(Integer(), "sqlite"), int),
        (Marked(), str),
        (Negative(), int),
        (Short(), UUID),
        (CharId(), UUID),
        (BinaryId(), UUID),
        (Hashed(), str),
        (Digits(), int),
        (Slug(), str),
        (Spelled(), str),
        (Prefixed(), str),
        (Flag(), None),
        (Point(), None),
        (LargeBinary(), None),
    ],
    ids=repr,
)
def test_kind_of_an_id_is_the_converted_type(declared: TypeEngine[Any], kind: object, dialect: str) -> None:
    """The kind of an id is the type that the application gets, not the base or the declaration of the column type."""
    assert IdType(declared, dialect_of(dialect)).kind is kind


@pytest.mark.parametrize(
    ("model", "text", "key"),
    [
        (DigitsUser, str(2**40), 2**40),
        (DigitsUser, str(2**63), None),
        (SpelledUser, "6e8bc430-9c3a-11d9-9669-0800200c9a66", "6e8bc430-9c3a-11d9-9669-0800200c9a66"),
        (SpelledUser, "6E8BC430-9C3A-11D9-9669-0800200C9A66", None),
        (CharIdUser, "nobody", None),
        (HashedUser, "h7", "h7"),
    ],
)
def test_decorated_id_has_one_spelling(model: Any, text: str, key: object) -> None:
    """RP-8: an id is found only in the spelling that the store returned as ``user_id``."""
    assert Model(model, {}, dialect_of("postgresql+asyncpg")).to_id(text) == key


def test_id_without_a_default_is_rejected() -> None:
    """A type that rejects the UUIDs of the library needs a default. Without one, the start fails."""

    class Bare(UserMixin, Base):
        __tablename__ = "bare"
        id: Mapped[str] = mapped_column(Prefixed, primary_key=True)
        email: Mapped[str]

    with pytest.raises(
        ConfigurationError, match=r"^SQLAlchemyStore: Bare\.id needs a default, because its type does not"
    ):
        Model(Bare, {}, dialect_of("sqlite+aiosqlite"))
