"""The rules of the application's model. A broken rule becomes a ValidationError that names the field."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, signature
from typing import Any, TypeVar

from sqlalchemy import Column, Table, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator

from asgi_auth.errors import IdentityTakenError, ValidationError
from asgi_auth.stores.sqlalchemy import texts
from asgi_auth.stores.sqlalchemy.broken import Broken, RuleError, broken_rule, is_about_a_value
from asgi_auth.stores.sqlalchemy.constraints import Columns, Constraints
from asgi_auth.stores.sqlalchemy.fitting import is_judged, is_left_open, too_long
from asgi_auth.stores.sqlalchemy.model import IDENTITIES, Model, Written
from asgi_auth.stores.sqlalchemy.tables import Tables

T = TypeVar("T")

_REFUSING = (ValueError, AssertionError)
"""The exceptions of validators, by SQLAlchemy's documentation."""

_NOTHING = Written()

_GENERAL = {"user": texts.SOME_INVALID}
"""The name for problems whose field is unknown."""

_TEXTS: Mapping[str, str] = {"null": texts.REQUIRED, "foreign": texts.UNKNOWN}

_PARAMETERS = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class Rules:
    """Makes and changes objects of the model. Errors name the fields that break its rules."""

    def __init__(self, model: Model, tables: Tables) -> None:
        self._model, self._accounts = model, tables.accounts
        tables_of_model = [table for table in model.mapper.tables if isinstance(table, Table)]
        self._constraints = Constraints(tables_of_model, model.dialect)
        parameters = [each for name, each in signature(model.cls.__init__).parameters.items()][1:]
        self._takes_any = any(each.kind is Parameter.VAR_KEYWORD for each in parameters)
        self._parameters = {each.name: each for each in parameters if each.kind in _PARAMETERS}

    # --- objects

    def obey(self, act: Callable[[], T], written: Written = _NOTHING) -> T:
        """The result of *act*, which sets the attributes *written* on an object and flushes it.

        Raises:
            ValidationError: *act* broke a rule of the model; ``fields`` names the attributes. The database's exception
                is not its context, because it contains values.
            IdentityTakenError: another user has this address or name.
        """
        try:
            return act()
        except (SQLAlchemyError, *_REFUSING) as exc:
            refusal = self._refusal(exc, written)
            if refusal is None:
                raise
        raise refusal

    def make(self, written: Written) -> Any:
        """A new object of the model's class, with the attributes *written*.

        Raises:
            ValidationError: the constructor requires more.
            ValueError, AssertionError: a validator rejected a value.
        """
        model = self._model
        given = {name: value for name, value in written.items() if self._takes_any or name in self._parameters}
        required = {name for name, each in self._parameters.items() if each.default is Parameter.empty} - given.keys()
        if model.makes_ids and model.id_attribute in required:
            given[model.id_attribute] = None  # so that the database or the default of the column makes it
        missing = required - given.keys()
        if missing:
            fields = {model.logical(name): texts.REQUIRED for name in sorted(missing)}
            raise ValidationError("the constructor requires more", fields=fields)
        made = model.cls(**given)
        for name, value in written.items():
            if name not in given:
                setattr(made, name, value)
        return made

    def refuse_taken(self, session: Session, written: Written, key: Any = None) -> None:
        """Refuse values that must be unique and that another user has. *key* is the id of this user.

        Only tables with a unique address or name are checked. There the database may report the taken address first, or
        the other taken value. A client could send a value that it knows to be taken, and learn from the answer whether
        the address is taken too, which may have to stay secret (EN-4).

        Raises:
            ValidationError: a value is taken; ``fields`` names every one.
        """
        fields: dict[str, str] = {}
        unique = self._constraints.unique
        others = [each for each in unique if not self._identities_of(each.columns, written)]
        for columns in (each.columns for each in others if each.plain and len(others) < len(unique)):
            values = [written.get(self._model.attribute_of(column)) for column in columns]
            if None in values:
                continue
            besides = [] if key is None else [next(iter(columns[0].table.primary_key)) != key]
            same = [column == value for column, value in zip(columns, values, strict=True)]
            if session.execute(select(columns[0]).where(*same, *besides).limit(1)).first() is not None:
                fields.update(self._taken_fields(columns, written))
        if fields:
            raise ValidationError("a unique value is taken", fields=fields)

    # --- refusals

    def of_conflict(self, broken: Broken, written: Written = _NOTHING) -> ValidationError | None:
        """The error for the client about a broken rule; None if the rule is not the model's."""
        if broken.table == self._accounts.name or broken.name.startswith(f"{self._accounts.name}_"):
            return self._taken_key(broken)
        columns = self._constraints.columns_of(broken)
        ours = {table.name for table in self._constraints.tables}
        if broken.table not in ours if broken.table else not (columns or written):
            return None
        if broken.kind == "unique":
            return self._taken(columns, written)
        if broken.kind == "foreign" and not columns:  # SQLite does not name the column
            columns = [column for column in self._written_columns(written) if column.foreign_keys]
        text = _TEXTS.get(broken.kind, texts.INVALID)
        return ValidationError(f"a rule of the model: {broken.kind}", fields=self._fields(columns, written, text))

    def _refusal(self, error: Exception, written: Written) -> ValidationError | None:
        if not isinstance(error, SQLAlchemyError):
            return ValidationError("a validator refused a value", fields=self._of_validators(written))
        broken = broken_rule(error)
        if broken is not None:
            return self.of_conflict(broken, written)
        if is_about_a_value(error):
            return ValidationError("a value cannot be stored", fields=self._unfit(written))
        return None

    def _taken_key(self, broken: Broken) -> ValidationError | None:
        """The error if the library's own index of addresses or names was violated."""
        named = {name for name in IDENTITIES if broken.name.endswith(f"_{name}_key") or f"{name}_key" in broken.columns}
        return _identity_taken(named) if named and broken.kind == "unique" else None

    def _taken(self, columns: Columns, written: Written) -> ValidationError | None:
        identities = self._identities_of(columns, written)
        if identities:
            return _identity_taken(identities)
        if [*columns] == [self._model.id]:
            return None
        return ValidationError("a unique value is taken", fields=self._taken_fields(columns, written))

    def _taken_fields(self, columns: Columns, written: Written) -> dict[str, str]:
        if len(columns) == 1:
            return self._fields(columns, written, texts.TAKEN)
        return self._fields(columns, written, texts.COMBINATION_TAKEN)

    def _fields(self, columns: Columns, written: Written, text: str) -> dict[str, str]:
        """*text* for each written column of *columns*, or for all of them if none is written."""
        given = [column for column in columns if self._model.attribute_of(column) in written]
        return {self._name(column, written): text for column in given or columns} or dict(_GENERAL)

    def _name(self, column: Column[Any], written: Written) -> str:
        return self._field(self._model.attribute_of(column), written)

    def _identities_of(self, columns: Columns, written: Written) -> set[str]:
        return {self._name(column, written) for column in columns}.intersection(IDENTITIES)

    def _field(self, attribute: str, written: Written) -> str:
        """The name of the field in the form."""
        return written.names.get(attribute) or self._model.logical(attribute)

    def _written_columns(self, written: Written) -> Columns:
        return [column for name, column in self._model.kept.items() if name in written]

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Translate errors at the end of a transaction too, such as those of deferred constraints."""
        try:
            yield
        except RuleError as exc:
            refusal = self.of_conflict(exc.broken)
            if refusal is None:
                raise
            raise refusal from exc

    # --- the cause of a refusal

    def _of_validators(self, written: Written) -> Mapping[str, str]:
        """The problems that the model's validators find, on a temporary object."""
        blank, fields = self._model.mapper.class_manager.new_instance(), dict[str, str]()
        for name, value in written.items():
            try:
                setattr(blank, name, value)
            except _REFUSING:
                fields[self._field(name, written)] = texts.INVALID
        return fields or _GENERAL

    def _unfit(self, written: Written) -> Mapping[str, str]:
        """The problems of values that do not fit their columns. Drivers do not name them."""
        columns = {name: self._model.kept[name] for name in written if name in self._model.kept}
        found = {self._field(name, written): self._misfit(each, written[name]) for name, each in columns.items()}
        fields = {name: text for name, text in found.items() if text is not None}
        # Otherwise the database rejected a value: either only one value is possible, or the field is unknown.
        possible = [name for name, column in columns.items() if not is_judged(column.type)]
        return fields or ({self._field(possible[0], written): texts.INVALID} if len(possible) == 1 else _GENERAL)

    def _misfit(self, column: Column[Any], value: Any) -> str | None:
        if is_left_open(value):
            return None
        stored = column.type.dialect_impl(self._model.dialect)
        bind = stored.bind_processor(self._model.dialect)
        try:
            bound = value if bind is None else bind(value)
        except Exception:  # of the application's type, which may raise anything
            return texts.INVALID
        long = isinstance(stored, TypeDecorator) and isinstance(bound, str) and too_long(stored.impl_instance, bound)
        return texts.TOO_LONG if long else None


def _identity_taken(names: set[str]) -> IdentityTakenError:
    return IdentityTakenError("identity taken", fields={name: texts.TAKEN_IDENTITIES[name] for name in sorted(names)})
