"""The threads of SQLite connections."""

import threading

from tests.support import PATIENCE


def workers() -> list[threading.Thread]:
    """The threads that run."""
    return [thread for thread in threading.enumerate() if "_connection_worker_thread" in thread.name]


def left(threads: list[threading.Thread]) -> list[threading.Thread]:
    """Those of *threads* that do not end, even if they get time for their last line."""
    for thread in threads:
        thread.join(timeout=PATIENCE)
    return [thread for thread in threads if thread.is_alive()]
