"""Helpers for many tests: an Authentication on its own file, with a clock and a mailbox that the test controls."""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from asgi_auth.authentication import Authentication
from asgi_auth.errors import InvalidTokenError
from asgi_auth.events import Event
from asgi_auth.hooks import Hook
from asgi_auth.passwords import Bcrypt
from asgi_auth.senders import MemorySender
from asgi_auth.store import Found, Work
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.testing import FakeClock
from asgi_auth.types import AccessToken, User

SECRET = "vD3k9QmZ7xT1sW5yB8nR2cL6hG4jF0pA-uE_iO-wKq"
OTHER_SECRET = "Jx8Yb2Nf6Vq0Rz4Lt1Gs9Kd3Mh7Pc5Wu-aI_eT-oXg"
EMAIL = "alice@mail.example.org"
OTHER_EMAIL = "bob@mail.example.org"
PASSWORD = "quartz lantern mosaic"
NEW_PASSWORD = "violet harbour pendulum"
BASE_URL = "http://localhost:8000"
HASHER = Bcrypt(cost=4)
PATIENCE = 60.0
"""Seconds after which a test stops waiting: long, because other programs may keep the machine busy."""


class DigestHasher:
    """An application's own hasher, not bcrypt: ``sha256$`` and a digest."""

    cost = 4
    weak = True

    def hash(self, password: bytes) -> str:
        return f"sha256${sha256(password).hexdigest()}"

    def verify(self, password: bytes, stored: str) -> bool:
        return stored == self.hash(password)

    def can_verify(self, stored: str) -> bool:
        return stored.startswith("sha256$")

    def needs_rehash(self, stored: str) -> bool:
        return False

    def cost_of(self, stored: str) -> int | None:
        return None

    def level(self, stored: str | None, dearest: int) -> None:
        """Do nothing: every ``verify`` costs the same."""


class LocalAuthentication(Authentication[User]):
    """An ``Authentication`` whose clock the test sets and whose mail the test reads."""

    clock: FakeClock
    sender: MemorySender


def make_auth(directory: Path, *, sender: MemorySender | None = None, **options: Any) -> LocalAuthentication:
    """An ``Authentication`` on ``app.db`` in *directory*: one password strategy, cheap hashes, a fake clock.

    Args:
        directory: The directory of the file; two Authentications in one directory share it.
        sender: The sender of mail; the test reaches it as ``auth.sender``.
        options: Parameters of ``Authentication``; they replace these defaults.
    """
    sender = sender or MemorySender()
    defaults = {
        "store": SQLiteStore(directory / "app.db"),
        "secret": SECRET,
        "base_url": BASE_URL,
        "strategies": [Password(resettable=Resettable(sender=sender))],
        "hasher": HASHER,
        "clock": FakeClock(),
    }
    auth = LocalAuthentication(**{**defaults, **options})
    auth.sender = sender
    return auth


class Events(Hook):
    """An add-on that records all events."""

    name = "events"

    def __init__(self) -> None:
        self.seen: list[Event] = []

    async def within(self, event: Event, work: Work[Any]) -> None:
        self.seen.append(event)

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        seen, self.seen = self.seen, []
        return seen


def mailed_token(auth: LocalAuthentication, *, parameter: str = "reset_token") -> str:
    """The token in the newest mail that contains a link."""
    url: str = next(opts["url"] for _, _, opts in reversed(auth.sender.messages) if "url" in opts)
    return parse_qs(urlsplit(url).query)[parameter][0]


def credentials(email: str = EMAIL, password: str = PASSWORD) -> dict[str, str]:
    """The parameters of ``sign_in``."""
    return {"email": email, "password": password}


def registration(email: str = EMAIL, password: str = PASSWORD) -> dict[str, str]:
    """The parameters of ``register``."""
    return {**credentials(email, password), "password_confirmation": password}


async def register(auth: Authentication[User], email: str = EMAIL) -> tuple[User, AccessToken]:
    """Register *email* with ``PASSWORD``; return the user and the token of the sign-in."""
    user, token = await auth.strategy("password").register(registration(email))
    return user, token


async def found_of(auth: Authentication[User], email: str = EMAIL) -> Found[User]:
    """The user with *email* and the account, as currently stored."""
    found = await auth.accounts.find("email", email)
    assert found is not None
    return found


async def is_alive(auth: Authentication[User], token: AccessToken) -> bool:
    """Whether the session of a sign-in is live; its cookie and its bearer token must agree."""
    alive = []
    for load, credential in ((auth.sessions.load, token.cookie), (auth.sessions.load_bearer, str(token))):
        try:
            alive.append((await load(credential)).session.id == token.session.id)
        except InvalidTokenError:
            alive.append(False)
    assert alive[0] is alive[1]
    return alive[0]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll until *condition* holds. TimeoutError: it does not hold in time."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110  # nobody sets an event
            await asyncio.sleep(0.002)


async def until(condition: Callable[[], bool]) -> None:
    """Poll until a plain function returns True. TimeoutError: it does not return True in time."""

    async def asked() -> bool:
        return condition()

    await eventually(asked)
