"""The time of a refusal when many clients sign in at once: ``python -m benchmarks.overload``."""

import asyncio
import json
import os
import sys
from statistics import median
from typing import Any, NamedTuple

from benchmarks import storm
from benchmarks.timing import percentile, verdict

AT_ONCE = 200
BUDGET = 20
"""Milliseconds within which the server must refuse."""
SOURCES = {"from one address": "127.0.0.1", "each from its own": "127.1.{}.{}"}


class Burst(NamedTuple):
    """The results of one burst."""

    server: list[tuple[int, float]]
    """Status and milliseconds of each answer, measured by the server."""
    client: list[tuple[int, float]]
    """Status and milliseconds, measured by the clients from the last byte that any of them sent."""
    processor: float
    """Milliseconds of CPU time of the event loop's thread."""


async def measure(*, rounds: int) -> dict[str, list[Burst]]:
    """Bursts from every kind of source."""
    async with storm.served("benchmarks.overload_app:app") as port:
        bursts: dict[str, list[Burst]] = {name: [] for name in SOURCES}
        for _ in range(rounds):
            for name, source in SOURCES.items():
                bursts[name].append(await burst(port, source))
        return bursts


async def burst(port: int, source: str) -> Burst:
    """One burst, sent by another process with a lower priority than the server."""
    await notes(port)
    command = [sys.executable, "-m", "benchmarks.overload", str(port), source]
    sender = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await sender.communicate()
    noted = await notes(port)
    return Burst(noted["notes"], json.loads(output), noted["processor"])


async def notes(port: int) -> dict[str, Any]:
    """The notes of the server since the last call."""
    connection = await storm.connect(port)  # a new one: the server closes a connection that is idle during a burst
    connection.send("GET", "/notes")
    _, body = await connection.answer()
    connection.close()
    found: dict[str, Any] = json.loads(body)
    return found


async def send(port: int, source: str) -> list[tuple[int, float]]:
    """In the other process: connect, send everything at once, and read the answers as they arrive."""
    os.nice(10)
    addresses = (source.format(number // 250, number % 250 + 1) for number in range(AT_ONCE))
    connections = [await storm.connect(port, address) for address in addresses]
    for connection in connections:
        connection.send("POST", "/auth/password/sign_in", storm.IDENTITY)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def answer(connection: storm.Connection) -> tuple[int, float]:
        status, _ = await connection.answer()
        return status, (loop.time() - began) * 1e3

    return await asyncio.gather(*map(answer, connections))


def report(bursts: dict[str, list[Burst]]) -> None:
    """Print everything."""
    print(f"\noverload: uvicorn with one worker, {AT_ONCE} sign-ins at once; 503 in ms, the median of the bursts\n")
    for name, each in bursts.items():
        p50, p99 = figures([burst.server for burst in each])
        refused = sum(status == 503 for burst in each for status, _ in burst.server) / len(each)
        print(f"  {name:<24}p50 {p50:6.1f}    p99 {p99:6.1f}    {verdict(p99 < BUDGET)}: under {BUDGET}")
        p50, p99 = figures([burst.client for burst in each])
        print(f"  {'as the clients see it':<24}p50 {p50:6.1f}    p99 {p99:6.1f}")
        processor = median(burst.processor for burst in each)
        print(f"  {refused:.0f} refused; all answers: {processor:.0f} ms of the event loop's thread\n")


def figures(bursts: list[list[tuple[int, float]]]) -> tuple[float, float]:
    """The 50th and the 99th percentile of the refusals."""
    times = [[ms for status, ms in answers if status == 503] for answers in bursts]
    p50, p99 = (median(percentile(each, share) for each in times) for share in (0.5, 0.99))
    return p50, p99


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(asyncio.run(send(int(sys.argv[1]), sys.argv[2]))))
    else:
        report(asyncio.run(measure(rounds=3)))
