"""A gate inside a hasher, a slow hook, a counter of requests: the test controls the order of events."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_auth.acts import Attempt, Draft, FactorRequired
from asgi_auth.errors import AuthError
from asgi_auth.hooks import Hook
from asgi_auth.passwords import Bcrypt
from asgi_auth.types import Account
from tests.support import PATIENCE


class Gate:
    """Records every call and blocks the calls of one method while it is closed. It starts open."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        """Method and password, in the order of arrival."""
        self._method = ""
        self._opened, self._arrived = threading.Event(), threading.Semaphore(0)
        self._opened.set()

    def close(self, method: str) -> None:
        """Make every call of *method* wait from now on."""
        self._method = method
        self._opened.clear()

    def open(self) -> None:
        """Release all waiting calls."""
        self._opened.set()

    def enter(self, method: str, password: bytes) -> None:
        """Record a call and wait while the gate is closed. The hashing thread calls this."""
        self.calls.append((method, password.decode()))
        if method == self._method and not self._opened.is_set():
            self._arrived.release()
            self._opened.wait(PATIENCE)

    async def arrived(self, count: int = 1) -> None:
        """Wait until *count* more calls wait at the gate."""
        for _ in range(count):
            assert await asyncio.to_thread(self._arrived.acquire, timeout=PATIENCE)

    def passwords(self, method: str) -> list[str]:
        """The passwords that *method* was called with, in order."""
        return [password for name, password in self.calls if name == method]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedBcrypt(Bcrypt):
    """Cheap bcrypt with a gate before each hash."""

    cost: int = 4
    gate: Gate = field(default_factory=Gate)

    def hash(self, password: bytes) -> str:
        """Wait for the gate, then hash."""
        self.gate.enter("hash", password)
        return Bcrypt.hash(self, password)

    def verify(self, password: bytes, stored: str) -> bool:
        """Wait for the gate, then verify."""
        self.gate.enter("verify", password)
        return Bcrypt.verify(self, password, stored)


class Gatekeeper(Hook):
    """Refuses a sign-in or requires a factor, as the test demands."""

    name = "gatekeeper"

    def __init__(self, answer: AuthError | FactorRequired | None = None) -> None:
        self.answer = answer

    async def admit(self, attempt: Attempt) -> FactorRequired | None:
        if isinstance(self.answer, AuthError):
            raise self.answer
        return self.answer


class Lingering(Hook):
    """Waits for the test before it decides whether the client may learn that an address is taken."""

    name = "lingering"

    def __init__(self) -> None:
        self.asked, self.over = asyncio.Event(), asyncio.Event()

    async def taken(self, draft: Draft, account: Account) -> bool:
        self.asked.set()
        await self.over.wait()
        return False


class Turnstile:
    """An ASGI application that wraps another one and counts its requests."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.entered, self.left = 0, 0
        self._moved = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        self.entered += 1
        await self._tell()
        try:
            await self.app(scope, receive, send)
        finally:
            self.left += 1
            await self._tell()

    async def _tell(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds; it is checked after each request begins or ends."""
        async with self._moved, asyncio.timeout(PATIENCE):
            await self._moved.wait_for(condition)
