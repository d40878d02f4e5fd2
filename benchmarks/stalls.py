"""How long a hostile request blocks the event loop."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

from asgi_auth import Authentication, Bcrypt
from asgi_auth.senders import MemorySender
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password, Resettable
from benchmarks.middleware import SECRET
from benchmarks.timing import verdict
from tests.hostile import hostile, target

BUDGET = 2.0
"""Milliseconds."""


async def measure(*, rounds: int) -> dict[str, float]:
    """The longest block of the loop in milliseconds for each request; the shortest of *rounds* runs."""
    with tempfile.TemporaryDirectory() as directory:
        auth = Authentication(
            store=SQLiteStore(Path(directory) / "stalls.db"),
            secret=SECRET,
            base_url="http://localhost:8000",
            strategies=[Password(resettable=Resettable(sender=MemorySender()))],
            hasher=Bcrypt(cost=4),
            trusted_proxies=["10.0.0.0/8", "192.168.0.0/16", "fd00::/8"],
        )
        app, holds = target(auth), dict[str, float]()
        async with auth.running():
            for request in hostile():
                met = [request.meet(app, request.scope()) for _ in range(rounds)]
                holds[request.name] = min([await _standstill(each) for each in met])
        return holds


async def _standstill(met: Awaitable[object]) -> float:
    """The longest time between two turns of the loop. Other work of the loop waits for this time.

    It is CPU time, so that other programs do not change it.
    """
    loop, longest, last, over = asyncio.get_running_loop(), 0.0, time.thread_time(), False

    def tick() -> None:
        nonlocal longest, last
        now = time.thread_time()
        longest, last = max(longest, now - last), now
        if not over:
            loop.call_soon(tick)

    tick()
    await met
    over = True
    await asyncio.sleep(0)
    return longest * 1000


def report(holds: dict[str, float]) -> None:
    """Print the longest times, and if all are within the budget."""
    print(f"\nstalls: how long {len(holds)} hostile requests hold the event loop (ms)\n")
    longest = sorted(holds.items(), key=lambda item: -item[1])[:10]
    for name, milliseconds in longest:
        print(f"  {name:<60}{milliseconds:8.2f}")
    print(f"  {verdict(longest[0][1] <= BUDGET)}: at most {BUDGET}")
