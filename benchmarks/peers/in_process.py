"""The cost of each peer for a request of its framework, in process."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from benchmarks.middleware import BROWSER_HEADERS, receive
from benchmarks.peers.builders import builders
from benchmarks.peers.ours import OWN_MODEL, secret_hash
from benchmarks.peers.peer import Database, Peer, look_up
from benchmarks.timing import Variant, in_turn

FLOOR = "bare look-up"
CALLS_BEFORE = 5
"""How many untimed calls come first when an application is measured by itself."""


def call(app: Any, credential: tuple[str, str]) -> Variant:
    """One request with the headers of a browser; a wrong answer ends the benchmark."""
    headers = [*BROWSER_HEADERS, (credential[0].encode(), credential[1].encode())]

    async def send(message: Any) -> None:
        if message.get("status", 200) != 200 or message.get("body", b"pong") not in (b"pong", b""):
            raise RuntimeError(f"refused: {message}")

    async def once() -> None:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
        }
        scope |= {"path": "/me", "raw_path": b"/me", "root_path": "", "query_string": b"", "headers": headers}
        await app({**scope, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000)}, receive, send)

    return once


class Added(NamedTuple):
    """Microseconds that each peer adds to the bare route of its framework; the floor is a whole look-up."""

    by_itself: dict[str, float]
    """Called several times in a row, as in a process that runs only this application."""
    among_others: dict[str, float]
    """Called once before another variant: by its next call, the processor's caches have other code and data."""


async def measure(database: Database, *, rounds: int) -> Added:
    """The cost of each peer, by itself and among others."""
    async with AsyncExitStack() as stack:
        ask = await stack.enter_async_context(look_up(database, pooled=False))
        key = await stack.enter_async_context(secret_hash(database))
        peers: dict[str, Peer] = {}
        for build in builders(database):
            peers |= await stack.enter_async_context(build(database))
        own_model = {name: peers.pop(name) for name in list(peers) if name.startswith(OWN_MODEL)}

        async def added(rounds: int, before: int) -> dict[str, float]:
            times = await _measure(peers, lambda: ask(key), rounds, before)
            # A separate run, as there is no ratio for it: a slow variant leaves the caches cold for the next one.
            return times | await _measure(own_model, lambda: ask(key), rounds, before) | {FLOOR: times[FLOOR]}

        return Added(await added(rounds // CALLS_BEFORE, CALLS_BEFORE), await added(rounds, 0))


async def _measure(peers: Mapping[str, Peer], floor: Variant, rounds: int, before: int) -> dict[str, float]:
    variants = {FLOOR: floor}
    for name, peer in peers.items():
        variants[name] = call(peer.app, peer.credential)
        variants[_bare(peer)] = call(peer.bare, peer.credential)
    times = await in_turn(variants, rounds=rounds, shuffled=True, before=before)
    return {FLOOR: times[FLOOR], **{name: times[name] - times[_bare(peer)] for name, peer in peers.items()}}


def _bare(peer: Peer) -> str:
    """The name of the bare route of a framework: peers of one framework share it."""
    return f"bare {id(peer.bare)}"
