"""The suite that every store passes, and one for each capability that only some strategies and add-ons need."""

import pytest

from asgi_auth.testing.stores.accounts import AccountTests
from asgi_auth.testing.stores.counters import CounterSuite
from asgi_auth.testing.stores.invitations import InvitationSuite
from asgi_auth.testing.stores.sessions import RevocationTests, SessionTests
from asgi_auth.testing.stores.tokens import TokenTests
from asgi_auth.testing.stores.transactions import TransactionTests
from asgi_auth.testing.stores.users import UserTests

__all__ = ["CounterSuite", "InvitationSuite", "StoreSuite"]


@pytest.mark.anyio
class StoreSuite(UserTests, AccountTests, SessionTests, RevocationTests, TokenTests, TransactionTests):
    """What a ``Store`` promises, as tests to inherit.

    A store's own test file subclasses this and defines two fixtures: ``store``, an opened store on an empty database
    that is closed in the end, and ``second``, another instance that is opened on the same database, as a second worker
    would be. Tests are run by the pytest plugin of anyio, on asyncio::

        class TestMyStore(StoreSuite):
            @pytest.fixture
            async def store(self, tmp_path):
                store = MyStore(tmp_path / "test.db")
                await store.open()
                yield store
                await store.close()

            second = store_fixture_of_the_same_path

    A store that has invitations or counters takes their suites along, with the same fixtures::

        class TestMyStore(StoreSuite, InvitationSuite, CounterSuite): ...

    Where the users are in a table of the application's own, ``extra`` names fields that it has beside the address.
    """
