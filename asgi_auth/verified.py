"""A cache of verified credentials, so that the next request need not verify a signature again."""

from collections import OrderedDict
from hashlib import sha256
from typing import Generic, TypeVar

V = TypeVar("V")

LIMIT = 4096
"""The maximum number of credentials in the cache: about 2 MiB at worst."""


class VerifiedCredentials(Generic[V]):
    """A value for each credential, by its full SHA-256. The oldest entry is dropped first."""

    def __init__(self) -> None:
        self._values: OrderedDict[bytes, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, credential: str) -> V | None:
        """The value of *credential*. Returns None if it is not in the cache."""
        return self._values.get(sha256(credential.encode("utf-8", "replace")).digest())

    def keep(self, credential: str, value: V) -> None:
        """Store *value*. If the cache is full, the oldest entry is dropped."""
        if len(self._values) >= LIMIT:
            self._values.popitem(last=False)  # atomic: loops in several threads may share this
        self._values[sha256(credential.encode("utf-8", "replace")).digest()] = value
