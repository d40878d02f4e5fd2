"""Translates the shared statements, which are written for PostgreSQL and asyncpg, for other databases and drivers."""

import re
from collections.abc import Callable

_PARAMETER = re.compile(r"\$(\d+)")
_POSTGRES_ONLY = re.compile(r"::\w+| FOR KEY SHARE| FOR UPDATE SKIP LOCKED|/\*|\*/")


def for_sqlite(sql: str) -> str:
    """The statement without casts and row locks. The hints in its comments are for SQLite."""
    return _POSTGRES_ONLY.sub("", sql)


def replace_parameters(sql: str, written: Callable[[int], str]) -> str:
    """The statement with the parameter style of a driver. *written* gets the number of each parameter, from 1."""
    return _PARAMETER.sub(lambda found: written(int(found[1])), sql)


def question_marks(sql: str) -> tuple[str, tuple[int, ...]]:
    """The statement with ``?`` for every parameter, and the indexes of their values, from 0, in its order.

    Not ``?1``: some releases of Python 3.12 treat it as a named placeholder and warn.
    """
    order = tuple(int(found[1]) - 1 for found in _PARAMETER.finditer(sql))
    return replace_parameters(sql, lambda _: "?"), order
