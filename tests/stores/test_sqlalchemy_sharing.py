"""SQLAlchemyStore with several mapped classes: the classes that may share the library's tables, and the others."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from asgi_auth.errors import ConfigurationError
from asgi_auth.stores.sqlalchemy import SQLAlchemyStore, make_tables
from asgi_auth.testing.stores.records import add_user
from asgi_auth.types import UserMixin
from tests.stores.engines import engines


def models() -> tuple[Any, Any]:
    """Two classes of one metadata, each with a table of its own."""

    class Base(DeclarativeBase):
        """The base of both classes."""

    class Customer(UserMixin, Base):
        __tablename__ = "customers"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str]

    class Staff(UserMixin, Base):
        __tablename__ = "staff"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str]

    return Customer, Staff


@pytest.fixture
def engine(tmp_path: Path) -> AsyncEngine:
    """An engine that keeps no connection."""
    return create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db", poolclass=NullPool)


REFUSED = (
    r"^SQLAlchemyStore: .*\.Staff cannot use asgi_auth_accounts and the other tables with this prefix, because they "
    r"belong to {owner}: call make_tables\(Staff, prefix=\"staff_auth_\"\) and give the result to the store as tables$"
)
CUSTOMER = REFUSED.format(owner=r".*\.Customer")


def test_second_class_cannot_use_the_tables_of_the_first(engine: AsyncEngine) -> None:
    """Without its own prefix a second class is rejected at start. It would lose accounts with users of the first."""
    customer, staff = models()
    tables = make_tables(customer)
    for make_second in (
        lambda: make_tables(staff),
        lambda: SQLAlchemyStore(engine, staff),
        lambda: SQLAlchemyStore(engine, staff, tables=tables),
    ):
        with pytest.raises(ConfigurationError, match=CUSTOMER):
            make_second()
    own = make_tables(staff, prefix="staff_auth_")
    with pytest.raises(ConfigurationError, match=r"\.Customer cannot use staff_auth_accounts .* belong to .*\.Staff:"):
        SQLAlchemyStore(engine, customer, tables=own)
    SQLAlchemyStore(engine, staff, tables=own)
    SQLAlchemyStore(engine, customer)


def test_tables_belong_to_the_class_of_the_first_store(engine: AsyncEngine) -> None:
    """The second class is rejected also if the first store, not the application, made the tables."""
    customer, staff = models()
    SQLAlchemyStore(engine, customer)
    with pytest.raises(ConfigurationError, match=CUSTOMER):
        SQLAlchemyStore(engine, staff)


def test_tables_of_an_unknown_class_are_rejected_with_the_table_of_users() -> None:
    """Tables that were read from a database do not name a class. The error names the table of the users."""
    customer, staff = models()
    make_tables(customer).accounts.info.clear()
    with pytest.raises(ConfigurationError, match=REFUSED.format(owner="the table customers")):
        make_tables(staff)


def test_stores_of_one_class_share_its_tables(engine: AsyncEngine) -> None:
    """One class may have several stores, for several kinds of user. ``make_tables`` returns the same tables again."""
    customer, _ = models()
    tables = make_tables(customer)
    for store in (SQLAlchemyStore(engine, customer), SQLAlchemyStore(engine, customer, tables=tables)):
        assert store._bound.tables == tables == make_tables(customer)


class Hierarchy(DeclarativeBase):
    """The base of classes that have their ids in one table, except ``Robot``."""


class Person(UserMixin, Hierarchy):
    """The root class."""

    __tablename__ = "people"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    kind: Mapped[str]


class Member(Person):
    """A class in the table of the root class."""

    __mapper_args__ = {"polymorphic_identity": "member"}  # noqa: RUF012


class Employee(Person):
    """A class with a table for more columns."""

    __tablename__ = "employees"
    __mapper_args__ = {"polymorphic_identity": "employee"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)


class Robot(Person):
    """A class with a complete table and ids of its own."""

    __tablename__ = "robots"
    __mapper_args__ = {"polymorphic_identity": "robot", "concrete": True}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    kind: Mapped[str]


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_classes_with_common_ids_share_tables(tmp_path: Path, dialect: str) -> None:
    """If a hierarchy has its ids in one table, each class is a kind of user. No kind sees or deletes another."""
    async with engines(dialect, tmp_path) as made:
        first, second = SQLAlchemyStore(made(), Employee, create_tables=True), SQLAlchemyStore(made(), Member)
        await first.open()
        await second.open()
        employees, members = first.scope("employee"), second.scope("member")
        employee, member = await add_user(employees), await add_user(members)
        assert await members.users.get(str(employee.user.id)) is None
        assert await employees.users.delete(str(employee.user.id))
        found = await members.users.get(str(member.user.id))
        assert found
        assert found.account == member.account
        with pytest.raises(ConfigurationError, match=r"\.Robot cannot use asgi_auth_accounts"):
            SQLAlchemyStore(made(), Robot)


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_tables_of_another_metadata_are_rejected_at_open(tmp_path: Path, dialect: str) -> None:
    """Two declarative bases cannot see each other. The database shows to which table of users the accounts belong."""
    (customer, _), (_, staff) = models(), models()
    async with engines(dialect, tmp_path) as made:
        await SQLAlchemyStore(made(), customer, create_tables=True).open()
        refused = SQLAlchemyStore(made(), staff, create_tables=True)
        for act in (refused.open, refused.migrate):
            with pytest.raises(ConfigurationError, match=REFUSED.format(owner="the table customers")):
                await act()
        own = make_tables(staff, prefix="staff_auth_")
        await SQLAlchemyStore(made(), staff, tables=own, create_tables=True).open()
        await SQLAlchemyStore(made(), customer).open()
