"""The peers of the comparison."""

from collections.abc import Iterator

from benchmarks.peers import ours
from benchmarks.peers.peer import Builder, Database


def builders(database: Database) -> Iterator[Builder]:
    """All peers that can use *database*: inline reads are for SQLite only, cached look-ups for PostgreSQL only.

    This library comes first. A process that needs only this library does not import the others.
    """
    yield from (ours.build, ours.CACHED if database.postgres else ours.INLINE, ours.build_own_model)
    from benchmarks.peers import fastapi_users_app, litestar_jwt, starlette_sessions

    yield from (starlette_sessions.build, litestar_jwt.build, fastapi_users_app.build)
