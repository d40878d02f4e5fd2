"""Times variants in turn, so that whatever else the machine does hits all of them alike."""

import time
from collections.abc import Awaitable, Callable, Mapping
from statistics import median

Variant = Callable[[], Awaitable[object]]


async def in_turn(variants: Mapping[str, Variant], *, rounds: int, calls: int) -> dict[str, float]:
    """Microseconds per call of each variant: the median over *rounds* of *calls* calls in a row."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for call in variants.values():
        for _ in range(20):  # warm up: connections, statement caches, verified tokens
            await call()
    for _ in range(rounds):
        for name, call in variants.items():
            began = time.perf_counter()
            for _ in range(calls):
                await call()
            times[name].append((time.perf_counter() - began) / calls * 1e6)
    return {name: median(values) for name, values in times.items()}


def percentile(values: list[float], share: float) -> float:
    """The value that *share* (0 to 1) of *values* are not over."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
