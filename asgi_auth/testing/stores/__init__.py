"""The suite for every store, and a suite for each capability that only some strategies and add-ons require."""

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
    """Tests of the contract of ``Store``, to inherit.

    The test file of a store subclasses this and defines two fixtures. ``store`` is an opened store on an empty database
    and is closed at the end. ``second`` is another instance, opened on the same database like a second worker. The
    pytest plugin of anyio runs the tests, on asyncio::

        class TestMyStore(StoreSuite):
            @pytest.fixture
            async def store(self, tmp_path):
                store = MyStore(tmp_path / "test.db")
                await store.open()
                yield store
                await store.close()

            second = store_fixture_of_the_same_path

    A store with invitations or counters adds their suites, with the same fixtures::

        class TestMyStore(StoreSuite, InvitationSuite, CounterSuite): ...

    If the users are in the application's own table, ``extra`` has fields that it has besides the address.
    """
