"""How long something takes, and whether answers take the same time, on a machine that does other things as well."""

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from statistics import median

TRIES = 4
"""A difference is one only if every measurement shows it."""


def ratios_to(name: str, spent: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each case, divided by that of the case *name*."""
    return {case: median(times) / median(spent[name]) for case, times in spent.items()}


def are_alike(ratios: Mapping[str, float]) -> bool:
    """EN-2: within 0.85 and 1.18."""
    return all(0.85 <= ratio <= 1.18 for ratio in ratios.values())


async def measured(measure: Callable[[], Awaitable[Mapping[str, float]]]) -> Mapping[str, float]:
    """The ratios of the first measurement in which all are alike; of the last one, if none is."""
    ratios: Mapping[str, float] = {}
    for _ in range(TRIES):
        ratios = await measure()
        if are_alike(ratios):
            break
    return ratios


def least(act: Callable[[], object]) -> float:
    """Seconds of the processor that *act* takes, at the best of four times."""
    tracer, spent = sys.gettrace(), []
    for tracing in (None, None, None, tracer):  # measuring coverage costs more than what is measured here
        sys.settrace(tracing)
        began = time.thread_time()
        act()
        spent.append(time.thread_time() - began)
    return min(spent)
