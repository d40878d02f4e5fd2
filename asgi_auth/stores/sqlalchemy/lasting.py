"""Counters in a transaction of the application. A rollback does not undo the counts, so that limits hold."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only

from asgi_auth.errors import AuthError
from asgi_auth.stores.sqlalchemy.database import Act, Database

logger = logging.getLogger("asgi_auth")

T = TypeVar("T")


class Lasting:
    """A ``Runner`` whose acts stay if the application rolls back a transaction that the store has joined.

    PostgreSQL: an act runs on a connection of its own, which commits it at once. The act therefore never waits for a
    lock of the joined transaction. SQLite: the joined transaction holds the only write lock. An act runs in that
    transaction, and runs again when it is rolled back.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, act: Act[T]) -> T:
        joined = self._database.current()
        if joined is None:
            return await self._database.run(act)
        if not self._database.sqlite:
            return await self._database.run_apart(act)
        session = joined.session.sync_session
        if self not in session.info:
            session.info[self] = _Repeater(session, self._database)
        repeater: _Repeater = session.info[self]
        return await self._database.run(repeater.noting(act))


@dataclass(slots=True, eq=False)
class _Done:
    """An act, and the innermost transaction or savepoint that it is part of."""

    act: Act[Any]
    connection: Connection
    transaction: SessionTransaction | None


class _Repeater:
    """Runs acts again if the transaction of their session, or a savepoint in it, is rolled back.

    SQLAlchemy reports every end of a transaction or savepoint by ``after_transaction_end``. It reports a commit by
    ``after_commit`` just before. ``after_rollback`` alone is not enough: closing a session does not report it.
    """

    def __init__(self, session: Session, database: Database) -> None:
        self._session, self._database = session, database
        self._done: list[_Done] = []
        self._committed: SessionTransaction | None = None
        event.listen(session, "after_commit", self._note_commit)
        event.listen(session, "after_transaction_end", self._end)

    def noting(self, act: Act[T]) -> Act[T]:
        """*act*, recorded as soon as it has run, also if the caller is cancelled meanwhile."""

        def noted(connection: Connection) -> T:
            result = act(connection)
            self._done.append(_Done(act, connection, self._innermost()))
            return result

        return noted

    def _innermost(self) -> SessionTransaction | None:
        return self._session.get_nested_transaction() or self._session.get_transaction()

    def _note_commit(self, _: Session) -> None:
        self._committed = self._innermost()

    def _end(self, _: Session, transaction: SessionTransaction) -> None:
        ended = [done for done in self._done if done.transaction is transaction]
        for done in ended:  # released or run again, it is now part of the outer transaction
            done.transaction = transaction.parent
        if transaction.parent is None:
            self._done.clear()
        if ended and transaction is not self._committed:
            self._repeat(ended)

    def _repeat(self, ended: Sequence[_Done]) -> None:
        """Run the acts again, in the greenlet of the session, so that they are done before ``rollback`` returns."""

        def again(connection: Connection) -> None:
            for done in ended:
                done.act(connection)

        connection = ended[0].connection
        if connection.in_transaction():  # only a savepoint was rolled back; the write lock is still held
            again(connection)
        else:
            await_only(self._run_apart(again))

    async def _run_apart(self, act: Act[None]) -> None:
        try:
            await self._database.run_apart(act)
        except AuthError as exc:  # the rollback has succeeded, and must not fail because of this
            logger.error("counts of a transaction that was rolled back are lost: %s", exc.reason)
