"""SQLAlchemyStore: the conformance suites with several models and databases."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from asgi_auth.stores.sqlalchemy import SQLAlchemyStore
from asgi_auth.testing import CounterSuite, InvitationSuite, StoreSuite
from tests.stores.engines import Engines, engines, make
from tests.stores.models import RENAMED, TRANSLATED, IntUser, TextUser, UuidUser


class OnEngines:
    """The fixtures of the suites."""

    dialect = "sqlite"
    model: ClassVar[Any] = IntUser
    fields: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    async def engines(self, tmp_path: Path) -> AsyncIterator[Engines]:
        """An empty database."""
        async with engines(self.dialect, tmp_path) as made:
            yield made

    @pytest.fixture
    async def store(self, engines: Engines) -> AsyncIterator[Any]:
        """An opened store, with the tables of an application beside it."""
        engine = engines()
        await make(engine, self.model)
        store = SQLAlchemyStore(engine, self.model, fields=self.fields)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def second(self, store: Any, engines: Engines) -> AsyncIterator[Any]:
        """A second store on the same database."""
        second = SQLAlchemyStore(engines(), self.model, fields=self.fields)
        await second.open()
        yield second
        await second.close()


class TestSQLite(OnEngines, StoreSuite, InvitationSuite, CounterSuite):
    """On SQLite, with integer ids."""


@pytest.mark.slow
class TestSQLiteUUID(OnEngines, StoreSuite):
    """With UUIDs and renamed columns. Invitations and counters do not depend on the model."""

    model = UuidUser
    fields = RENAMED


@pytest.mark.slow
class TestSQLiteText(OnEngines, StoreSuite):
    """With text ids and a translated value."""

    model = TextUser
    fields = TRANSLATED


@pytest.mark.slow
class TestPostgres(TestSQLite):
    """On PostgreSQL, with integer ids."""

    dialect = "postgresql"


class TestPostgresUUID(TestSQLiteUUID):
    """With UUIDs and renamed columns."""

    dialect = "postgresql"


class TestPostgresText(TestSQLiteText):
    """With text ids and a translated value."""

    dialect = "postgresql"
