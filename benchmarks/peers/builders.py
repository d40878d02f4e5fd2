"""Who takes part."""

from benchmarks.peers import fastapi_users_app, litestar_jwt, ours, starlette_sessions
from benchmarks.peers.peer import Builder, Database


def builders(database: Database) -> list[Builder]:
    """All that can use *database*: only SQLite is read on the loop's thread, only PostgreSQL's look-ups are cached."""
    others = [ours.build_own_model, starlette_sessions.build, litestar_jwt.build, fastapi_users_app.build]
    return [ours.build, ours.CACHED if database.postgres else ours.INLINE, *others]
