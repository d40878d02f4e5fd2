"""Records for the suite, with all fields filled in."""

import secrets
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

import anyio

from asgi_auth.store import Found, InvitationRecord, ScopedStore, Stores, TokenRecord
from asgi_auth.types import Account, Session

T = TypeVar("T")

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)

UNSTORABLE = ("a\0b", "\ud800", "a\udfffb")
"""Some databases cannot store these, so every store refuses them (RP-8)."""
NO_IDS = ("", "nobody", "0", str(2**63), "🙂", "x" * 10_000, *UNSTORABLE)

Scoped = ScopedStore[Any]


async def add_user(store: Stores[Any], name: str = "alice", **account: Any) -> Found[Any]:
    """A user with an address, and an account with *account* in it."""
    email = f"{name}@example.com"
    record = Account(user_id="", **{"stamp": secrets.token_bytes(16), **account})
    return await store.users.insert(str(uuid4()), {"email": email}, {"email": email}, record, now=NOW)


def session_of(found: Found[Any], **changes: Any) -> Session:
    """A session of this user that is valid for an hour, and for two if it is used."""
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "user_id": found.account.user_id,
        "stamp": found.account.stamp,
        "created_at": NOW,
        "last_seen_at": NOW,
        "idle_expires_at": NOW + HOUR,
        "expires_at": NOW + 2 * HOUR,
    }
    return Session(**{**values, **changes})


async def add_session(store: Stores[Any], found: Found[Any], **changes: Any) -> tuple[Session, bytes]:
    """A session in the store, and the hash of its secret."""
    session, secret_hash = session_of(found, **changes), secrets.token_bytes(32)
    await store.sessions.insert(session, secret_hash)
    return session, secret_hash


async def add_token(store: Stores[Any], found: Found[Any] | None, **changes: Any) -> TokenRecord:
    """A token in the store that is valid for an hour, to reset the password of this user."""
    values: dict[str, Any] = {
        "token_hash": secrets.token_bytes(32),
        "purpose": "reset",
        "user_id": found and found.account.user_id,
        "stamp": found and found.account.stamp,
        "created_at": NOW,
        "expires_at": NOW + HOUR,
    }
    record = TokenRecord(**{**values, **changes})
    await store.tokens.insert(record)
    return record


def invitation_of(**changes: Any) -> InvitationRecord:
    """An invitation of one address without a scope, by the application itself, that is valid for an hour."""
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "email": "Eve@example.com",
        "email_key": "eve@example.com",
        "created_at": NOW,
        "expires_at": NOW + HOUR,
        "last_sent_at": NOW,
    }
    return InvitationRecord(**{**values, **changes})


async def add_invitation(store: Stores[Any], **changes: Any) -> InvitationRecord:
    """An invitation in a store without another pending one."""
    record = invitation_of(**changes)
    assert await store.invitations.insert(record)  # noqa: S101  # part of a test
    return record


async def together(calls: Iterable[Awaitable[T]]) -> list[T | Exception]:
    """The results of calls that run at the same time. An exception is also a result."""
    answers: list[T | Exception] = []

    async def answer(call: Awaitable[T]) -> None:
        try:
            answers.append(await call)
        except Exception as exc:
            answers.append(exc)

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(answer, call)
    return answers
