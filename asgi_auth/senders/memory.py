"""A sender for tests. It keeps messages in memory."""

from collections.abc import Mapping
from typing import Any


class MemorySender:
    """Keeps every message, for the tests of an application."""

    messages: list[tuple[Any, str | None, Mapping[str, Any]]]
    """``(user, token, opts)`` of each message, oldest first. A test may clear the list."""

    def __init__(self) -> None:
        self.messages = []

    def __repr__(self) -> str:
        """The purposes of the messages, without tokens and links, for the output of tests."""
        return f"MemorySender({[opts.get('purpose') for _, _, opts in self.messages]})"

    async def send(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        """Keep one message."""
        self.messages.append((user, token, opts))
