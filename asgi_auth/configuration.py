"""Checks of the parameters of ``Authentication``. Each raises ConfigurationError that names the invalid parameter."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from inspect import isclass
from typing import Any

from asgi_auth.errors import ConfigurationError
from asgi_auth.limits import Limits
from asgi_auth.pages import Pages
from asgi_auth.passwords import HashProvider, PasswordPolicy
from asgi_auth.runtime.callables import discard, refuse_async
from asgi_auth.runtime.lanes import Outbox
from asgi_auth.sessions import SessionOptions

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_MOUNT_PATH = re.compile(r"(/[A-Za-z0-9_.~-]+)+", re.ASCII)
_ABSOLUTE_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")


def listed(parameter: str, parts: object) -> Sequence[Any]:
    """Return *parts* if they are a list."""
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise ConfigurationError(f"{parameter} must be a list")
    return parts


def check_kinds(store: object, parts: Sequence[object], hasher: object) -> None:
    """Check that each value is an object of its kind, not a class without parentheses, a name or a path."""
    if isclass(store) or not hasattr(store, "scope"):
        raise ConfigurationError("store must be a store, such as SQLiteStore('app.db')")
    for part in parts:
        if isclass(part) or not (hasattr(part, "bind") and hasattr(part, "name")):
            raise ConfigurationError(f"strategies, add_ons: {part!r} is neither; write Password(), with parentheses")
    if isclass(hasher) or not isinstance(hasher, HashProvider):
        raise ConfigurationError("hasher must be a hasher, such as Bcrypt(), with every method of HashProvider")
    for name in ("hash", "verify", "can_verify", "needs_rehash", "cost_of", "level"):
        refuse_async(f"hasher.{name}", getattr(hasher, name))


def check_options(session: object, password_policy: object, limits: object, outbox: object, clock: object) -> None:
    """Check that each value is of its kind."""
    if not isinstance(session, SessionOptions):
        raise ConfigurationError("session must be a SessionOptions(…)")
    if not isinstance(password_policy, PasswordPolicy):
        raise ConfigurationError("password_policy must be a PasswordPolicy(…)")
    if not isinstance(limits, Limits):
        raise ConfigurationError("limits must be a Limits(…)")
    if not isinstance(outbox, Outbox):
        raise ConfigurationError("outbox must be an Outbox(…)")
    check_clock(clock)


def check_pages(pages: object) -> Pages:
    """Return *pages* if it is a ``Pages``."""
    if not isinstance(pages, Pages):
        raise ConfigurationError("pages must be a Pages(…), or an object of a subclass")
    return pages


def check_clock(clock: object) -> None:
    """Check that *clock* is a plain function and returns an aware UTC datetime."""
    now = clock() if callable(clock) else None
    if not isinstance(now, datetime) or now.utcoffset() != timedelta(0):
        discard(now)
        raise ConfigurationError("clock must be a plain function that returns the current aware UTC datetime")


def check_name(parameter: str, name: object) -> str:
    """Return *name* if it can be part of a path, a cookie and a key."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"{parameter}: {name!r} must be lower-case letters, digits and _")
    return name


def check_urls(parameter: str, urls: Iterable[str]) -> frozenset[str]:
    """Return *urls* if all of them are absolute."""
    listed = frozenset(urls)  # a single text gives its characters, which are not URLs
    if not all(_ABSOLUTE_URL.fullmatch(url) for url in listed):
        raise ConfigurationError(f"{parameter} must be a list of absolute URLs")
    return listed


def check_mount_path(mount_path: str) -> str:
    """Return *mount_path* if it is valid."""
    if not _MOUNT_PATH.fullmatch(mount_path or ""):
        raise ConfigurationError("mount_path must be like '/auth'")
    return mount_path
