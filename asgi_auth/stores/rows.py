"""Values in and out of SQL rows: instants, ids, JSON, and the columns that each record is read from.

How a database keeps instants and ids is its ``Codec``; JSON is handed over as text everywhere.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from asgi_auth.errors import StoreUnavailableError, ValidationError
from asgi_auth.store import Found, InvitationRecord, Loaded, TokenRecord
from asgi_auth.types import EMPTY, Account, FrozenDict, Session, User

Row = Sequence[Any]
T = TypeVar("T")

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
            return _write(dict(values))
    raise ValidationError("a value cannot be stored", fields=dict.fromkeys(values, "cannot be stored"))


def dump_names(names: Sequence[str]) -> str:
    """*names* as JSON; ValidationError if they are not storable."""
    if not storable(names):
        raise ValidationError("a value cannot be stored")
    return _write([*names])


def _write(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _integer(digits: str) -> int | float:
    """An integer over 64 bits is never stored: it is a float, which PostgreSQL writes out with all its digits."""
    value = int(digits)
    return value if storable(value) else float(value)


_JSON = json.JSONDecoder(parse_int=_integer)


def parse(text: str) -> Mapping[str, Any]:
    """What was stored as *text*; StoreUnavailableError if it is corrupt."""
    if text == "{}":
        return EMPTY
    return FrozenDict(_read(text, dict))


def parse_names(text: str) -> tuple[str, ...]:
    """The names that were stored as *text*; StoreUnavailableError if it is corrupt."""
    return tuple(_read(text, list))


def _read(text: str, kind: type[T]) -> T:
    parsed = None
    with suppress(ValueError):  # which quotes the text, and so must not be the context of another error
        parsed = _JSON.decode(text)
    if not isinstance(parsed, kind):
        raise StoreUnavailableError("a stored value is corrupt")
    return parsed


# --- rows ------------------------------------------------------------------------------------------------------------

SESSION = ", ".join(
    f"asgi_auth_sessions.{column}"
    for column in (
        *("id", "user_id", "stamp", "created_at", "last_seen_at"),
        *("idle_expires_at", "expires_at", "label", "factors::text", "remembered"),
    )
)
USER = "u.id, u.email, u.username, u.data::text, u.created_at, a.confirmed_at"
ACCOUNT = "user_id, stamp, password_hash, confirmed_at, disabled_at, proven_email"
TOKEN_COLUMNS = "token_hash, purpose, user_id, stamp, created_at, expires_at, extra_data"
TOKEN = TOKEN_COLUMNS + "::text"
INVITATION_COLUMNS = (
    "id, scope, email, email_key, grant_data, strategies, inviter_id, status, version, created_at, expires_at, "
    "sent_count, last_sent_at, delivery, accepted_by, accepted_via, ended_at, ended_by, reason"
)
INVITATION = INVITATION_COLUMNS.replace("grant_data, strategies", "grant_data::text, strategies::text")


class Codec(NamedTuple):
    """How a database keeps what is neither text, number, truth value nor bytes."""

    store_instant: Callable[[datetime], Any]
    read_instant: Callable[[Any], datetime]
    store_id: Callable[[str], Any]
    """Of whatever is no id: one that nobody has."""
    read_id: Callable[[Any], str]


class Rows:
    """Records from rows, as a ``Codec`` has it."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._instant, self._id = codec.read_instant, codec.read_id
        # Most requests read the very row that the request before has read; to compare it is cheaper than to decode it.
        self._remembered = lru_cache(maxsize=1024)(self._loaded)

    def session(self, row: Row) -> Session:
        """The row of ``SESSION``."""
        return Session(
            id=self._id(row[0]),
            user_id=self._id(row[1]),
            stamp=row[2],
            created_at=self._instant(row[3]),
            last_seen_at=self._instant(row[4]),
            idle_expires_at=self._instant(row[5]),
            expires_at=self._instant(row[6]),
            label=row[7],
            factors=FrozenDict({name: instant(at) for name, at in parse(row[8]).items()}),
            remembered=bool(row[9]),
        )

    def user(self, row: Row) -> User:
        """The row of ``USER``."""
        return User(
            id=self._id(row[0]),
            email=row[1],
            username=row[2],
            data=parse(row[3]),
            created_at=self._instant(row[4]),
            confirmed_at=or_none(self._instant, row[5]),
        )

    def account(self, row: Row) -> Account:
        """The row of ``ACCOUNT``."""
        return Account(
            user_id=self._id(row[0]),
            stamp=row[1],
            password_hash=row[2],
            confirmed_at=or_none(self._instant, row[3]),
            disabled_at=or_none(self._instant, row[4]),
            proven_email=row[5],
        )

    def token(self, row: Row) -> TokenRecord:
        """The row of ``TOKEN``."""
        return TokenRecord(
            token_hash=row[0],
            purpose=row[1],
            user_id=or_none(self._id, row[2]),
            stamp=row[3],
            created_at=self._instant(row[4]),
            expires_at=self._instant(row[5]),
            extra_data=parse(row[6]),
        )

    def invitation(self, row: Row) -> InvitationRecord:
        """The row of ``INVITATION``."""
        return InvitationRecord(
            id=self._id(row[0]),
            scope=row[1],
            email=row[2],
            email_key=row[3],
            grant=parse(row[4]),
            strategies=parse_names(row[5]),
            inviter_id=or_none(self._id, row[6]),
            status=row[7],
            version=row[8],
            created_at=self._instant(row[9]),
            expires_at=self._instant(row[10]),
            sent_count=row[11],
            last_sent_at=self._instant(row[12]),
            delivery=row[13],
            accepted_by=or_none(self._id, row[14]),
            accepted_via=row[15],
            ended_at=or_none(self._instant, row[16]),
            ended_by=or_none(self._id, row[17]),
            reason=row[18],
        )

    def found(self, row: Row) -> Found[User]:
        """The row of ``USER`` and ``ACCOUNT``."""
        return Found(self.user(row), self.account(row[6:]))

    def loaded(self, row: Row) -> Loaded[User]:
        """The row of ``SESSION`` and ``USER``; equal rows may give the same values, which nobody can alter."""
        data: str = row[13]
        if data.count("{") == 1 and "[" not in data:
            return self._remembered(tuple(row))
        return self._loaded(row)  # nested values can be altered: everybody gets their own

    def _loaded(self, row: Row) -> Loaded[User]:
        return Loaded(self.session(row), self.user(row[10:]))


TEXT_ROWS = Rows(Codec(micros, instant, str, str))
"""Where there are numbers and text only: instants are whole microseconds since the epoch, exact and ordered."""
