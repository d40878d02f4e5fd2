"""A sender for tests: it keeps what it is given."""

from collections.abc import Mapping
from typing import Any


class MemorySender:
    """Keeps every message, for the tests of an application."""

    messages: list[tuple[Any, str | None, Mapping[str, Any]]]
    """``(user, token, opts)`` of each message, oldest first. Empty it as you like."""

    def __init__(self) -> None:
        self.messages = []

    def __repr__(self) -> str:
        """How many, and of which purpose; tokens and links stay out of a test's output."""
        return f"MemorySender({[opts.get('purpose') for _, _, opts in self.messages]})"

    async def send(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        """Keep one message."""
        self.messages.append((user, token, opts))
