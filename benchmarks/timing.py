"""Times variants in turn, so that whatever else the machine does hits all of them alike."""

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from statistics import median

Variant = Callable[[], Awaitable[object]]


async def in_turn(
    variants: Mapping[str, Variant], *, rounds: int, shuffled: bool = False, before: int = 0
) -> dict[str, float]:
    """Microseconds of one call of each variant: the median over *rounds*, each of which calls every variant once.

    Not many calls of one variant in a row: a thread that has only just answered takes the next query before it falls
    asleep, which flatters whatever does nothing in between, and no server is asked in such lockstep. *shuffled*
    has a new order for each round: what runs right after its like would find the processor's caches warm. With
    *before* that is what is wanted: so many calls of the same are made right before, and not timed.
    """
    order, chance = list(variants.items()), random.Random(0)  # noqa: S311  # the same orders in every run
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + rounds // 10):
        if shuffled:
            chance.shuffle(order)
        for name, call in order:
            for _ in range(before):
                await call()
            began = time.perf_counter()
            await call()
            if number >= rounds // 10:  # warm by then: connections, statements, verified tokens
                times[name].append((time.perf_counter() - began) * 1e6)
    return {name: median(values) for name, values in times.items()}


def verdict(met: bool) -> str:
    """What is said beside a budget."""
    return "met" if met else "MISSED"


def percentile(values: list[float], share: float) -> float:
    """The value that *share* (0 to 1) of *values* are not over."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
