"""Real servers: uvicorn in the event loop of the test, and in separate processes.

The test creates the listening socket and passes it to the server. So there is no race for a port, and the test does not
wait for the start of the server: the kernel queues early connections.
"""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import httpx
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support import PATIENCE, SECRET


def listen() -> tuple[socket.socket, str]:
    """A listening socket on a free port of the loopback address, and its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio sets this only on sockets that it creates. Without it, each answer waits 40 ms for the client's ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def hold_port(stack: ExitStack) -> int:
    """A free port for a program that cannot take over a listening socket, reserved until *stack* ends.

    The port is bound without listening: the system gives it to no other program, and the program can bind it by number.
    """
    holder = stack.enter_context(closing(socket.socket()))
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    return port


@asynccontextmanager
async def serving(
    app: Any,
    *,
    lifespan: Literal["on", "auto"] = "on",
    root_path: str = "",
    listening: tuple[socket.socket, str] | None = None,
) -> AsyncIterator[str]:
    """Serve *app* with uvicorn in this event loop; yield the URL. ``auto``: the application has no lifespan support."""
    listener, url = listening or listen()
    # The older websocket protocol of uvicorn imports deprecated modules.
    config = uvicorn.Config(app, lifespan=lifespan, root_path=root_path, log_config=None, ws="websockets-sansio")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve([listener]))
    try:
        yield url
    finally:
        server.should_exit = True
        await running
        listener.close()


@dataclass
class Served:
    """A uvicorn process."""

    url: str
    output: asyncio.StreamReader
    """Its standard output."""
    process: Process

    def client(self, **options: Any) -> httpx.AsyncClient:
        """A new client with its own cookies; it waits until the server has started."""
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, **options)

    async def printed_after(self, text: str) -> str:
        """Wait for *text* on standard output and return the rest of its line. EOFError: the server has ended."""
        async with asyncio.timeout(PATIENCE):
            await self.output.readuntil(text.encode())
            return (await self.output.readline()).decode().strip()


@asynccontextmanager
async def uvicorn_process(
    app: str, *options: str, directory: Path, log: IO[bytes] | None = None
) -> AsyncIterator[Served]:
    """Run ``uvicorn <app>`` in *directory*. It is ended by its process id.

    Its log is written to *log*; None: to the standard error of the tests.
    """
    listener, url = listen()
    with listener:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", app, "--fd", str(listener.fileno()), *options),
            cwd=directory,
            env=os.environ | {"AUTH_SECRET": SECRET, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[listener.fileno()],
            stdout=PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    try:
        yield Served(url, process.stdout, process)
    finally:
        await end(process)


async def end(process: Process) -> None:
    """Ask a process to end, and wait until it has."""
    with suppress(ProcessLookupError):  # it has already ended
        process.terminate()
    async with asyncio.timeout(PATIENCE):
        await process.communicate()


async def say_hello(url: str, headers: dict[str, str]) -> str | int:
    """Open a websocket and return its first message, or the status that refused the handshake."""
    try:
        async with connect(url.replace("http", "ws", 1), additional_headers=headers, proxy=None) as websocket:
            return str(await websocket.recv())
    except InvalidStatus as refused:
        return refused.response.status_code
