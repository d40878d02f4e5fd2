"""A real nginx as a child process, with the rights of the user who runs the tests."""

import asyncio
import os
import shutil
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.servers import end, hold_port
from tests.support import until

_CONFIGURATION = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/nginx-temporary;
    proxy_temp_path {directory}/nginx-temporary;
    fastcgi_temp_path {directory}/nginx-temporary;
    uwsgi_temp_path {directory}/nginx-temporary;
    scgi_temp_path {directory}/nginx-temporary;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    map $remote_addr $forwarded_for {{
        ~:      "for=\\"[$remote_addr]\\"";
        default "for=$remote_addr";
    }}
{servers}
}}
"""


@asynccontextmanager
async def nginx(directory: Path, *servers: str) -> AsyncIterator[Sequence[str]]:
    """Run nginx and yield the URL of each server. Skips the test if nginx is not installed.

    Args:
        directory: The directory for its configuration.
        servers: The content of each ``server`` block, without ``listen``.
    """
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")  # not in every user's PATH
    if program is None:
        pytest.skip("not installed: nginx (Debian: nginx)")
    with ExitStack() as stack:
        ports = [hold_port(stack) for _ in servers]
        process = await _start(program, directory, ports, servers)
        try:
            for port in ports:
                await _until_up(port, process)
            stack.close()
            yield [f"http://127.0.0.1:{port}" for port in ports]
        finally:
            await end(process)


async def _start(program: str, directory: Path, ports: Sequence[int], servers: Sequence[str]) -> Process:
    blocks = [f"server {{ listen 127.0.0.1:{port}; {server} }}" for port, server in zip(ports, servers, strict=True)]
    configuration = directory / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, servers="\n".join(blocks)))
    arguments = ("-e", "stderr", "-p", os.fspath(directory), "-c", os.fspath(configuration))
    return await asyncio.create_subprocess_exec(program, *arguments, stdin=DEVNULL)


async def _until_up(port: int, process: Process) -> None:
    def is_up() -> bool:
        assert process.returncode is None, "nginx has ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await until(is_up)


def listen_at(path: Path) -> tuple[socket.socket, str]:
    """A listening UNIX socket and the URL for its clients."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen()
    return listener, "http://localhost"
