"""The results as a page with tables, and as a plot."""

import os
import platform
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.compare import Results
from benchmarks.peers.in_process import FLOOR

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
WIDTH, LABEL, ROW = 760, 250, 20


def page(results: Results) -> str:
    """Markdown."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Results) -> Iterator[str]:
    yield "# Beside the peers\n"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    yield f"{datetime.now(UTC):%Y-%m-%d}; {machine}, SQLite {sqlite3.sqlite_version}.\n"
    yield ", ".join(f"{name} {version(name)}" for name in PACKAGES) + ".\n"
    for title, added in results.added.items():
        yield f"## {title}\n"
        yield "| peer | µs added, in process | x the bare look-up | fastapi-users JWT costs | requests/s | p99 ms |"
        yield "|---|---:|---:|---:|---:|---:|"
        for name, micros in added.items():
            ratios = f"{micros:.0f} | {micros / added[FLOOR]:.2f} | {added[JWT] / micros:.1f} x this"
            load = results.loads[title].get(name)
            yield f"| {name} | {ratios} | " + (f"{load.rate:.0f} | {load.p99:.1f} |" if load else "| |")
        yield ""
        yield "| storm of 16 sign-ins | p50 of /ping, ms | p99 of /ping, ms | pings, and answers to the sign-ins |"
        yield "|---|---:|---:|---|"
        for name, (half, most, answers) in results.storms[title].items():
            yield f"| {name.split(',')[0]} | {half:.1f} | {most:.1f} | {answers} |"
        yield ""
    yield "## The same route without authentication\n"
    yield "| framework | requests/s | p99 ms |"
    yield "|---|---:|---:|"
    for name, load in results.bare.items():
        yield f"| {name} | {load.rate:.0f} | {load.p99:.1f} |"


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
        yield f"{title}: µs added to a request, in process (less is better)", added
        rates = {name: load.rate for name, load in results.loads[title].items()}
        rates |= {f"{name} without authentication": load.rate for name, load in results.bare.items()}
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
    """Both files, over those of the last run."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peers.md").write_text(page(results), encoding="utf-8")
    (RESULTS / "peers.svg").write_text(plot(results), encoding="utf-8")
