"""``UserStore`` over the application's own model."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, delete, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import ExecutableOption

from asgi_auth.store import Found
from asgi_auth.stores.columns import ACCOUNT
from asgi_auth.stores.rows import TEXT_ROWS
from asgi_auth.stores.sqlalchemy.accounts import account_columns, encode_account
from asgi_auth.stores.sqlalchemy.database import in_session
from asgi_auth.stores.sqlalchemy.executor import SQLExecutor
from asgi_auth.stores.sqlalchemy.model import IDENTITIES, Model, Written
from asgi_auth.stores.sqlalchemy.rules import Rules
from asgi_auth.stores.sqlalchemy.tables import Tables
from asgi_auth.stores.values import storable
from asgi_auth.types import EMPTY, Account

U = TypeVar("U")


class Users(Generic[U]):
    """``UserStore``: the application's objects, detached, with every column loaded."""

    def __init__(
        self,
        executor: SQLExecutor,
        model: Model,
        tables: Tables,
        subject_name: str,
        options: Sequence[ExecutableOption],
        rules: Rules,
    ) -> None:
        self._executor, self._model, self._tables, self._subject_name = executor, model, tables, subject_name
        self._rules = rules
        self._options = options
        self.identity_fields, self.field_names = model.identities, model.field_names

    def user_id(self, user: U) -> str:
        return self._model.user_id(user)

    def values(self, user: U) -> Mapping[str, Any]:
        return self._model.read(user)

    async def find(self, field: str, key: str) -> Found[U] | None:
        if field not in self.identity_fields or not storable(key):
            return None
        column = self._tables.accounts.c[f"{field}_key"]
        return await self._executor.run(in_session(lambda session: self._found(session, column == key)))

    async def get(self, user_id: str) -> Found[U] | None:
        key = self._model.to_id(user_id)
        if key is None:
            return None
        return await self._executor.run(in_session(lambda session: self._found(session, self._is(key))))

    async def insert(
        self, proposed_id: str, fields: Mapping[str, Any], keys: Mapping[str, str], account: Account, *, now: datetime
    ) -> Found[U]:
        written = self._model.columns(fields, keys)
        if not self._model.makes_ids:
            written[self._model.id_attribute] = self._model.to_id(proposed_id)
        values = _account_values(account) | _key_columns(keys)

        def added(session: Session) -> Any:
            self._rules.refuse_taken(session, written)
            user = self._rules.make(written)
            session.add(user)
            session.flush()
            return getattr(user, self._model.id_attribute)

        def act(session: Session) -> Found[U]:
            key = self._rules.obey(partial(added, session), written)
            row = {"subject_name": self._subject_name, "user_id": key, **values}
            session.execute(insert(self._tables.accounts).values(row))
            return self._fresh(session, key)

        async with self._transaction() as transaction:
            return await transaction.run(in_session(act))

    async def update(self, user_id: str, fields: Mapping[str, Any], keys: Mapping[str, str]) -> Found[U] | None:
        identities = {f"{name}_key": None for name in fields if name in IDENTITIES} | _key_columns(keys)
        return await self._write(user_id, self._model.columns(fields, keys), identities, complete=False)

    async def replace(self, user_id: str, fields: Mapping[str, Any], keys: Mapping[str, str]) -> Found[U] | None:
        identities = {f"{name}_key": None for name in IDENTITIES} | _key_columns(keys)
        return await self._write(user_id, self._model.columns(fields, keys), identities, complete=True)

    async def _write(
        self, user_id: str, written: Written, identities: Mapping[str, str | None], *, complete: bool
    ) -> Found[U] | None:
        """Write attributes and keys. If *complete*, every other attribute is set as in a new user."""
        key = self._model.to_id(user_id)
        if key is None:
            return None

        def changed(session: Session) -> None:
            self._rules.refuse_taken(session, written, key)
            user = session.get_one(self._model.cls, key)
            others = self._model.initial(written) if complete else EMPTY
            # An error here leaves the transaction usable: a claim then tries again with more values.
            with session.begin_nested() if complete else nullcontext():
                for attribute, value in (*others.items(), *written.items()):
                    setattr(user, attribute, value)
                session.flush()

        def act(session: Session) -> Found[U] | None:
            # The account is locked first, as everywhere, to avoid deadlocks, and until the commit. A separate statement
            # reads the user, because a statement that had to wait would still show the old values.
            held = select(self._tables.accounts.c.user_id).where(*self._mine(key)).with_for_update()
            if session.execute(held).first() is None:
                return None
            self._rules.obey(partial(changed, session), written)
            if identities:
                session.execute(update(self._tables.accounts).where(*self._mine(key)).values(identities))
            return self._fresh(session, key)

        async with self._transaction() as transaction:
            return await transaction.run(in_session(act))

    async def delete(self, user_id: str) -> bool:
        key = self._model.to_id(user_id)
        if key is None:
            return False
        accounts = self._tables.accounts

        def act(session: Session) -> bool:
            gone = delete(accounts).where(*self._mine(key)).returning(accounts.c.user_id)
            if session.execute(gone).first() is None:
                return False
            session.delete(session.get_one(self._model.cls, key))  # by the rules of the application's relationships
            session.flush()
            return True

        async with self._executor.transaction() as transaction:
            return await transaction.run(in_session(act))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[SQLExecutor]:
        with self._rules.translating():
            async with self._executor.transaction() as transaction:
                yield transaction

    # --- statements

    def _mine(self, key: Any) -> tuple[ColumnElement[bool], ...]:
        accounts = self._tables.accounts.c
        return accounts.subject_name == self._subject_name, accounts.user_id == key

    def _is(self, key: Any) -> ColumnElement[bool]:
        return self._mine(key)[1]

    def _found(self, session: Session, condition: ColumnElement[bool]) -> Found[U] | None:
        accounts = self._tables.accounts
        statement: Select[Any] = (
            select(*account_columns(self._tables), self._model.cls)
            .join(accounts, accounts.c.user_id == self._model.id)
            .where(accounts.c.subject_name == self._subject_name, condition)
            .options(*self._options)
        )
        row = session.execute(statement).unique().first()
        return None if row is None else Found(row[-1], TEXT_ROWS.of(ACCOUNT).read(row))

    def _fresh(self, session: Session, key: Any) -> Found[U]:
        session.expunge_all()  # read the values of the database, not those that were written
        found = self._found(session, self._is(key))
        if found is None:  # pragma: no cover  # written by the statement before, in the same transaction
            raise LookupError("the user is gone")
        return found


def _account_values(account: Account) -> dict[str, Any]:
    """The stored values of *account*, except the id, which is the new user's."""
    return encode_account({name: getattr(account, name) for name in ACCOUNT.names if name != "user_id"})


def _key_columns(keys: Mapping[str, str]) -> dict[str, str | None]:
    return {f"{name}_key": key for name, key in keys.items()}
