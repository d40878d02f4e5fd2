"""HTTP/2 with hypercorn and granian: a refused upload gets an answer."""

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event, PingAckReceived, ResponseReceived, StreamEnded, StreamReset

from tests.servers import end
from tests.support import PATIENCE, eventually

pytestmark = pytest.mark.anyio

KIB = 1024
REFUSALS: dict[str, tuple[str, str, dict[str, str], int]] = {
    "unknown route": ("POST", "/auth/no/where", {}, 404),
    "wrong method": ("PUT", "/auth/password/sign_in", {}, 405),
    "another site": ("POST", "/auth/password/sign_in", {"origin": "https://elsewhere.example"}, 403),
    "guard": ("POST", "/upload", {}, 401),
}
APP = "tests.refusing:application"
SERVERS = {
    "hypercorn": ["hypercorn", "--bind", "unix:server", "--certfile", "cert", "--keyfile", "key", f"{APP}()"],
    "granian": [
        *("granian", "--interface", "asgi", "--http", "2", "--uds", "server", "--factory", APP),
        *("--ssl-certificate", "cert", "--ssl-keyfile", "key", "--no-access-log"),
    ],
}


@pytest.fixture(params=SERVERS)
async def address(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """A server process on a UNIX socket: the socket's path, and an SSL context that trusts it and offers HTTP/2."""
    with TemporaryDirectory() as name:  # shorter than pytest's: the path of a socket has 107 bytes at most
        directory, authority = Path(name), trustme.CA()
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(directory / "key")
        certificate.cert_chain_pems[0].write_to_path(directory / "cert")
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2"])
        authority.configure_trust(context)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with (directory / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *SERVERS[request.param]), cwd=directory, env=environment, stdout=log, stderr=log
            )
        try:
            await eventually(partial(is_listening, directory / "server"))
            yield str(directory / "server"), context
        finally:
            await end(process)


async def is_listening(path: Path) -> bool:
    """Whether a server accepts connections at a UNIX socket."""
    with suppress(OSError):
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()
        return True
    return False


class Connection:
    """One HTTP/2 connection with one request, whose body is sent in pieces."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = H2Connection(H2Configuration())
        self._http.initiate_connection()
        self._seen: list[type[Event]] = []
        self._status = b""

    async def post(self, method: str, path: str, headers: dict[str, str], body: list[bytes]) -> int:
        """Send the whole *body*, return the status; fails if the server resets the stream or drops the connection."""
        names = {":method": method, ":path": path, ":authority": "localhost", ":scheme": "https"}
        self._http.send_headers(1, [*names.items(), *headers.items()])
        for piece in body:
            # A round trip before each piece: a server that answers early has answered by then.
            self._http.ping(b"12345678")
            await self._read_until(PingAckReceived)
            self._http.send_data(1, piece)
        self._http.end_stream(1)
        await self._read_until(StreamEnded)
        return int(self._status)

    async def _read_until(self, wanted: type[Event]) -> None:
        """Send pending data and read until an event of this kind."""
        while wanted not in self._seen:
            self._writer.write(self._http.data_to_send())
            data = await self._reader.read(65_536)
            assert data, "the server dropped the connection"
            for event in self._http.receive_data(data):
                assert not isinstance(event, (StreamReset, ConnectionTerminated)), event
                self._seen.append(type(event))
                if isinstance(event, ResponseReceived):
                    self._status = dict(event.headers)[b":status"]
        self._seen.remove(wanted)


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_refused_upload_is_answered_over_http2(address: tuple[str, ssl.SSLContext], refusal: str) -> None:
    """RP-1: thirty of thirty uploads get the answer; no stream is reset and no connection is dropped."""
    (path, context), (method, target, headers, status) = address, REFUSALS[refusal]
    for _ in range(30):
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(path, ssl=context, server_hostname="localhost")
            with closing(writer):
                assert await Connection(reader, writer).post(method, target, headers, [b"x" * 10 * KIB] * 4) == status
