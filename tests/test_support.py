"""The helpers that tests use to wait and to measure on a busy machine."""

import pytest

from tests.support import eventually, until
from tests.timing import TRIES, are_alike, measured, ratios_to

pytestmark = pytest.mark.anyio


async def test_eventually_asks_until_the_condition_holds() -> None:
    """The condition is called again until it is true."""
    answers = [True, False, False]

    async def condition() -> bool:
        return answers.pop()

    await eventually(condition)
    assert answers == []


async def test_until_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """TimeoutError if the condition never becomes true."""
    monkeypatch.setattr("tests.support.PATIENCE", 0.0)
    with pytest.raises(TimeoutError):
        await until(lambda: False)


def test_ratios_are_those_of_the_medians() -> None:
    """One outlier does not change the ratio."""
    assert ratios_to("new", {"new": [1.0, 9.0, 2.0], "taken": [3.0, 3.0, 0.0]}) == {"new": 1.0, "taken": 1.5}


@pytest.mark.parametrize(
    ("ratio", "alike"), [(0.84, False), (0.85, True), (1.0, True), (1.18, True), (1.19, False)], ids=str
)
def test_ratios_are_alike_within_bounds(ratio: float, alike: bool) -> None:
    """EN-2: ratios from 0.85 to 1.18 are alike."""
    assert are_alike({"new": 1.0, "taken": ratio}) is alike


async def test_measured_returns_the_first_alike_measurement() -> None:
    """A difference that a later measurement does not show was caused by the machine."""
    found = [1.0, 2.0, 3.0]

    async def measure() -> dict[str, float]:
        return {"taken": found.pop()}

    assert await measured(measure) == {"taken": 1.0}


async def test_measured_returns_the_last_if_none_is_alike() -> None:
    """A difference that every measurement shows is returned."""
    found = [float(number) for number in range(2, 9)]

    async def measure() -> dict[str, float]:
        return {"taken": found.pop(0)}

    assert await measured(measure) == {"taken": 1.0 + TRIES}
