"""Requests a second, and the wait of other requests during a storm of sign-ins, over loopback with one worker."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from benchmarks.middleware import EMAIL, PASSWORD
from benchmarks.peers.peer import Database
from benchmarks.storm import connect, during
from benchmarks.timing import percentile

CONNECTIONS = 8
# A sign-in with the default hasher of each.
SIGN_INS: dict[str, tuple[str, dict[str, str] | bytes]] = {
    "asgi_auth, cookie": ("/auth/password/sign_in", {"email": EMAIL, "password": PASSWORD}),
    "fastapi-users JWT, bearer": ("/auth/login", urlencode({"username": EMAIL, "password": PASSWORD}).encode()),
}


@dataclass(frozen=True)
class Load:
    """The results of the clients: requests a second, and the 99th percentile in milliseconds."""

    rate: float
    p99: float


@asynccontextmanager
async def served(name: str, database: Database, *, bare: bool = False) -> AsyncIterator[tuple[int, tuple[str, str]]]:
    """Run the peer in its own process; yield its port and the credential."""
    command = [sys.executable, "-m", "benchmarks.peers.serve", name, database.address, *["--bare"] * bare]
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        if server.stdout is None:
            raise RuntimeError("the server has no output")
        port, credential = json.loads(await server.stdout.readline())
        yield port, credential
    finally:
        server.terminate()
        await server.wait()


async def load(name: str, database: Database, *, seconds: float, bare: bool = False) -> Load:
    """Request ``/me`` on all connections without a pause; the first tenth of the time is not counted."""
    async with served(name, database, bare=bare) as (port, credential):
        head, waits = "{}: {}\r\n".format(*credential), list[float]()
        began = time.perf_counter()
        warm, end = began + seconds / 10, began + seconds * 1.1

        async def client() -> None:
            connection = await connect(port)
            while (asked := time.perf_counter()) < end:
                if await connection.ask("GET", "/me", head=head) != 200:
                    raise RuntimeError(f"{name} refused")
                if asked > warm:
                    waits.append((time.perf_counter() - asked) * 1e3)
            connection.close()

        await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return Load(len(waits) / seconds, percentile(waits, 0.99))


async def storm(name: str, database: Database, *, seconds: float) -> tuple[list[float], Counter[int]]:
    """The waits of ``/ping`` in milliseconds, and the statuses of the sign-ins."""
    async with served(name, database) as (port, _):
        return await during(port, *SIGN_INS[name], seconds)
