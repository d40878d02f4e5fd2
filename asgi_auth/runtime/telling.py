"""Telling: lines of the log that a stranger, or a failed dependency, can provoke without end."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock

logger = logging.getLogger("asgi_auth")


class Telling:
    """Writes at most one line in a while of each kind, and counts the others: the next line says how many there were.

    ``once`` writes a single line of a kind, ``end`` the last one. Any thread may use it.
    """

    def __init__(
        self,
        *,
        every: timedelta = timedelta(seconds=1),
        kinds: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with nothing told.

        Args:
            every: The least time between two lines of a kind.
            kinds: How many kinds are remembered at most. Beyond it the one whose line is oldest is forgotten, and its
                count is written first.
            clock: Seconds that only ever grow.
        """
        self._seconds, self._limit, self._clock = every.total_seconds(), kinds, clock
        self._lock = Lock()
        self._told: dict[str, _Kind] = {}  # in the order of their last lines
        self._told_once: set[str] = set()

    def tell(self, level: int, key: str, text: str, *args: object) -> None:
        """Write a line now, or count it if there was one of this kind a moment ago.

        Args:
            level: As in ``logging``.
            key: The kind; never a value that a client chose, for then every value would get a line.
            text: The message, with ``%`` and *args* as ``logging`` has them. No secret, as in every line.
            args: What is put into *text*.
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
                del self._told[key]  # it comes last again
            untold = kind.untold
            kind.last_at, kind.total, kind.told_at, kind.untold = now, kind.total + 1, now, 0
            self._told[key] = kind
        if forgotten is not None and forgotten.untold:
            logger.log(forgotten.level, "%d more lines like %r", forgotten.untold, forgotten.text)
        if untold:
            text, args = f"{text} (%d more like it since the last such line)", (*args, untold)
        logger.log(level, text, *args)

    def once(self, level: int, key: str, text: str) -> None:
        """Write a line, unless there was one of this kind ever.

        Args:
            level: As in ``logging``.
            key: The kind; never a value that a client chose, for none is forgotten.
            text: The message as it stands.
        """
        with self._lock:
            is_new = key not in self._told_once
            self._told_once.add(key)
        if is_new:
            logger.log(level, "%s", text)

    def end(self, level: int, key: str, text: str) -> bool:
        """Write that a kind is over, unless it has happened a moment ago; the next line of it is the first again.

        Args:
            level: As in ``logging``.
            key: The kind.
            text: The message, with ``%d`` for how often it happened and ``%.0f`` for the seconds since the first time.

        Returns:
            Whether it is over: there was no line of this kind, or this was the last.
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
