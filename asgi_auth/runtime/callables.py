"""Callables that an application gives: what they say of themselves at start, and what they return later."""

from functools import partial
from inspect import iscoroutine, iscoroutinefunction, isfunction, ismethod, unwrap
from typing import Any, TypeVar

from asgi_auth.errors import ConfigurationError

T = TypeVar("T")


def is_async(function: object) -> bool:
    """Whether *function* says that it is async: ``async def``, a partial of one, an object with an async ``__call__``.

    >>> async def check(password): ...
    >>> is_async(partial(check, "x")), is_async(print)
    (True, False)
    """
    while isinstance(function, partial):
        function = function.func
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def refuse_async(parameter: str, function: object) -> None:
    """Refuse what nobody would await.

    Raises:
        ConfigurationError: *function* says that it is async.
    """
    if is_async(function):
        raise ConfigurationError(f"{parameter}: this must be a plain function, not an async one")


def require_async(part: object, *names: str, parameter: str) -> None:
    """Refuse an object with a plain method where an async one is awaited.

    A lambda, and whatever else may return an awaitable without saying so, is let pass: that shows when it is called.

    Raises:
        ConfigurationError: one of *names* is a plain ``def``; the message has its name.
    """
    for name in names:
        function = unwrap(getattr(part, name))
        plain = (isfunction(function) or ismethod(function)) and not iscoroutinefunction(function)
        if plain and function.__name__ != "<lambda>":
            raise ConfigurationError(f"{parameter}: {function.__qualname__} must be 'async def'")


def returned(value: object, kind: type[T], function: str) -> T:
    """*value*, which a plain function returned; fails closed, for an awaitable is true in a condition.

    Raises:
        TypeError: it is not of *kind*; the message has the name of the *function*.
    """
    if isinstance(value, kind):
        return value
    discard(value)
    raise TypeError(f"{function} returned {type(value).__name__}, not {kind.__name__}")


def discard(value: Any) -> None:
    """Let go of what was returned, so that Python does not complain that nobody awaited it."""
    if iscoroutine(value):
        value.close()
