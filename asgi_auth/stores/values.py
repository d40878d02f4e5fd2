"""Converts values for SQL rows and back: instants, ids and JSON. Rejects values that some database cannot store.

A ``Codec`` says how a database stores instants and ids. JSON is always passed as text.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

from asgi_auth.errors import StoreUnavailableError, ValidationError
from asgi_auth.messages import NOT_STORABLE
from asgi_auth.types import EMPTY, FrozenDict

T = TypeVar("T")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

NOBODY: Final = object()
"""The stored form of a text that is not an id, if the type of the ids has no unused value. It finds no row."""


class Codec(NamedTuple):
    """How a database stores instants and ids."""

    store_instant: Callable[[datetime], Any]
    read_instant: Callable[[Any], datetime]
    store_id: Callable[[str], Any]
    """For an id that the library makes. A text that is not an id becomes an id that no row has."""
    read_id: Callable[[Any], str]
    store_user_id: Callable[[str], Any]
    """For an id of the table of users, which may be the application's. A text that is not an id becomes an id that no
    user has, or ``NOBODY``."""
    read_user_id: Callable[[Any], str]


def same(value: T) -> T:
    """*value* unchanged."""
    return value


def storable(value: object) -> bool:
    """Whether every database can store *value*: no NUL, lone surrogate or integer over 64 bits, at any depth (RP-8)."""
    if isinstance(value, str):
        return "\0" not in value and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, Mapping):
        return all(storable(part) for item in value.items() for part in item)
    return value is not NOBODY and (not isinstance(value, (list, tuple)) or all(map(storable, value)))


def micros(instant: datetime) -> int:
    """*instant* as it is stored; exact, unlike ``timestamp()``."""
    return (instant - EPOCH) // MICROSECOND


def instant(value: int) -> datetime:
    """The instant that was stored as *value*."""
    return EPOCH + timedelta(microseconds=value)


def or_none(convert: Callable[[Any], Any], value: Any) -> Any:
    """*value* converted; None stays None."""
    return None if value is None else convert(value)


# --- JSON ------------------------------------------------------------------------------------------------------------


def dump(values: Mapping[str, Any]) -> str:
    """*values* as JSON. Raises ValidationError if they are not storable or not JSON."""
    with suppress(TypeError, ValueError, RecursionError):
        if storable(values):
            return _write(dict(values))
    raise ValidationError("a value cannot be stored", fields=dict.fromkeys(values, NOT_STORABLE))


def dump_instants(instants: Mapping[str, datetime]) -> str:
    """*instants* as JSON. Raises ValidationError if their names are not storable."""
    return dump({name: micros(at) for name, at in instants.items()})


def dump_names(names: Sequence[str]) -> str:
    """*names* as JSON. Raises ValidationError if they are not storable."""
    if not storable(names):
        raise ValidationError("a value cannot be stored")
    return _write([*names])


def _write(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _integer(digits: str) -> int | float:
    """The number. Over 64 bits it was stored as a float, which PostgreSQL writes with all its digits."""
    value = int(digits)
    return value if storable(value) else float(value)


_JSON = json.JSONDecoder(parse_int=_integer)


def parse(text: str) -> Mapping[str, Any]:
    """The values that were stored as *text*. Raises StoreUnavailableError if it is corrupt."""
    if text == "{}":
        return EMPTY
    return FrozenDict(_read(text, dict))


def parse_instants(text: str) -> Mapping[str, datetime]:
    """The instants that were stored as *text*. Raises StoreUnavailableError if it is corrupt."""
    return FrozenDict({name: instant(at) for name, at in parse(text).items()})


def parse_names(text: str) -> tuple[str, ...]:
    """The names that were stored as *text*. Raises StoreUnavailableError if it is corrupt."""
    return tuple(_read(text, list))


def _read(text: str, kind: type[T]) -> T:
    parsed = None
    with suppress(ValueError):  # it quotes the text, so it must not be the context of another error
        parsed = _JSON.decode(text)
    if not isinstance(parsed, kind):
        raise StoreUnavailableError("a stored value is corrupt")
    return parsed
