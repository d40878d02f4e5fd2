"""The demo as people start it: a process of its own, on a free port."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 30.0


class Demo:
    """A demo that runs, and what it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = self.printed(r"http://\S+")

    def printed(self, pattern: str) -> str:
        """The next that it prints which matches; waits for it. StopIteration: the demo has ended."""
        assert self._process.stdout is not None
        return next(found[0] for line in self._process.stdout if (found := re.search(pattern, line)))

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C: the exit status, and whatever it had to say about it."""
        self._process.send_signal(signal.SIGINT)
        _, told = self._process.communicate(timeout=_PATIENCE)
        return self._process.returncode, told


@contextmanager
def running_demo(directory: Path) -> Iterator[Demo]:
    """``python -m asgi_auth demo`` with its files in *directory*."""
    process = subprocess.Popen(
        [sys.executable, "-m", "asgi_auth", "demo", "--port", "0", "--directory", str(directory)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Demo(process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)  # not SIGKILL: it writes down its coverage
                process.communicate(timeout=_PATIENCE)
