"""The released schemas. The files ``<dialect>_0001.sql`` to ``_N`` make version N of a database, in order.

A released file never changes. The next version is one more file.
"""

import sqlite3
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from asgi_auth.errors import ConfigurationError


@cache
def steps(dialect: str) -> tuple[tuple[str, ...], ...]:
    """The statements from each version of *dialect* to the next. The first ones make version 1 in an empty database."""
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
    """Raises ConfigurationError if this package does not know the version."""
    if not 0 <= found <= newest:
        raise ConfigurationError(
            f"store: the schema of the database ({found}) is not one of 1 to {newest}: made by a newer version?"
        )


def refuse_older(found: int, newest: int) -> None:
    """Raises ConfigurationError if the version is not the newest."""
    refuse_unknown(found, newest)
    if found != newest:
        raise ConfigurationError(
            f"store: the database has schema {found}, this version needs {newest}: make a backup, then "
            "run python -m asgi_auth migrate"
        )


# --- SQLite: synchronous, for a separate thread ---------------------------------------------------------------------


def version(connection: sqlite3.Connection) -> int:
    """The version of the schema; 0 if there is none, -1 if it cannot be read."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'asgi_auth_schema'").fetchall():
        return 0
    rows = connection.execute("SELECT version FROM asgi_auth_schema").fetchall()
    return int(rows[0][0]) if len(rows) == 1 else -1


def ensure(connection: sqlite3.Connection) -> None:
    """Make the newest schema if there is none. Refuse any other version.

    Raises:
        ConfigurationError: the schema is older than this package, or unknown.
    """
    if version(connection) == 0:
        upgrade(connection)
    refuse_older(version(connection), len(steps("sqlite")))


def upgrade(connection: sqlite3.Connection) -> tuple[int, int]:
    """Bring any released schema to the newest in one transaction. Returns the versions before and after.

    Raises:
        ConfigurationError: this package does not know the schema.
    """
    newest = len(steps("sqlite"))
    # The version is read under the lock. If two processes start on an empty file, only one makes the schema.
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
