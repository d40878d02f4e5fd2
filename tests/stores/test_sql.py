"""The common parts of the SQL stores: stored values, statements, and rows."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.errors import ConfigurationError, StoreUnavailableError, ValidationError
from asgi_auth.store import TokenRecord
from asgi_auth.stores.columns import Row
from asgi_auth.stores.rows import TEXT_ROWS
from asgi_auth.stores.sql_accounts import SQLAccounts
from asgi_auth.stores.sql_tokens import SQLTokens
from asgi_auth.stores.sql_users import HOLD_USER, SQLUsers
from asgi_auth.stores.values import dump, instant, micros, parse, storable
from asgi_auth.types import EMPTY, Account
from tests.stores.statements import STATEMENTS

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class FakeExecutor:
    """A database that answers each statement with the same rows, and records the statements."""

    rows = TEXT_ROWS
    connection = None

    def __init__(self, *answer: Row) -> None:
        self.answer, self.asked = answer, list[tuple[str, tuple[Any, ...]]]()

    async def read(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        self.asked.append((sql, tuple(values)))
        return self.answer

    write = read

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["FakeExecutor"]:
        yield self


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("", True),
        ("zoë 🙂", True),
        ("\ue000", True),
        ("a\0", False),
        ("\ud800", False),
        ("a\udfffb", False),
        (2**63 - 1, True),
        (2**63, False),
        (-(2**63), True),
        (-(2**63) - 1, False),
        (None, True),
        (b"\0", True),
        ({"a": [1, ("b", None)]}, True),
        ({"a": [1, ("b\0", None)]}, False),
        ({"a\0": 1}, False),
        ([2**63], False),
    ],
    ids=ascii,
)
def test_storable(value: object, answer: bool) -> None:
    """RP-8: NUL, lone surrogates and integers over 64 bits are rejected, because some databases cannot store them."""
    assert storable(value) is answer


@pytest.mark.parametrize(
    ("at", "stored"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(2030, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1893456000000001),
        (datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 1893456000000000),
        (datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), -1),
    ],
    ids=str,
)
def test_instant_is_stored_in_microseconds(at: datetime, stored: int) -> None:
    """An instant of any time zone is stored as whole microseconds since the epoch."""
    assert micros(at) == stored
    assert instant(stored) == at
    assert instant(stored).tzinfo is UTC


@given(st.datetimes(timezones=st.just(UTC)))
def test_instant_is_stored_exactly(at: datetime) -> None:
    """No instant is rounded."""
    assert instant(micros(at)) == at


@pytest.mark.parametrize("value", [1j, float("nan"), {1: "a"}.keys(), b"x"], ids=repr)
def test_dump_rejects_values_that_json_cannot_represent(value: object) -> None:
    """A value that JSON cannot represent is rejected; the error names its field."""
    with pytest.raises(ValidationError) as error:
        dump({"field": value})
    assert list(error.value.fields) == ["field"]


def test_dump_rejects_values_nested_too_deeply() -> None:
    """A value that is nested too deeply for the stack is a validation error, not a server error."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValidationError):
        dump({"field": value})


@pytest.mark.parametrize("text", ['{"secret": "hunter2', '["hunter2"]', ""])
def test_parse_error_does_not_quote_a_corrupt_value(text: str) -> None:
    """A stored value that is not a JSON object raises StoreUnavailableError. The error does not quote the value."""
    assert parse("{}") is EMPTY
    with pytest.raises(StoreUnavailableError) as error:
        parse(text)
    assert error.value.reason == "a stored value is corrupt"
    assert error.value.__context__ is None


@pytest.mark.parametrize("data", ['{"a":1}', '{"a":[1]}', '{"a":{"b":1}}'])
def test_loaded_values_are_not_shared(data: str) -> None:
    """Equal rows decode to equal values, and changing one mutable value does not change another."""
    row = ("s", "a", b"s", 0, 0, 0, 0, "", "{}", 0, "a", "a@example.com", None, data, 0, None)
    first, again = TEXT_ROWS.loaded(row), TEXT_ROWS.loaded(row)
    assert first == again
    assert again.user.data == json.loads(data)
    if isinstance(first.user.data["a"], (list, dict)):
        first.user.data["a"].clear()
    assert again.user.data == TEXT_ROWS.loaded(row).user.data == json.loads(data)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, {}), ({"user_id": "b"}, {}), ({"stamp": b"s", "x = 1 --": 1}, {}), ({"stamp": b"s"}, {"bcrypt_cost": 4})],
    ids=repr,
)
async def test_account_update_accepts_known_columns_only(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    """The name of a column comes only from the list of known columns."""
    executor = FakeExecutor()
    with pytest.raises(ConfigurationError, match="stamp, password_hash, confirmed_at, disabled_at"):
        await SQLAccounts(executor, "user").update("a", changes, expected=expected)
    assert executor.asked == []


@pytest.mark.anyio
async def test_account_update_is_one_statement() -> None:
    """Compare-and-set is one statement: no other write comes between the comparison and the write."""
    executor = FakeExecutor(("a", b"t", None, None, None, None))
    account = await SQLAccounts(executor, "user").update(
        "a", {"stamp": b"t", "disabled_at": NOW}, expected={"stamp": b"s", "password_hash": None}
    )
    assert account == Account(user_id="a", stamp=b"t")
    assert executor.asked == [
        (
            "UPDATE asgi_auth_accounts SET disabled_at = $3, stamp = $4 WHERE subject_name = $1 AND user_id = $2 "
            "AND password_hash IS NULL AND stamp = $5 "
            "RETURNING user_id, stamp, password_hash, confirmed_at, disabled_at, proven_email",
            ("user", "a", 1893456000000000, b"t", b"s"),
        )
    ]


@pytest.mark.anyio
async def test_user_update_locks_the_row_first() -> None:
    """The update locks the row first, so that unchanged columns cannot change before the write."""
    executor = FakeExecutor()
    assert await SQLUsers(executor, "user").update("a", {"name": "b"}, {}) is None
    assert executor.asked == [(HOLD_USER, ("user", "a"))]


@pytest.mark.anyio
async def test_token_consume_is_one_statement() -> None:
    """TK-11: the guard and the deletion are one statement."""
    executor = FakeExecutor((b"h", "reset", None, None, 0, 1, "{}"))
    record = await SQLTokens(executor, "user").consume("reset", b"h", now=NOW)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert record == TokenRecord(
        token_hash=b"h",
        purpose="reset",
        user_id=None,
        stamp=None,
        created_at=epoch,
        expires_at=epoch + timedelta(microseconds=1),
    )
    assert [(text.split()[0], values) for text, values in executor.asked] == [
        ("DELETE", ("user", "reset", b"h", 1893456000000000))
    ]


def test_every_statement_is_bound_to_the_subject() -> None:
    """TK-23: each statement is limited to the rows of its subject."""
    assert len(STATEMENTS) == 59
    for name, text in STATEMENTS.items():
        if name in ("INSERT_USER", "INSERT_ACCOUNT", "INSERT_TOKEN", "INSERT_INVITATION", "COUNT"):
            assert "(subject_name, " in text
        else:
            assert "subject_name = $1" in text, name
