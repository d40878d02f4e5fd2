"""The columns of each record are derived from a declaration. A new column needs nothing else."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Optional

import pytest

from asgi_auth.stores.columns import ACCOUNT, COUNTED, INVITATION, SESSION, TOKEN, USER, Column, Columns, Kind
from asgi_auth.stores.rows import TEXT_ROWS, Rows
from asgi_auth.stores.values import Codec, instant, micros, same
from asgi_auth.testing.stores.records import NOW
from asgi_auth.types import Account, Session
from tests.postgres import database

ROOT = Path(__file__).parent.parent.parent
SPELT = Rows(Codec(micros, instant, "id {}".format, lambda kept: kept[3:], "user {}".format, lambda kept: kept[5:]))
"""Rows whose values show each kind of id."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """A record with a column of every kind."""

    id: str
    user_id: str
    text: str
    count: int | None
    digest: Optional[bytes] = None  # noqa: UP045  # the other spelling of an optional type
    read_at: datetime | None = None
    pinned: bool = False
    data: Mapping[str, Any]
    seen: Mapping[str, datetime]
    words: tuple[str, ...] = ()


NOTE = Columns(Note, names={"text": "body"}, id=Kind.ID, user_id=Kind.USER_ID)
FIRST = Note(id="a", user_id="b", text="c", count=None, pinned=True, data={"d": [1]}, seen={"e": NOW}, words=("f",))
ROW = ("id a", "user b", "c", None, None, None, True, '{"d":[1]}', '{"e":1893553445678901}', '["f"]')


def test_kind_of_each_column_follows_from_its_type() -> None:
    """A declaration names the ids and the renamed columns. The fields give the rest."""
    assert NOTE.every == (
        Column("id", "id", Kind.ID, "uuid", optional=False),
        Column("user_id", "user_id", Kind.USER_ID, "text", optional=False),
        Column("text", "body", Kind.PLAIN, "text", optional=False),
        Column("count", "count", Kind.PLAIN, "bigint", optional=True),
        Column("digest", "digest", Kind.PLAIN, "bytea", optional=True),
        Column("read_at", "read_at", Kind.INSTANT, "timestamptz", optional=True),
        Column("pinned", "pinned", Kind.TRUTH, "boolean", optional=False),
        Column("data", "data", Kind.VALUES, "text::jsonb", optional=False),
        Column("seen", "seen", Kind.INSTANTS, "text::jsonb", optional=False),
        Column("words", "words", Kind.NAMES, "text::jsonb", optional=False),
    )


def test_columns_make_the_lists_of_a_statement() -> None:
    """The selected and inserted columns are in the order of the fields, with their parameters."""
    assert NOTE.listed == "id, user_id, body, count, digest, read_at, pinned, data, seen, words"
    assert NOTE.selected() == "id, user_id, body, count, digest, read_at, pinned, data::text, seen::text, words::text"
    assert NOTE.selected("n", text="t", data="t") == (
        "n.id, n.user_id, t.body, n.count, n.digest, n.read_at, n.pinned, t.data::text, n.seen::text, n.words::text"
    )
    assert NOTE.values(2) == "$2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10::text::jsonb, $11::text::jsonb"
    assert NOTE.values_of_account(3) == (
        "$3::uuid, user_id, $5::text, $6::bigint, $7::bytea, $8::timestamptz, $9::boolean, $10::text::jsonb, "
        "$11::text::jsonb, $12::text::jsonb"
    )
    assert NOTE.parameter("user_id", 3) == "$4"


def test_record_is_read_back_from_its_row() -> None:
    """Each value is in the place of its column, in its stored form. None stays None."""
    assert SPELT.of(NOTE).write(FIRST) == ROW
    assert SPELT.of(NOTE).read((*ROW, "something else")) == FIRST
    assert SPELT.of(NOTE) is SPELT.of(NOTE)
    assert SPELT.of(NOTE).encode({"read_at": NOW, "digest": None}) == {"read_at": 1893553445678901, "digest": None}
    assert NOTE.reader(SPELT.codec, start=2)(("x", "y", *ROW)) == FIRST


RECORDS = (USER, ACCOUNT, SESSION, TOKEN, INVITATION, COUNTED)


def test_fields_that_are_ids_are_declared() -> None:
    """The type of an id is that of any text. An id that is not declared would be stored as text."""
    kinds = {(column.field, column.kind) for columns in RECORDS for column in columns.every}
    named = {
        (field, kind) for field, kind in kinds if field in ("id", "accepted_by", "ended_by") or field[-3:] == "_id"
    }
    assert {kind for _, kind in named} == {Kind.ID, Kind.USER_ID}
    assert {field for field, kind in kinds - named if kind in (Kind.ID, Kind.USER_ID)} == set()


def test_columns_have_the_names_of_their_fields() -> None:
    """The only exception is a field whose name is a reserved word."""
    every = [column for columns in RECORDS for column in columns.every]
    assert [column.name for column in every if column.name != column.field] == ["grant_data"]


def test_found_and_loaded_read_two_records_from_a_row() -> None:
    """Each of the two records in a row is read from its own columns."""
    account = ("a", b"s", None, None, 1, None)
    user = ("a", "a@example.com", None, "{}", 0, 1)
    session = ("s", "a", b"s", 0, 0, 0, 0, "", '{"password":0}', 0)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    found, loaded = TEXT_ROWS.found((*user, *account)), TEXT_ROWS.loaded((*session, *user))
    assert found.account == Account(user_id="a", stamp=b"s", disabled_at=instant(1))
    assert found.user == loaded.user
    assert loaded.session == Session(
        id="s",
        user_id="a",
        stamp=b"s",
        created_at=epoch,
        last_seen_at=epoch,
        idle_expires_at=epoch,
        expires_at=epoch,
        factors={"password": epoch},
    )


def test_plain_values_are_not_converted() -> None:
    """A value that is stored unchanged costs no call."""
    assert {column.field for column in NOTE.every if column.reader(SPELT.codec) is same} == {"text", "count", "digest"}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["sqlite", "postgres", "sqlalchemy"])
async def test_new_column_of_sessions_changes_only_record_and_schema(tmp_path: Path, name: str) -> None:
    """Every store keeps and returns a new value if the record has the field and the table has the column."""
    command = [sys.executable, "-W", "error", "-m", "tests.stores.widened", name]
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(database()) if name == "postgres" else str(tmp_path / "app.db")
        await asyncio.to_thread(subprocess.run, [*command, place], cwd=ROOT, check=True)
