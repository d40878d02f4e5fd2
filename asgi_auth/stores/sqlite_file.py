"""The file of ``SQLiteStore``: makes, opens and recognises it, and has the errors that name it. Synchronous."""

import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.stores import schema
from asgi_auth.stores.executor import ConflictError

logger = logging.getLogger("asgi_auth")

_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables; RETURNING is older

# --- errors ----------------------------------------------------------------------------------------------------------

_CAUSES = {
    sqlite3.SQLITE_BUSY: "another connection holds the lock",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "the file, or a file beside it, cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database",
    sqlite3.SQLITE_READONLY: "the file, a file beside it, or the directory is read-only",
}
"""The library's own texts, because SQLite's text may quote a statement."""
BROKEN = frozenset(_CAUSES) - {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL}
"""Codes after which a connection is unusable. It caches the data of a damaged file, or it stays read-only."""


class LostFileError(StoreUnavailableError):
    """The file is missing, empty or replaced. ``reason`` names it."""


def code(error: object) -> int:
    """SQLite's primary code; 0 for an error of the driver, or any other error."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the lock, so that a second try may succeed."""
    return code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def read_only(error: BaseException) -> bool:
    """Whether a connection cannot write, though it may read."""
    return sqlite3.SQLITE_READONLY in (code(error), code(error.__cause__))


def broken(error: BaseException) -> bool:
    """Whether connections with *error* are unusable, so that the file must be opened again."""
    return isinstance(error, LostFileError) or not BROKEN.isdisjoint({code(error), code(error.__cause__)})


# --- the file --------------------------------------------------------------------------------------------------------


class DatabaseFile:
    """The database file. Only the first opening makes it. Once its schema was read, it must stay the same file."""

    _creating = threading.Lock()

    def __init__(self, path: str, timeout: float) -> None:
        self.path, self.timeout = path, timeout
        self._uri = f"{Path(path).as_uri()}?mode=rw"
        self._known: tuple[int, int] | None = None
        self._loss: str | None = None

    def connect(self, *pragmas: str, timeout: float | None = None) -> sqlite3.Connection:
        """A connection in autocommit, with *pragmas* applied. Never makes the file."""
        connection = sqlite3.connect(
            self._uri,
            uri=True,
            timeout=self.timeout if timeout is None else timeout,
            isolation_level=None,
            check_same_thread=False,  # the thread that ends last closes it
        )
        try:
            for pragma in ("foreign_keys = ON", "synchronous = FULL", *pragmas):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_writer(self) -> sqlite3.Connection:
        """The first connection of a pool. The very first one makes the file and the schema if they are missing."""
        connection, identity = self._open()
        try:
            before = self._version(connection)
            schema.ensure(connection)
        except BaseException:
            connection.close()
            raise
        if self._known is None:
            logger.info("SQLiteStore: %s %s", "opened" if before else "made the tables in", self.path)
            self._known = identity
        return connection

    def versions(self) -> tuple[int, int]:
        """As ``SQLiteStore.versions``."""
        newest = len(schema.steps("sqlite"))
        self.check()
        try:
            identity = self._identity()
        except FileNotFoundError:
            os.stat(os.path.dirname(self.path))  # without its directory the file cannot be made
            return 0, newest
        with closing(self.connect()) as connection:
            found = self._version(connection)
        if found != 0:
            self._known = identity
        return found, newest

    def migrate(self) -> tuple[int, int]:
        """As ``SQLiteStore.migrate``."""
        connection, identity = self._open()
        with closing(connection):
            self._version(connection)
            versions = schema.upgrade(connection)
        self._known = identity
        return versions

    def check(self) -> None:
        """Check that the file is still the one whose schema was read.

        A process that continues with a deleted or replaced file would lose its writes.

        Raises:
            LostFileError: the file is missing, empty or replaced, or it cannot be checked; logged once.
        """
        loss = None if self._known is None else self._find_loss(self._known)
        if loss is not None:
            raise self._lost(loss)
        self._loss = None

    def writable(self) -> bool:
        """Whether this process may write to the file now. A connection that was opened read-only stays read-only."""
        return os.access(self.path, os.W_OK)

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Raises StoreUnavailableError for errors of SQLite and the system in the block."""
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise self.unavailable(exc) from exc

    def unavailable(self, error: sqlite3.Error | OSError) -> StoreUnavailableError:
        """The error with the path and the cause, without text of SQLite that could quote a value."""
        if isinstance(error, sqlite3.IntegrityError):
            return ConflictError(f"sqlite: {error}")  # names tables and columns only
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        cause = error.strerror if isinstance(error, OSError) else _CAUSES.get(code(error))
        where = getattr(error, "filename", None) or self.path
        return StoreUnavailableError(": ".join(filter(None, ("sqlite", name, where, cause))))

    def _open(self) -> tuple[sqlite3.Connection, tuple[int, int]]:
        """A connection with the write-ahead log, and the identity of its file."""
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise ConfigurationError(f"SQLiteStore: SQLite {sqlite3.sqlite_version} is older than 3.37")
        self.check()
        if self._known is None:
            self._create()
        identity = self._identity()
        self._free_log()
        connection = self.connect()
        try:
            self._log_ahead(connection)
        except BaseException:
            connection.close()
            raise
        return connection, identity

    def _create(self) -> None:
        # Closing a file descriptor drops every lock that this process holds on the file. Never open a file that SQLite
        # may already have open. The lock keeps other threads from opening the new file before it is closed here.
        with self._creating, suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))

    def _free_log(self) -> None:
        """Give the log the mode of the file: SQLite leaves a log behind that was made while the file was read-only."""
        mode = stat.S_IMODE(os.stat(self.path).st_mode)
        for beside in (f"{self.path}-wal", f"{self.path}-shm"):
            with suppress(OSError):  # there is no log, or another user owns it
                found = os.lstat(beside).st_mode
                if stat.S_ISREG(found) and stat.S_IMODE(found) != mode and self.writable():
                    os.chmod(beside, mode)

    def _identity(self) -> tuple[int, int]:
        found = os.stat(self.path)
        return found.st_dev, found.st_ino

    def _version(self, connection: sqlite3.Connection) -> int:
        """The version of the schema. Raises LostFileError if there is none, and there was one before."""
        version = schema.version(connection)
        if version == 0 and self._known is not None:
            raise self._lost("has lost its tables")
        return version

    def _find_loss(self, known: tuple[int, int]) -> str | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return "is gone"
        except OSError as exc:
            return f"cannot be found ({exc.strerror})"
        if (found.st_dev, found.st_ino) != known:
            return "was replaced by another file"
        return None if found.st_size else "is empty"

    def _lost(self, loss: str) -> LostFileError:
        # The old log beside a new file would become part of it at the next start.
        text = (
            f"{self.path} {loss}: put back the file that this process opened; or stop the application, remove "
            f"{self.path}-wal and {self.path}-shm, and start it with another file"
        )
        if loss != self._loss:
            self._loss = loss
            logger.error("SQLiteStore: %s", text)
        return LostFileError(f"sqlite: {text}")

    def _log_ahead(self, connection: sqlite3.Connection) -> None:
        """Switch to the write-ahead log, if the file system supports it."""
        mode = self._switch(connection)
        if mode != "wal":
            logger.warning(
                "SQLiteStore: %s stays in journal mode %s: its file system refuses a write-ahead log, so that readers "
                "wait for the writer, and the writer for readers",
                self.path,
                mode,
            )

    def _switch(self, connection: sqlite3.Connection) -> str:
        """The mode afterwards. SQLite itself does not wait for other processes here, so try until the timeout."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
            except sqlite3.OperationalError as exc:
                if not busy(exc) or time.monotonic() >= deadline:
                    raise
            time.sleep(0.01)
