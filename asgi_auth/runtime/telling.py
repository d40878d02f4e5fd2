"""Telling: limits log lines that a stranger or a failed dependency can provoke without end."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock

logger = logging.getLogger("asgi_auth")


class Telling:
    """Writes at most one line of each kind per interval and counts the others. The next line has the count.

    ``once`` writes a single line of a kind, ``end`` writes the last one. Any thread may use it.
    """

    def __init__(
        self,
        *,
        every: timedelta = timedelta(seconds=1),
        kinds: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without any line.

        Args:
            every: The shortest time between two lines of a kind.
            kinds: The maximum number of kinds in memory. One more drops the kind with the oldest line, after its count
                is written.
            clock: Returns seconds that never decrease.
        """
        self._seconds, self._limit, self._clock = every.total_seconds(), kinds, clock
        self._lock = Lock()
        self._told: dict[str, _Kind] = {}  # in the order of their last lines
        self._told_once: set[str] = set()

    def tell(self, level: int, key: str, text: str, *args: object) -> None:
        """Write a line now, or count it if there was one of this kind within the interval.

        Args:
            level: As in ``logging``.
            key: The kind. It must not depend on a value of the client, or every value would get a line.
            text: The message, with ``%`` and *args* as in ``logging``. It must not hold a secret.
            args: The values for *text*.
        """
        forgotten = None
        with self._lock:
            now, kind = self._clock(), self._told.get(key)
            if kind is None:
                if len(self._told) >= self._limit:
                    forgotten = self._told.pop(next(iter(self._told)))
                kind = _Kind(level=level, text=text, first_at=now, last_at=now, told_at=now)
            elif now - kind.told_at < self._seconds:
                kind.last_at, kind.total, kind.untold = now, kind.total + 1, kind.untold + 1
                return
            else:
                del self._told[key]  # move it to the end
            untold = kind.untold
            kind.last_at, kind.total, kind.told_at, kind.untold = now, kind.total + 1, now, 0
            self._told[key] = kind
        if forgotten is not None and forgotten.untold:
            logger.log(forgotten.level, "%d more lines like %r", forgotten.untold, forgotten.text)
        if untold:
            text, args = f"{text} (%d more like it since the last such line)", (*args, untold)
        logger.log(level, text, *args)

    def once(self, level: int, key: str, text: str) -> None:
        """Write a line, unless there was already one of this kind.

        Args:
            level: As in ``logging``.
            key: The kind. It must not depend on a value of the client, as every kind stays in memory.
            text: The message, without ``%``.
        """
        with self._lock:
            is_new = key not in self._told_once
            self._told_once.add(key)
        if is_new:
            logger.log(level, "%s", text)

    def end(self, level: int, key: str, text: str) -> bool:
        """Write that a kind has ended, unless it happened within the interval. Its next line is a first one again.

        Args:
            level: As in ``logging``.
            key: The kind.
            text: The message, with ``%d`` for the number of times and ``%.0f`` for the seconds since the first time.

        Returns:
            True if the kind has ended: there was no line of it, or this was the last one.
        """
        with self._lock:
            now, kind = self._clock(), self._told.get(key)
            if kind is not None and now - kind.last_at < self._seconds:
                return False
            self._told.pop(key, None)
        if kind is not None:
            logger.log(level, text, kind.total, now - kind.first_at)
        return True


@dataclass(kw_only=True, slots=True)
class _Kind:
    level: int
    text: str
    first_at: float
    last_at: float
    told_at: float
    untold: int = 0
    total: int = 0
