"""What the tests of ``SQLAlchemyStore`` in an application share; the others have stores of their own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from asgi_auth.stores import SQLAlchemyStore
from tests.stores.engines import Engines, engines, make
from tests.stores.models import IntUser


@pytest.fixture(params=["sqlite", "postgresql"])
async def made(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engines]:
    """A database with the tables in it."""
    async with engines(request.param, tmp_path) as made:
        await make(made(), IntUser)
        yield made


@pytest.fixture
def engine(made: Engines) -> AsyncEngine:
    """The engine of the application."""
    return made()


@pytest.fixture
def store(engine: AsyncEngine) -> SQLAlchemyStore[IntUser]:
    """The store on it."""
    return SQLAlchemyStore(engine, IntUser)
