"""Which values a column can hold. SQLite would hold any, and PostgreSQL does not say which column refused one."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Date, DateTime, Enum, Float, Integer, Interval, Numeric, SmallInteger, String, Time
from sqlalchemy.sql import roles
from sqlalchemy.types import TypeEngine

from asgi_auth.stores.sqlalchemy import texts


def misfit(kind: TypeEngine[Any], value: Any, *, wide: bool) -> str | None:
    """What is wrong with *value* for a column of the type *kind*, in a sentence; None if nothing is.

    Only types of SQLAlchemy's own are judged. What an application's type makes of a value is known once it has.

    Args:
        wide: Whether every integer of the database has 64 bits, whatever its type is called.
    """
    if is_left_open(value):
        return None
    if wide and isinstance(kind, Integer):
        kind = _WIDE
    for known, problem in _KNOWN:
        if isinstance(kind, known):
            return problem(kind, value)
    return next(
        (text for known, types, text in _OF_TYPES if isinstance(kind, known) and not isinstance(value, types)), None
    )


def is_judged(kind: TypeEngine[Any]) -> bool:
    """Whether a value that is no misfit certainly fits a column of the type *kind*."""
    return any(isinstance(kind, known) for known, _ in _KNOWN)


def is_left_open(value: Any) -> bool:
    """Whether *value* is nothing, or an expression that the database evaluates."""
    return value is None or isinstance(value, roles.SQLRole)


def too_long(kind: TypeEngine[Any], value: str) -> bool:
    """Whether *value* has more characters than a column of the type *kind* holds."""
    return isinstance(kind, String) and kind.length is not None and len(value) > kind.length


def _choice(kind: Any, value: Any) -> str | None:
    known = kind.enum_class is not None and isinstance(value, kind.enum_class)
    return None if known or (isinstance(value, str) and value in kind.enums) else texts.NOT_A_CHOICE


def _text(kind: Any, value: Any) -> str | None:
    if not isinstance(value, str):
        return texts.NOT_A_TEXT
    return texts.TOO_LONG if too_long(kind, value) else None


def _whole_number(kind: Any, value: Any) -> str | None:
    if not isinstance(value, int):
        return texts.NOT_A_WHOLE_NUMBER
    bits = 64 if isinstance(kind, BigInteger) else 16 if isinstance(kind, SmallInteger) else 32
    return None if -(2 ** (bits - 1)) <= value < 2 ** (bits - 1) else texts.OUT_OF_RANGE


_WIDE = BigInteger()

# An enumeration is a kind of text to SQLAlchemy, and so comes first.
_KNOWN: tuple[tuple[type[TypeEngine[Any]], Callable[[Any, Any], str | None]], ...] = (
    (Enum, _choice),
    (String, _text),
    (Integer, _whole_number),
)
_OF_TYPES: tuple[tuple[type[TypeEngine[Any]], tuple[type[Any], ...], str], ...] = (
    (Numeric, (int, float, Decimal), texts.NOT_A_NUMBER),
    (Float, (int, float, Decimal), texts.NOT_A_NUMBER),  # a Numeric up to SQLAlchemy 2.0
    (Date, (date,), texts.INVALID),
    (DateTime, (datetime,), texts.INVALID),
    (Time, (time,), texts.INVALID),
    (Interval, (timedelta,), texts.INVALID),
)
