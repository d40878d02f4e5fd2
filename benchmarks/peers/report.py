"""The results as a page with tables, and as a plot."""

import os
import platform
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.compare import Results, framework
from benchmarks.peers.in_process import FLOOR, Added
from benchmarks.timing import verdict

RESULTS = Path(__file__).parent.parent / "results"
JWT = "fastapi-users JWT, bearer"
PACKAGES = [
    "asgi-auth",
    "starlette",
    "fastapi",
    "fastapi-users",
    "fastapi-users-db-sqlalchemy",
    "litestar",
    "sqlalchemy",
    "aiosqlite",
    "asyncpg",
    "PyJWT",
    "itsdangerous",
    "bcrypt",
    "argon2-cffi",
    "uvicorn",
]
WAYS = [name.replace("_", " ") for name in Added._fields]
WIDTH, LABEL, ROW = 760, 250, 20


def page(results: Results) -> str:
    """The page in Markdown."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Results) -> Iterator[str]:
    yield "# Beside the peers\n"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    yield f"{datetime.now(UTC):%Y-%m-%d}; {machine}, SQLite {sqlite3.sqlite_version}.\n"
    yield ", ".join(f"{name} {version(name)}" for name in PACKAGES) + ".\n"
    for title, added in results.added.items():
        yield f"## {title}\n"
        yield "In process, the µs that a request costs more than the bare route of the framework:\n"
        columns = ("µs", "x the bare look-up", "fastapi-users JWT costs")
        yield _row(["peer", *(f"{what}, {way}" for way in WAYS for what in columns)])
        yield "|---|---:|---:|---:|---:|---:|---:|"
        for name in added.among_others:
            yield _row([name, *(cell for times in added for cell in _ratios(times, name))])
        yield ""
        yield "Over loopback, one worker:\n"
        yield "| peer | requests/s | of the bare route's | p99 ms |"
        yield "|---|---:|---:|---:|"
        for name, load in results.loads[title].items():
            yield _row([name, f"{load.rate:.0f}", f"{_share(results, title, name):.0%}", f"{load.p99:.1f}"])
        yield ""
        yield "| the same route without authentication | requests/s | p99 ms |"
        yield "|---|---:|---:|"
        for name, load in results.bare[title].items():
            yield f"| {name} | {load.rate:.0f} | {load.p99:.1f} |"
        yield ""
        yield "| storm of 16 sign-ins | p50 of /ping, ms | p99 of /ping, ms | pings, and answers to the sign-ins |"
        yield "|---|---:|---:|---|"
        for name, (half, most, answers) in results.storms[title].items():
            yield f"| {name.split(',')[0]} | {half:.1f} | {most:.1f} | {answers} |"
        yield ""
    yield "## What must hold\n"
    yield "| what | demanded | measured | |"
    yield "|---|---:|---:|---|"
    for promise in promises(results):
        yield _row([promise.what, promise.demanded, promise.measured, verdict(promise.met)])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratios(times: Mapping[str, float], name: str) -> list[str]:
    micros = times[name]
    return [f"{micros:.0f}", f"{micros / times[FLOOR]:.2f}", f"{times[JWT] / micros:.1f} x this"]


def _share(results: Results, title: str, name: str) -> float:
    """The peer's requests a second, divided by those of the same route without authentication."""
    return results.loads[title][name].rate / results.bare[title][framework(name)].rate


# --- what must hold --------------------------------------------------------------------------------------------------


class Promise(NamedTuple):
    """One ratio that must hold, and its value in this run."""

    what: str
    demanded: str
    measured: str
    met: bool


TIMES = {"SQLite": {"asgi_auth": 8, "asgi_auth, inline_reads": 25}, "PostgreSQL": {"asgi_auth": 5}}
"""The cost of fastapi-users' JWT path divided by that of this library: at least this."""
CACHED = "asgi_auth, cached"


def promises(results: Results) -> Iterator[Promise]:
    """Every promised ratio to the peers; there is none for SQLAlchemyStore."""
    for title, added in results.added.items():
        for kind in ("cookie", "bearer"):
            for start, times in TIMES[title].items():
                for way, micros in zip(WAYS, added, strict=True):
                    ratio = micros[JWT] / micros[f"{start}, {kind}"]
                    what = f"{title}: fastapi-users JWT costs, of {start}, {kind}, {way}"
                    yield Promise(what, f"≥ {times} x", f"{ratio:.1f} x", ratio >= times)
            if (name := f"{CACHED}, {kind}") in added.by_itself:
                share, what = _share(results, title, name), f"{title}: requests/s of {name}, of the bare route's"
                yield Promise(what, "≥ 70%", f"{share:.0%}", share >= 0.7)
        (_, ours, _), (_, theirs, _) = (results.storms[title][name] for name in ("asgi_auth, cookie", JWT))
        what = f"{title}: p99 of /ping in the storm, of that in fastapi-users"
        yield Promise(what, "≤ 1/20", f"1/{theirs / ours:.0f}", theirs / ours >= 20)


# --- the plot --------------------------------------------------------------------------------------------------------


def plot(results: Results) -> str:
    """SVG: a panel of bars for each subject."""
    bodies, top = [], 10
    for heading, values in _panels(results):
        bodies.append(_panel(heading, values, top))
        top += (len(values) + 2) * ROW
    size = f'width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}"'
    style = 'font-family="sans-serif" font-size="12"'
    back = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{back}\n' + "\n".join(bodies) + "\n</svg>\n"


def _panels(results: Results) -> Iterator[tuple[str, Mapping[str, float]]]:
    for title, added in results.added.items():
        for way, micros in zip(WAYS, added, strict=True):
            yield f"{title}: µs added to a request, in process, {way} (less is better)", micros
        rates = {name: load.rate for name, load in results.loads[title].items()}
        rates |= {f"{name} without authentication": load.rate for name, load in results.bare[title].items()}
        yield f"{title}: requests a second, one worker (more is better)", rates
        waits = {name.split(",")[0]: most for name, (_, most, _) in results.storms[title].items()}
        yield f"{title}: p99 of /ping while 16 clients sign in, ms (less is better)", waits


def _panel(heading: str, values: Mapping[str, float], top: int) -> str:
    lines, scale = [f'<text x="10" y="{top + 14}" font-weight="bold">{escape(heading)}</text>'], max(values.values())
    for number, (name, value) in enumerate(values.items(), 1):
        y, length = top + number * ROW, (WIDTH - LABEL - 70) * max(value, 0) / scale
        colour = "#2a6f97" if name.startswith("asgi_auth") else "#b0b7bd"
        lines.append(f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        lines.append(f'<rect x="{LABEL}" y="{y + 3}" width="{length:.1f}" height="{ROW - 6}" fill="{colour}"/>')
        lines.append(f'<text x="{LABEL + length + 6:.1f}" y="{y + 14}">{value:,.{0 if value >= 100 else 1}f}</text>')
    return "\n".join(lines)


def write(results: Results) -> None:
    """Write both files; this replaces those of the last run."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peers.md").write_text(page(results), encoding="utf-8")
    (RESULTS / "peers.svg").write_text(plot(results), encoding="utf-8")
