"""Serve one peer with one uvicorn worker: ``python -m benchmarks.peers.serve NAME DATABASE [--bare]``.

When the server listens, it prints its port and the user's credential as one line of JSON.
"""

import argparse
import asyncio
import json
import socket

import uvicorn

from benchmarks.peers.builders import builders
from benchmarks.peers.peer import Database


async def main(name: str, database: Database, *, bare: bool) -> None:
    """Find the peer and serve it until the process is stopped."""
    for build in builders(database):
        async with build(database) as peers:
            if name not in peers:
                continue
            peer = peers[name]
            app = peer.bare if bare else peer.app
            config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False)
            # The socket names the protocol, like those of uvicorn: without it asyncio leaves Nagle's delay on.
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
                listening.bind(("127.0.0.1", 0))
                listening.listen(128)
                print(json.dumps([listening.getsockname()[1], peer.credential]), flush=True)
                await uvicorn.Server(config).serve(sockets=[listening])
            return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("database")
    parser.add_argument("--bare", action="store_true")
    given = parser.parse_args()
    asyncio.run(main(given.name, Database(given.database), bare=given.bare))
