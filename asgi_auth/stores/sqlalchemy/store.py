"""SQLAlchemyStore: every capability over the application's own engine and model."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Generic, TypeVar

from sqlalchemy import Inspector, Table, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.schema import CreateColumn
from sqlalchemy.sql.base import ExecutableOption

from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.protocol.password_hashes import can_be_verified
from asgi_auth.runtime.callables import refuse_async
from asgi_auth.store import ScopedStore, Work
from asgi_auth.stores.rows import Rows
from asgi_auth.stores.sql_counters import SQLCounters
from asgi_auth.stores.sql_tokens import SQLTokens
from asgi_auth.stores.sqlalchemy.accounts import Accounts
from asgi_auth.stores.sqlalchemy.adopt import Adopted, Adoption
from asgi_auth.stores.sqlalchemy.database import Database, Transactions, in_session
from asgi_auth.stores.sqlalchemy.executor import SQLExecutor
from asgi_auth.stores.sqlalchemy.invitations import Invitations
from asgi_auth.stores.sqlalchemy.lasting import Lasting
from asgi_auth.stores.sqlalchemy.model import Field, Model
from asgi_auth.stores.sqlalchemy.native import Native, codec
from asgi_auth.stores.sqlalchemy.rules import Rules
from asgi_auth.stores.sqlalchemy.sessions import LookUps, Sessions
from asgi_auth.stores.sqlalchemy.tables import Tables, check_owner, make_tables, refuse_sharing
from asgi_auth.stores.sqlalchemy.users import Users
from asgi_auth.types import EMPTY, Job

U = TypeVar("U")


VERSION = 3
"""Version of the library's tables. 1 has no invitations and counters, 2 has no column for the last proven address."""


def _unknown(_: Any) -> Mapping[str, Any]:
    return EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """The parts that every capability uses."""

    model: Model
    tables: Tables
    options: Sequence[ExecutableOption]
    rules: Rules
    look_ups: LookUps
    native: Native
    rows: Rows


class SQLAlchemyStore(Generic[U]):
    """Users in the application's own table. Accounts, sessions, tokens and other records are in tables beside it.

    It returns objects of the application's class, detached from every session, with every column loaded. *options* can
    load relationships and deferred columns.

    Args:
        bind: The application's engine, or its ``async_sessionmaker`` with an engine as ``bind``, for SQLite in a file
            or for PostgreSQL. The application still owns it and disposes of it.
        model: The mapped class of the users. It has the members of ``UserMixin``, an id of one column (integer, UUID or
            text) and an address or a user name.
        fields: The attribute of each logical name (``email``, ``username``, extra fields) that has another name in the
            model. In place of an attribute, a pair of callables: ``read(user)`` returns the value, ``write(value)`` the
            attributes to set, by name.
        tables: The result of ``make_tables``, if it was called with a prefix.
        options: Loader options for every query of a user, such as ``selectinload(User.roles)``.
        create_tables: Make all missing tables of the model's metadata when the store is opened, also the application's
            own tables; for a start without migrations.
        timeout: How long a statement waits in total for a connection, for its turn and for its answer. Then the answer
            is 503.

    Raises:
        ConfigurationError: the model lacks something, *bind* is invalid, or the tables belong to another class; the
            message names it.
    """

    def __init__(
        self,
        bind: AsyncEngine | async_sessionmaker[Any],
        model: type[U],
        *,
        fields: Mapping[str, Field] = EMPTY,
        tables: Tables | None = None,
        options: Sequence[ExecutableOption] = (),
        create_tables: bool = False,
        timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        self._database = Database(bind, timeout.total_seconds())
        self._lasting = Lasting(self._database)
        dialect = self._database.engine.dialect
        known = Model(model, fields, dialect)
        tables = tables or make_tables(model)
        check_owner(tables.accounts, model)
        self._bound = _Bound(
            model=known,
            tables=tables,
            options=options,
            rules=Rules(known, tables),
            look_ups=LookUps(known, tables, options),
            native=Native(dialect, tables),
            rows=Rows(codec(dialect, known, tables)),
        )
        self.create_tables = create_tables
        self._opened, self._seen = False, False

    async def open(self) -> None:
        """Check that every table exists. Only the first opening makes tables, and only with ``create_tables``.

        Raises:
            ConfigurationError: tables are missing; the message names them, and the application's migrations or
                ``migrate`` make them. Or the tables in the database belong to the users of another table. Or the
                engine's connections have a ``default_transaction_isolation`` other than READ COMMITTED.
            StoreUnavailableError: the database does not answer; or its tables existed before, and are missing now.
        """
        if not self._opened:
            await self._database.check_isolation()
            missing = await self._missing()
            if missing and self._seen:
                raise StoreUnavailableError(f"sqlalchemy: the database has lost {', '.join(missing)}")
            if missing and self.create_tables:
                with suppress(StoreUnavailableError):  # another worker may have made them first
                    await self._create(None, missing)
                missing = await self._missing()
            if missing:
                raise ConfigurationError(
                    f"SQLAlchemyStore: the database has no {', '.join(missing)}: run the application's migrations, or "
                    "python -m asgi_auth migrate for the tables of the library alone"
                )
            self._opened = self._seen = True

    async def close(self) -> None:
        """Do nothing. The application disposes of its engine."""
        self._opened = False

    async def versions(self) -> tuple[int, int]:
        """The version of the library's tables, 0 if there are none, and the newest version. Makes no table or file.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        return self._version(await self._missing()), VERSION

    async def migrate(self) -> tuple[int, int]:
        """Make the missing tables of the library, if Alembic does not. Returns the versions before and after.

        Raises:
            ConfigurationError: the application's own table of users does not exist.
            StoreUnavailableError: the database does not answer.
        """
        tables, users = self._bound.tables, self._bound.model.id.table
        missing = await self._missing()
        if any(name.partition(".")[0] == users.name for name in missing):
            raise ConfigurationError(f"SQLAlchemyStore: make the application's own tables first: {users.name}")
        await self._create(tables.every, missing)
        return self._version(missing), VERSION

    def _version(self, missing: Sequence[str]) -> int:
        tables = self._bound.tables
        firsts = (tables.accounts.name, tables.invitations.name, f"{tables.accounts.name}.proven_email")
        return next((version for version, first in enumerate(firsts) if first in missing), VERSION)

    async def _create(self, tables: Sequence[Table] | None, missing: Sequence[str]) -> None:
        """Make *tables* (None: all of the metadata), and the *missing* columns and indexes of the library."""
        metadata = self._bound.model.id.table.metadata

        def create(connection: Connection) -> None:
            metadata.create_all(connection, tables=tables)
            for table in self._bound.tables.every:
                name = connection.dialect.identifier_preparer.format_table(table)
                for column in table.c:
                    if f"{table.name}.{column.name}" in missing:
                        definition = CreateColumn(column).compile(dialect=connection.dialect)
                        connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {definition}")
                for index in table.indexes:
                    if index.name in missing:
                        index.create(connection)

        async with self._database.transaction() as transaction:
            await transaction.run(create)

    async def _missing(self) -> Sequence[str]:
        tables = self._bound.tables
        wanted = (self._bound.model.id.table, *tables.every)
        if not self._database.exists():  # connecting would make an empty file
            return sorted(table.name for table in wanted)

        def look(connection: Connection) -> list[str]:
            found = inspect(connection)
            missing = []
            for table in wanted:
                if not found.has_table(table.name, schema=table.schema):
                    missing.append(table.name)
                else:
                    there = {column["name"] for column in found.get_columns(table.name, schema=table.schema)}
                    missing += [f"{table.name}.{column}" for column in {column.name for column in table.c} - there]
                    missing += self._missing_indexes(found, table)
            if tables.accounts.name not in missing:
                self._check_owner(found)
            return sorted(missing)

        return await self._database.run(look)

    def _missing_indexes(self, found: Inspector, table: Table) -> set[str]:
        """The missing indexes of a library table. On SQLite statements name their index; PostgreSQL chooses itself."""
        if not self._database.sqlite or table not in self._bound.tables.every:
            return set()
        there = {index["name"] for index in found.get_indexes(table.name, schema=table.schema)}
        return {str(index.name) for index in table.indexes} - there

    def _check_owner(self, found: Inspector) -> None:
        """Refuse tables that were made from other metadata, for another class."""
        accounts, model = self._bound.tables.accounts, self._bound.model
        for key in found.get_foreign_keys(accounts.name, schema=accounts.schema):
            users = key["referred_table"]
            # SQLite ignores the case of names.
            if key["constrained_columns"] == ["user_id"] and users.lower() != model.id.table.name.lower():
                raise refuse_sharing(accounts, model.cls, f"the table {users}")

    def scope(self, subject_name: str) -> ScopedStore[U]:
        """The same store, for one kind of user: those that have an account of that kind."""
        return _ScopedStore(self._database, self._lasting, self._bound, subject_name)

    def joined(self, session: AsyncSession) -> AbstractAsyncContextManager[list[Job]]:
        """In the block, every act of this task with this store is part of the transaction of *session*.

        The store never commits here; the commit of *session* commits everything together. Each act is a savepoint. Jobs
        of hooks for after the commit are in the list that the block receives. The application runs them then.

        Counters are the exception: a rollback, of *session* or of a savepoint, never undoes a count. Otherwise an
        application that rolls back after each refusal would have no limits.
        """
        return self._database.join(session)

    async def adopt(
        self,
        subject_name: str,
        *,
        account: Callable[[U], Mapping[str, Any]] = _unknown,
        can_verify: Callable[[str], bool] = can_be_verified,
    ) -> Adopted:
        """Make accounts for users who have none, in batches. The library does not find a user without an account.

        Args:
            subject_name: The kind of user.
            account: Returns the known values of a user: ``password_hash`` (a bcrypt hash verifies unchanged),
                ``confirmed_at`` and ``disabled_at`` (aware). Unknown values are left out.
            can_verify: Whether a hash is supported. A user with an unsupported hash gets no account. With a pepper, or
                the application's own hasher, pass ``auth.hasher.can_verify``.

        Raises:
            ConfigurationError: *account* or *can_verify* is async.
            StoreUnavailableError: the database does not answer. Committed batches are kept; call it again.
        """
        refuse_async("adopt: account", account)
        refuse_async("adopt: can_verify", can_verify)
        adoption = Adoption(self._bound.model, self._bound.tables, subject_name, account, can_verify)
        created, refused, last = 0, dict[str, str](), None
        while True:
            async with self._database.transaction() as transaction:
                batch = await transaction.run(in_session(partial(adoption.next_batch, last=last)))
            if batch.last is None:
                return Adopted(created, refused)
            created, last = created + batch.created, batch.last
            refused.update(batch.refused)


class _ScopedStore(Generic[U]):
    """``ScopedStore``."""

    def __init__(self, place: Transactions, lasting: Lasting | None, bound: _Bound, subject_name: str) -> None:
        """Args: lasting: The runner of counters; None: *place*, so that a count is part of its transaction."""
        self._place, self._lasting, self._bound, self._subject_name = place, lasting, bound, subject_name
        executor = self.executor = SQLExecutor(place, bound.native, bound.rows)
        self.users = Users[U](executor, bound.model, bound.tables, subject_name, bound.options, bound.rules)
        self.accounts = Accounts(executor, subject_name)
        self.sessions = Sessions[U](executor, subject_name, bound.look_ups)
        self.tokens = SQLTokens(executor, subject_name)
        self.invitations = Invitations(executor, subject_name)
        self.counters = SQLCounters(SQLExecutor(place, bound.native, bound.rows, lasting), subject_name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Work[U]]:
        with self._bound.rules.translating():
            async with self._place.transaction() as transaction:
                lasting = self._lasting if transaction.joined else None
                bound = _ScopedStore[U](transaction, lasting, self._bound, self._subject_name)
                work = Work(
                    users=bound.users,
                    accounts=bound.accounts,
                    sessions=bound.sessions,
                    tokens=bound.tokens,
                    invitations=bound.invitations,
                    counters=bound.counters,
                    connection=bound.executor.connection,
                )
                yield work
                transaction.defer(work.jobs)
