"""What the store has to know of the application's model: its id, its identities, and how each value is read and set."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnDefault,
    DefaultClause,
    FetchedValue,
    Sequence,
    SmallInteger,
    UniqueConstraint,
    Uuid,
    inspect,
    literal_column,
)
from sqlalchemy.exc import NoInspectionAvailable, SQLAlchemyError
from sqlalchemy.orm import Mapper

from asgi_auth.errors import ConfigurationError, IdentityTakenError, ValidationError
from asgi_auth.stores.executor import ConflictError
from asgi_auth.stores.values import storable

Read = Callable[[Any], Any]
Write = Callable[[Any], Mapping[str, Any]]
Field = str | tuple[Read, Write]

IDENTITIES: Final = ("email", "username")


def mapper_of(model: type[Any]) -> Mapper[Any]:
    """The mapper of *model*; ConfigurationError if it has none."""
    try:
        mapper = inspect(model)
    except NoInspectionAvailable:
        mapper = None
    if not isinstance(mapper, Mapper):
        raise ConfigurationError(f"SQLAlchemyStore: {model!r} is not a mapped class")
    return mapper


def primary_key(model: type[Any]) -> Column[Any]:
    """The one column of the model's id; ConfigurationError if there are several."""
    mapper = mapper_of(model)
    if len(mapper.primary_key) != 1:
        raise ConfigurationError(f"SQLAlchemyStore: the primary key of {model.__name__} must be one column")
    return cast("Column[Any]", mapper.primary_key[0])  # of a table, where a mapped query would have an expression


class Model:
    """The application's mapped class, by logical names."""

    def __init__(self, model: type[Any], fields: Mapping[str, Field], *, wide: bool) -> None:
        """ConfigurationError, which names what is missing.

        Args: wide: Whether every integer of the database has 64 bits, whatever its type is called.
        """
        self._wide = wide
        try:
            mapper_of(model).registry.configure()
        except SQLAlchemyError as exc:
            raise ConfigurationError(f"SQLAlchemyStore: {exc}") from exc
        self.cls, self.mapper, self.id = model, mapper_of(model), primary_key(model)
        self._name, self._fields = model.__name__, dict(fields)
        self.id_attribute = self.mapper.get_property_by_column(self.id).key
        self._to_id = self._converter()
        self._attributes = self._map_attributes()
        self.identities = frozenset(name for name in IDENTITIES if name in self._attributes or name in self._pairs)
        self.field_names = frozenset({*self._attributes, *self._pairs})
        """What is kept, by logical name."""
        self._check()
        self.makes_ids = self._python_type is int or self.id.default is not None or self.id.server_default is not None
        """Whether an id comes from the database or a default of the model, not from the library."""

    # --- at start

    def _map_attributes(self) -> dict[str, str]:
        self._pairs = {name: field for name, field in self._fields.items() if not isinstance(field, str)}
        columns = [attribute.key for attribute in self.mapper.column_attrs if self._is_column(attribute.key)]
        named = {name: field for name, field in self._fields.items() if isinstance(field, str)}
        for name, attribute in named.items():
            if attribute not in columns:
                raise ConfigurationError(
                    f"SQLAlchemyStore: fields: {self._name} has no column {attribute!r} ({name!r})"
                )
        hidden = {*named.values(), *self._pairs, self.id_attribute}
        return {**{name: name for name in columns if name not in hidden}, **named}

    def _is_column(self, attribute: str) -> bool:
        return isinstance(self.mapper.column_attrs[attribute].columns[0], Column)  # not an expression

    def _check(self) -> None:
        if not self.identities:
            raise ConfigurationError(
                f"SQLAlchemyStore: {self._name} has neither email nor username: "
                'name the column, as in fields={"email": "login_mail"}'
            )
        for name in ("is_authenticated", "display_name", "identity"):
            if not hasattr(self.cls, name):
                raise ConfigurationError(
                    f"SQLAlchemyStore: {self._name} has no {name}: derive it from asgi_auth.UserMixin"
                )

    @property
    def _python_type(self) -> type[Any] | None:
        try:
            return self.id.type.python_type
        except NotImplementedError:
            return None

    # --- ids

    def _converter(self) -> Callable[[str], Any]:
        if self._python_type is UUID:
            return _uuid
        if isinstance(self.id.type, Uuid):
            return lambda text: str(_uuid(text))
        if self._python_type is int:
            bits = 16 if isinstance(self.id.type, SmallInteger) else 32
            limit = 2 ** ((64 if self._wide or isinstance(self.id.type, BigInteger) else bits) - 1)
            return lambda text: _integer(text, limit)
        if self._python_type is str:
            return str
        raise ConfigurationError(
            f"SQLAlchemyStore: {self._name}.{self.id_attribute} is {self.id.type!r}: ids are integers, UUIDs or text"
        )

    def to_id(self, user_id: str) -> Any:
        """The id as the database has it; None for what is no id, so that two texts never name one user."""
        try:
            return self._to_id(user_id) if storable(user_id) else None
        except ValueError:
            return None

    def user_id(self, user: Any) -> str:
        return str(getattr(user, self.id_attribute))

    # --- values

    def read(self, user: Any) -> dict[str, Any]:
        """The values of *user* by logical name."""
        values = {name: getattr(user, attribute) for name, attribute in self._attributes.items()}
        return {**values, **{name: pair[0](user) for name, pair in self._pairs.items()}}

    def columns(self, fields: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
        """The attributes to set; ValidationError for a field that is not kept, or for what cannot be stored."""
        problems: dict[str, str] = {}
        written: dict[str, Any] = {}
        for name, value in fields.items():
            if not (storable(value) and storable(keys.get(name))):
                problems[name] = "cannot be stored"
            elif name in self._pairs:
                written.update(self._pairs[name][1](value))
            elif name in self._attributes:
                written[self._attributes[name]] = value
            else:
                problems[name] = "is not kept by this store"
        if problems:
            raise ValidationError("fields refused", fields=problems)
        return written

    def initial(self, besides: Mapping[str, Any]) -> dict[str, Any]:
        """What a new user has in every column but the id and *besides*, by attribute.

        Raises:
            ValidationError: such a column has no default and may not be null; ``fields`` names every one.
        """
        given = {*besides, self.id_attribute}
        columns = ((each.key, each.columns[0]) for each in self.mapper.column_attrs)
        attributes = {name: column for name, column in columns if isinstance(column, Column)}
        values = {name: _initial(column) for name, column in attributes.items() if name not in given}
        kept = {name: value for name, value in values.items() if not self._is_the_mappers(attributes[name])}
        missing = [name for name, value in kept.items() if value is None and not attributes[name].nullable]
        if missing:
            raise ValidationError(
                "a value is missing", fields={self._logical(attributes[name].name): "is needed" for name in missing}
            )
        return kept

    def _is_the_mappers(self, column: Column[Any]) -> bool:
        """Whether the mapper or the database itself writes it."""
        theirs = column is self.mapper.polymorphic_on or column is self.mapper.version_id_col
        made = isinstance(column.server_default, FetchedValue) and not isinstance(column.server_default, DefaultClause)
        return theirs or made or isinstance(column.default, Sequence)

    # --- errors

    def refusal(self, error: ConflictError) -> ValidationError | None:
        """What a client may be told of a broken constraint: an identity is taken, a value is missing; else None."""
        kind, _, name = error.reason.removeprefix("sqlalchemy: ").partition(" ")
        if kind == "unique":
            taken = {field: text for field, text in _TAKEN.items() if self._is_key(field, name)}
            return IdentityTakenError("identity taken", fields=taken) if taken else None
        if kind == "null":
            return ValidationError("a value is missing", fields={self._logical(name): "is needed"})
        return None

    def _is_key(self, field: str, name: str) -> bool:
        """Whether a unique constraint, by what a database calls it, is about this identity: the library's or theirs."""
        theirs = self._unique(self._attributes[field]) if field in self._attributes else ()
        return f"{field}_key" in name or not {*name.split(", ")}.isdisjoint(theirs)

    def _unique(self, attribute: str) -> Iterator[str]:
        column, table = self.mapper.column_attrs[attribute].columns[0], self.id.table
        yield from (f"{table.name}.{column.name}", f"{table.name}_{column.name}_key")  # SQLite, PostgreSQL by default
        constraints = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
        yield from (str(each.name) for each in constraints if column in each.columns.values())
        yield from (str(each.name) for each in table.indexes if each.unique and column in each.columns.values())

    def _logical(self, column: str) -> str:
        name = column.rpartition(".")[2]
        attributes = {each.columns[0].name: each.key for each in self.mapper.column_attrs}
        attribute = attributes.get(name)
        return next((field for field, each in self._attributes.items() if each == attribute), name)


def _initial(column: Column[Any]) -> Any:
    """What an INSERT that does not name *column* gives it: its default, the database's, or None."""
    if isinstance(column.default, ColumnDefault):
        return column.default.arg(None) if column.default.is_callable else column.default.arg
    if isinstance(column.server_default, DefaultClause):
        clause = column.server_default.arg
        # Without a type of its own, as in the definition of the table: the column's is the database's to find.
        return clause if not isinstance(clause, str) else literal_column("'" + clause.replace("'", "''") + "'")
    return None


_TAKEN = {"email": "There is an account with this address already", "username": "This name is taken"}


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
