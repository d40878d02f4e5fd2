"""Measures every peer in one run."""

import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.peers import in_process, loopback
from benchmarks.peers.in_process import Added
from benchmarks.peers.loopback import Load
from benchmarks.peers.peer import Database
from benchmarks.postgres import postgres
from benchmarks.timing import percentile

FRAMEWORKS = {"asgi_auth": "Starlette", "Starlette": "Starlette", "Litestar": "Litestar", "fastapi-users": "FastAPI"}
# One of each framework, for its route without authentication.
SAMPLES = ("asgi_auth, cookie", "Litestar JWTAuth, bearer", "fastapi-users JWT, bearer")


def framework(name: str) -> str:
    """The framework of the peer."""
    return next(value for key, value in FRAMEWORKS.items() if name.startswith(key))


@dataclass
class Results:
    """Results by name of the database and of the peer; those of ``bare`` by name of the framework."""

    added: dict[str, Added] = field(default_factory=dict)
    loads: dict[str, dict[str, Load]] = field(default_factory=dict)
    bare: dict[str, dict[str, Load]] = field(default_factory=dict)
    storms: dict[str, dict[str, tuple[float, float, str]]] = field(default_factory=dict)


async def measure(*, rounds: int, turns: int, seconds: float, storm_seconds: float) -> Results:
    """Measure everything on SQLite, then on PostgreSQL if there is a server."""
    results = Results()
    with tempfile.TemporaryDirectory() as directory:
        sqlite = Database(str(Path(directory) / "peers.db"))
        results.added["SQLite"] = await in_process.measure(sqlite, rounds=rounds)
        await _measure_loads(results, "SQLite", sqlite, turns, seconds)
        await _measure_storms(results, "SQLite", sqlite, storm_seconds)
    async with postgres() as address:
        if address is not None:
            server = Database(address)
            results.added["PostgreSQL"] = await in_process.measure(server, rounds=rounds)
            await _measure_loads(results, "PostgreSQL", server, turns, seconds)
            await _measure_storms(results, "PostgreSQL", server, storm_seconds)
    return results


async def _measure_loads(results: Results, title: str, database: Database, turns: int, seconds: float) -> None:
    """Measure the peers in turn, several times, so that other programs on the machine slow all of them alike."""
    names = [(name, False) for name in results.added[title].among_others if name != in_process.FLOOR]
    names += [(name, True) for name in SAMPLES]
    loads = defaultdict[tuple[str, bool], list[Load]](list)
    for _ in range(turns):
        for name, bare in names:
            loads[name, bare].append(await loopback.load(name, database, seconds=seconds, bare=bare))
    results.loads[title] = {name: _middle(loads[name, bare]) for name, bare in names if not bare}
    results.bare[title] = {framework(name): _middle(loads[name, bare]) for name, bare in names if bare}


def _middle(loads: list[Load]) -> Load:
    return Load(median(load.rate for load in loads), median(load.p99 for load in loads))


async def _measure_storms(results: Results, title: str, database: Database, seconds: float) -> None:
    results.storms[title] = {}
    for name in loopback.SIGN_INS:
        waits, statuses = await loopback.storm(name, database, seconds=seconds)
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
        results.storms[title][name] = percentile(waits, 0.5), percentile(waits, 0.99), f"{len(waits)}; {answers}"
