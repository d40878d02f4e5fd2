"""MemorySender: keeps the messages, for tests."""

import pytest

from asgi_auth.sender import Sender
from asgi_auth.senders import MemorySender

OPTS = {"purpose": "reset", "url": "http://localhost/?reset_token=hush"}


@pytest.mark.anyio
async def test_memory_keeps_messages_in_order() -> None:
    """Every message is kept unchanged, the oldest first."""
    sender = MemorySender()

    await sender.send("alice", "hush", OPTS)
    await sender.send("bob", None, {"purpose": "password_changed"})

    assert sender.messages == [("alice", "hush", OPTS), ("bob", None, {"purpose": "password_changed"})]
    assert isinstance(sender, Sender)


@pytest.mark.anyio
async def test_memory_repr_hides_tokens() -> None:
    """The repr has the purposes, and no token or link."""
    sender = MemorySender()

    await sender.send("alice", "hush", OPTS)

    assert repr(sender) == "MemorySender(['reset'])"
