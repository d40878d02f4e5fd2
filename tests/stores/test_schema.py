"""The schema: created once, upgraded from every released version, and never guessed."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from asgi_auth.errors import ConfigurationError
from asgi_auth.stores import schema

RELEASED = sorted((Path(__file__).parent / "schema").glob("sqlite_*.sql"))
"""Copies of the released files. They never change."""
NEWEST = len(RELEASED)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """An empty database."""
    connection = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
    yield connection
    connection.close()


def shape(connection: sqlite3.Connection) -> list[Any]:
    """All tables and indexes, with the statements that created them."""
    return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


def more_steps(monkeypatch: pytest.MonkeyPatch, *statements: str) -> None:
    """Add one version to the released versions."""
    released = schema.steps("sqlite")
    monkeypatch.setattr(schema, "steps", lambda dialect: (*released, statements))


def test_schema_released_files_never_change() -> None:
    """Each shipped file equals the released file of the same name."""
    shipped, released = Path(schema.__file__).parent, sorted((Path(__file__).parent / "schema").glob("*.sql"))
    assert [path.name for path in released] == sorted(path.name for path in shipped.glob("*.sql"))
    assert [path.read_text("utf-8") for path in released] == [
        (shipped / path.name).read_text("utf-8") for path in released
    ]


@pytest.mark.parametrize("version", range(1, NEWEST + 1))
def test_schema_upgrade_from_each_released_version(database: sqlite3.Connection, tmp_path: Path, version: int) -> None:
    """After an upgrade, a database of any released version equals a new one, and keeps its rows."""
    for path in RELEASED[:version]:
        database.executescript(path.read_text("utf-8"))
    database.execute("INSERT INTO asgi_auth_schema (version) VALUES (?)", (version,))
    database.execute("INSERT INTO asgi_auth_users (subject_name, id, data, created_at) VALUES ('user', 'a', '{}', 0)")

    assert schema.upgrade(database) == (version, NEWEST)

    fresh = sqlite3.connect(tmp_path / "fresh.db", isolation_level=None)
    schema.ensure(fresh)
    assert shape(database) == shape(fresh)
    fresh.close()
    schema.ensure(database)
    assert database.execute("SELECT id FROM asgi_auth_users").fetchall() == [("a",)]
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_schema_is_created_beside_the_tables_of_the_application(database: sqlite3.Connection) -> None:
    """A database without tables of the library counts as empty, even if it has other tables."""
    database.execute("CREATE TABLE notes (text TEXT)")
    assert schema.version(database) == 0
    assert schema.upgrade(database) == (0, NEWEST)
    assert schema.version(database) == NEWEST


def test_schema_older_version_names_the_command(database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening does not change an older schema. The error names the command, and the command upgrades the schema."""
    schema.ensure(database)
    more_steps(monkeypatch, "ALTER TABLE asgi_auth_users ADD COLUMN nickname TEXT")
    with pytest.raises(ConfigurationError, match="python -m asgi_auth migrate"):
        schema.ensure(database)
    assert schema.version(database) == NEWEST
    assert schema.upgrade(database) == (NEWEST, NEWEST + 1)
    schema.ensure(database)
    assert database.execute("SELECT nickname FROM asgi_auth_users").fetchall() == []


@pytest.mark.parametrize("versions", [[NEWEST + 1], [-1], [], [1, 1]], ids=str)
def test_schema_unknown_version_is_rejected(database: sqlite3.Connection, versions: list[int]) -> None:
    """The store neither uses nor migrates a schema of an unknown version."""
    schema.ensure(database)
    database.execute("DELETE FROM asgi_auth_schema")
    database.executemany("INSERT INTO asgi_auth_schema (version) VALUES (?)", [(version,) for version in versions])
    for act in (schema.ensure, schema.upgrade):
        with pytest.raises(ConfigurationError, match="newer"):
            act(database)
    assert not database.in_transaction


def test_schema_failed_upgrade_changes_nothing(database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that fails half-way leaves the schema unchanged."""
    schema.ensure(database)
    before = shape(database)
    more_steps(monkeypatch, "CREATE TABLE asgi_auth_more (id TEXT)", "CREATE TABLE asgi_auth_users (id TEXT)")
    with pytest.raises(sqlite3.OperationalError):
        schema.upgrade(database)
    assert shape(database) == before
    assert not database.in_transaction


def test_schema_is_created_once(tmp_path: Path) -> None:
    """Two workers that start on an empty file at once both find the newest schema."""
    barrier = Barrier(2)

    def start() -> int:
        connection = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
        barrier.wait()
        try:
            schema.ensure(connection)
            return schema.version(connection)
        finally:
            connection.close()

    with ThreadPoolExecutor() as pool:
        assert [future.result() for future in [pool.submit(start), pool.submit(start)]] == [NEWEST, NEWEST]
