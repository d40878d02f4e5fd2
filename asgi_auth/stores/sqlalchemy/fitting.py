"""Which values a column can hold. SQLite accepts any value, and PostgreSQL does not name the column of a bad one."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Date, DateTime, Enum, Float, Integer, Interval, Numeric, SmallInteger, String, Time
from sqlalchemy.sql import roles
from sqlalchemy.types import TypeEngine

from asgi_auth.stores.sqlalchemy import texts


def misfit(kind: TypeEngine[Any], value: Any, *, wide: bool) -> str | None:
    """The reason why *value* does not fit a column of the type *kind*, as a sentence; None if it fits.

    Only SQLAlchemy's own types are checked. The result of an application's type is known only after its conversion.

    Args:
        wide: Whether every integer of the database has 64 bits, whatever the name of its type.
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
    """Whether ``misfit`` is complete for *kind*: a value without a misfit certainly fits."""
    return any(isinstance(kind, known) for known, _ in _KNOWN)


def is_left_open(value: Any) -> bool:
    """Whether *value* is None, or an expression that the database evaluates."""
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

# To SQLAlchemy an enumeration is a kind of text. Therefore it comes first.
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
