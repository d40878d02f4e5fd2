"""Time that has passed, by a clock that nobody sets."""

import time
from collections.abc import Callable
from functools import partial

elapsed: Callable[[], float] = (
    # The usual clock stands still while the machine is suspended, and the world goes on without it.
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds since some instant; never set, unlike the clock that says what time it is."""
