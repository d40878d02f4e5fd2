"""Models of applications. Each has its own kind of ids and its own names."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Uuid, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from asgi_auth.stores.sqlalchemy import make_tables
from asgi_auth.types import UserMixin


class ByValue(UserMixin):
    """Objects of the same row are equal, for tests that compare two reads."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self.identity)

    def _values(self) -> dict[str, Any]:
        return {attribute.key: getattr(self, attribute.key) for attribute in inspect(type(self)).column_attrs}


class IntBase(DeclarativeBase):
    """Models with integer ids, which the database generates."""


class IntUser(ByValue, IntBase):
    """A user whose attributes have the library's names."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str | None]
    username: Mapped[str | None]
    name: Mapped[str | None]
    age: Mapped[int | None]
    notes: Mapped[list["Note"]] = relationship(cascade="all, delete-orphan")


class Note(IntBase):
    """A row of the application. Its foreign key would prevent the deletion of its user."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    text: Mapped[str]


class UuidBase(DeclarativeBase):
    """Models with UUIDs, which the library proposes."""


class UuidUser(ByValue, UuidBase):
    """A user with other names for its attributes, and again other names for its columns."""

    __tablename__ = "members"
    member_id: Mapped[UUID] = mapped_column("pk", Uuid, primary_key=True)
    login_mail: Mapped[str | None] = mapped_column("mail")
    full_name: Mapped[str | None] = mapped_column("fullName")
    age: Mapped[int | None]

    @property
    def id(self) -> UUID:
        """The attribute that ``UserMixin`` requires."""
        return self.member_id


class TextBase(DeclarativeBase):
    """Models with text ids, which the library proposes."""


class TextUser(ByValue, TextBase):
    """A user whose age is stored as text: a value that must be translated."""

    __tablename__ = "people"
    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str]
    name: Mapped[str | None]
    years: Mapped[str | None]


RENAMED: dict[str, Any] = {"email": "login_mail", "name": "full_name"}
TRANSLATED: dict[str, Any] = {
    "age": (lambda user: user.years and int(user.years), lambda age: {"years": None if age is None else str(age)})
}

for model in (IntUser, UuidUser, TextUser):
    make_tables(model)
