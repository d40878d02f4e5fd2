"""The released schemas: version N of a database is what its files ``<dialect>_0001.sql`` to ``_N`` make, in order.

A file that was released never changes; the next version is one more file.
"""

import sqlite3
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from asgi_auth.errors import ConfigurationError


@cache
def steps(dialect: str) -> tuple[tuple[str, ...], ...]:
    """The statements that lead from each version of *dialect* to the next; the first makes version 1 of nothing."""
    names = sorted(file.name for file in files(__name__).iterdir() if file.name.startswith(f"{dialect}_"))
    return tuple(tuple(_statements(files(__name__).joinpath(name).read_text("utf-8"))) for name in names)


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


def refuse_unknown(found: int, newest: int) -> None:
    """ConfigurationError for a version that this package does not know."""
    if not 0 <= found <= newest:
        raise ConfigurationError(
            f"store: the schema of the database ({found}) is not one of 1 to {newest}: made by a newer version?"
        )


def refuse_older(found: int, newest: int) -> None:
    """ConfigurationError for every version but the newest."""
    refuse_unknown(found, newest)
    if found != newest:
        raise ConfigurationError(
            f"store: the database has schema {found}, this version needs {newest}: make a backup, then "
            "run python -m asgi_auth migrate"
        )


# --- SQLite: synchronous, for a thread of its own -------------------------------------------------------------------


def version(connection: sqlite3.Connection) -> int:
    """The version of the schema; 0 where there is none, -1 where it cannot be told."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'asgi_auth_schema'").fetchall():
        return 0
    rows = connection.execute("SELECT version FROM asgi_auth_schema").fetchall()
    return int(rows[0][0]) if len(rows) == 1 else -1


def ensure(connection: sqlite3.Connection) -> None:
    """Make the newest schema where there is none; refuse every other one.

    Raises:
        ConfigurationError: the schema is older than this package, or not known to it.
    """
    if version(connection) == 0:
        upgrade(connection)
    refuse_older(version(connection), len(steps("sqlite")))


def upgrade(connection: sqlite3.Connection) -> tuple[int, int]:
    """Bring any released schema to the newest in one transaction; the versions before and after.

    Raises:
        ConfigurationError: the schema is not known to this package.
    """
    newest = len(steps("sqlite"))
    # The version is read under the lock: of two processes that start on an empty file one makes the schema.
    connection.execute("BEGIN IMMEDIATE")
    try:
        before = version(connection)
        refuse_unknown(before, newest)
        for statement in (statement for step in steps("sqlite")[before:] for statement in step):
            connection.execute(statement)
        connection.execute("DELETE FROM asgi_auth_schema")
        connection.execute("INSERT INTO asgi_auth_schema (version) VALUES (?)", (newest,))
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise
    return before, newest
