"""An application's own user model, for ``SQLAlchemyStore``."""

from uuid import UUID, uuid4

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from asgi_auth import UserMixin
from asgi_auth.stores.sqlalchemy import make_tables


class Base(DeclarativeBase):
    """The tables of this application."""


class Person(UserMixin, Base):
    """The user."""

    __tablename__ = "people"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    email: Mapped[str] = mapped_column(unique=True, index=True)


TABLES = make_tables(Person, prefix="people_")  # those of the library's own stores are in the same database
