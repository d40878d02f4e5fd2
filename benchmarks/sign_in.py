"""Sign-ins a second, beside the maximum of the cores."""

import asyncio
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt

from asgi_auth import Bcrypt
from asgi_auth.stores import SQLiteStore
from asgi_auth.types import Client
from benchmarks.middleware import PASSWORD, make_auth
from benchmarks.timing import verdict

CLIENTS = 16
COST = 12


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hashes_per_second(count: int) -> float:
    """Hashes a second of bare bcrypt in one thread for each core."""
    salt = bcrypt.gensalt(COST)
    with ThreadPoolExecutor(cores()) as pool:
        began = time.perf_counter()
        list(pool.map(lambda _: bcrypt.hashpw(b"x" * 64, salt), range(count)))
        return count / (time.perf_counter() - began)


async def sign_ins_per_second(count: int, *, cost: int = COST) -> float:
    """Sign-ins a second of the strategy with its store: 16 clients at a time, bcrypt with this *cost*."""
    with tempfile.TemporaryDirectory() as directory:
        auth = make_auth(SQLiteStore(Path(directory) / "bench.db"), hasher=Bcrypt(cost=cost))
        async with auth.running():
            await auth.accounts.create({"email": "bench@mail.example.org"}, password=PASSWORD)
            params = {"email": "bench@mail.example.org", "password": PASSWORD}
            left = iter(range(count))

            async def client(number: int) -> None:
                for _ in left:
                    await auth.strategy("password").sign_in(params, client=Client(address=f"127.0.0.{number}"))

            began = time.perf_counter()
            await asyncio.gather(*(client(number) for number in range(1, CLIENTS + 1)))
            return count / (time.perf_counter() - began)


async def measure(*, count: int) -> tuple[float, float]:
    """Hashes and sign-ins a second, measured in turn twice; the better result of each."""
    hashes = [await asyncio.to_thread(hashes_per_second, count)]
    sign_ins = [await sign_ins_per_second(count)]
    hashes.append(await asyncio.to_thread(hashes_per_second, count))
    sign_ins.append(await sign_ins_per_second(count))
    return max(hashes), max(sign_ins)


def report(hashes: float, sign_ins: float) -> None:
    """Print both, and the ratio."""
    print(f"\nsign-in: bcrypt cost {COST}, {cores()} cores, {CLIENTS} clients (a second)\n")
    print(f"  {'bare bcrypt hashes':<26}{hashes:8.1f}")
    share = sign_ins / hashes
    print(f"  {'sign-ins':<26}{sign_ins:8.1f}    {share:.2f} of the hashes, {verdict(share >= 0.85)}: at least 0.85")
