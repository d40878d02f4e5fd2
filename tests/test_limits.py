"""asgi_auth.limits: the limiter."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from asgi_auth.errors import ConfigurationError, RateLimitedError
from asgi_auth.limits import Limit, SourceLimiter
from tests.support import SECRET, make_auth

pytestmark = pytest.mark.anyio
TWICE = Limit(2, timedelta(hours=1))


async def test_take_refuses_more_calls_until_the_window_ends(tmp_path: Path) -> None:
    """RL-2: Retry-After is the rest of the window, which begins with the first call; refused calls do not extend it."""
    auth = make_auth(tmp_path)
    limiter = auth.services.limiter
    await auth.open()
    await limiter.take("mail", "a@x.example", TWICE)
    auth.clock.advance(timedelta(minutes=30))
    await limiter.take("mail", "a@x.example", TWICE)
    for _ in range(2):
        with pytest.raises(RateLimitedError) as refused:
            await limiter.take("mail", "a@x.example", TWICE)
        assert refused.value.headers == {"Retry-After": "1800"}
    auth.clock.advance(timedelta(minutes=30, microseconds=-1))
    with pytest.raises(RateLimitedError) as refused:
        await limiter.take("mail", "a@x.example", TWICE)
    assert refused.value.headers == {"Retry-After": "1"}
    auth.clock.advance(timedelta(microseconds=1))
    await limiter.take("mail", "a@x.example", TWICE)
    await auth.close()


async def test_take_does_not_count_refused_calls(tmp_path: Path) -> None:
    """RL-5: of a hundred concurrent calls two are counted, so that after two are given back two can be taken again."""
    auth = make_auth(tmp_path)
    limiter = auth.services.limiter
    await auth.open()
    for _ in range(2):
        allowed = await asyncio.gather(*(limiter.allows("mail", "a@x.example", TWICE) for _ in range(100)))
        assert allowed.count(True) == 2
        for _ in range(2):
            await limiter.give_back("mail", "a@x.example")
    await auth.close()


async def test_check_refuses_a_used_up_limit_and_counts_nothing(tmp_path: Path) -> None:
    """RL-2: ``check`` does not count, so that it refuses no other caller; its error has Retry-After."""
    auth = make_auth(tmp_path)
    limiter = auth.services.limiter
    await auth.open()
    for _ in range(2):
        for _ in range(5):
            await limiter.check("mail", "a@x.example", TWICE)
        await limiter.take("mail", "a@x.example", TWICE)
        auth.clock.advance(timedelta(minutes=10))
    with pytest.raises(RateLimitedError) as refused:
        await limiter.check("mail", "a@x.example", TWICE)
    assert refused.value.headers == {"Retry-After": "2400"}
    await limiter.check("mail", "b@x.example", TWICE)
    auth.clock.advance(timedelta(minutes=40))
    await limiter.check("mail", "a@x.example", TWICE)
    await auth.close()


async def test_source_is_an_address_or_a_network(tmp_path: Path) -> None:
    """An IPv6 /64 network counts as one client; a request without an address is not counted."""
    auth = make_auth(tmp_path)
    source = SourceLimiter(auth.services.limiter, "asked", TWICE)
    await auth.open()
    for address in ("2001:db8::1", "2001:db8::2", "192.0.2.1"):
        await source.check(address)
        await source.take(address)
    for spent in ("2001:db8::3", "2001:db8:0:0:ffff::"):
        for act in (source.check, source.take):
            with pytest.raises(RateLimitedError):
                await act(spent)
    for free in ("2001:db8:0:1::1", "192.0.2.1", "192.0.2.2"):
        await source.check(free)
        await source.take(free)
    for _ in range(5):
        await source.check(None)
        await source.take(None)
    await auth.close()


async def test_names_and_keys_are_counted_separately(tmp_path: Path) -> None:
    """A used-up limit does not affect other addresses or other acts."""
    auth = make_auth(tmp_path)
    limiter = auth.services.limiter
    await auth.open()
    for _ in range(2):
        assert await limiter.allows("mail", "a@x.example", TWICE)
    assert not await limiter.allows("mail", "a@x.example", TWICE)
    assert await limiter.allows("mail", "b@x.example", TWICE)
    assert await limiter.allows("invite", "a@x.example", TWICE)
    await auth.close()


async def test_given_back_call_can_be_taken_again(tmp_path: Path) -> None:
    """``give_back`` removes the count of an act that did not happen."""
    auth = make_auth(tmp_path)
    limiter = auth.services.limiter
    await auth.open()
    for _ in range(5):
        await limiter.take("mail", "a@x.example", TWICE)
        await limiter.give_back("mail", "a@x.example")
    await auth.close()


async def test_counting_is_exact_and_survives_a_restart(tmp_path: Path) -> None:
    """RL-5, RL-7: of twenty concurrent calls two are allowed; a restart keeps the count."""
    auth = make_auth(tmp_path)
    await auth.open()
    passed = await asyncio.gather(*(auth.services.limiter.allows("mail", "a@x.example", TWICE) for _ in range(20)))
    assert sum(passed) == 2
    await auth.close()
    again = make_auth(tmp_path)
    await again.open()
    assert not await again.services.limiter.allows("mail", "a@x.example", TWICE)
    await again.close()


async def test_key_is_stored_as_a_keyed_hash(tmp_path: Path) -> None:
    """The database contains no address and no secret, only a keyed hash."""
    auth = make_auth(tmp_path)
    await auth.open()
    await auth.services.limiter.take("mail", "a@x.example", TWICE)
    await auth.close()
    kept = _everything(tmp_path)
    assert b"a@x.example" not in kept
    assert auth.services.digest("counter", "a@x.example") in kept
    assert SECRET.encode() not in kept


def _everything(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


async def test_ended_counters_are_pruned(tmp_path: Path) -> None:
    """The counter of an ended window is deleted."""
    auth = make_auth(tmp_path)
    await auth.open()
    await auth.services.limiter.take("mail", "a@x.example", TWICE)
    assert await auth.prune() == 0
    auth.clock.advance(timedelta(hours=1))
    assert await auth.prune() == 1
    await auth.close()


@pytest.mark.parametrize(
    ("count", "window"), [(0, timedelta(1)), (True, timedelta(1)), (1.5, timedelta(1)), (1, timedelta(0)), (1, 60)]
)
def test_invalid_limit_is_refused(count: int, window: timedelta) -> None:
    """A limit with an invalid count or window is refused."""
    with pytest.raises(ConfigurationError, match="Limit: "):
        Limit(count, window)
