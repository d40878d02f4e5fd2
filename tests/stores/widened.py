"""A session with one more column, in every store: ``python -m tests.stores.widened sqlite|postgres|sqlalchemy PLACE``.

The record and the schema have the new column, and so has the table of ``SQLAlchemyStore``. No other code knows it.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgi_auth import types


@dataclass(frozen=True, slots=True, kw_only=True)
class Widened(types.Session):
    """A session that names its device."""

    device: str | None = None


types.Session = Widened  # type: ignore[misc]  # before any store is imported

from sqlalchemy import Column, Text  # noqa: E402
from sqlalchemy.ext.asyncio import create_async_engine  # noqa: E402
from sqlalchemy.pool import NullPool  # noqa: E402

from asgi_auth.store import Found, ScopedStore  # noqa: E402
from asgi_auth.stores import PostgresStore, SQLAlchemyStore, SQLiteStore  # noqa: E402
from asgi_auth.stores.sqlalchemy import make_tables  # noqa: E402
from asgi_auth.testing.stores.records import NOW, add_user, session_of  # noqa: E402
from tests.postgres import execute  # noqa: E402
from tests.stores.models import IntUser  # noqa: E402

_ADD = "ALTER TABLE asgi_auth_sessions ADD COLUMN device text"


async def in_sqlite(place: str) -> SQLiteStore:
    """A store on a file whose schema has the column."""
    store = SQLiteStore(Path(place))
    async with store.scope("user").transaction() as work:
        await work.connection.execute(_ADD)
    return store


async def in_postgres(place: str) -> PostgresStore:
    """A store on a server whose schema has the column."""
    store = PostgresStore(place)
    await store.open()
    await execute(place, _ADD)
    return store


async def in_sqlalchemy(place: str) -> SQLAlchemyStore[IntUser]:
    """A store on the application's tables; the table of sessions has the column."""
    make_tables(IntUser).sessions.append_column(Column("device", Text))
    engine = create_async_engine(f"sqlite+aiosqlite:///{place}", poolclass=NullPool)
    store = SQLAlchemyStore(engine, IntUser, create_tables=True)
    await store.open()
    return store


STORES: Mapping[str, Callable[[str], Any]] = {
    "sqlite": in_sqlite,
    "postgres": in_postgres,
    "sqlalchemy": in_sqlalchemy,
}


async def check(scoped: ScopedStore[Any], alice: Found[Any]) -> None:
    """Every method that returns a session returns its device."""
    session = session_of(alice, device="phone")
    await scoped.sessions.insert(session, b"h")
    loaded = await scoped.sessions.load(b"h", now=NOW)
    found = await scoped.users.find("email", "alice@example.com")
    assert loaded == (session, found and found.user)
    assert await scoped.sessions.list(session.user_id, now=NOW) == [session]
    assert await scoped.sessions.revoke_by_secrets([b"h"], now=NOW) == [session]


async def main(name: str, place: str) -> None:
    """Make the store and check it."""
    store = await STORES[name](place)
    await check(store.scope("user"), await add_user(store.scope("user")))
    await store.close()


asyncio.run(main(*sys.argv[1:]))  # without a condition: no module imports this one
