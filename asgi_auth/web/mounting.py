"""Mistakes in what an application passes and mounts. Each message has the right call."""

from collections.abc import Iterator
from inspect import isclass
from typing import Any, Self

from asgi_auth.authentication import Authentication
from asgi_auth.errors import ConfigurationError


def check_authentication(auth: object, owner: str, call: str) -> None:
    """Refuse a value that is not an ``Authentication``, such as the store.

    Args:
        auth: The value to check.
        owner: The class that received it.
        call: The right call.

    Raises:
        ConfigurationError: *auth* is not an ``Authentication``. The message has the right call.
    """
    if not isinstance(auth, Authentication):
        given = f"the class {auth.__name__}" if isclass(auth) else type(auth).__name__
        raise ConfigurationError(f"{owner}: auth must be an Authentication, not {given}: write {call}")


class Mountable:
    """An ASGI application that is an instance. Mounting the class raises an error with the right call.

    ``Mount("/auth", AuthPlug)`` calls the class with a scope, as if the class were the application.
    """

    def __new__(cls, *args: Any, **_options: Any) -> Self:
        """Raises: ConfigurationError: the first argument is a scope."""
        if args and isinstance(args[0], dict) and "type" in args[0]:
            raise ConfigurationError(_mistake(cls))
        return super().__new__(cls)


def mounted_classes(app: object) -> Iterator[str]:
    """Yield a message for each class that an application mounts in place of an instance."""
    for part in parts(app):
        if isclass(part) and issubclass(part, Mountable):
            yield _mistake(part)


def _mistake(cls: type[Mountable]) -> str:
    name = cls.__name__
    return f"{name}: the class is mounted, not an instance: write {name}(auth), as in Mount('/auth', {name}(auth))"


def parts(app: object) -> Iterator[object]:
    """An application, its routes, and what they mount and wrap."""
    seen, waiting = set[int](), [app]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:  # an application may be mounted in itself
            continue
        seen.add(id(part))
        yield part
        # Besides routes: an application that wraps another, and routers that FastAPI includes.
        waiting += [getattr(part, name, None) for name in ("app", "original_router")]
        routes = getattr(part, "routes", None)
        if isinstance(routes, list | tuple):
            waiting += reversed(routes)
