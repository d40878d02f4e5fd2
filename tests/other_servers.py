"""Real servers of every kind, each in a process of its own: hypercorn, granian, gunicorn, daphne, and uvicorn.

``tests/servers.py`` has uvicorn in the event loop of the test.
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
"""Those that know the lifespan protocol."""

_COMMANDS: dict[Kind, tuple[str, ...]] = {
    "uvicorn": ("uvicorn", "--ws=websockets-sansio"),  # its older protocol imports what is deprecated
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
"""How each takes over a listening socket; granian cannot."""
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
    """Where it listens; on a UNIX socket ``http://localhost``."""
    uds: Path | None
    """Its UNIX socket."""
    process: Process
    log: Path
    """All that it prints."""

    def client(self, *, http1: bool = True, http2: bool = False) -> httpx.AsyncClient:
        """A client with cookies of its own, which waits until the server is up."""
        transport = httpx.AsyncHTTPTransport(
            http1=http1, http2=http2, uds=None if self.uds is None else os.fspath(self.uds)
        )
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, transport=transport)

    def printed(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    async def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait until it has ended: its exit status, negative if the signal killed it."""
        self.process.send_signal(by)
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def server_process(
    kind: Kind, app: str, *options: str, directory: Path, uds: bool = False, **environment: str
) -> AsyncIterator[Running]:
    """A server with one worker, and *directory* as its current one. It is ended by its id.

    Args:
        kind: Which server.
        app: ``module:attribute``, an ASGI application. No factory: daphne knows none.
        options: Further options of its command.
        directory: Its log goes there, too.
        uds: Listen on the UNIX socket ``server.sock`` in *directory*. Whoever connects through ``client`` to a
            loopback port waits until the server is up; here this function has waited.
        environment: Further variables.
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
            if not passed:  # else the kernel queues whoever connects before it is up
                await _until_up(running)
            stack.close()  # a client of a server that has died is refused
            yield running
        finally:
            await end(process)


def _listen(kind: Kind, path: Path | None, stack: ExitStack) -> tuple[str, list[str], list[int]]:
    """The URL, the options that say where to listen, and the file descriptors that they need."""
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
