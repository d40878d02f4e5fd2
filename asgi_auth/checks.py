"""Checks of options. Each raises ConfigurationError that names the invalid parameter."""

from collections.abc import Callable
from datetime import timedelta
from inspect import signature
from typing import Any
from urllib.parse import urlsplit

from asgi_auth.errors import ConfigurationError


def check_duration(parameter: str, value: object, *, longest: timedelta | None = None) -> None:
    """Raise ConfigurationError if *value* is not a positive timedelta of at most *longest*."""
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise ConfigurationError(f"{parameter} must be a positive timedelta")
    if longest is not None and value > longest:
        raise ConfigurationError(f"{parameter} must be at most {longest}")


def check_count(parameter: str, value: object) -> None:
    """Raise ConfigurationError if *value* is not a positive whole number."""
    if type(value) is not int or value < 1:
        raise ConfigurationError(f"{parameter} must be a positive number")


def check_mail_url(parameter: str, value: object) -> None:
    """Raise ConfigurationError if *value* is neither an absolute URL nor None."""
    if value is not None and not (isinstance(value, str) and urlsplit(value).netloc):
        raise ConfigurationError(f"{parameter} must be an absolute URL: it goes into a mail")


def takes(function: Callable[..., Any], count: int) -> bool:
    """True if *function* accepts *count* positional arguments. False also if it has no signature."""
    try:
        signature(function).bind(*[None] * count)
    except (TypeError, ValueError):  # some built-ins have no signature
        return False
    return True
