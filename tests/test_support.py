"""What tests wait with and measure with, where other programs keep the machine busy."""

import pytest

from tests.support import eventually, until
from tests.timing import TRIES, are_alike, measured, ratios_to

pytestmark = pytest.mark.anyio


async def test_eventually_asks_until_it_is_told_so() -> None:
    """The condition is asked again as long as it does not hold."""
    answers = [True, False, False]

    async def condition() -> bool:
        return answers.pop()

    await eventually(condition)
    assert answers == []


async def test_until_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A condition that never holds is a TimeoutError."""
    monkeypatch.setattr("tests.support.PATIENCE", 0.0)
    with pytest.raises(TimeoutError):
        await until(lambda: False)


def test_ratios_are_those_of_the_medians() -> None:
    """One outlier changes nothing."""
    assert ratios_to("new", {"new": [1.0, 9.0, 2.0], "taken": [3.0, 3.0, 0.0]}) == {"new": 1.0, "taken": 1.5}


@pytest.mark.parametrize(
    ("ratio", "alike"), [(0.84, False), (0.85, True), (1.0, True), (1.18, True), (1.19, False)], ids=str
)
def test_ratios_are_alike_within_bounds(ratio: float, alike: bool) -> None:
    """EN-2: from 0.85 to 1.18."""
    assert are_alike({"new": 1.0, "taken": ratio}) is alike


async def test_measured_is_the_first_that_is_alike() -> None:
    """A difference that another measurement does not show came from the machine."""
    found = [1.0, 2.0, 3.0]

    async def measure() -> dict[str, float]:
        return {"taken": found.pop()}

    assert await measured(measure) == {"taken": 1.0}


async def test_measured_is_the_last_if_none_is_alike() -> None:
    """A difference that every measurement shows is told."""
    found = [float(number) for number in range(2, 9)]

    async def measure() -> dict[str, float]:
        return {"taken": found.pop(0)}

    assert await measured(measure) == {"taken": 1.0 + TRIES}
