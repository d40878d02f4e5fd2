"""The interface of a database for the SQL statements."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from asgi_auth.errors import StoreUnavailableError
from asgi_auth.stores.columns import Row
from asgi_auth.stores.rows import Rows


class ConflictError(StoreUnavailableError):
    """A statement would have broken a constraint. ``reason`` names the constraint or its columns, never a value."""


class Executor(Protocol):
    """A database that runs statements and returns rows."""

    @property
    def rows(self) -> Rows:
        """How values are stored in rows."""
        ...

    @property
    def connection(self) -> Any:
        """The driver's connection inside a transaction."""
        ...

    async def read(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        """The rows of a query. Raises StoreUnavailableError if the database does not answer."""
        ...

    async def write(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        """The rows that a change returns; commits by itself unless this is a transaction.

        Raises:
            ConflictError: the change breaks a constraint.
            StoreUnavailableError: the database does not answer.
        """
        ...

    def transaction(self) -> AbstractAsyncContextManager["Executor"]:
        """A new transaction; inside one, the same."""
        ...
