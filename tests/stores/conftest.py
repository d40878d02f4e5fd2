"""Fixtures for tests of stores: the path of a file, the users of a store, the ``SQLAlchemyStore`` of an application,
and a PostgreSQL with another default isolation."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from asgi_auth.store import ScopedStore, Store
from asgi_auth.stores import SQLAlchemyStore
from tests.postgres import another_database
from tests.stores.engines import Engines, engines, make
from tests.stores.models import IntUser


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the database."""
    return tmp_path / "app.db"


@pytest.fixture
def scoped(store: Store[Any]) -> ScopedStore[Any]:
    """The users of the test's store."""
    return store.scope("user")


@pytest.fixture(params=["sqlite", "postgresql"])
async def made(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engines]:
    """A function that makes engines on a database that has the tables."""
    async with engines(request.param, tmp_path) as made:
        await make(made(), IntUser)
        yield made


@pytest.fixture
def engine(made: Engines) -> AsyncEngine:
    """The engine of the application."""
    return made()


@pytest.fixture
def store(engine: AsyncEngine) -> SQLAlchemyStore[IntUser]:
    """The store on that engine."""
    return SQLAlchemyStore(engine, IntUser)


@pytest.fixture(scope="module")
def serializable() -> Iterator[str]:
    """The address of a PostgreSQL database whose default isolation is SERIALIZABLE."""
    with another_database(default_transaction_isolation="serializable") as address:
        yield address
