"""Helpers for tests of cached look-ups: a clock that the test moves, and a relay that can stop delivery."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from asgi_auth.stores import PostgresStore, postgres_cache, postgres_connections
from asgi_auth.stores.postgres_cache import Channel
from tests.support import until


def channel_of(store: PostgresStore) -> Channel:
    """The channel of a store that has a cache, on this event loop."""
    channel = store._database.connections().channel
    assert channel is not None
    return channel


async def listening(store: PostgresStore) -> PostgresStore:
    """Open the store, wait until its cache is on, and return the store."""
    await store.open()
    channel = channel_of(store)
    channel.open()
    await until(lambda: channel.cache.trusted)
    return store


class Hand:
    """The clock of every cache and the pauses of every channel. Time passes only when the test says so."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.resting: list[float] = []
        """The length of each pause that is under way."""
        self.rested: list[float] = []
        """The requested length of each pause so far."""
        self._ticked = asyncio.Event()

    def __call__(self) -> float:
        """The clock."""
        return self.at

    def tick(self) -> None:
        """End every pause that is under way."""
        self._ticked.set()
        self._ticked = asyncio.Event()

    async def pause(self, seconds: float, ended: asyncio.Event) -> None:
        """Replaces ``postgres_cache.pause``: return at the next tick, or when *ended* is set."""
        waiting = [asyncio.create_task(event.wait()) for event in (ended, self._ticked)]
        self.resting.append(seconds)
        self.rested.append(seconds)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.resting.remove(seconds)
            for task in waiting:
                task.cancel()


@contextmanager
def by_hand() -> Iterator[Hand]:
    """Within the block, new caches use the clock of the hand, and channels use its pauses."""
    hand = Hand()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_connections, "elapsed", hand)
        patch.setattr(postgres_cache, "pause", hand.pause)
        yield hand


class Relay:
    """A relay to the database that listens on its own port."""

    def __init__(self, dsn: str) -> None:
        self._dsn = urlsplit(dsn)
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def dsn(self) -> str:
        """The address of the database through this relay."""
        query = urlencode([(name, value) for name, value in parse_qsl(self._dsn.query) if name != "host"])
        login = self._dsn.netloc.rpartition("@")[0]
        return self._dsn._replace(netloc=f"{login}@127.0.0.1:{self._port}", query=query).geturl()

    def swallow(self) -> None:
        """Deliver nothing from now on and close no connection, like a network without a route."""
        self._open.clear()

    def deliver(self) -> None:
        """Deliver everything again, including the held data: both ends of a real connection would send it again."""
        self._open.set()

    def cut(self) -> None:
        """End every connection."""
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        """Accept connections within the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.deliver()
            self.cut()
            await until(lambda: not self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            far_reader, far_writer = await self._connect()
            self._writers.add(far_writer)
            await asyncio.wait(
                [
                    asyncio.create_task(self._pump(reader, far_writer)),
                    asyncio.create_task(self._pump(far_reader, writer)),
                ],
            )
            self._writers.discard(far_writer)
        finally:
            self._writers.discard(writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        directory = dict(parse_qsl(self._dsn.query)).get("host")
        if directory is not None:
            return await asyncio.open_unix_connection(f"{directory}/.s.PGSQL.5432")
        return await asyncio.open_connection(  # pragma: no cover  # a server that the tests did not start
            self._dsn.hostname, self._dsn.port or 5432
        )

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
        writer.transport.abort()
