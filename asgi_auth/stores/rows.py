"""Values in and out of SQL rows: instants, JSON, and the columns that each record is read from.

Instants are whole microseconds since the epoch: exact, ordered, and the same in every database.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from asgi_auth.errors import StoreUnavailableError, ValidationError
from asgi_auth.store import Found, Loaded, TokenRecord
from asgi_auth.types import EMPTY, Account, FrozenDict, Session, User

Row = Sequence[Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def storable(value: object) -> bool:
    """Whether every database takes *value*: no NUL, no lone surrogate, no integer over 64 bits, at any depth (RP-8)."""
    if isinstance(value, str):
        return "\0" not in value and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, Mapping):
        return all(storable(part) for item in value.items() for part in item)
    return not isinstance(value, (list, tuple)) or all(map(storable, value))


def micros(instant: datetime) -> int:
    """*instant* as it is stored; exact, unlike ``timestamp()``."""
    return (instant - EPOCH) // MICROSECOND


def instant(value: int) -> datetime:
    """The instant that was stored as *value*."""
    return EPOCH + timedelta(microseconds=value)


def or_none(convert: Callable[[Any], Any], value: Any) -> Any:
    """*value* converted; None stays None."""
    return None if value is None else convert(value)


def dump(values: Mapping[str, Any]) -> str:
    """*values* as JSON; ValidationError if they are not storable or no JSON."""
    with suppress(TypeError, ValueError, RecursionError):
        if storable(values):
            return json.dumps(dict(values), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    raise ValidationError("a value cannot be stored", fields=dict.fromkeys(values, "cannot be stored"))


def parse(text: str) -> Mapping[str, Any]:
    """What was stored as *text*; StoreUnavailableError if it is corrupt."""
    if text == "{}":
        return EMPTY
    parsed = None
    with suppress(ValueError):  # which quotes the text, and so must not be the context of another error
        parsed = json.loads(text)
    if not isinstance(parsed, dict):
        raise StoreUnavailableError("a stored value is corrupt")
    return FrozenDict(parsed)


# --- rows ------------------------------------------------------------------------------------------------------------

SESSION = ", ".join(
    f"asgi_auth_sessions.{column}"
    for column in (
        *("id", "user_id", "stamp", "created_at", "last_seen_at"),
        *("idle_expires_at", "expires_at", "label", "factors", "remembered"),
    )
)
USER = "u.id, u.email, u.username, u.data, u.created_at, a.confirmed_at"
ACCOUNT = "user_id, stamp, password_hash, confirmed_at, disabled_at"
TOKEN = "token_hash, purpose, user_id, stamp, created_at, expires_at, extra_data"


def to_session(row: Row) -> Session:
    """The row of ``SESSION``."""
    return Session(
        id=row[0],
        user_id=row[1],
        stamp=row[2],
        created_at=instant(row[3]),
        last_seen_at=instant(row[4]),
        idle_expires_at=instant(row[5]),
        expires_at=instant(row[6]),
        label=row[7],
        factors=FrozenDict({name: instant(at) for name, at in parse(row[8]).items()}),
        remembered=bool(row[9]),
    )


def to_user(row: Row) -> User:
    """The row of ``USER``."""
    return User(
        id=row[0],
        email=row[1],
        username=row[2],
        data=parse(row[3]),
        created_at=instant(row[4]),
        confirmed_at=or_none(instant, row[5]),
    )


def to_account(row: Row) -> Account:
    """The row of ``ACCOUNT``."""
    return Account(
        user_id=row[0],
        stamp=row[1],
        password_hash=row[2],
        confirmed_at=or_none(instant, row[3]),
        disabled_at=or_none(instant, row[4]),
    )


def to_token(row: Row) -> TokenRecord:
    """The row of ``TOKEN``."""
    return TokenRecord(
        token_hash=row[0],
        purpose=row[1],
        user_id=row[2],
        stamp=row[3],
        created_at=instant(row[4]),
        expires_at=instant(row[5]),
        extra_data=parse(row[6]),
    )


def to_found(row: Row) -> Found[User]:
    """The row of ``USER`` and ``ACCOUNT``."""
    return Found(to_user(row), to_account(row[6:]))


def to_loaded(row: Row) -> Loaded[User]:
    """The row of ``SESSION`` and ``USER``; equal rows may give the same values, which nobody can alter."""
    data: str = row[13]
    if data.count("{") == 1 and "[" not in data:
        return _remembered(tuple(row))
    return _loaded(row)  # nested values can be altered: everybody gets their own


def _loaded(row: Row) -> Loaded[User]:
    return Loaded(to_session(row), to_user(row[10:]))


# Most requests read the very row that the request before has read; to compare it is cheaper than to decode it.
_remembered = lru_cache(maxsize=1024)(_loaded)
