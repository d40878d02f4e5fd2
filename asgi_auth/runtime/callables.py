"""Functions of the application: checks them at the start, and checks their results later."""

from functools import partial
from inspect import iscoroutine, iscoroutinefunction, isfunction, ismethod, unwrap
from typing import Any, TypeVar

from asgi_auth.errors import ConfigurationError

T = TypeVar("T")


def is_async(function: object) -> bool:
    """True if *function* is declared async: ``async def``, a partial of one, or an object with async ``__call__``.

    >>> async def check(password): ...
    >>> is_async(partial(check, "x")), is_async(print)
    (True, False)
    """
    while isinstance(function, partial):
        function = function.func
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def refuse_async(parameter: str, function: object) -> None:
    """Reject an async function, as the library would not await it.

    Raises:
        ConfigurationError: *function* is declared async.
    """
    if is_async(function):
        raise ConfigurationError(f"{parameter}: this must be a plain function, not an async one")


def require_async(part: object, *names: str, parameter: str) -> None:
    """Reject an object that has a plain method instead of an async one.

    A lambda, and any other callable that may return an awaitable, is accepted. An error then shows at the call.

    Raises:
        ConfigurationError: one of *names* is a plain ``def``; the message names it.
    """
    for name in names:
        function = unwrap(getattr(part, name))
        plain = (isfunction(function) or ismethod(function)) and not iscoroutinefunction(function)
        if plain and function.__name__ != "<lambda>":
            raise ConfigurationError(f"{parameter}: {function.__qualname__} must be 'async def'")


def returned(value: object, kind: type[T], function: str) -> T:
    """Return *value*, the result of a plain function, if it is of *kind*. An awaitable would be truthy.

    Raises:
        TypeError: *value* is not of *kind*; the message names the *function*.
    """
    if isinstance(value, kind):
        return value
    discard(value)
    raise TypeError(f"{function} returned {type(value).__name__}, not {kind.__name__}")


def discard(value: Any) -> None:
    """Close *value* if it is a coroutine, so that Python does not warn that it was never awaited."""
    if iscoroutine(value):
        value.close()
