"""``Executor`` of the shared statements over the application's connection."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy.engine import Connection

from asgi_auth.stores.columns import Row
from asgi_auth.stores.rows import Rows
from asgi_auth.stores.sqlalchemy.database import Act, Runner, Transactions
from asgi_auth.stores.sqlalchemy.native import Native

T = TypeVar("T")


class SQLExecutor:
    """Runs the shared statements, and acts of the ORM, outside or inside a transaction.

    Args:
        place: The database, or a transaction of it.
        native: The translator of the statements.
        rows: How values are stored in rows.
        runner: The runner of the statements, if not *place*.
    """

    def __init__(self, place: Transactions, native: Native, rows: Rows, runner: Runner | None = None) -> None:
        self.rows = rows
        self._place, self._native, self._runner = place, native, runner or place

    @property
    def connection(self) -> Any:
        """The application's session inside a transaction."""
        return self._place.session

    async def run(self, act: Act[T]) -> T:
        """As ``Runner`` does."""
        return await self._runner.run(act)

    async def read(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        def act(connection: Connection) -> Sequence[Row]:
            # Not through SQLAlchemy's compiler, which would add its own casts.
            text, bind = self._native.statement(sql, connection)
            result = connection.exec_driver_sql(text, bind(values))
            return result.all() if result.returns_rows else ()

        return await self._runner.run(act)

    write = read

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["SQLExecutor"]:
        async with self._place.transaction() as transaction:
            yield SQLExecutor(transaction, self._native, self.rows)
