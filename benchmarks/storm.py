"""How long other requests wait while 16 clients sign in, or register with weak passwords."""

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
from typing import NamedTuple

from benchmarks.middleware import PASSWORD
from benchmarks.timing import percentile, verdict

CLIENTS = 16
Body = dict[str, str] | bytes  # JSON, or a form
IDENTITY = {"email": "storm@mail.example.org", "password": PASSWORD, "password_confirmation": PASSWORD}
WEAK_PASSWORD = "p4$$w0rd" * 6 + "x"  # expensive to rate: long, repeated, full of look-alikes
WEAK = {"email": "weak@mail.example.org", "password": WEAK_PASSWORD, "password_confirmation": WEAK_PASSWORD}


class Storm(NamedTuple):
    """The requests of the clients."""

    path: str
    body: Body
    answer: int
    budget: int
    """Milliseconds under which the 99th percentile of ``/ping`` must stay during the storm."""


STORMS = {
    "while signing in": Storm("/auth/password/sign_in", IDENTITY, answer=200, budget=20),
    "while registering weakly": Storm("/auth/password/register", WEAK, answer=422, budget=50),
}
Waits = dict[str, tuple[list[float], Counter[int]]]
"""Milliseconds of each ``/ping``, alone and by name of the storm, and the number of answers with each status."""


class Connection:
    """HTTP/1.1 on one kept-alive connection. It is simple and fast, as the clients share the machine's cores."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, method: str, path: str, body: Body | None = None, *, head: str = "") -> int:
        """Send a request, with more header lines in *head*, read the whole answer, and return its status."""
        self.send(method, path, body, head=head)
        status, _ = await self.answer()
        return status

    def send(self, method: str, path: str, body: Body | None = None, *, head: str = "") -> None:
        """Send a request."""
        kind = "x-www-form-urlencoded" if isinstance(body, bytes) else "json"
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/{kind}\r\n{head}"
        self._writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)

    async def answer(self) -> tuple[int, bytes]:
        """The status and the body of the next answer."""
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await self._reader.readexactly(int(length.split(b":")[1]))
        return int(answer.split(b" ", 2)[1]), body

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


@asynccontextmanager
async def served(app: str = "benchmarks.storm_app:app") -> AsyncIterator[int]:
    """Run *app* under uvicorn with one worker on a free loopback port and register a user; yield the port."""
    with tempfile.TemporaryDirectory() as directory, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "uvicorn", app, "--port", str(port)]
        environment = {**os.environ, "BENCHMARK_DATABASE": str(Path(directory) / "storm.db")}
        command += ["--log-level", "warning", "--no-access-log"]
        server = await asyncio.create_subprocess_exec(*command, env=environment)
        try:
            first = await _first(port)
            await first.ask("POST", "/auth/password/register", IDENTITY)
            first.close()
            yield port
        finally:
            server.terminate()
            await server.wait()


async def _first(port: int) -> Connection:
    """A connection, as soon as the server accepts one."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await connect(port)
            except OSError:
                await asyncio.sleep(0.05)


async def connect(port: int, source: str = "127.0.0.1") -> Connection:
    """A connection to the server from this loopback address."""
    return Connection(*await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)))


async def ping(port: int, seconds: float) -> list[float]:
    """Milliseconds of each ``/ping``; at most 100 requests a second."""
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
    """Call ``/ping`` while the clients post *body* to *path* without a pause; return the waits and the statuses."""
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


async def measure(*, seconds: float) -> Waits:
    """The waits alone and during each storm."""
    async with served() as port:
        waits: Waits = {"alone": (await ping(port, seconds), Counter())}
        for name, storm in STORMS.items():
            waits[name] = await during(port, storm.path, storm.body, seconds)
    return waits


def report(waits: Waits) -> None:
    """Print everything."""
    print(f"\nstorm: uvicorn with one worker, {CLIENTS} clients; /ping in ms\n")
    line("alone", waits["alone"][0], "")
    for name, storm in STORMS.items():
        milliseconds, answers = waits[name]
        said = verdict(percentile(milliseconds, 0.99) < storm.budget)
        line(name, milliseconds, f"{said}: under {storm.budget}; answers: {dict(answers)}")


def line(name: str, waits: list[float], note: str) -> None:
    """One line of the table."""
    print(f"  {name:<26}p50 {percentile(waits, 0.5):6.2f}    p99 {percentile(waits, 0.99):6.2f}    {note}")
