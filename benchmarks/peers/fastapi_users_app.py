"""fastapi-users with its SQLAlchemy adapter, set up as in its documentation.

This module does not use ``from __future__ import annotations``: FastAPI reads the annotations of nested functions.
"""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import PlainTextResponse
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, CookieTransport, JWTStrategy
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users.schemas import BaseUserCreate
from fastapi_users_db_sqlalchemy import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users_db_sqlalchemy.access_token import SQLAlchemyAccessTokenDatabase, SQLAlchemyBaseAccessTokenTableUUID
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase

from benchmarks.middleware import EMAIL, PASSWORD, SECRET
from benchmarks.peers.engine import engine_on
from benchmarks.peers.peer import Database, Peer

LIFETIME = 3600


class Base(DeclarativeBase):
    """The tables of this application."""


class Member(SQLAlchemyBaseUserTableUUID, Base):
    """The user."""


class AccessToken(SQLAlchemyBaseAccessTokenTableUUID, Base):
    """The token of the database strategy."""


class Manager(UUIDIDMixin, BaseUserManager[Member, uuid.UUID]):
    """The manager of the documentation, without mail."""

    reset_password_token_secret = SECRET
    verification_token_secret = SECRET


def backends(session: Any) -> tuple[Any, Any]:
    """A JWT in a header, and a token of the database in a cookie."""

    def jwt_strategy() -> Any:
        return JWTStrategy(secret=SECRET, lifetime_seconds=LIFETIME)

    async def token_database(session: AsyncSession = Depends(session)) -> Any:
        yield SQLAlchemyAccessTokenDatabase(session, AccessToken)

    def database_strategy(tokens: Any = Depends(token_database)) -> Any:
        return DatabaseStrategy(tokens, lifetime_seconds=LIFETIME)

    return (
        AuthenticationBackend("jwt", BearerTransport(tokenUrl="auth/jwt/login"), jwt_strategy),
        AuthenticationBackend("database", CookieTransport(cookie_max_age=LIFETIME), database_strategy),
    )


def application(sessions: Any, *, number: int) -> Any:
    """The application of one strategy: an application with both would try each credential with both."""

    async def session() -> Any:
        async with sessions() as opened:
            yield opened

    async def users(session: AsyncSession = Depends(session)) -> Any:
        yield SQLAlchemyUserDatabase(session, Member)

    async def manager(users: Any = Depends(users)) -> Any:
        yield Manager(users)

    backend = backends(session)[number]
    fastapi_users = FastAPIUsers[Member, uuid.UUID](manager, [backend])
    app = FastAPI(openapi_url=None)
    current = fastapi_users.current_user(active=True)

    @app.get("/me", response_class=PlainTextResponse)
    async def me(user: Any = Depends(current)) -> str:
        return "pong" if user.email == EMAIL else ""

    @app.get("/ping", response_class=PlainTextResponse)
    async def ping() -> str:
        return "pong"

    app.include_router(fastapi_users.get_auth_router(backend), prefix="/auth")
    return app


def bare() -> FastAPI:
    """The same route without authentication."""
    router = APIRouter()

    @router.get("/me", response_class=PlainTextResponse)
    async def me() -> str:
        return "pong"

    app = FastAPI(openapi_url=None)
    app.include_router(router)
    return app


async def credentials(sessions: Any) -> tuple[str, str]:
    """A token of each strategy for the user; the first call creates the user."""
    async with sessions() as session:
        manager = Manager(SQLAlchemyUserDatabase(session, Member))
        user = await manager.user_db.get_by_email(EMAIL)
        if user is None:
            user = await manager.create(BaseUserCreate(email=EMAIL, password=PASSWORD))
        strategy = DatabaseStrategy(SQLAlchemyAccessTokenDatabase(session, AccessToken), lifetime_seconds=LIFETIME)
        jwt = await JWTStrategy(secret=SECRET, lifetime_seconds=LIFETIME).write_token(user)
        return jwt, await strategy.write_token(user)


@asynccontextmanager
async def build(database: Database) -> AsyncIterator[Mapping[str, Peer]]:
    """Both strategies on one engine."""
    async with engine_on(database) as engine:
        sessions, without = async_sessionmaker(engine, expire_on_commit=False), bare()
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        jwt, token = await credentials(sessions)
        with_jwt, with_database = (application(sessions, number=number) for number in range(2))
        yield {
            "fastapi-users JWT, bearer": Peer(with_jwt, without, ("authorization", f"Bearer {jwt}")),
            "fastapi-users database, cookie": Peer(with_database, without, ("cookie", f"fastapiusersauth={token}")),
        }
