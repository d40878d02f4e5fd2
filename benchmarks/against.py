"""The figures of an earlier revision beside those of the working tree: ``tox -e bench -- --against REV``."""

import argparse
import asyncio
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.figures import ANYWHERE, WITH_POSTGRES
from benchmarks.postgres import postgres
from benchmarks.timing import percentile

ROOT = Path(__file__).parent.parent
TURNS = 10
LEEWAY = 1.05
"""How many times the cost of REV the working tree may have, apart from chance."""
DRAWS = 1000
Ask = Callable[[str], Awaitable[dict[str, float]]]
"""Measures the part with this name and returns its figures."""


# --- the rule --------------------------------------------------------------------------------------------------------


class Costs(NamedTuple):
    """The cost of one figure in all three processes, measured directly after each other; less is better."""

    earlier: float
    again: float
    """The earlier revision, in another process."""
    working: float


Turn = Sequence[Costs]
"""The costs that the same three processes measured."""


@dataclass(frozen=True)
class Row:
    """One figure of both revisions."""

    figure: str
    earlier: float
    """The median of the earlier revision."""
    working: float
    """The median of the working tree."""
    ratio: float
    """The cost of the working tree divided by each of the two costs beside it: the median of the turns' medians."""
    spread: float
    """See :func:`spread`."""

    @property
    def bound(self) -> float:
        """The highest ratio that is not slower."""
        return LEEWAY + self.spread

    @property
    def slower(self) -> bool:
        """Whether the working tree is slower than the earlier revision."""
        return self.ratio > self.bound


def row(figure: str, turns: Sequence[Turn]) -> Row:
    """The medians of one figure.

    Costs are divided by costs that were measured directly before or after: the load of the machine changes.
    """
    return Row(
        figure,
        earlier=median(cost for turn in turns for costs in turn for cost in (costs.earlier, costs.again)),
        working=median(costs.working for turn in turns for costs in turn),
        ratio=median(
            median(costs.working / cost for costs in turn for cost in (costs.earlier, costs.again)) for turn in turns
        ),
        spread=spread([median(costs.again / costs.earlier for costs in turn) for turn in turns]),
    )


def spread(ratios: Sequence[float]) -> float:
    """How far from 1 the median of *ratios* may be by chance. Each ratio compares a revision with itself in one turn.

    The choice of dividend and divisor in a turn is arbitrary. It is therefore drawn many times, and 95 of 100 medians
    are within the spread.
    """
    chance = random.Random(0)  # noqa: S311  # the same turns give the same spread
    drawn = (median(ratio if chance.random() < 0.5 else 1 / ratio for ratio in ratios) for _ in range(DRAWS))
    return percentile([max(each, 1 / each) for each in drawn], 0.95) - 1


def table(rows: Sequence[Row], rev: str) -> str:
    """All figures and the result."""
    return "\n".join(_lines(rows, rev))


def _lines(rows: Sequence[Row], rev: str) -> Iterator[str]:
    width = max(len(row.figure) for row in rows)
    yield f"{'figure':{width}} {rev:>10} {'spread':>8} {'working tree':>13} {'ratio':>7} {'bound':>7}  verdict"
    for row in rows:
        costs = f"{row.earlier:10.4g} {row.spread:8.1%} {row.working:13.4g}"
        said = "SLOWER" if row.slower else "not slower"
        yield f"{row.figure:{width}} {costs} {row.ratio:7.3f} {row.bound:7.3f}  {said}"
    slower = sum(row.slower for row in rows)
    yield f"\n{slower} of {len(rows)} figures are slower than {rev}." if slower else f"\nNot slower than {rev}."


def status(rows: Sequence[Row], *, quick: bool) -> int:
    """The exit status: 1 if a figure is slower. With *quick* it is always 0: a short run is not reliable."""
    return int(any(row.slower for row in rows) and not quick)


# --- the trees -------------------------------------------------------------------------------------------------------


def commit(rev: str) -> str:
    """The full name of the commit that *rev* means in this repository.

    Raises:
        argparse.ArgumentTypeError: there is no such commit, or no repository, or no git.
    """
    try:
        return _git("rev-parse", "--verify", f"{rev}^{{commit}}").decode().strip()
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        hint = "A shallow clone lacks earlier commits: git fetch --unshallow"
        raise argparse.ArgumentTypeError(f"there is no commit {rev} in {ROOT} ({said}). {hint}") from error


def _git(*command: str) -> bytes:
    return subprocess.run(["git", *command], cwd=ROOT, check=True, capture_output=True).stdout


def _lay_out(name: str, earlier: Path, working: Path) -> None:
    """Write the sources of both revisions, each beside the benchmarks of the working tree."""
    with tarfile.open(fileobj=io.BytesIO(_git("archive", name, "asgi_auth"))) as archive:
        archive.extractall(earlier, filter="data")
    shutil.copytree(ROOT / "asgi_auth", working / "asgi_auth")
    for tree in (earlier, working):
        shutil.copytree(ROOT / "benchmarks", tree / "benchmarks")


# --- the run ---------------------------------------------------------------------------------------------------------


def main(name: str, *, quick: bool) -> int:
    """Measure, print, and return the exit status."""
    with tempfile.TemporaryDirectory() as directory:
        earlier, working = Path(directory) / "earlier", Path(directory) / "working"
        _lay_out(name, earlier, working)
        figures = asyncio.run(_measure(earlier, working, quick=quick))
    rows = [row(figure, turns) for figure, turns in figures.items()]
    print("\n" + table(rows, name[:7]))
    if quick:
        print("With --quick too little is measured to tell.")
    return status(rows, quick=quick)


def orders(number: int) -> list[list[int]]:
    """The orders of the three processes in the turn with this number; two consecutive turns have all six orders."""
    step = 1 + number % 2
    return [[(first + step * place) % 3 for place in range(3)] for first in range(3)]


async def _measure(earlier: Path, working: Path, *, quick: bool) -> Mapping[str, Sequence[Turn]]:
    """Measure: each turn has three new processes, which measure each part directly after each other."""
    figures = defaultdict[str, list[Turn]](list)
    async with postgres() as address:
        environment = {**os.environ, "ASGI_AUTH_TEST_POSTGRES": address or ""}
        for number in range(1, (1 if quick else TURNS) + 1):
            print(f"turn {number}", flush=True)
            async with AsyncExitStack() as stack:
                asks = [
                    await stack.enter_async_context(_process(tree, environment, quick=quick))
                    for tree in (earlier, earlier, working)
                ]
                for name, part in (ANYWHERE | WITH_POSTGRES if address else ANYWHERE).items():
                    in_orders = orders(number)[:1] if quick else orders(number) * part.repeats
                    for figure, turn in (await _turn(asks, name, in_orders)).items():
                        figures[figure].append(turn)
    return figures


async def _turn(asks: Sequence[Ask], part: str, in_orders: Sequence[Sequence[int]]) -> Mapping[str, Turn]:
    await asyncio.gather(*(ask(part) for ask in asks))  # opens the part and warms it up
    turn = defaultdict[str, list[Costs]](list)
    for order in in_orders:
        measured = {which: await asks[which](part) for which in order}
        for figure in measured[0]:
            turn[figure].append(Costs(*(measured[which][figure] for which in range(3))))
    return turn


@asynccontextmanager
async def _process(tree: Path, environment: Mapping[str, str], *, quick: bool) -> AsyncIterator[Ask]:
    command, pipe = [sys.executable, "-m", "benchmarks.figures", *["--quick"] * quick], asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=tree, env=environment, stdin=pipe, stdout=pipe)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no input or output")
    questions, answers = process.stdin, process.stdout

    async def ask(part: str) -> dict[str, float]:
        questions.write(f"{part}\n".encode())
        if not (answer := await answers.readline()):
            raise RuntimeError(f"the {tree.name} tree cannot be measured: {part}; its own error is above")
        figures: dict[str, float] = json.loads(answer)
        return figures

    try:
        yield ask
    finally:
        questions.close()
        await process.wait()
