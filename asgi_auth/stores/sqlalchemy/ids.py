"""The ids of the application's users: the values that their type converts, and the only text of each id."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BINARY, VARBINARY, BigInteger, Dialect, Integer, LargeBinary, SmallInteger, String, Uuid
from sqlalchemy.types import TypeDecorator, TypeEngine

Kind = type[int] | type[UUID] | type[str]

KINDS: Final[tuple[Kind, ...]] = (UUID, int, str)

_SAMPLE: Final = UUID("c0ffee00-dead-4bad-8eef-0123456789ab")
# The text has letters, so it is not a number. A type may accept UUIDs in either form, or numbers, or any text.
_TEXTS: Final = (_SAMPLE.hex, str(_SAMPLE), "1", "a")


class IdType:
    """The type of a primary key in one database."""

    def __init__(self, declared: TypeEngine[Any], dialect: Dialect) -> None:
        self._dialect, self._wide = dialect, dialect.name == "sqlite"  # in SQLite all integers have 64 bits
        self._type = declared.dialect_impl(dialect)
        self._bind = self._type.bind_processor(dialect) or _same
        self._result = self._type.result_processor(dialect, None) or _same
        self.kind = self._kind(declared)
        """The type that the application sees: ``int``, ``UUID`` or ``str``; None for any other type."""

    def takes(self, key: Any) -> bool:
        """Whether the type converts *key*."""
        try:
            self._bind(key)
        except Exception:  # of the application's type, which may raise anything
            return False
        return True

    def converter(self) -> Callable[[str], Any]:
        """The function from the text of an id to the id. It raises ValueError for any other text."""
        if self.kind is UUID:
            return _uuid
        if self.kind is str:
            in_uuids = isinstance(self._stored, Uuid) and self._survives(str(_SAMPLE))
            return (lambda text: str(_uuid(text))) if in_uuids else str
        limit = 2 ** (self._bits - 1)
        return lambda text: _integer(text, limit)

    @property
    def _stored(self) -> TypeEngine[Any]:
        """The type in the database, without decorating types."""
        stored = self._type
        while isinstance(stored, TypeDecorator):
            stored = stored.impl_instance
        return stored

    @property
    def _bits(self) -> int:
        if self._wide or isinstance(self._stored, BigInteger) or not isinstance(self._stored, Integer):
            return 64
        return 16 if isinstance(self._stored, SmallInteger) else 32

    def _kind(self, declared: TypeEngine[Any]) -> Kind | None:
        if isinstance(declared, TypeDecorator):
            seen = [value for value in self._seen() if self._survives(value)]
            if seen:  # its own statement may be that of the underlying type
                return next((kind for kind in KINDS if type(seen[0]) is not bool and isinstance(seen[0], kind)), None)
        with suppress(NotImplementedError):
            named = declared.python_type
            if named is not object:
                return next((kind for kind in KINDS if named is kind), None)
        # An application's type that does not state its Python type, and converts none of the samples.
        return IdType(declared.impl_instance, self._dialect).kind if isinstance(declared, TypeDecorator) else None

    def _seen(self) -> Iterator[Any]:
        """The values that the type makes of sample values of a database, without those that it rejects."""
        for sample in self._samples():
            with suppress(Exception):  # of the application's type, which may raise anything
                yield self._result(sample)

    def _samples(self) -> tuple[Any, ...]:
        if isinstance(self._stored, Uuid):
            return (_SAMPLE if self._is_native else _SAMPLE.hex,)
        known = ((String, _TEXTS), (Integer, (1,)), ((LargeBinary, BINARY, VARBINARY), (_SAMPLE.bytes,)))
        return next((samples for kinds, samples in known if isinstance(self._stored, kinds)), ())

    @property
    def _is_native(self) -> bool:
        """Whether the database has native UUIDs. The driver returns them as UUIDs, in whatever form they were sent."""
        return isinstance(self._stored, Uuid) and self._stored.native_uuid and self._dialect.supports_native_uuid

    def _survives(self, value: Any) -> bool:
        """Whether *value* comes back unchanged."""
        try:
            back = self._result(self._returned(self._bind(value)))
        except Exception:  # of the application's type, which may raise anything
            return False
        return type(back) is type(value) and bool(back == value)

    def _returned(self, sent: Any) -> Any:
        """The value that the driver returns for *sent*, which may differ."""
        if self._is_native:
            return UUID(str(sent))
        return bytes(sent) if isinstance(sent, memoryview) else sent


def _same(value: Any) -> Any:
    return value


def _uuid(text: str) -> UUID:
    value = UUID(text)
    if str(value) != text:
        raise ValueError("not in its canonical form")
    return value


def _integer(text: str, limit: int) -> int:
    value = int(text) if len(text) < 21 else limit
    if str(value) != text or not -limit <= value < limit:
        raise ValueError("not an integer in its canonical form")
    return value
