"""How long others wait while 16 clients sign in, or register with weak passwords."""

import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.middleware import PASSWORD
from benchmarks.timing import percentile, verdict

CLIENTS = 16
Body = dict[str, str] | bytes  # JSON, or a form
IDENTITY = {"email": "storm@mail.example.org", "password": PASSWORD, "password_confirmation": PASSWORD}
WEAK_PASSWORD = "p4$$w0rd" * 6 + "x"  # among the dearest to find weak: long, repeated, full of look-alikes
WEAK = {"email": "weak@mail.example.org", "password": WEAK_PASSWORD, "password_confirmation": WEAK_PASSWORD}


class Connection:
    """HTTP/1.1 on one kept-alive connection: as light as it gets, for the clients share the machine's cores."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, method: str, path: str, body: Body | None = None, *, head: str = "") -> int:
        """Send a request, with *head* for more lines of headers, and read the whole answer; its status."""
        kind = "x-www-form-urlencoded" if isinstance(body, bytes) else "json"
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/{kind}\r\n{head}"
        self._writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self._reader.readexactly(int(length.split(b":")[1]))
        return int(answer.split(b" ", 2)[1])

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """uvicorn with one worker on a free port of the loopback; its port."""
    with tempfile.TemporaryDirectory() as directory, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "uvicorn", "benchmarks.storm_app:app", "--port", str(port)]
        environment = {**os.environ, "BENCHMARK_DATABASE": str(Path(directory) / "storm.db")}
        command += ["--log-level", "warning", "--no-access-log"]
        server = await asyncio.create_subprocess_exec(*command, env=environment)
        try:
            for _ in range(200):
                try:
                    (await connect(port)).close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
            yield port
        finally:
            server.terminate()
            await server.wait()


async def connect(port: int) -> Connection:
    """A connection to the server."""
    return Connection(*await asyncio.open_connection("127.0.0.1", port))


async def ping(port: int, seconds: float) -> list[float]:
    """Milliseconds of each ``/ping``, a hundred a second at most."""
    connection, waits = await connect(port), list[float]()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        await connection.ask("GET", "/ping")
        waits.append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(0.01)
    connection.close()
    return waits


async def during(port: int, path: str, body: Body, seconds: float) -> tuple[list[float], Counter[int]]:
    """``/ping`` while the clients post *body* to *path* without a pause; the waits, and the statuses of the posts."""
    statuses = Counter[int]()

    async def client() -> None:
        connection = await connect(port)
        while True:
            statuses[await connection.ask("POST", path, body)] += 1

    clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    await asyncio.sleep(0.5)
    waits = await ping(port, seconds)
    for task in clients:
        task.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return waits, statuses


async def measure(*, seconds: float) -> None:
    """Run and print everything."""
    print(f"\nstorm: uvicorn with one worker, {CLIENTS} clients; /ping in ms\n")
    async with served() as port:
        first = await connect(port)
        await first.ask("POST", "/auth/password/register", IDENTITY)
        first.close()
        line("alone", await ping(port, seconds), "")
        for name, path, body, budget in (
            ("while signing in", "sign_in", IDENTITY, 20),
            ("while registering weakly", "register", WEAK, 50),
        ):
            waits, statuses = await during(port, f"/auth/password/{path}", body, seconds)
            said = verdict(percentile(waits, 0.99) < budget)
            line(name, waits, f"{said}: under {budget}; answers: {dict(statuses)}")


def line(name: str, waits: list[float], note: str) -> None:
    """One line of the table."""
    print(f"  {name:<26}p50 {percentile(waits, 0.5):6.2f}    p99 {percentile(waits, 0.99):6.2f}    {note}")
