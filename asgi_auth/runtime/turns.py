"""Whose turn it is among those who wait: each key gets its turn, however many wait behind another. Pure."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def _always(_item: object) -> bool:
    return True


class Turns(Generic[K, T]):
    """Items that wait, a bounded number of them, in a line for each key; the lines are served in turn."""

    def __init__(self, limit: int, share: int | None = None) -> None:
        """Args: limit: How many may wait. share: How many of one key; None: no fewer than of all."""
        self.limit, self._share = limit, share
        # In the order of their turns. A key is here only while something of it waits.
        self._lines: OrderedDict[K, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._count

    def __iter__(self) -> Iterator[T]:
        """Everybody who waits, line by line."""
        return (item for line in self._lines.values() for item in line)

    def put(self, key: K, item: T) -> T | None:
        """Let *item* wait.

        Returns:
            Who had to leave for it: the newest item of the longest line; or *item* itself, if its own line would be as
            long then, or its key has its share: a crowd of equals does not push each other out. None: nobody.
        """
        mine = len(self._lines.get(key, ()))
        if self._share is not None and mine >= self._share:
            return item
        left = None
        if self._count >= self.limit:
            # Of several longest lines, the one whose turn is last: the next to be served has waited longest.
            longest = max(reversed(self._lines), key=lambda each: len(self._lines[each]), default=key)
            if mine + 1 >= len(self._lines.get(longest, ())):
                return item
            left = self._take(longest, -1)
        self._lines.setdefault(key, deque()).append(item)
        self._count += 1
        return left

    def take(self, ready: Callable[[T], bool] = _always) -> T | None:
        """The item whose turn it is, which waits no more; None: nobody waits who is *ready*."""
        for key, line in self._lines.items():
            for place, item in enumerate(line):
                if ready(item):
                    self._lines.move_to_end(key)
                    return self._take(key, place)
        return None

    def clear(self) -> list[T]:
        """Everybody who waits, line by line; nobody does any more."""
        waiting = list(self)
        self._lines.clear()
        self._count = 0
        return waiting

    def remove(self, key: K, item: T) -> None:
        """Forget *item*; nothing happens if it does not wait."""
        line = self._lines.get(key, ())
        if item in line:
            self._take(key, line.index(item))

    def _take(self, key: K, place: int) -> T:
        line = self._lines[key]
        item = line[place]
        del line[place]
        self._count -= 1
        if not line:
            del self._lines[key]
        return item
