"""Upkeep in the background: pruning. A failed part does not stop the others, and a jump of the clock stops pruning."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth import upkeep
from asgi_auth.errors import InvalidTokenError, StoreUnavailableError, UnavailableError
from asgi_auth.hooks import Hook
from asgi_auth.limits import Limit
from asgi_auth.runtime.elapsed import elapsed
from asgi_auth.testing import FakeClock
from asgi_auth.upkeep import LARGEST_STEP, SETTLED_AFTER, ClockWatch
from tests.support import LocalAuthentication, is_alive, make_auth, register, until

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


class Tidy(Hook):
    """An add-on with its own rows."""

    def __init__(self, name: str = "tidy") -> None:
        self.name, self.calls = name, 0

    async def prune(self, *, now: Any, limit: int) -> int:
        """Count the call and delete no row."""
        self.calls += 1
        return 0


class Hand:
    """A replacement for ``elapsed``."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """The time that the test has set."""
        return self.seconds

    def pass_with(self, clock: FakeClock, by: timedelta) -> None:
        """Advance both clocks."""
        self.seconds += by.total_seconds()
        clock.advance(by)


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    """The elapsed time, set by the test; pruning never pauses."""
    hand = Hand()
    monkeypatch.setattr(upkeep, "elapsed", hand)
    monkeypatch.setattr(upkeep, "PRUNE_INTERVAL", timedelta(0))
    return hand


# --- parts ----------------------------------------------------------------------------------------------------------


async def _with_expired_rows(auth: LocalAuthentication) -> None:
    """One row of each part, eight days old."""
    await register(auth)
    await auth.tokens.issue("invitation", account=None, lifetime=timedelta(minutes=1))
    await auth.services.limiter.take("mail", "key", Limit(1, timedelta(minutes=1)))
    auth.clock.advance(timedelta(days=8))


def _break(auth: LocalAuthentication, part: str, patch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let one part raise *error* when it is pruned."""

    async def prune(**_: Any) -> int:
        raise error

    hook = auth.services.hooks[1]
    patch.setattr(hook if part == "'tidy'" else getattr(auth.services.store, part), "prune", prune)


PARTS = ["sessions", "tokens", "counters", "'tidy'"]


@pytest.mark.parametrize("part", PARTS)
async def test_failed_part_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    """Every other part is pruned; then prune raises, and the log names the part and the type of the error."""
    hooks = [Tidy(), Tidy("last")]
    auth = make_auth(tmp_path, add_ons=hooks, base_url="https://app.example.org")
    async with auth.running():
        await _with_expired_rows(auth)
        with monkeypatch.context() as patch:
            _break(auth, part, patch, ZeroDivisionError("secret"))
            with pytest.raises(ZeroDivisionError):
                await auth.prune()
        assert [hook.calls for hook in hooks] == [part != "'tidy'", 1]
        assert await auth.prune() == (part != "'tidy'")

    (record,) = [record for record in caplog.records if record.message.startswith("pruning")]
    assert (record.message, record.exc_info) == (f"pruning {part} failed: ZeroDivisionError", None)


async def test_hanging_part_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A hanging part is cancelled and named in the log; a TimeoutError of a part is an error like any other."""
    auth, last, cancelled = make_auth(tmp_path, base_url="https://app.example.org"), Tidy("last"), list[str]()

    async def hang(**_: Any) -> int:
        try:
            return await asyncio.Event().wait()
        finally:
            cancelled.append("hang")

    async def give_up(**_: Any) -> int:
        raise TimeoutError

    parts = [("hang", hang), ("give_up", give_up), ("last", last.prune)]
    monkeypatch.setattr(auth.upkeep, "_parts", lambda: parts)
    monkeypatch.setattr(upkeep, "PRUNE_TIMEOUT", timedelta(seconds=0.2))
    async with auth.running():
        with pytest.raises(UnavailableError):
            await auth.prune()

    assert (cancelled, last.calls) == (["hang"], 1)
    told = ["pruning hang failed: no end within 0.2 s", "pruning give_up failed: TimeoutError"]
    assert caplog.messages[-2:] == told


async def test_first_failure_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """prune raises the first of several failures."""
    auth = make_auth(tmp_path, add_ons=[Tidy()])
    async with auth.running():
        _break(auth, "'tidy'", monkeypatch, KeyError())
        _break(auth, "tokens", monkeypatch, StoreUnavailableError("locked"))
        with pytest.raises(StoreUnavailableError, match="locked"):
            await auth.prune()


@pytest.mark.parametrize("error", [ZeroDivisionError("a defect"), StoreUnavailableError("locked")])
async def test_pruning_continues_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hand: Hand, error: Exception
) -> None:
    """The next round runs after any exception; a local instance logs the traceback of a defect."""
    hook = Tidy()
    auth = make_auth(tmp_path, add_ons=[hook])
    _break(auth, "sessions", monkeypatch, error)
    async with auth.running():
        await until(lambda: hook.calls > 2)
    record = next(record for record in caplog.records if record.message.startswith("pruning sessions failed: "))
    locked = isinstance(error, StoreUnavailableError)
    assert record.message.endswith("locked" if locked else "ZeroDivisionError")
    assert (record.exc_info is None) is locked


async def test_upkeep_continues_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hand: Hand
) -> None:
    """A failure of the work beside pruning is logged, and upkeep continues."""
    tries: list[str] = []
    auth = make_auth(tmp_path)

    async def note_costs() -> None:
        tries.append("try")
        raise ZeroDivisionError

    async with auth.running():
        monkeypatch.setattr(auth._upkeep, "_note_costs", note_costs)
        await until(lambda: len(tries) > 2)
    assert "upkeep failed: ZeroDivisionError" in caplog.messages


# --- a clock that jumps ---------------------------------------------------------------------------------------------


async def test_clock_that_jumps_ahead_deletes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hand: Hand
) -> None:
    """A clock that was eight days ahead for a while deletes no session; after eight real days it is deleted."""
    hook = Tidy()
    auth = make_auth(tmp_path, add_ons=[hook])

    async def pruned() -> None:
        calls = hook.calls
        await until(lambda: hook.calls > calls + 1)

    async with auth.running():
        _, token = await register(auth)
        await pruned()
        auth.clock.advance(timedelta(days=8))
        caplog.clear()
        await until(lambda: len(caplog.messages) > 1)
        assert set(caplog.messages) == {
            "nothing is pruned: the clock has jumped ahead by 8 days, 0:00:00; if it is right, pruning resumes in a day"
        }
        auth.clock.advance(timedelta(days=-8))
        await pruned()
        assert await is_alive(auth, token)

        hand.pass_with(auth.clock, timedelta(days=8))
        await pruned()
        auth.clock.advance(timedelta(days=-8))
        with pytest.raises(InvalidTokenError):
            await auth.sessions.load(token.cookie)


async def test_prune_by_hand_ignores_clock_jumps(tmp_path: Path, hand: Hand) -> None:
    """prune deletes rows without the check for jumps of the clock."""
    auth = make_auth(tmp_path)
    async with auth.running():
        await _with_expired_rows(auth)
        assert await auth.prune() == 3


def test_step_up_to_the_largest_is_accepted(hand: Hand) -> None:
    """A step of up to 15 minutes is a correction, a larger one a jump ahead; a step back is always accepted."""
    for step, ahead in ((LARGEST_STEP, False), (LARGEST_STEP + SECOND, True), (-DAY, False)):
        clock = FakeClock()
        watch = ClockWatch(clock)
        clock.advance(step)
        assert watch.ahead() == (step if ahead else timedelta(0))


def test_clock_is_accepted_after_a_day(hand: Hand) -> None:
    """A clock is accepted a day after its last jump: the machine may have started without the time, or slept."""
    clock = FakeClock()
    watch = ClockWatch(clock)
    hand.pass_with(clock, 30 * DAY)
    assert not watch.ahead()
    clock.advance(8 * DAY)
    assert watch.ahead() == 8 * DAY
    hand.pass_with(clock, SETTLED_AFTER - SECOND)
    assert watch.ahead() == 8 * DAY
    clock.advance(DAY)  # a jump before the day is over
    assert watch.ahead() == 9 * DAY
    hand.pass_with(clock, SETTLED_AFTER - SECOND)
    assert watch.ahead() == 9 * DAY
    hand.pass_with(clock, SECOND)
    assert not watch.ahead()
    clock.advance(DAY)
    assert watch.ahead() == DAY


def test_small_steps_add_up(hand: Hand) -> None:
    """Several small steps ahead are a jump."""
    clock = FakeClock()
    watch = ClockWatch(clock)
    hand.pass_with(clock, 2 * DAY)
    ahead = []
    for _ in range(4):
        clock.advance(LARGEST_STEP * 2 / 3)
        ahead.append(bool(watch.ahead()))
    assert ahead[0] is False
    assert ahead[-1] is True


def test_clock_set_back_and_ahead_again_is_a_jump(hand: Hand) -> None:
    """After a step back, the return to the earlier time is a jump."""
    clock = FakeClock()
    watch = ClockWatch(clock)
    clock.advance(-8 * DAY)
    assert not watch.ahead()
    clock.advance(8 * DAY)
    assert watch.ahead() == 8 * DAY


def test_elapsed_time_never_decreases() -> None:
    """elapsed never decreases."""
    first = elapsed()
    assert first <= elapsed()
