"""Who takes part."""

from benchmarks.peers import fastapi_users_app, litestar_jwt, ours, starlette_sessions
from benchmarks.peers.peer import Builder, Database


def builders(database: Database) -> list[Builder]:
    """All that can use *database*; only SQLite can be read on the loop's thread."""
    others = [starlette_sessions.build, litestar_jwt.build, fastapi_users_app.build]
    return [ours.build, *others] if database.postgres else [ours.build, ours.INLINE, *others]
