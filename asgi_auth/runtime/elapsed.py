"""Elapsed time, by a clock that is never set."""

import time
from collections.abc import Callable
from functools import partial

elapsed: Callable[[], float] = (
    # The monotonic clock stops while the machine is suspended; this one does not.
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds since an arbitrary instant. Unlike the system clock, it is never set."""
