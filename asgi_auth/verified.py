"""What is remembered of credentials that passed every check, so that the next request does not pay for it again."""

from collections import OrderedDict
from hashlib import sha256
from typing import Generic, TypeVar

V = TypeVar("V")

LIMIT = 4096
"""Credentials that are remembered: about 2 MiB at worst."""


class VerifiedCredentials(Generic[V]):
    """A value for each credential, by its full SHA-256; the oldest goes first."""

    def __init__(self) -> None:
        self._values: OrderedDict[bytes, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, credential: str) -> V | None:
        """The value of *credential*; None if it is not remembered."""
        return self._values.get(sha256(credential.encode("utf-8", "replace")).digest())

    def keep(self, credential: str, value: V) -> None:
        """Remember *value*, in place of the oldest one if there are too many."""
        if len(self._values) >= LIMIT:
            self._values.popitem(last=False)  # one step: loops in several threads may share this
        self._values[sha256(credential.encode("utf-8", "replace")).digest()] = value
