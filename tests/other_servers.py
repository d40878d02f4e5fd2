"""Real servers of every kind, each in a separate process: hypercorn, granian, gunicorn, daphne, and uvicorn.

``tests/servers.py`` runs uvicorn in the event loop of the test.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from tests.servers import end, hold_port, listen
from tests.support import PATIENCE, SECRET

Kind = Literal["uvicorn", "hypercorn", "granian", "gunicorn", "daphne"]

KINDS: Sequence[Kind] = ("uvicorn", "hypercorn", "granian", "gunicorn", "daphne")
WITH_LIFESPAN: Sequence[Kind] = KINDS[:-1]
"""The servers that support the lifespan protocol."""

_COMMANDS: dict[Kind, tuple[str, ...]] = {
    "uvicorn": ("uvicorn", "--ws=websockets-sansio"),  # uvicorn's older protocol imports deprecated modules
    "hypercorn": ("hypercorn",),
    "granian": ("granian", "--interface=asgi"),
    "gunicorn": ("gunicorn", "--worker-class=asgi", "--no-control-socket"),
    "daphne": ("daphne",),
}
_ON_FD: dict[Kind, str] = {
    "uvicorn": "--fd={}",
    "hypercorn": "--bind=fd://{}",
    "gunicorn": "--bind=fd://{}",
    "daphne": "--fd={}",
}
"""The option that passes a listening socket; granian has none."""
_ON_PATH: dict[Kind, str] = {
    "uvicorn": "--uds={}",
    "hypercorn": "--bind=unix:{}",
    "granian": "--uds={}",
    "gunicorn": "--bind=unix:{}",
    "daphne": "--unix-socket={}",
}


@dataclass
class Running:
    """A server process."""

    url: str
    """The address at which it listens; ``http://localhost`` for a UNIX socket."""
    uds: Path | None
    """Its UNIX socket, if it listens on one."""
    process: Process
    log: Path
    """The file with all its output."""

    def client(self, *, http1: bool = True, http2: bool = False) -> httpx.AsyncClient:
        """A new client with its own cookies; it waits until the server has started."""
        transport = httpx.AsyncHTTPTransport(
            http1=http1, http2=http2, uds=None if self.uds is None else os.fspath(self.uds)
        )
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, transport=transport)

    def printed(self) -> str:
        """The output so far."""
        return self.log.read_text()

    async def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait until the process ends, and return its exit status (negative if the signal killed it)."""
        self.process.send_signal(by)
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def server_process(
    kind: Kind, app: str, *options: str, directory: Path, uds: bool = False, **environment: str
) -> AsyncIterator[Running]:
    """Run a server with one worker in *directory*. It is ended by its process id.

    Args:
        kind: Which server.
        app: ``module:attribute``, an ASGI application. Not a factory: daphne does not support one.
        options: More options of the command.
        directory: The current directory of the server; its log is there, too.
        uds: Listen on the UNIX socket ``server.sock`` in *directory*. This function then waits until the server has
            started. On a loopback port, the client waits.
        environment: More environment variables.
    """
    path = directory / "server.sock" if uds else None
    log = directory / f"{kind}.log"
    with ExitStack() as stack:
        url, address, passed = _listen(kind, path, stack)
        output = stack.enter_context(log.open("wb"))
        command = [*_COMMANDS[kind], *address, *options, app]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *command),
            cwd=directory,
            env=os.environ | {"AUTH_SECRET": SECRET, "PYTHONPATH": os.pathsep.join(sys.path)} | environment,
            pass_fds=passed,
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
        )
        running = Running(url, path, process, log)
        try:
            if not passed:  # otherwise the kernel queues early connections
                await _until_up(running)
            stack.close()  # if the server dies, its clients are refused
            yield running
        finally:
            await end(process)


def _listen(kind: Kind, path: Path | None, stack: ExitStack) -> tuple[str, list[str], list[int]]:
    """The URL, the options for the listening address, and the file descriptors that these options use."""
    if path is not None:
        return "http://localhost", [_ON_PATH[kind].format(path)], []
    if kind in _ON_FD:
        listener, url = listen()
        stack.enter_context(listener)
        return url, [_ON_FD[kind].format(listener.fileno())], [listener.fileno()]
    port = hold_port(stack)
    return f"http://127.0.0.1:{port}", [f"--port={port}"], []


async def _until_up(running: Running) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await _is_up(running):
            assert running.process.returncode is None, running.printed()
            await asyncio.sleep(0.02)


async def _is_up(running: Running) -> bool:
    with suppress(OSError):
        _, writer = await _connect(running)
        writer.close()
        await writer.wait_closed()
        return True
    return False


async def _connect(running: Running) -> Any:
    if running.uds is not None:
        return await asyncio.open_unix_connection(running.uds)
    return await asyncio.open_connection("127.0.0.1", httpx.URL(running.url).port)
