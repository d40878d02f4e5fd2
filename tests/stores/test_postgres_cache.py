"""Cached look-ups of PostgresStore: the cache alone, its effect on a store, and the channel."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_auth.errors import ConfigurationError
from asgi_auth.store import Loaded
from asgi_auth.stores import PostgresStore, postgres
from asgi_auth.stores.postgres_cache import CHANNEL, Channel, Heard, Key, SessionCache, pause
from asgi_auth.testing.stores.records import HOUR, NOW, SECOND, add_session, add_user
from asgi_auth.types import User
from tests.postgres import database, execute
from tests.stores.caching import Hand, Relay, by_hand, channel_of, listening
from tests.stores.cancelling import cancel_everywhere
from tests.stores.test_postgres import settled, traced
from tests.support import EMAIL, PATIENCE, eventually, make_auth, register, until
from tests.workers import shown

BOUND = 10 * SECOND
KEY: Key = ("user", b"hash")
ROW = ("a row",)


@pytest.fixture
def hand() -> Iterator[Hand]:
    """Time stands still until the test moves it."""
    with by_hand() as hand:
        yield hand


@pytest.fixture
async def dsn() -> AsyncIterator[str]:
    """The address of an empty database."""
    async with database() as address:
        yield address


@pytest.fixture
async def store(dsn: str, hand: Hand) -> AsyncIterator[PostgresStore]:
    """A store whose cache is on."""
    store = await listening(PostgresStore(dsn, session_cache=BOUND))
    yield store
    await store.close()


@pytest.fixture
async def other(dsn: str, hand: Hand) -> AsyncIterator[PostgresStore]:
    """The store of another worker, with its cache on."""
    other = PostgresStore(dsn, session_cache=BOUND)
    yield other
    await other.close()


# --- the cache -------------------------------------------------------------------------------------------------------


def made(hand: Hand, size: int = 10) -> SessionCache:
    """A cache that is trusted now."""
    cache = SessionCache(BOUND, clock=hand, size=size)
    cache.trust(hand.at)
    return cache


def fill(cache: SessionCache, key: Key = KEY, *ids: str) -> None:
    """Keep a row that ends in an hour."""
    cache.keep(cache.begin(NOW), key, ROW, ids=ids or ("session", "user"), ends_at=NOW + HOUR)


@pytest.mark.parametrize(
    ("passed", "now", "found"),
    [
        (0.0, NOW, True),
        (9.999, NOW + 9.999 * SECOND, True),
        (10.0, NOW, False),
        (0.0, NOW + 10 * SECOND, False),
        (0.0, NOW - timedelta(microseconds=1), False),
        (-1.0, NOW, False),
    ],
    ids=["at once", "just inside", "the bound has passed", "the caller's clock says so", "it went back", "ours did"],
)
def test_cache_keeps_a_row_for_less_than_the_bound(hand: Hand, passed: float, now: datetime, found: bool) -> None:
    """A row expires by the cache's clock or by the caller's clock. A clock that was set back ends it too."""
    cache = made(hand)
    fill(cache)
    hand.at += passed
    cache.trust(hand.at - 1)
    assert (cache.find(KEY, now) == ROW) is found


def test_cache_counts_the_bound_from_the_start_of_the_query(hand: Hand) -> None:
    """The duration of the query counts towards the bound of its row."""
    cache = made(hand)
    begun = cache.begin(NOW)
    hand.at += 6
    cache.trust(hand.at)
    cache.keep(begun, KEY, ROW, ids=("a",), ends_at=NOW + HOUR)
    assert cache.find(KEY, NOW) == ROW
    hand.at += 4
    assert cache.find(KEY, NOW) is None


def test_cache_checks_the_end_of_the_session_each_time(hand: Hand) -> None:
    """SE-7: a session has expired at its end, even if it was read just before."""
    cache = made(hand)
    cache.keep(cache.begin(NOW), KEY, ROW, ids=("a",), ends_at=NOW + SECOND)
    assert cache.find(KEY, NOW + SECOND - timedelta(microseconds=1)) == ROW
    assert cache.find(KEY, NOW + SECOND) is None


@pytest.mark.parametrize("name", ["session", "user"])
def test_cache_forgets_by_either_id(hand: Hand, name: str) -> None:
    """Every row of the session or the user is removed, under each key. All other rows stay."""
    cache = made(hand)
    fill(cache)
    fill(cache, ("user", UUID(int=1)))
    fill(cache, ("user", b"theirs"), "another", "else")
    cache.forget([name])
    assert [cache.find(key, NOW) for key in (KEY, ("user", UUID(int=1)), ("user", b"theirs"))] == [None, None, ROW]


def test_cache_does_not_keep_a_row_changed_during_its_query(hand: Hand) -> None:
    """The cache keeps no row that changed during its query. A change of another row has no effect."""
    cache = made(hand)
    begun = cache.begin(NOW)
    cache.forget(["somebody", "session"])
    cache.keep(begun, KEY, ROW, ids=("session", "user"), ends_at=NOW + HOUR)
    assert cache.find(KEY, NOW) is None
    cache.keep(begun, KEY, ROW, ids=("other", "user"), ends_at=NOW + HOUR)
    assert cache.find(KEY, NOW) == ROW


def test_cache_remembers_a_bounded_number_of_changes(hand: Hand) -> None:
    """The cache keeps no row of a query that began before the remembered changes: an older change may concern it."""
    cache = made(hand, size=2)
    begun = cache.begin(NOW)
    cache.forget(["session", "b", "c"])
    cache.keep(begun, KEY, ROW, ids=("session",), ends_at=NOW + HOUR)
    assert cache.find(KEY, NOW) is None


@pytest.mark.parametrize("lost", ["told", "unheard"])
def test_cache_does_not_keep_rows_read_without_trust(hand: Hand, lost: str) -> None:
    """When trust returns, the old rows do not return, and rows that were read before it are not kept."""
    cache = made(hand)
    fill(cache)
    begun = cache.begin(NOW)
    if lost == "told":
        cache.distrust()
    else:
        hand.at += 10
    fill(cache, ("user", b"meanwhile"))
    assert not cache.trusted
    assert cache.find(KEY, NOW) is None
    cache.trust(hand.at)
    cache.keep(begun, ("user", b"late"), ROW, ids=("a",), ends_at=NOW + HOUR)
    assert [cache.find(key, NOW) for key in (KEY, ("user", b"meanwhile"), ("user", b"late"))] == [None, None, None]


def test_cache_drops_the_least_recently_used_row(hand: Hand) -> None:
    """The cache has a bounded number of rows, and no trace of the dropped rows."""
    cache = made(hand, size=2)
    for name in ("a", "b"):
        fill(cache, ("user", name), name)
    assert cache.find(("user", "a"), NOW) == ROW
    fill(cache, ("user", "c"), "c")
    assert [cache.find(("user", name), NOW) is not None for name in "abc"] == [True, False, True]
    assert set(cache._keys) == {"a", "c"}


def test_cache_representation_shows_no_row(hand: Hand) -> None:
    """TK-17: the representation of the cache shows no row and no id, so that no log does."""
    cache = made(hand)
    fill(cache)
    shown = repr(cache) + "".join(map(repr, cache._entries.values()))
    assert "a row" not in shown
    assert "session" not in shown.replace("SessionCache", "")


ACTS = st.lists(
    st.tuples(st.sampled_from(["begin", "keep", "change", "pass", "beat", "lose", "find"]), st.integers(0, 3)),
    max_size=60,
)


@given(ACTS)
@example([(act, 1) for act in ("begin", "keep", "find", "pass", "beat", "change", "lose", "keep")])
@example([("keep", 1)])
def test_cache_never_returns_a_forgotten_or_old_row(acts: list[tuple[str, int]]) -> None:
    """After any events in any order, an answer is younger than the bound and as new as the last change."""
    hand, versions = Hand(), dict.fromkeys(range(4), 0)
    cache = made(hand, size=3)
    begun: dict[int, Any] = {}
    for act, number in acts:
        if act == "begin":
            begun[number] = cache.begin(NOW), (versions[number], hand.at)
        elif act == "keep" and number in begun:
            started, row = begun[number]
            cache.keep(started, ("user", number), row, ids=(str(number),), ends_at=NOW + HOUR)
        elif act == "change":
            versions[number] += 1
            cache.forget([str(number)])
        elif act == "pass":
            hand.at += 3 * number
        elif act == "beat":
            cache.trust(hand.at)
        elif act == "lose":
            cache.distrust()
        found = cache.find(("user", number), NOW)
        assert found is None or (found[0] == versions[number] and hand.at - found[1] < 10)
        assert len(cache._entries) <= 3


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"session_cache": timedelta(0)},
        {"session_cache": timedelta(seconds=0.9)},
        {"session_cache": timedelta(seconds=61)},
        {"session_cache": 10},
        {"session_cache": BOUND, "listen_dsn": "hunter2"},
        {"session_cache": BOUND, "dsn": None, "pool": lambda: None},
    ],
    ids=["nothing", "too short", "too long", "no timedelta", "no address", "nowhere to listen"],
)
def test_cached_postgres_refuses_invalid_options(options: dict[str, Any]) -> None:
    """The bound must be 1 to 60 seconds, and an address to listen on is required."""
    with pytest.raises(ConfigurationError, match="PostgresStore: ") as error:
        PostgresStore(**{"dsn": "postgresql:///a", **options})
    assert "hunter2" not in str(error.value)


# --- look-ups --------------------------------------------------------------------------------------------------------


async def signed_in(store: PostgresStore, **changes: Any) -> tuple[str, str, bytes]:
    """Create a session. Return its id, its user's id and the hash of its secret."""
    scoped = store.scope("user")
    session, secret_hash = await add_session(scoped, await add_user(scoped), **changes)
    return session.id, session.user_id, secret_hash


async def both(store: PostgresStore, session_id: str, secret_hash: bytes) -> list[Loaded[User] | None]:
    """The results of the look-ups by secret and by id."""
    sessions = store.scope("user").sessions
    return [await sessions.load(secret_hash, now=NOW), await sessions.load_by_id(session_id, now=NOW)]


@pytest.mark.anyio
async def test_cached_request_costs_no_statement(
    dsn: str, hand: Hand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second request with a cookie or a bearer token does not query the database."""
    async with traced(monkeypatch) as statements:
        store = PostgresStore(dsn, session_cache=BOUND)
        auth = make_auth(tmp_path, store=store)
        async with auth.running():
            await listening(store)
            _, token = await register(auth)
            await settled(statements)
            statements.clear()
            assert await shown(auth, token) == [EMAIL, EMAIL]
            assert await settled(statements) == ["SELECT", "SELECT"]
            assert await shown(auth, token) == [EMAIL, EMAIL]
            assert await settled(statements) == ["SELECT", "SELECT"]
            await auth.sessions.revoke(token.session.id)
            assert await shown(auth, token) == ["-", "-"]


@pytest.mark.anyio
async def test_cached_look_up_expires_after_the_bound(store: PostgresStore, dsn: str, hand: Hand) -> None:
    """A change by a program that sends no notification is seen after the bound."""
    session_id, _, secret_hash = await signed_in(store)
    first = await both(store, session_id, secret_hash)
    await execute(dsn, "UPDATE asgi_auth_sessions SET revoked_at = now()")
    assert await both(store, session_id, secret_hash) == first
    hand.at += 10
    channel_of(store).cache.trust(hand.at)
    assert await both(store, session_id, secret_hash) == [None, None]


@pytest.mark.anyio
async def test_cached_look_up_does_not_cache_a_missing_session(store: PostgresStore, dsn: str) -> None:
    """The store queries the database each time if there is no such session."""
    session_id, _, secret_hash = await signed_in(store)
    await execute(dsn, "UPDATE asgi_auth_sessions SET revoked_at = now()")
    assert await both(store, session_id, secret_hash) == [None, None]
    await execute(dsn, "UPDATE asgi_auth_sessions SET revoked_at = NULL")
    assert None not in await both(store, session_id, secret_hash)


@pytest.mark.anyio
async def test_cached_look_up_finds_one_kind_of_user_only(store: PostgresStore) -> None:
    """The kind of user is part of the cache's key."""
    session_id, _, secret_hash = await signed_in(store)
    assert None not in await both(store, session_id, secret_hash)
    sessions = store.scope("admin").sessions
    assert await sessions.load(secret_hash, now=NOW) is None
    assert await sessions.load_by_id(session_id, now=NOW) is None


@pytest.mark.anyio
async def test_cached_look_up_returns_separate_values(store: PostgresStore, dsn: str) -> None:
    """If one request alters a mutable value, another request does not see the alteration."""
    _, _, secret_hash = await signed_in(store)
    await execute(dsn, """UPDATE asgi_auth_users SET data = '{"tags": ["a"]}'""")
    sessions = store.scope("user").sessions
    first = await sessions.load(secret_hash, now=NOW)
    assert first is not None
    first.user.data["tags"].append("b")
    second = await sessions.load(secret_hash, now=NOW)
    assert second is not None
    assert second.user.data == {"tags": ["a"]}


@pytest.mark.anyio
async def test_cached_look_up_does_not_cache_large_rows(store: PostgresStore, dsn: str) -> None:
    """A very large row is read from the database each time."""
    session_id, _, secret_hash = await signed_in(store, label="x" * 5000)
    assert None not in await both(store, session_id, secret_hash)
    await execute(dsn, "UPDATE asgi_auth_sessions SET revoked_at = now()")
    assert await both(store, session_id, secret_hash) == [None, None]


@pytest.mark.anyio
async def test_cached_look_up_is_not_used_in_a_transaction(store: PostgresStore, dsn: str) -> None:
    """A transaction reads from the database, and the cache keeps none of its rows."""
    session_id, _, secret_hash = await signed_in(store)
    assert None not in await both(store, session_id, secret_hash)
    await execute(dsn, "UPDATE asgi_auth_sessions SET revoked_at = now()")
    async with store.scope("user").transaction() as work:
        assert await work.sessions.load(secret_hash, now=NOW) is None
        assert await work.sessions.load_by_id(session_id, now=NOW) is None
    assert None not in await both(store, session_id, secret_hash)


@pytest.mark.anyio
async def test_cached_look_up_overtaken_by_a_change_is_not_kept(
    store: PostgresStore, other: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that changes while it is read is returned once, as it would be without a cache."""
    session_id, _, secret_hash = await signed_in(store)
    cache, generation = channel_of(store).cache, channel_of(store).cache.begin(NOW).generation
    run = postgres._Database._run

    async def overtaken(*args: Any) -> Any:
        rows = await run(*args)
        await other.scope("user").sessions.revoke(session_id, now=NOW)
        await until(lambda: cache.begin(NOW).generation > generation)
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(postgres._Database, "_run", overtaken)
        assert await store.scope("user").sessions.load(secret_hash, now=NOW) is not None
    assert await store.scope("user").sessions.load(secret_hash, now=NOW) is None


# --- changes ---------------------------------------------------------------------------------------------------------

Change = Callable[[Any, str, str, bytes], Awaitable[Any]]
"""A change of a session or its user, in a store or in a transaction."""

CHANGES: dict[str, Change] = {
    "revoke": lambda to, session, user, secret: to.sessions.revoke(session, now=NOW),
    "revoke_of": lambda to, session, user, secret: to.sessions.revoke(session, user_id=user, now=NOW),
    "revoke_by_secrets": lambda to, session, user, secret: to.sessions.revoke_by_secrets([secret], now=NOW),
    "revoke_all": lambda to, session, user, secret: to.sessions.revoke_all(user, now=NOW),
    "stamp": lambda to, session, user, secret: to.accounts.update(user, {"stamp": b"another"}),
    "disable": lambda to, session, user, secret: to.accounts.update(user, {"disabled_at": NOW}),
    "restamp": lambda to, session, user, secret: to.sessions.restamp(session, b"another"),
    "delete": lambda to, session, user, secret: to.users.delete(user),
    "confirm": lambda to, session, user, secret: to.accounts.update(user, {"confirmed_at": NOW}),
    "change": lambda to, session, user, secret: to.users.update(user, {"name": "Alice"}, {}),
    "touch": lambda to, session, user, secret: to.sessions.touch(
        session, last_seen_at=NOW + SECOND, idle_expires_at=NOW + HOUR + SECOND
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", CHANGES)
async def test_cached_change_reaches_other_workers(store: PostgresStore, other: PostgresStore, name: str) -> None:
    """SE-6: the other workers see a change as soon as they are notified, before any time passes."""
    session_id, user_id, secret_hash = await signed_in(store)
    before = await both(store, session_id, secret_hash)
    assert None not in before
    await CHANGES[name](other.scope("user"), session_id, user_id, secret_hash)
    cache = channel_of(store).cache
    await until(lambda: not cache._entries)
    after = await both(store, session_id, secret_hash)
    assert after == await both(other, session_id, secret_hash)
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.anyio
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("name", CHANGES)
async def test_cached_change_is_seen_at_once_by_its_own_worker(dsn: str, hand: Hand, name: str, alone: bool) -> None:
    """A process sees its own change without waiting for the notification."""
    async with Relay(dsn).running() as relay:
        store = await listening(PostgresStore(dsn, session_cache=BOUND, listen_dsn=relay.dsn))
        scoped = store.scope("user")
        ids = await signed_in(store)
        before = await both(store, ids[0], ids[2])
        assert before == await both(store, ids[0], ids[2])
        relay.swallow()
        if alone:
            await CHANGES[name](scoped, *ids)
        else:
            async with scoped.transaction() as work:
                await CHANGES[name](work, *ids)
        assert (await both(store, ids[0], ids[2]))[0] != before[0]
        assert (await both(store, ids[0], ids[2]))[1] != before[1]
        await store.close()


@pytest.mark.anyio
async def test_cached_rows_are_removed_after_a_change_of_unknown_outcome(store: PostgresStore, dsn: str) -> None:
    """If the commit got no answer, the change may be committed. The store queries the database."""
    session_id, _, secret_hash = await signed_in(store)

    async def fail() -> None:
        async with store.scope("user").transaction() as work:
            await work.sessions.revoke(session_id, now=NOW)
            await both(store, session_id, secret_hash)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not channel_of(store).cache._entries
    assert None not in await both(store, session_id, secret_hash)


@pytest.mark.anyio
async def test_cached_changes_are_notified_without_secrets(store: PostgresStore, dsn: str) -> None:
    """TK-17: a notification holds only an id. A store without a cache sends none."""
    told: list[str] = []
    listener = await asyncpg.connect(dsn)
    await listener.add_listener(CHANNEL, lambda *args: told.append(args[-1]))
    silent = PostgresStore(dsn)
    for each, expected in ((silent, set[str]()), (store, {"ids"})):
        ids = await signed_in(each)
        for name in ("touch", "revoke_by_secrets", "stamp", "revoke_all", "delete"):
            await CHANGES[name](each.scope("user"), *ids)
        await listener.execute("SELECT 1")
        await asyncio.sleep(0)
        assert {"ids"} & {"ids" for text in told if text in ids[:2]} == expected
        assert set(told) <= set(ids[:2])
    await listener.close()
    await silent.close()


@pytest.mark.anyio
async def test_cached_touch_is_not_repeated(
    dsn: str, hand: Hand, store: PostgresStore, other: PostgresStore, tmp_path: Path
) -> None:
    """SE-7: a use that one worker has recorded is not recorded again by another. It extends the idle time for both."""
    auth = make_auth(tmp_path, store=store)
    second = make_auth(tmp_path, store=await listening(other), clock=auth.clock)
    _, token = await register(auth)
    for each in (auth, second):
        assert await shown(each, token) == [EMAIL, EMAIL]
    auth.clock.advance(timedelta(minutes=1))
    cache = channel_of(other).cache
    assert await shown(auth, token) == [EMAIL, EMAIL]
    await until(lambda: not cache._entries)
    [noted] = await execute(dsn, "SELECT xmin::text, idle_expires_at FROM asgi_auth_sessions")
    auth.clock.advance(SECOND)
    for each in (auth, second):
        assert await shown(each, token) == [EMAIL, EMAIL]
    assert await execute(dsn, "SELECT xmin::text, idle_expires_at FROM asgi_auth_sessions") == [noted]
    auth.clock.advance(noted["idle_expires_at"] - auth.clock())
    for each in (auth, second):
        assert await shown(each, token) == ["-", "-"]


# --- the channel -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_channel_without_delivery_turns_the_cache_off(
    dsn: str, hand: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    """A missed beat turns the cache off until a beat arrives again. The log says so once."""
    caplog.set_level(logging.INFO, "asgi_auth")
    async with Relay(dsn).running() as relay:
        store = await listening(PostgresStore(dsn, session_cache=BOUND, listen_dsn=relay.dsn))
        cache = channel_of(store).cache
        session_id, _, secret_hash = await signed_in(store)
        await both(store, session_id, secret_hash)
        assert len(cache._entries) == 2
        relay.swallow()
        hand.at += 5
        await until(lambda: hand.resting == [5.0])
        hand.tick()  # this beat is not delivered
        await until(lambda: hand.resting == [5.0] and channel_of(store)._beat == "1")
        hand.tick()  # the channel notices the missed beat
        await until(lambda: not cache.trusted)
        assert not cache._entries
        await both(store, session_id, secret_hash)
        assert not cache._entries
        relay.deliver()
        await until(lambda: hand.resting == [5.0])
        hand.tick()
        await until(lambda: cache.trusted)
        await both(store, session_id, secret_hash)
        assert len(cache._entries) == 2
        await store.close()
    assert [record.getMessage() for record in caplog.records] == [
        "the session cache is off, every look-up asks the database: a notification did not arrive",
        "the session cache is on again",
    ]


@pytest.mark.anyio
async def test_channel_without_delivery_is_trusted_for_the_bound_at_most(dsn: str, hand: Hand) -> None:
    """The bound applies even if the channel has not yet noticed the missed beat."""
    async with Relay(dsn).running() as relay:
        store = await listening(PostgresStore(dsn, session_cache=BOUND, listen_dsn=relay.dsn))
        relay.swallow()
        hand.at += 10
        assert not channel_of(store).cache.trusted
        await store.close()


@pytest.mark.anyio
async def test_channel_reconnects_after_its_connection_ends(dsn: str, hand: Hand) -> None:
    """The end of the connection turns the cache off at once, and a new connection turns it on."""
    async with Relay(dsn).running() as relay:
        store = await listening(PostgresStore(dsn, session_cache=BOUND, listen_dsn=relay.dsn))
        cache = channel_of(store).cache
        await until(lambda: hand.resting == [5.0])
        relay.cut()
        await until(lambda: not cache.trusted)
        await until(lambda: hand.resting == [5.0])
        hand.tick()
        await until(lambda: cache.trusted)
        await store.close()


@pytest.mark.anyio
async def test_channel_that_cannot_be_opened_is_retried_less_and_less_often(
    hand: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    """The channel floods neither the server with tries nor the log with a message for each try."""
    store = PostgresStore("postgresql:///a", session_cache=BOUND, listen_dsn="postgresql://hunter2@127.0.0.1:1/a")
    channel = channel_of(store)
    channel.open()
    for tries in range(1, 6):
        await until(lambda tries=tries: len(hand.rested) == tries)  # type: ignore[misc]
        hand.tick()
    assert hand.rested == [5.0, 10.0, 20.0, 30.0, 30.0]
    await channel.close()
    [record] = caplog.records
    assert "ConnectionRefusedError" in record.getMessage()
    assert "hunter2" not in record.getMessage()


async def listeners(dsn: str) -> int:
    """The number of connections that listen."""
    [(count,)] = await execute(
        dsn, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN \"asgi_auth%' AND pid <> pg_backend_pid()"
    )
    return int(count)


async def silence(dsn: str) -> None:
    """Wait until the server has noticed that no connection listens."""

    async def is_silent() -> bool:
        return await listeners(dsn) == 0

    await eventually(is_silent)


@pytest.mark.anyio
async def test_channel_trusts_its_last_beat_only(hand: Hand) -> None:
    """Any other message under the channel's own name gives no trust."""
    channel = channel_of(PostgresStore("postgresql:///a", session_cache=BOUND))
    channel._beat, channel._sent = "7", hand.at
    channel._hear(None, 0, channel._own, "6")
    assert not channel.cache.trusted
    channel._hear(None, 0, channel._own, "7")
    assert channel.cache.trusted


@pytest.mark.anyio
@pytest.mark.parametrize("closed", [False, True], ids=["missed", "closed"])
async def test_channel_does_not_trust_a_late_beat(hand: Hand, closed: bool) -> None:
    """The driver may deliver a beat after the channel has dropped the connection. Such a beat gives no trust."""
    hears: list[Heard] = []
    beats: list[str] = []

    @asynccontextmanager
    async def listen(_channels: Sequence[str], hear: Heard) -> AsyncIterator[asyncio.Event]:
        hears.append(hear)
        yield asyncio.Event()

    async def tell(_channel: str, text: str) -> None:
        beats.append(text)

    channel = Channel(SessionCache(BOUND, clock=hand), listen=listen, tell=tell)
    channel.open()
    await until(lambda: hand.resting != [])
    if closed:
        await channel.close()
    else:
        hand.tick()
        await until(lambda: channel._lost)
    hears[0](None, 0, channel._own, beats[0])
    assert not channel.cache.trusted
    await channel.close()


@pytest.mark.anyio
async def test_channel_ends_with_the_store(dsn: str, store: PostgresStore) -> None:
    """Closing leaves no task and no connection. A second close has no effect. A look-up opens the channel again."""
    session_id, _, secret_hash = await signed_in(store)
    before = len(asyncio.all_tasks())
    assert await listeners(dsn) == 1
    await store.close()
    await store.close()
    assert len(asyncio.all_tasks()) < before
    assert not channel_of(store).cache.trusted
    await silence(dsn)
    await both(store, session_id, secret_hash)
    await until(lambda: channel_of(store).cache.trusted)
    assert await listeners(dsn) == 1


@pytest.mark.anyio
async def test_channel_cancelled_opening_leaves_nothing_behind(dsn: str, hand: Hand) -> None:
    """FT-2: wherever a look-up or closing is cancelled, no connection keeps listening, and the store can be used."""
    store = PostgresStore(dsn, session_cache=BOUND)
    _, _, secret_hash = await signed_in(store)

    async def act() -> None:
        await store.scope("user").sessions.load(secret_hash, now=NOW)
        await until(lambda: channel_of(store).cache.trusted)
        await store.close()

    async def check() -> None:
        assert await store.scope("user").sessions.load(secret_hash, now=NOW) is not None
        await store.close()
        assert not hand.resting

    assert await cancel_everywhere(act, check) >= 4
    await silence(dsn)


@pytest.mark.anyio
async def test_channel_is_closed_before_the_first_look_up(dsn: str, hand: Hand) -> None:
    """A script that looks up no session opens no channel."""
    store = PostgresStore(dsn, session_cache=BOUND)
    await signed_in(store)
    assert not hand.resting
    assert await listeners(dsn) == 0
    await store.close()


@pytest.mark.anyio
async def test_channel_does_not_hold_a_shared_pool(dsn: str, hand: Hand) -> None:
    """The channel holds no connection of the application's pool: the pool can be closed before the store."""
    pool = await asyncpg.create_pool(dsn, min_size=0, max_size=2)
    store = await listening(PostgresStore(pool=pool, listen_dsn=dsn, session_cache=BOUND))
    session_id, _, secret_hash = await signed_in(store)
    first = await both(store, session_id, secret_hash)
    await execute(dsn, "UPDATE asgi_auth_sessions SET revoked_at = now()")
    assert await both(store, session_id, secret_hash) == first
    async with asyncio.timeout(PATIENCE):
        await pool.close()
    await store.close()


@pytest.mark.anyio
async def test_channel_that_cannot_notify_turns_the_cache_off(
    dsn: str, hand: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    """Beats are sent the same way as changes. If the store cannot send changes, the cache keeps nothing."""
    pool = await asyncpg.create_pool(dsn, min_size=0, max_size=2)
    store = await listening(PostgresStore(pool=pool, listen_dsn=dsn, session_cache=BOUND))
    await pool.close()
    await until(lambda: len(hand.resting) == 1)
    hand.tick()
    await until(lambda: not channel_of(store).cache.trusted)
    await store.close()
    assert "InterfaceError" in caplog.text


@pytest.mark.anyio
async def test_channel_pause_ends_with_its_time_or_the_connection() -> None:
    """A pause lasts for the given time, or until the connection has ended."""
    ended = asyncio.Event()
    ended.set()
    async with asyncio.timeout(PATIENCE):
        await pause(1000, ended)
    await pause(0.001, asyncio.Event())


SCRIPT = """
import asyncio, logging, sys
from datetime import timedelta
from asgi_auth.stores import PostgresStore
from asgi_auth.testing.stores.records import NOW, add_session, add_user

logging.getLogger("asyncio").setLevel(logging.ERROR)  # a step that a busy machine makes slow is only a warning
store = PostgresStore(sys.argv[1], session_cache=timedelta(seconds=60))

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no fault of ours
    scoped = store.scope("user")
    _, secret_hash = await add_session(scoped, await add_user(scoped, sys.argv[2]))
    channel = store._database.connections().channel
    while not channel.cache.trusted:
        assert await scoped.sessions.load(secret_hash, now=NOW)
        await asyncio.sleep(0.01)

for name in "ab":
    sys.argv[2] += name
    asyncio.run(main())
print("done")
"""


@pytest.mark.anyio
async def test_channel_does_not_keep_a_script_alive(dsn: str) -> None:
    """A script that closes no store ends without a warning, even with two event loops one after the other."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT, dsn, "alice"]
    script = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert await script.communicate() == (b"done\n", b"")
    await silence(dsn)
