"""Who takes part."""

from collections.abc import Iterator

from benchmarks.peers import ours
from benchmarks.peers.peer import Builder, Database


def builders(database: Database) -> Iterator[Builder]:
    """All that can use *database*: only SQLite is read on the loop's thread, only PostgreSQL's look-ups are cached.

    This library comes first, and a process that asks for no other imports no other.
    """
    yield from (ours.build, ours.CACHED if database.postgres else ours.INLINE, ours.build_own_model)
    from benchmarks.peers import fastapi_users_app, litestar_jwt, starlette_sessions

    yield from (starlette_sessions.build, litestar_jwt.build, fastapi_users_app.build)
