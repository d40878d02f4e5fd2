"""``UserStore.replace`` with an application's model: the values of a new user come from the model's defaults."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Computed, FetchedValue, Identity, Sequence, Text, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from asgi_auth.errors import ValidationError
from asgi_auth.stores import SQLAlchemyStore
from asgi_auth.stores.sqlalchemy.model import Model
from asgi_auth.testing.stores.users import register
from asgi_auth.types import UserMixin
from tests.stores.engines import dialect_of, engines

pytestmark = pytest.mark.anyio


class Base(DeclarativeBase):
    """A base with metadata of its own."""


class Member(UserMixin, Base):
    """A model with every kind of default that a column may have."""

    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column()
    version: Mapped[int] = mapped_column()
    email: Mapped[str]
    nickname: Mapped[str | None]
    role: Mapped[str] = mapped_column(default="member")
    code: Mapped[str] = mapped_column(default=lambda: "made")
    joined: Mapped[datetime] = mapped_column(default=func.now())
    level: Mapped[int] = mapped_column(server_default="7")
    motto: Mapped[str] = mapped_column(server_default="it's new")
    plan: Mapped[str] = mapped_column(server_default=text("'free'"))
    shout: Mapped[str] = mapped_column(Text, Computed("upper(email)", persisted=True))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "member", "version_id_col": version}  # noqa: RUF012


class Strict(UserMixin, Base):
    """A model with two columns that a registration must fill."""

    __tablename__ = "stricts"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    full_name: Mapped[str] = mapped_column("fullName")
    town: Mapped[str]
    number: Mapped[int] = mapped_column(Sequence("numbers"))
    serial: Mapped[int] = mapped_column(Identity())
    triggered: Mapped[int] = mapped_column(server_default=FetchedValue())


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SQLAlchemyStore[Member]]:
    """A store of members on a new database."""
    async with engines(request.param, tmp_path) as made:
        async with made().begin() as connection:
            await connection.run_sync(lambda sync: Base.metadata.create_all(sync, tables=[_table(Member)]))
        made_store = SQLAlchemyStore(made(), Member)
        await made_store.migrate()
        yield made_store


async def test_replace_gives_every_column_its_default(store: SQLAlchemyStore[Member]) -> None:
    """AC-1: no value of a stranger is kept. The database and the mapper go on writing their own columns."""
    scoped = store.scope("user")
    new = await register(scoped, str(uuid4()), email="new@example.com")
    given: dict[str, Any] = {"role": "owner", "code": "x", "level": 9, "motto": "m", "plan": "gold", "nickname": "n"}
    old = await register(scoped, str(uuid4()), email="old@example.com", **given)
    email = {"email": "next@example.com"}
    replaced = await scoped.users.replace(old.account.user_id, email, email)

    assert replaced is not None
    names = ("kind", "role", "code", "level", "motto", "plan", "nickname")
    assert [getattr(replaced.user, name) for name in names] == [getattr(new.user, name) for name in names]
    assert [getattr(new.user, name) for name in names] == ["member", "member", "made", 7, "it's new", "free", None]
    assert (replaced.user.id, replaced.user.shout, replaced.user.version) == (old.user.id, "NEXT@EXAMPLE.COM", 2)
    assert abs((replaced.user.joined - new.user.joined).total_seconds()) < 3600


def test_initial_values_name_the_fields_that_a_registration_requires() -> None:
    """A missing value for a required column without a default is a problem of the form, under its logical name."""
    model = Model(Strict, {"name": "full_name"}, dialect_of("sqlite+aiosqlite"))
    with pytest.raises(ValidationError) as caught:
        model.initial({"email": "a@example.com"})
    assert caught.value.fields == {"name": "This field is required.", "town": "This field is required."}
    assert model.initial({"email": "a@example.com", "full_name": "Ann", "town": "Ayr"}) == {}


def _table(model: type[Any]) -> Any:
    return model.__table__
