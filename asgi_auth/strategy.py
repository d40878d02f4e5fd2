"""The Strategy protocol, a way to sign in, and the AddOn protocol, what happens around accounts."""

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from asgi_auth.hooks import Hook
from asgi_auth.phases import Phase
from asgi_auth.services import Services

F = TypeVar("F")


class Actions(Protocol):
    """What a strategy does: public async verbs that return an outcome, and the HTTP phases that call them.

    A verb takes ``(params, *, client=Client(), **options)`` and raises an ``AuthError`` to fail. An object that is a
    ``Hook`` as well is asked like any add-on: that is how a strategy owns a factor.
    """

    @property
    def phases(self) -> Sequence[Phase]:
        """The HTTP steps."""
        ...


class AddOn(Protocol):
    """A ``Hook``, or options of one whose ``bind`` makes it."""

    @property
    def name(self) -> str:
        """The first path segment."""
        ...

    def bind(self, services: Services[Any]) -> Hook:
        """Called once at start. ConfigurationError if an option does not fit the application."""
        ...


class Strategy(Protocol):
    """Options of a way to sign in: a frozen dataclass whose defaults are safe."""

    @property
    def name(self) -> str:
        """The first path segment, and the factor that a session notes."""
        ...

    def bind(self, services: Services[Any]) -> Actions:
        """Called once at start. ConfigurationError if an option does not fit the application."""
        ...


class TypedActions(Generic[F]):
    """What options of a strategy or an add-on may inherit from, to say what their actions look like.

    *F* is a Protocol with its verbs as code without HTTP sees them: they return a ``Finished`` where the action returns
    an outcome. ``auth.actions(options)`` has that type, so that a type checker finds a misspelt verb.
    """

    __slots__ = ()
