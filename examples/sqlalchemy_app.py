"""Users in the application's own table: SQLAlchemy, FastAPI, a profile that is created together with the user.

From the root of the repository:

    AUTH_SECRET=$(python -m asgi_auth secret) uvicorn --app-dir examples sqlalchemy_app:app

    curl localhost:8000/auth/password/register -H 'Accept: application/json' -d email=you@mail.example.org \
        -d full_name=You -d password='violet harbour pendulum' -d password_confirmation='violet harbour pendulum'

    curl localhost:8000/me -H 'Authorization: Bearer ...'

Everything is kept in shop.db in the current directory.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from asgi_auth import Authentication, AuthPlug, BearerUserMiddleware, Hook, UserMixin, require
from asgi_auth.stores import SQLAlchemyStore
from asgi_auth.strategies import Password


class Base(DeclarativeBase):
    """The application's tables, and by ``SQLAlchemyStore`` the library's."""


class Customer(UserMixin, Base):
    """A user who can sign in."""

    __tablename__ = "customers"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    login_mail: Mapped[str]
    full_name: Mapped[str | None]
    profile: Mapped["Profile"] = relationship(cascade="all, delete-orphan")


class Profile(Base):
    """The shop's data about a customer."""

    __tablename__ = "profiles"
    customer_id: Mapped[UUID] = mapped_column(ForeignKey("customers.id"), primary_key=True)
    points: Mapped[int] = mapped_column(default=0)


class Welcome(Hook):
    """Creates the profile in the same transaction as the customer."""

    name = "welcome"

    async def within(self, event: Any, work: Any) -> None:
        """``work.connection`` is an ``AsyncSession`` in the transaction of the act."""
        if event.name == "user.created":
            work.connection.add(Profile(customer_id=event.user.id, points=100))


engine = create_async_engine("sqlite+aiosqlite:///shop.db")
store = SQLAlchemyStore(
    async_sessionmaker(engine),
    Customer,
    fields={"email": "login_mail"},
    options=[selectinload(Customer.profile)],
    create_tables=True,  # or Alembic
)
auth = Authentication(
    store=store,
    secret=os.environ["AUTH_SECRET"],
    base_url="http://localhost:8000",
    strategies=[Password(register_fields=["full_name"])],
    add_ons=[Welcome()],
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Serve, then close the engine's connections."""
    async with auth.lifespan(app):
        yield
    await engine.dispose()


app = FastAPI(title="Shop", lifespan=lifespan)
app.add_middleware(BearerUserMiddleware, auth=auth)
app.mount("/auth", AuthPlug(auth))


@app.get("/me")
async def me(customer: Annotated[Customer, Depends(require())]) -> dict[str, Any]:
    """``user`` is an object of the application's own class."""
    return {"email": customer.login_mail, "name": customer.full_name, "points": customer.profile.points}
