"""Times variants in turn, so that other programs on the machine slow all of them alike."""

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from statistics import median

Variant = Callable[[], Awaitable[object]]


async def in_turn(
    variants: Mapping[str, Variant], *, rounds: int, shuffled: bool = False, before: int = 0
) -> dict[str, float]:
    """Microseconds of one call of each variant: the median over *rounds*; a round calls every variant once.

    Many calls of one variant in a row would be misleading: a thread that has just answered accepts the next query
    before it sleeps, which favours a variant that does nothing in between. *shuffled* gives each round a new order:
    a variant that runs after a similar one finds the processor's caches warm. *before* is for warm caches: so many
    untimed calls of the same variant come first.
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
    """The word beside a budget."""
    return "met" if met else "MISSED"


def percentile(values: list[float], share: float) -> float:
    """The value that *share* (0 to 1) of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
