"""Turns of waiting items: each key gets its turn, even if another key has many items. Pure."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def _always(_item: object) -> bool:
    return True


class Turns(Generic[K, T]):
    """A bounded number of waiting items, in one line for each key. The lines take turns."""

    def __init__(self, limit: int, share: int | None = None) -> None:
        """Args: limit: The maximum of all items. share: The maximum of one key; None: only *limit*."""
        self.limit, self._share = limit, share
        # In the order of their turns. A key is present only while it has waiting items.
        self._lines: OrderedDict[K, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """The number of waiting items."""
        return self._count

    def __iter__(self) -> Iterator[T]:
        """Every waiting item, line by line."""
        return (item for line in self._lines.values() for item in line)

    def put(self, key: K, item: T) -> T | None:
        """Add *item* to the line of *key*.

        Returns:
            The item that lost its place, or None. It is the newest item of the longest line. It is *item* itself if its
            own line would become as long, or if its key has its share, so that equal keys do not displace each other.
        """
        mine = len(self._lines.get(key, ()))
        if self._share is not None and mine >= self._share:
            return item
        left = None
        if self._count >= self.limit:
            # Of several longest lines, the one whose turn comes last, as the first one has waited longest.
            longest = max(reversed(self._lines), key=lambda each: len(self._lines[each]), default=key)
            if mine + 1 >= len(self._lines.get(longest, ())):
                return item
            left = self._take(longest, -1)
        self._lines.setdefault(key, deque()).append(item)
        self._count += 1
        return left

    def take(self, ready: Callable[[T], bool] = _always) -> T | None:
        """Remove and return the item whose turn it is. Returns None if no waiting item is *ready*."""
        for key, line in self._lines.items():
            for place, item in enumerate(line):
                if ready(item):
                    self._lines.move_to_end(key)
                    return self._take(key, place)
        return None

    def clear(self) -> list[T]:
        """Remove and return every waiting item, line by line."""
        waiting = list(self)
        self._lines.clear()
        self._count = 0
        return waiting

    def remove(self, key: K, item: T) -> None:
        """Remove *item*. Nothing happens if it does not wait."""
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
