"""The rule that a statement broke, as the database reports it."""

from typing import Any, Literal, NamedTuple

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError

from asgi_auth.stores.executor import ConflictError

Kind = Literal["unique", "null", "check", "foreign", "other"]

# PostgreSQL, Appendix A. An exclusion constraint keeps values apart, as a unique one does. P0001 is from a trigger.
_STATES: dict[str, Kind] = {
    "23505": "unique",
    "23P01": "unique",
    "23502": "null",
    "23514": "check",
    "23503": "foreign",
    "P0001": "other",
}
_SQLITE: dict[str, Kind] = {"UNIQUE": "unique", "NOT NULL": "null", "CHECK": "check", "FOREIGN KEY": "foreign"}


class Broken(NamedTuple):
    """A rule, with the names that the database reports, and without values."""

    kind: Kind
    table: str = ""
    """The table; empty if the database does not name it."""
    name: str = ""
    """The name of the constraint, or its text if it has no name."""
    columns: tuple[str, ...] = ()
    """The columns that the database names."""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.name or ", ".join(f"{self.table}.{c}" for c in self.columns))))


class RuleError(ConflictError):
    """A statement would have broken a rule of the database."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(f"sqlalchemy: {broken}")
        self.broken = broken


def broken_rule(error: SQLAlchemyError | OSError) -> Broken | None:
    """The rule that was broken; None if *error* is about something else."""
    state = _state(error)
    if not isinstance(error, IntegrityError) and state != "P0001":
        return None
    orig: Any = getattr(error, "orig", None)
    if state:
        source = getattr(orig, "diag", None) or orig.__cause__  # psycopg, asyncpg
        table, name, column = (
            getattr(source, f"{each}_name", None) or "" for each in ("table", "constraint", "column")
        )
        return Broken(_STATES.get(state, "other"), table, name, (column,) if column else ())
    return _sqlite(str(orig))


def is_about_a_value(error: SQLAlchemyError | OSError) -> bool:
    """Whether a value does not fit its column."""
    if not isinstance(error, StatementError):
        return False
    if not isinstance(error, DBAPIError):
        return True  # a type of SQLAlchemy rejected the value
    # PostgreSQL: class 22 is data exceptions
    return (
        isinstance(error, DataError) or _state(error).startswith("22") or "Error binding parameter" in str(error.orig)
    )


def _state(error: SQLAlchemyError | OSError) -> str:
    return str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")


def _sqlite(text: str) -> Broken:
    kind, found, rest = text.partition(" constraint failed")
    if not found or kind not in _SQLITE:
        return Broken("other")  # the text of a trigger, which may contain values
    named = rest.removeprefix(": ")
    if kind in ("CHECK", "FOREIGN KEY"):
        return Broken(_SQLITE[kind], name=named)
    if named.startswith("index "):  # over an expression
        return Broken(_SQLITE[kind], name=named.removeprefix("index ").strip("'"))
    columns = [column.rpartition(".") for column in named.split(", ")]
    return Broken(_SQLITE[kind], columns[0][0], "", tuple(name for _, _, name in columns))
