"""Invitations and counters in SQL: single statements, stored rows, and the state after a cancellation."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import fields, replace
from datetime import UTC
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.errors import StoreUnavailableError, ValidationError
from asgi_auth.store import Counted, InvitationRecord
from asgi_auth.stores import PostgresStore, SQLiteStore
from asgi_auth.stores.columns import INVITATION
from asgi_auth.stores.sql_counters import COUNT, UNCOUNT, SQLCounters
from asgi_auth.stores.sql_invitations import END_INVITATION, LIST_INVITATIONS, RENEW_INVITATION, SQLInvitations
from asgi_auth.stores.translation import for_sqlite, question_marks
from asgi_auth.stores.values import dump_names, parse_names
from asgi_auth.testing.stores.records import (
    HOUR,
    NOW,
    Scoped,
    add_invitation,
    add_session,
    add_token,
    add_user,
    invitation_of,
)
from tests.postgres import database
from tests.stores.cancelling import cancel_everywhere
from tests.stores.test_sql import FakeExecutor

MICROS = 1893553445678901
"""``NOW`` as it is stored."""


@pytest.fixture(params=["sqlite", "postgres"])
async def scoped(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scoped]:
    """A store on an empty database of each kind."""
    if request.param == "sqlite":
        store = SQLiteStore(tmp_path / "app.db")
        yield store.scope("user")
        await store.close()
    else:
        async with database() as dsn:
            postgres = PostgresStore(dsn)
            yield postgres.scope("user")
            await postgres.close()


# --- one statement each ----------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("act", "statement", "values"),
    [
        (
            lambda executor: SQLInvitations(executor, "user").end("a", "accepted", now=NOW, version=2, ended_by="b"),
            END_INVITATION,
            ("user", "a", "accepted", MICROS, 2, None, None, "b", None),
        ),
        (
            lambda executor: SQLInvitations(executor, "user").renew(
                "a", version=1, now=NOW, expires_at=NOW, sent_before=NOW, sent_at_most=5, grant={"role": "editor"}
            ),
            RENEW_INVITATION,
            ("user", "a", 1, MICROS, MICROS, MICROS, 5, '{"role":"editor"}'),
        ),
        (
            lambda executor: SQLCounters(executor, "user").uncount("mail", b"k", now=NOW),
            UNCOUNT,
            ("user", "mail", b"k", MICROS),
        ),
    ],
    ids=["end", "renew", "uncount"],
)
async def test_invitation_change_is_one_statement(
    act: Callable[[FakeExecutor], Awaitable[object]], statement: str, values: tuple[Any, ...]
) -> None:
    """The guard and the write are one statement: no other write comes in between."""
    executor = FakeExecutor()
    assert await act(executor) is None
    assert executor.asked == [(statement, values)]


@pytest.mark.anyio
async def test_counter_is_one_statement() -> None:
    """The statement that increments the counter returns the new count."""
    executor = FakeExecutor((3, MICROS))
    assert await SQLCounters(executor, "user").count("mail", b"k", now=NOW, expires_at=NOW + HOUR) == Counted(3, NOW)
    assert executor.asked == [(COUNT, ("user", "mail", b"k", MICROS, MICROS + 3_600_000_000))]


@pytest.mark.anyio
@pytest.mark.parametrize("filters", LIST_INVITATIONS)
async def test_sqlite_list_of_invitations_needs_no_sorting(tmp_path: Path, filters: tuple[bool, ...]) -> None:
    """An index gives the rows in order, so that the cost of the first page depends only on its length."""
    store = SQLiteStore(tmp_path / "app.db")
    text, order = question_marks(for_sqlite(LIST_INVITATIONS[filters]))
    async with store.scope("user").transaction() as work:
        plan = await work.connection.execute_fetchall(f"EXPLAIN QUERY PLAN {text}", [1] * len(order))
    assert [row[3] for row in plan if "TEMP B-TREE" in row[3]] == []
    await store.close()


# --- rows ------------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
IDS = st.uuids().map(str)
INSTANTS = st.datetimes(timezones=st.just(UTC))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.builds(
    InvitationRecord,
    id=IDS,
    scope=st.none() | TEXTS,
    email=TEXTS,
    email_key=TEXTS,
    grant=st.dictionaries(TEXTS, VALUES, max_size=3),
    strategies=st.lists(TEXTS, max_size=3).map(tuple),
    inviter_id=st.none() | IDS,
    status=st.sampled_from(["pending", "accepted", "revoked", "declined", "expired"]),
    version=st.integers(1, 2**63 - 1),
    created_at=INSTANTS,
    expires_at=INSTANTS,
    sent_count=st.integers(0, 2**63 - 1),
    last_sent_at=INSTANTS,
    delivery=st.sampled_from(["waiting", "sent", "failed"]),
    accepted_by=st.none() | IDS,
    accepted_via=st.none() | TEXTS,
    ended_at=st.none() | INSTANTS,
    ended_by=st.none() | IDS,
    reason=st.none() | TEXTS,
)


@given(RECORDS)
def test_invitation_row_stores_the_whole_record(record: InvitationRecord) -> None:
    """Each field of an invitation is stored in its own column and read from there."""
    invitations = FakeExecutor().rows.of(INVITATION)
    assert invitations.read(invitations.write(record)) == record
    columns = INVITATION.listed.replace("grant_data", "grant").split(", ")
    assert columns == [field.name for field in fields(InvitationRecord)]


@pytest.mark.parametrize("text", ["{}", '"password"', '["password', ""])
def test_parse_names_error_does_not_quote_a_corrupt_value(text: str) -> None:
    """A stored value that is not a list of names raises StoreUnavailableError. The error does not quote it."""
    assert parse_names(dump_names(("password", "zoë 🙂"))) == ("password", "zoë 🙂")
    with pytest.raises(StoreUnavailableError) as error:
        parse_names(text)
    assert error.value.reason == "a stored value is corrupt"
    assert error.value.__context__ is None


@pytest.mark.parametrize("name", ["a\0", "\ud800"], ids=ascii)
def test_dump_names_rejects_unstorable_names(name: str) -> None:
    """RP-8: a NUL is rejected. It is not stored as the six characters of its JSON escape."""
    with pytest.raises(ValidationError):
        dump_names((name,))


@pytest.mark.anyio
async def test_invitation_is_either_pending_or_ended(scoped: Scoped) -> None:
    """The database itself rejects a row that is both pending and ended."""
    for changes in (
        {"ended_at": NOW},
        {"status": "revoked"},
        {"status": "lost", "ended_at": NOW},
        {"delivery": "lost"},
    ):
        with pytest.raises(StoreUnavailableError):
            await scoped.invitations.insert(invitation_of(**changes))
    old = await add_invitation(scoped)
    with pytest.raises(StoreUnavailableError):
        await scoped.invitations.end(old.id, "pending", now=NOW)
    with pytest.raises(StoreUnavailableError):  # the id exists already
        await scoped.invitations.insert(replace(old, email_key="other"))
    assert list(await scoped.invitations.list()) == [old]


@pytest.mark.anyio
async def test_postgres_rejects_invalid_ids_in_an_invitation() -> None:
    """An invalid id is rejected. It is never written as the nil UUID."""
    async with database() as dsn:
        store = PostgresStore(dsn)
        scoped = store.scope("user")
        for changes in ({"inviter_id": "alice"}, {"id": str(UUID(int=0))}, {"accepted_by": ""}, {"ended_by": "0"}):
            with pytest.raises(StoreUnavailableError, match="CheckViolationError"):
                await scoped.invitations.insert(invitation_of(**changes))
        assert list(await scoped.invitations.list()) == []
        await store.close()


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_cancelled_invitation_insert_is_all_or_nothing(scoped: Scoped) -> None:
    """FT-2: wherever it is cancelled, either the new one has replaced the expired one, or nothing has changed."""
    ended: list[bool] = []

    def at(turn: int) -> InvitationRecord:
        return invitation_of(scope="team", created_at=NOW + turn * HOUR, expires_at=NOW + (turn + 1) * HOUR)

    async def act() -> None:
        await scoped.invitations.insert(at(len(ended)))

    async def check() -> None:
        now = NOW + len(ended) * HOUR
        found = await scoped.invitations.find("team", "eve@example.com", now=now)
        over = [record for record in await scoped.invitations.list() if record.expires_at == now]
        assert [record.status for record in over] == ["expired" if found else "pending"]
        assert list(await scoped.invitations.list(status="pending")) == ([found] if found else over)
        ended.append(found is not None)
        if found is None:  # the next turn needs an invitation to replace
            await scoped.invitations.insert(at(len(ended) - 1))

    await scoped.invitations.insert(at(-1))
    assert await cancel_everywhere(act, check) >= 3
    assert (ended[0], ended[-1]) == (False, True)


@pytest.mark.anyio
async def test_cancelled_count_is_recorded_once_or_not_at_all(scoped: Scoped) -> None:
    """FT-2: wherever it is cancelled, the count has grown by one or not at all. The next count is recorded."""
    counts: list[int] = []

    async def count() -> int:
        counted = await scoped.counters.count("mail", b"k", now=NOW, expires_at=NOW + HOUR)
        return int(counted.count)

    async def act() -> None:
        await count()

    async def check() -> None:
        counts.append(await count())

    assert await cancel_everywhere(act, check) >= 1
    steps = [after - before for before, after in zip([0, *counts], counts, strict=False)]
    assert set(steps) <= {1, 2}
    assert steps[-1] == 2


PLANS = ("hashjoin", "mergejoin", "material", "hashagg", "sort")


@pytest.mark.anyio
async def test_postgres_batch_keeps_its_limit() -> None:
    """A sweep processes no more rows than its limit, with every query plan of the database."""
    async with database() as dsn:
        store = PostgresStore(dsn)
        scoped = store.scope("user")
        alice = await add_user(scoped)
        for number in range(4):
            await add_session(scoped, alice, idle_expires_at=NOW)
            await add_token(scoped, alice, expires_at=NOW)
            await add_invitation(scoped, scope=str(number), expires_at=NOW)
            await scoped.counters.count("mail", bytes([number]), now=NOW - HOUR, expires_at=NOW)
        async with scoped.transaction() as work:
            for plan in PLANS:
                await work.connection.execute(f"SET LOCAL enable_{plan} = off")
            sweeps = (work.sessions.prune, work.tokens.prune, work.counters.prune, work.invitations.expire)
            assert [await sweep(now=NOW, limit=3) for sweep in sweeps for _ in range(2)] == [3, 1] * 4
        await store.close()
