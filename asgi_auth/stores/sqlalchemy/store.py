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
"""Of the library's tables: 1 has neither invitations nor counters, 2 no address that was proven last."""


def _unknown(_: Any) -> Mapping[str, Any]:
    return EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """What every capability is made of."""

    model: Model
    tables: Tables
    options: Sequence[ExecutableOption]
    rules: Rules
    look_ups: LookUps
    native: Native
    rows: Rows


class SQLAlchemyStore(Generic[U]):
    """Users in a table of the application's own; accounts, sessions, tokens and the rest beside it.

    What it returns are objects of the application's class, detached from every session, with every column loaded.
    Relationships and deferred columns are loaded if *options* say so.

    Args:
        bind: The application's engine, or its ``async_sessionmaker`` with an engine as ``bind``; SQLite in a file, or
            PostgreSQL. It stays the application's, to dispose of as well.
        model: The mapped class of the users. It has what ``UserMixin`` offers, an id of one column (integer, UUID or
            text) and an address or a user name.
        fields: For logical names (``email``, ``username``, extra fields) that the model calls otherwise, the name of
            its attribute; or a pair of callables: ``read(user)`` gives the value, ``write(value)`` the attributes to
            set, by name.
        tables: What ``make_tables`` returned, if it was given a prefix.
        options: Loader options for every query of a user, such as ``selectinload(User.roles)``.
        create_tables: Make whatever is missing of the model's metadata when the store is opened, the application's own
            tables as well; for a start without migrations.
        timeout: How long a statement waits for a connection, for its turn and for its answer, all in all. Then: 503.

    Raises:
        ConfigurationError: names what the model lacks, what is wrong with *bind*, or which class the tables belong to.
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
        """Look whether every table is there; only the first opening makes any, and only with ``create_tables``.

        Raises:
            ConfigurationError: names what is missing: the application's migrations, or ``migrate``, make it. Or the
                tables in the database belong to the users of another table, or the engine's connections have a
                ``default_transaction_isolation`` other than READ COMMITTED.
            StoreUnavailableError: the database does not answer; or its tables were there before, and are gone.
        """
        if not self._opened:
            await self._database.check_isolation()
            missing = await self._missing()
            if missing and self._seen:
                raise StoreUnavailableError(f"sqlalchemy: the database has lost {', '.join(missing)}")
            if missing and self.create_tables:
                with suppress(StoreUnavailableError):  # another worker was faster, perhaps
                    await self._create(None, missing)
                missing = await self._missing()
            if missing:
                raise ConfigurationError(
                    f"SQLAlchemyStore: the database has no {', '.join(missing)}: run the application's migrations, or "
                    "python -m asgi_auth migrate for the tables of the library alone"
                )
            self._opened = self._seen = True

    async def close(self) -> None:
        """Nothing is given back: the engine is the application's, which disposes of it."""
        self._opened = False

    async def versions(self) -> tuple[int, int]:
        """The version of the library's tables, 0 if there are none, and the newest one. Makes no table, and no file.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        return self._version(await self._missing()), VERSION

    async def migrate(self) -> tuple[int, int]:
        """Make what is missing of the library's tables, where Alembic does not; the versions before and after.

        Raises:
            ConfigurationError: the application's own table of users is not there.
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
        """What is *missing*: *tables* (None: all of the metadata), and columns and indexes of the library's."""
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
        if not self._database.exists():  # to look would make an empty file
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
        """Those of a table of the library's. Statements tell SQLite by name which index to use; PostgreSQL chooses."""
        if not self._database.sqlite or table not in self._bound.tables.every:
            return set()
        there = {index["name"] for index in found.get_indexes(table.name, schema=table.schema)}
        return {str(index.name) for index in table.indexes} - there

    def _check_owner(self, found: Inspector) -> None:
        """Refuse tables that were made from another metadata, for another class."""
        accounts, model = self._bound.tables.accounts, self._bound.model
        for key in found.get_foreign_keys(accounts.name, schema=accounts.schema):
            users = key["referred_table"]
            # A name in SQLite may be written in any case.
            if key["constrained_columns"] == ["user_id"] and users.lower() != model.id.table.name.lower():
                raise refuse_sharing(accounts, model.cls, f"the table {users}")

    def scope(self, subject_name: str) -> ScopedStore[U]:
        """The same store, for one kind of user: those that have an account of that kind."""
        return _ScopedStore(self._database, self._lasting, self._bound, subject_name)

    def joined(self, session: AsyncSession) -> AbstractAsyncContextManager[list[Job]]:
        """Within the block whatever is done with this store, by this task, is part of the transaction of *session*.

        It is never committed here: with *session* everything is, or nothing. Each act is a savepoint. What hooks leave
        for after the commit is in the list that the block is given, for the application to run then.

        Counters are the exception: a rollback, of *session* or of a savepoint, never takes a count back. Otherwise an
        application that rolls back what was refused would have no limits.
        """
        return self._database.join(session)

    async def adopt(
        self,
        subject_name: str,
        *,
        account: Callable[[U], Mapping[str, Any]] = _unknown,
        can_verify: Callable[[str], bool] = can_be_verified,
    ) -> Adopted:
        """Make accounts for users who have none, in batches; without one a user is nobody to the library.

        Args:
            subject_name: Which kind of user they are.
            account: What is known of a user: ``password_hash`` (a bcrypt hash verifies as it is), ``confirmed_at`` and
                ``disabled_at`` (aware), each left out if it is not.
            can_verify: Whether a hash is supported; a user with any other is refused. With a pepper, or a hasher of the
                application's own, give ``auth.hasher.can_verify``.

        Raises:
            ConfigurationError: *account* or *can_verify* is async.
            StoreUnavailableError: the database does not answer; what was committed before is kept, so call it again.
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
        """Args: lasting: What counts; None: *place*, so that a count is part of its transaction."""
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
