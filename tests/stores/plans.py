"""The plan that a database makes for each statement of the SQL stores."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import asyncpg

from asgi_auth.stores.translation import for_sqlite, question_marks
from asgi_auth.testing.stores.records import NOW
from tests.stores.statements import STATEMENTS
from tests.workers import OnPostgres, OnSQLite

SORTED = ("LIST_SESSIONS", "LATEST_TOKEN")
"""The statements that sort the few rows that an index has found: the sessions of one user, the tokens."""
WALKED = "LIST_INVITATIONS"
"""The statements that read an index in its order, up to the end of a page."""


class Step(NamedTuple):
    """A line of a plan."""

    statement: str
    text: str
    is_quick: bool
    """Whether the line reads only rows found by an index, and not by the subject alone, which all rows share."""


async def plans(place: OnSQLite | OnPostgres, number: int) -> list[Step]:
    """The plans of all statements, on SQLite both before and after ANALYZE; *number* is a limit."""
    if isinstance(place, OnSQLite):
        return [*_in_sqlite(place), *await _analysed(place)]
    return await _in_postgres(place, number)


# --- SQLite


async def _analysed(place: OnSQLite) -> list[Step]:
    await place.rows("ANALYZE")
    return _in_sqlite(place)


def _in_sqlite(place: OnSQLite) -> list[Step]:
    with closing(place.connect()) as connection:
        return [
            Step(name, row[3], is_quick_in_sqlite(name, row[3]))
            for name, (text, order) in ((name, question_marks(for_sqlite(text))) for name, text in STATEMENTS.items())
            for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", [1] * len(order))
        ]


def is_quick_in_sqlite(name: str, text: str) -> bool:
    """Whether a line of a plan is quick, see ``Step``. A search for rows that ended before a time is quick too."""
    if name.startswith(WALKED) and text.startswith("SEARCH"):
        return "_created_at" in text or "subject_name=? AND" in text
    if text.startswith(("SCAN", "SEARCH")):
        found_by = r"\(subject_name=\? AND (\w+|<expr>)[=<]\?|\(rowid=\?\)"
        return text in ("SCAN CONSTANT ROW", "SCAN batch") or bool(re.search(found_by, text))
    return "TEMP B-TREE" not in text or name in SORTED


# --- PostgreSQL

_TRIES = 7
"""After five plans for given values the server may switch to a plan for any values."""
_LITERALS = {
    **{"text": "'{}'", "bytea": "'x'", "timestamp with time zone": f"'{NOW.isoformat()}'", "boolean": "true"},
    "uuid": "'00000000-0000-0000-0000-000000000001'",
}


async def _in_postgres(place: OnPostgres, number: int) -> list[Step]:
    literals, steps = {**_LITERALS, "bigint": str(number)}, list[Step]()
    connection = await asyncpg.connect(place.dsn)
    try:
        for name, text in STATEMENTS.items():
            await connection.execute(f"PREPARE statement AS {text}")
            types = await connection.fetch("SELECT unnest(parameter_types)::text FROM pg_prepared_statements")
            values = ", ".join(literals[kind] if n else "'user'" for n, (kind,) in enumerate(types))
            for _ in range(_TRIES):
                plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE statement ({values})")
                steps += [_step_of_postgres(name, node) for node in _nodes(json.loads(plan)[0]["Plan"])]
            await connection.execute("DEALLOCATE statement")
    finally:
        await connection.close()
    return steps


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)


def _step_of_postgres(name: str, node: dict[str, Any]) -> Step:
    kind, found_by = node["Node Type"], node.get("Index Cond", "")
    is_quick = kind not in ("Seq Scan", "Sort") or (kind == "Sort" and name in SORTED)
    if "Index" in kind and not (name.startswith(WALKED) and node.get("Index Name", "").endswith("_created_at")):
        is_quick = "subject_name" not in found_by or " AND " in found_by
    return Step(name, f"{kind} {node.get('Index Name', node.get('Relation Name', ''))} {found_by}".strip(), is_quick)
