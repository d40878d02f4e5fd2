"""The application's model: its id, its identities, and how the store reads and sets each value."""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast
from uuid import uuid4

from sqlalchemy import Column, ColumnDefault, DefaultClause, Dialect, FetchedValue, Sequence, inspect, literal_column
from sqlalchemy.exc import NoInspectionAvailable, SQLAlchemyError
from sqlalchemy.orm import Mapper

from asgi_auth.errors import ConfigurationError, ValidationError
from asgi_auth.stores.sqlalchemy import texts
from asgi_auth.stores.sqlalchemy.fitting import misfit
from asgi_auth.stores.sqlalchemy.ids import IdType
from asgi_auth.stores.values import storable
from asgi_auth.types import EMPTY

Read = Callable[[Any], Any]
Write = Callable[[Any], Mapping[str, Any]]
Field = str | tuple[Read, Write]

IDENTITIES: Final = ("email", "username")


def mapper_of(model: type[Any]) -> Mapper[Any]:
    """The mapper of *model*. Raises ConfigurationError if it has none."""
    try:
        mapper = inspect(model)
    except NoInspectionAvailable:
        mapper = None
    if not isinstance(mapper, Mapper):
        raise ConfigurationError(f"SQLAlchemyStore: {model!r} is not a mapped class")
    return mapper


def primary_key(model: type[Any]) -> Column[Any]:
    """The column of the model's id. Raises ConfigurationError if there are several."""
    mapper = mapper_of(model)
    if len(mapper.primary_key) != 1:
        raise ConfigurationError(f"SQLAlchemyStore: the primary key of {model.__name__} must be one column")
    return cast("Column[Any]", mapper.primary_key[0])  # of a table; a mapped query would have an expression


class Written(dict[str, Any]):
    """Attributes to set, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, str] = {}
        """The logical name of the field of each attribute."""

    def put(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Add the attributes of the field *name*."""
        self.update(attributes)
        self.names.update(dict.fromkeys(attributes, name))


class Model:
    """The application's mapped class, with logical names for its values."""

    def __init__(self, model: type[Any], fields: Mapping[str, Field], dialect: Dialect) -> None:
        """Raises ConfigurationError if the model lacks something; the message names it."""
        try:
            mapper_of(model).registry.configure()
        except SQLAlchemyError as exc:
            raise ConfigurationError(f"SQLAlchemyStore: {exc}") from exc
        self.cls, self.mapper, self.id = model, mapper_of(model), primary_key(model)
        self._name, self._fields = model.__name__, dict(fields)
        self.id_attribute = self.mapper.get_property_by_column(self.id).key
        self.kept: Mapping[str, Column[Any]] = {
            each.key: cast("Column[Any]", each.columns[0])
            for each in self.mapper.column_attrs
            if _is_kept(each.columns[0])
        }
        """The columns by attribute, without expressions and SQLAlchemy's internal columns."""
        self.dialect = dialect
        id_type = self._checked_type(IdType(self.id.type, dialect))
        self._to_id = id_type.converter()
        self._attributes = self._map_attributes()
        self.identities = frozenset(name for name in IDENTITIES if name in self._attributes or name in self._pairs)
        self.field_names = frozenset({*self._attributes, *self._pairs})
        """The stored fields, by logical name."""
        self._check()
        made = self.id.default is not None or self.id.server_default is not None
        self.makes_ids = id_type.kind is int or made
        """Whether the database or a default of the model makes the id, not the library."""
        if not self.makes_ids and not id_type.takes(self._to_id(str(uuid4()))):
            raise ConfigurationError(
                f"SQLAlchemyStore: {self._name}.{self.id_attribute} needs a default, because its type does not take "
                "the UUIDs that the library proposes"
            )

    # --- at start

    def _map_attributes(self) -> dict[str, str]:
        self._pairs = {name: field for name, field in self._fields.items() if not isinstance(field, str)}
        named = {name: field for name, field in self._fields.items() if isinstance(field, str)}
        for name, attribute in named.items():
            if attribute not in self.kept:
                raise ConfigurationError(
                    f"SQLAlchemyStore: fields: {self._name} has no column {attribute!r} ({name!r})"
                )
        hidden = {*named.values(), *self._pairs, self.id_attribute}
        return {**{name: name for name in self.kept if name not in hidden}, **named}

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

    # --- ids

    def _checked_type(self, id_type: IdType) -> IdType:
        if id_type.kind is None:
            name = f"{self._name}.{self.id_attribute}"
            raise ConfigurationError(f"SQLAlchemyStore: {name} is {self.id.type!r}: ids are integers, UUIDs or text")
        return id_type

    def to_id(self, user_id: str) -> Any:
        """The id for the database; None if the text is not an id. Two texts never name one user."""
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

    def columns(self, fields: Mapping[str, Any], keys: Mapping[str, str]) -> Written:
        """The attributes to set.

        Raises:
            ValidationError: a field is not stored, or a value cannot be stored; ``fields`` names every one.
        """
        problems: dict[str, str] = {}
        written = Written()
        for name, value in fields.items():
            attributes, problem = self._attributes_of(name, value, keys.get(name))
            written.put(name, attributes)
            if problem is not None:
                problems[name] = problem
        if problems:
            raise ValidationError("fields refused", fields=problems)
        return written

    def _attributes_of(self, name: str, value: Any, key: str | None) -> tuple[Mapping[str, Any], str | None]:
        """The attributes to set for a field, and its problem; None if there is no problem."""
        if not (storable(value) and storable(key)):
            return EMPTY, texts.NOT_STORABLE
        if name in self._attributes:
            attributes: Mapping[str, Any] = {self._attributes[name]: value}
        elif name in self._pairs:
            try:
                attributes = self._pairs[name][1](value)
            except ValueError:
                return EMPTY, texts.INVALID
        else:
            return EMPTY, texts.NOT_SUPPORTED
        problems = (self._misfit(attribute, each) for attribute, each in attributes.items())
        return attributes, next((problem for problem in problems if problem is not None), None)

    def _misfit(self, attribute: str, value: Any) -> str | None:
        column = self.kept.get(attribute)  # a pair may set an attribute without a column
        return None if column is None else misfit(column.type, value, wide=self.dialect.name == "sqlite")

    def initial(self, besides: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a new user in every column except the id and *besides*, by attribute.

        Raises:
            ValidationError: such a column has no default and must not be null; ``fields`` names every one.
        """
        given = {*besides, self.id_attribute}
        values = {name: _initial(column) for name, column in self.kept.items() if name not in given}
        kept = {name: value for name, value in values.items() if not self._is_the_mappers(self.kept[name])}
        missing = [name for name, value in kept.items() if value is None and not self.kept[name].nullable]
        if missing:
            raise ValidationError("a value is missing", fields={self.logical(name): texts.REQUIRED for name in missing})
        return kept

    def _is_the_mappers(self, column: Column[Any]) -> bool:
        """Whether the mapper or the database itself writes it."""
        theirs = column is self.mapper.polymorphic_on or column is self.mapper.version_id_col
        made = isinstance(column.server_default, FetchedValue) and not isinstance(column.server_default, DefaultClause)
        return theirs or made or isinstance(column.default, Sequence)

    def attribute_of(self, column: Column[Any]) -> str:
        """The name of the attribute that has *column*, or of the column if none has it."""
        attributes = (each.key for each in self.mapper.column_attrs if column in each.columns)
        return next(attributes, column.name)

    def logical(self, attribute: str) -> str:
        """The logical name of *attribute*, or the same if it has none."""
        return next((field for field, each in self._attributes.items() if each == attribute), attribute)


def _is_kept(column: Any) -> bool:
    """Whether a mapped *column* belongs to the application. It is not an expression, and not the column that SQLAlchemy
    adds to sort inserted rows and never reads."""
    return isinstance(column, Column) and not (column.default is not None and column.default.is_sentinel)


def _initial(column: Column[Any]) -> Any:
    """The value of *column* after an INSERT without it: its default, the database's default, or None."""
    if isinstance(column.default, ColumnDefault):
        return column.default.arg(None) if column.default.is_callable else column.default.arg
    if isinstance(column.server_default, DefaultClause):
        clause = column.server_default.arg
        # Without an explicit type, as in the definition of the table: the database takes the type of the column.
        return clause if not isinstance(clause, str) else literal_column("'" + clause.replace("'", "''") + "'")
    return None
