"""Every peer beside the others, in one run."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import in_process, loopback
from benchmarks.peers.loopback import Load
from benchmarks.peers.peer import Database
from benchmarks.peers.postgres import postgres
from benchmarks.timing import percentile

FRAMEWORKS = {"asgi_auth": "Starlette", "Starlette": "Starlette", "Litestar": "Litestar", "fastapi-users": "FastAPI"}
# One of each framework, for its route without authentication.
SAMPLES = ("asgi_auth, cookie", "Litestar JWTAuth, bearer", "fastapi-users JWT, bearer")


def framework(name: str) -> str:
    """The framework that carries the peer."""
    return next(value for key, value in FRAMEWORKS.items() if name.startswith(key))


@dataclass
class Results:
    """By the name of the database, then by that of the peer; ``bare`` by the framework."""

    added: dict[str, dict[str, float]] = field(default_factory=dict)
    loads: dict[str, dict[str, Load]] = field(default_factory=dict)
    bare: dict[str, Load] = field(default_factory=dict)
    storms: dict[str, dict[str, tuple[float, float, str]]] = field(default_factory=dict)


async def measure(*, rounds: int, seconds: float, storm_seconds: float) -> Results:
    """Everything on SQLite, then everything on PostgreSQL where there is one."""
    results = Results()
    with tempfile.TemporaryDirectory() as directory:
        sqlite = Database(str(Path(directory) / "peers.db"))
        await _measure(results, "SQLite", sqlite, rounds, seconds, storm_seconds)
        for name in SAMPLES:
            results.bare[framework(name)] = await loopback.load(name, sqlite, seconds=seconds, bare=True)
    async with postgres() as server:
        if server is not None:
            await _measure(results, "PostgreSQL", server, rounds, seconds, storm_seconds)
    return results


async def _measure(
    results: Results, title: str, database: Database, rounds: int, seconds: float, storm_seconds: float
) -> None:
    results.added[title] = await in_process.measure(database, rounds=rounds)
    results.loads[title] = {
        name: await loopback.load(name, database, seconds=seconds)
        for name in results.added[title]
        if name != in_process.FLOOR
    }
    results.storms[title] = {}
    for name in loopback.SIGN_INS:
        waits, statuses = await loopback.storm(name, database, seconds=storm_seconds)
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
        results.storms[title][name] = percentile(waits, 0.5), percentile(waits, 0.99), f"{len(waits)}; {answers}"
