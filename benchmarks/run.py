"""Measure the promises of the design in one run and print the results: ``tox -e bench``."""

import argparse
import asyncio
import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # to run this file from any directory

from benchmarks import against, drawing, middleware, overload, parts, sign_in, stalls, storm


async def main(*, quick: bool, peers: bool) -> None:
    """Measure one part after the other: at the same time they would disturb each other."""
    names = ("asgi-auth", "starlette", "aiosqlite", "PyJWT", "bcrypt", "uvicorn")
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores")
    print(", ".join(f"{name} {version(name)}" for name in names))
    middleware.report(*await middleware.measure(rounds=300 if quick else 5000))
    drawing.report(await drawing.measure(rounds=300 if quick else 5000))
    stalls.report(await stalls.measure(rounds=2 if quick else 10))
    sign_in.report(*await sign_in.measure(count=8 if quick else 64))
    storm.report(await storm.measure(seconds=1 if quick else 10))
    overload.report(await overload.measure(rounds=1 if quick else 5))
    if peers:
        await beside_peers(quick=quick)


async def beside_peers(*, quick: bool) -> None:
    """Measure the peers, which are installed only for this."""
    from benchmarks.peers import compare, report

    results = await compare.measure(
        rounds=100 if quick else 2000,
        turns=1 if quick else 3,
        seconds=0.5 if quick else 2,
        storm_seconds=1 if quick else 10,
    )
    print("\n" + report.page(results))
    if not quick:
        report.write(results)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with status 2 if it is invalid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds, to see that it works")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--without-peers", action="store_true", help="this library alone")
    one.add_argument("--parts", action="store_true", help="only what each microsecond of a request buys")
    revision = "only whether the working tree is slower than REV, a commit of this repository; status 1 if it is"
    one.add_argument("--against", metavar="REV", type=against.commit, help=revision)
    return parser.parse_args(given)


if __name__ == "__main__":
    options = arguments()
    os.chdir(Path(__file__).parent.parent)
    if options.against:
        sys.exit(against.main(options.against, quick=options.quick))
    elif options.parts:
        parts.report(asyncio.run(parts.measure(rounds=300 if options.quick else 3000)))
    else:
        asyncio.run(main(quick=options.quick, peers=not options.without_peers))
