"""The protocols Strategy, a way to sign in, and AddOn, a function around accounts."""

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from asgi_auth.hooks import Hook
from asgi_auth.phases import Phase
from asgi_auth.services import Services

F = TypeVar("F")


class Actions(Protocol):
    """The actions of a strategy: public async verbs that return an outcome, and the HTTP phases that call them.

    A verb takes ``(params, *, client=Client(), **options)`` and raises an ``AuthError`` to fail. If the object is also
    a ``Hook``, the library calls it like any add-on. A strategy that owns a factor does this.
    """

    @property
    def phases(self) -> Sequence[Phase]:
        """The HTTP steps."""
        ...


class AddOn(Protocol):
    """A ``Hook``, or options whose ``bind`` returns one."""

    @property
    def name(self) -> str:
        """The first path segment."""
        ...

    def bind(self, services: Services[Any]) -> Hook:
        """Called once at the start. Raises ConfigurationError if an option is invalid for the application."""
        ...


class Strategy(Protocol):
    """Options of a way to sign in: a frozen dataclass whose defaults are safe."""

    @property
    def name(self) -> str:
        """The first path segment, and the factor that a session stores."""
        ...

    def bind(self, services: Services[Any]) -> Actions:
        """Called once at the start. Raises ConfigurationError if an option is invalid for the application."""
        ...


class TypedActions(Generic[F]):
    """A base for the options of a strategy or an add-on, which gives the type of their actions.

    *F* is a Protocol with the verbs for code without HTTP: they return a ``Finished`` where the action returns an
    outcome. ``auth.actions(options)`` has this type, so that a type checker finds a misspelt verb.
    """

    __slots__ = ()
