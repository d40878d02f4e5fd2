"""Runs acts in the database: as a single statement, in a new transaction, or in a transaction of the application."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from types import MappingProxyType
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import (
    ArgumentError,
    DisconnectionError,
    InvalidRequestError,
    PendingRollbackError,
    ResourceClosedError,
    SQLAlchemyError,
)
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    AsyncSessionTransaction,
    async_sessionmaker,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from asgi_auth.errors import AuthError, ConfigurationError, StoreUnavailableError, ValidationError
from asgi_auth.runtime.jobs import finished
from asgi_auth.stores.isolation import DEFAULT_ISOLATION, refuse_other_isolation
from asgi_auth.stores.sqlalchemy.broken import RuleError, broken_rule, is_about_a_value
from asgi_auth.stores.sqlite_file import broken as is_broken
from asgi_auth.types import Job

T = TypeVar("T")

Act = Callable[[Connection], T]
"""Work on a connection. It must not keep the connection after the call."""


class Runner(Protocol):
    """Runs single acts."""

    async def run(self, act: Act[T]) -> T:
        """Run *act*; commits by itself unless this is a transaction.

        Raises:
            RuleError: the act breaks a constraint.
            StoreUnavailableError: the database does not answer.
        """
        ...


class Transactions(Runner, Protocol):
    """Runs acts, one alone or several in one transaction."""

    @property
    def session(self) -> AsyncSession | None:
        """The session of a transaction; None outside."""
        ...

    def transaction(self) -> AbstractAsyncContextManager["Transaction"]:
        """A new transaction; inside one, the same."""
        ...


@dataclass(slots=True, eq=False)
class Joined:
    """A session of the application, while the store takes part in it."""

    session: AsyncSession
    jobs: list[Job] = field(default_factory=list)
    over: bool = False


class Transaction:
    """``Transactions`` inside a transaction."""

    over = False

    def __init__(
        self, session: AsyncSession, connection: AsyncConnection, timeout: float, jobs: list[Job] | None = None
    ) -> None:
        """Args: jobs: The list for jobs that wait for the application's commit; None if this commits by itself."""
        self.session, self._jobs = session, jobs
        self._connection, self._timeout = connection, timeout

    @property
    def joined(self) -> bool:
        """Whether this is part of a transaction of the application. Only the application commits or rolls it back."""
        return self._jobs is not None

    async def run(self, act: Act[T]) -> T:
        if self.over:
            raise ConfigurationError("store: the transaction is over; use the store itself")

        async def flushed() -> T:
            await self.session.flush()  # added objects are visible to the next statement
            return await self._connection.run_sync(act)

        return await answered(flushed(), self._timeout)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Transaction"]:
        yield self

    def defer(self, jobs: list[Job]) -> None:
        """Move *jobs* to the application's list, because this is not the final commit."""
        if self._jobs is not None:
            self._jobs += jobs
            jobs.clear()


_joined: ContextVar[Mapping["Database", Joined]] = ContextVar("asgi_auth_joined", default=MappingProxyType({}))


class Database:
    """``Transactions`` outside a transaction, unless the application has let the store join one of its own."""

    session = None

    def __init__(self, bind: AsyncEngine | async_sessionmaker[Any], timeout: float) -> None:
        self.engine, self._sessions = _engine_of(bind)
        self.timeout = timeout
        self.sqlite = self.engine.dialect.name == "sqlite"
        _check(self.engine)
        # A single statement is its own transaction. Without BEGIN and COMMIT it is one round trip.
        self._single = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        # Single statements decide races. A higher isolation would only add failures that require a retry.
        level = {} if self.sqlite else {"isolation_level": "READ COMMITTED"}
        self._several = self.engine.execution_options(**level)
        _look_after(self.engine)

    async def run(self, act: Act[T]) -> T:
        if self.current() is not None:
            async with self.transaction() as transaction:
                return await transaction.run(act)
        return await self._run_by_itself(self._single, act)

    async def run_apart(self, act: Act[T]) -> T:
        """Run *act* and commit it, even if the store has joined a transaction of the application."""
        return await self._run_by_itself(self._apart, act)

    async def _run_by_itself(self, engine: AsyncEngine, act: Act[T]) -> T:
        async def connected() -> T:
            async with engine.connect() as connection:
                return await connection.run_sync(act)

        return await answered(connected(), self.timeout)

    @cached_property
    def _apart(self) -> AsyncEngine:
        # It has its own pool. Otherwise joined transactions could hold all connections of the application's pool, and
        # each would wait for one more: a deadlock.
        engine = self.engine.sync_engine
        apart = Engine(engine.pool.recreate(), engine.dialect, engine.url, hide_parameters=engine.hide_parameters)
        event.listen(engine, "engine_disposed", lambda _: apart.dispose())
        _look_after(AsyncEngine(apart))
        options = {**engine.get_execution_options(), "isolation_level": "AUTOCOMMIT"}
        return AsyncEngine(apart).execution_options(**options)

    def exists(self) -> bool:
        """Whether there is a database file; True if only the driver can tell."""
        path = self.engine.url.database
        return not self.sqlite or not path or path.startswith("file:") or os.path.exists(path)

    async def check_isolation(self) -> None:
        """Check the isolation of a single statement, which is the database's default.

        Raises:
            ConfigurationError: the isolation is not READ COMMITTED.
            StoreUnavailableError: the database does not answer.
        """
        if not self.sqlite:
            default = await self.run(lambda connection: connection.exec_driver_sql(DEFAULT_ISOLATION).scalar_one())
            refuse_other_isolation("SQLAlchemyStore", default)

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        joined = self.current()
        return self._own() if joined is None else self._nested(joined)

    @asynccontextmanager
    async def join(self, session: AsyncSession) -> AsyncIterator[list[Job]]:
        """In the block every act is part of the transaction of *session*. The caller runs the jobs."""
        joined = Joined(session)
        token = _joined.set({**_joined.get(), self: joined})
        try:
            yield joined.jobs
        finally:
            joined.over = True  # for tasks that the block has started and that outlive it
            _joined.reset(token)

    def current(self) -> Joined | None:
        """The session whose transaction this task is part of; None if there is none."""
        joined = _joined.get().get(self)
        return None if joined is None or joined.over else joined

    @asynccontextmanager
    async def _own(self) -> AsyncIterator[Transaction]:
        connection = self._several.connect()
        try:
            await answered(self._begin(connection), self.timeout)
            session = self._sessions(bind=connection, join_transaction_mode="rollback_only", expire_on_commit=False)
            async with _until_over(Transaction(session, connection, self.timeout)) as transaction:
                yield transaction
            await answered(_commit(session, connection), self.timeout)
        finally:
            if connection.sync_connection is not None:
                await answered(connection.close(), self.timeout)

    async def _begin(self, connection: AsyncConnection) -> None:
        await connection.start()
        await connection.begin()
        if self.sqlite:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")

    @asynccontextmanager
    async def _nested(self, joined: Joined) -> AsyncIterator[Transaction]:
        session = joined.session
        savepoint, connection = await answered(self._begin_nested(session), self.timeout)
        try:
            async with _until_over(Transaction(session, connection, self.timeout, joined.jobs)) as transaction:
                yield transaction
            await answered(savepoint.commit(), self.timeout)
        except BaseException:
            await answered(savepoint.rollback(), self.timeout)
            raise

    async def _begin_nested(self, session: AsyncSession) -> tuple[AsyncSessionTransaction, AsyncConnection]:
        connection = await session.connection()
        if self.sqlite:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            # sqlite3 begins a transaction only at the first change. A savepoint outside a transaction is a transaction
            # itself, and its release would commit it.
            if not raw.in_transaction:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
        savepoint = await session.begin_nested()
        return savepoint, await session.connection()  # here SQLAlchemy sets the savepoint


@asynccontextmanager
async def _until_over(transaction: Transaction) -> AsyncIterator[Transaction]:
    try:
        yield transaction
    finally:
        transaction.over = True


async def _commit(session: AsyncSession, connection: AsyncConnection) -> None:
    await session.flush()
    await connection.commit()


def in_session(act: Callable[[Session], T]) -> Act[T]:
    """*act* in a session of the ORM, in the transaction of the connection."""

    def acted(connection: Connection) -> T:
        # A session for this call only. Nothing else shares its objects. They are detached when it is closed, with every
        # column loaded, whatever the application's own sessions do at a commit. It never ends the transaction.
        with Session(connection, join_transaction_mode="rollback_only", expire_on_commit=False) as session:
            return act(session)

    return acted


# --- at start --------------------------------------------------------------------------------------------------------


def _engine_of(bind: AsyncEngine | async_sessionmaker[Any]) -> tuple[AsyncEngine, async_sessionmaker[Any]]:
    if isinstance(bind, AsyncEngine):
        return bind, async_sessionmaker(bind)
    engine = getattr(bind, "kw", {}).get("bind")
    if not isinstance(engine, AsyncEngine):
        raise ConfigurationError("SQLAlchemyStore: bind must be an AsyncEngine, or an async_sessionmaker bound to one")
    return engine, bind


def _check(engine: AsyncEngine) -> None:
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise ConfigurationError(f"SQLAlchemyStore: {engine.dialect.name} is not supported: SQLite and PostgreSQL are")
    if isinstance(engine.pool, StaticPool):
        raise ConfigurationError(
            "SQLAlchemyStore: a database in memory has only one connection: use a file, in tests in a "
            "temporary directory"
        )
    if engine.dialect.driver == "asyncpg":
        _check_parameters(engine)


def _check_parameters(engine: AsyncEngine) -> None:
    # SQLAlchemy passes them to asyncpg as keyword arguments. A wrong one would raise TypeError at every connection.
    known = signature(engine.dialect.loaded_dbapi.asyncpg.connect).parameters
    for name in sorted(engine.url.query):
        if name not in known and not name.startswith("prepared_statement"):
            raise ConfigurationError(
                f"SQLAlchemyStore: the URL of the engine has {name}, which asyncpg.connect does not take; for TLS give "
                "ssl=require, for a setting of the server connect_args={'server_settings': …}"
            )


_looked_after: WeakSet[Engine] = WeakSet()


def _look_after(engine: AsyncEngine) -> None:
    # Not `event.contains`: it compares memory addresses, and may mistake a new engine for an old one.
    if engine.sync_engine not in _looked_after:
        _looked_after.add(engine.sync_engine)
        for name, listener in _ON_SQLITE if engine.dialect.name == "sqlite" else (("handle_error", _lost),):
            event.listen(engine.sync_engine, name, listener)


def _lost(context: ExceptionContext) -> BaseException | None:
    # If asyncpg is called while it still reads the server's last message, it raises an exception that is not from
    # DB-API. SQLAlchemy would raise it unchanged, and return the connection to the pool.
    if type(context.original_exception).__name__ != "InternalClientError":
        return None
    context.is_disconnect = True
    return ConnectionResetError("asyncpg: InternalClientError")


def _note_broken(context: ExceptionContext) -> None:
    # Otherwise the pool would always keep a connection that is read-only, or that has read a damaged file. It is given
    # up at its next checkout. Now it is in a transaction, and dropping it here would leave the lock.
    if context.connection is not None and is_broken(context.original_exception):
        context.connection.info["asgi_auth_broken"] = True


def _give_up_broken(_connection: Any, record: Any, _: Any) -> None:
    if record.info.pop("asgi_auth_broken", False):
        raise DisconnectionError  # the pool makes another one


def _turn_foreign_keys_on(connection: Any, record: Any, _: Any) -> None:
    # Also for the application's own use of the engine: if it deletes a user, the account must be deleted too, because
    # SQLite gives the id to the next user.
    if not record.info.get("asgi_auth"):
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()
        record.info["asgi_auth"] = True


_ON_SQLITE = (
    ("checkout", _give_up_broken),
    ("checkout", _turn_foreign_keys_on),
    ("handle_error", _note_broken),
)


# --- errors ----------------------------------------------------------------------------------------------------------


async def answered(call: Coroutine[Any, Any, T], timeout: float) -> T:
    """The answer to *call*. A cancelled task does not interrupt the call, only *timeout* does.

    Raises:
        RuleError: the call breaks a constraint.
        ValidationError: the database rejects a value.
        StoreUnavailableError: there was no answer in time. SQLAlchemy's exception is not the context of these errors,
            because it contains the statement and the values.
    """
    try:
        return await finished(asyncio.ensure_future(_in_time(call, timeout)))
    except (SQLAlchemyError, OSError) as exc:  # TimeoutError is an OSError
        failure = _translated(exc)
    raise failure


async def _in_time(call: Coroutine[Any, Any, T], timeout: float) -> T:
    async with asyncio.timeout(timeout):
        return await call


def _translated(error: SQLAlchemyError | OSError) -> AuthError:
    broken = broken_rule(error)
    if broken is not None:
        return RuleError(broken)
    unusable = (PendingRollbackError, ResourceClosedError)  # after an error, and may quote the first one
    if isinstance(error, (ArgumentError, InvalidRequestError)) and not isinstance(error, unusable):
        return ConfigurationError(f"SQLAlchemyStore: {error}")  # about the application's mappings; it has no values
    if is_about_a_value(error):
        return ValidationError("a value cannot be stored")
    said = getattr(getattr(error, "orig", None), "sqlite_errorname", None)  # not its text, which may have values
    return StoreUnavailableError(": ".join(filter(None, ("sqlalchemy", type(error).__name__, said))))
