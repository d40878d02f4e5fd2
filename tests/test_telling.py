"""Telling: at most one line a second of each kind, and a count of the others."""

import logging
from datetime import timedelta

import pytest

from asgi_auth.runtime.telling import Telling


class Seconds:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_first_line_of_a_kind_is_written_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first line has the caller's text and level, and is in the library's log."""
    Telling().tell(logging.ERROR, "outage", "%s does not answer", "the store")
    assert caplog.record_tuples == [("asgi_auth", logging.ERROR, "the store does not answer")]


@pytest.mark.parametrize(("passed", "lines"), [(0.0, 1), (0.999, 1), (1.0, 2)])
def test_next_line_of_a_kind_waits_for_a_second(passed: float, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    """A second line is written only after a second."""
    clock = Seconds()
    telling = Telling(clock=clock)
    telling.tell(logging.ERROR, "outage", "down")
    clock.now += passed
    telling.tell(logging.ERROR, "outage", "down")
    assert caplog.messages == ["down"] * lines


def test_line_counts_the_omitted_ones(caplog: pytest.LogCaptureFixture) -> None:
    """The count is written once, with the next line."""
    clock = Seconds()
    telling = Telling(clock=clock)
    for number in range(43):
        telling.tell(logging.ERROR, "outage", "down: %s", number)
    for _ in range(2):
        clock.now += 1
        telling.tell(logging.ERROR, "outage", "down: %s", "still")
    assert caplog.messages == ["down: 0", "down: still (42 more like it since the last such line)", "down: still"]


def test_kinds_are_counted_apart(caplog: pytest.LogCaptureFixture) -> None:
    """A line of one kind does not delay a line of another."""
    telling = Telling(clock=Seconds())
    telling.tell(logging.ERROR, "outage", "down")
    telling.tell(logging.WARNING, "origin", "refused")
    assert caplog.messages == ["down", "refused"]


def test_interval_can_be_chosen(caplog: pytest.LogCaptureFixture) -> None:
    """The minimum time between two lines is an option."""
    clock = Seconds()
    telling = Telling(clock=clock, every=timedelta(minutes=1))
    for _ in range(60):
        telling.tell(logging.ERROR, "outage", "down")
        clock.now += 1
    telling.tell(logging.ERROR, "outage", "down")
    assert caplog.messages == ["down", "down (59 more like it since the last such line)"]


def test_number_of_kinds_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Over the limit the kind with the oldest line is forgotten; its next line is a first one."""
    telling = Telling(clock=Seconds(), kinds=2)
    for key in ("one", "two", "three", "one", "three"):
        telling.tell(logging.WARNING, key, key)
    assert caplog.messages == ["one", "two", "three", "one"]


def test_count_of_a_forgotten_kind_is_written(caplog: pytest.LogCaptureFixture) -> None:
    """When a kind is forgotten, its count of omitted lines is written."""
    telling = Telling(clock=Seconds(), kinds=1)
    for key in ("one", "one", "one", "two"):
        telling.tell(logging.WARNING, key, "%s happened", key)
    assert caplog.messages == ["one happened", "2 more lines like '%s happened'", "two happened"]


@pytest.mark.parametrize(("passed", "ended"), [(0.999, False), (1.0, True)])
def test_kind_ends_after_a_second_without_a_line(passed: float, ended: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The last line counts all lines since the first, written or not; a second end writes nothing."""
    clock = Seconds()
    telling = Telling(clock=clock)
    for _ in range(3):
        telling.tell(logging.ERROR, "outage", "down")
        clock.now += 0.75
    telling.tell(logging.ERROR, "outage", "down")
    caplog.clear()
    clock.now += passed
    over = ["over: 4 in 3 s"] if ended else []
    assert telling.end(logging.WARNING, "outage", "over: %d in %.0f s") is ended
    assert caplog.messages == over
    clock.now += 1
    assert telling.end(logging.WARNING, "outage", "over: %d in %.0f s")
    assert telling.end(logging.WARNING, "outage", "over: %d in %.0f s")
    assert len(caplog.messages) == 1


def test_ended_kind_begins_again(caplog: pytest.LogCaptureFixture) -> None:
    """The next line of an ended kind is written at once, and the count begins at one."""
    clock = Seconds()
    telling = Telling(clock=clock)
    for _ in range(2):
        telling.tell(logging.ERROR, "outage", "down")
        telling.tell(logging.ERROR, "outage", "down")
        clock.now += 1
        assert telling.end(logging.WARNING, "outage", "over: %d in %.0f s")
    assert caplog.messages == ["down", "over: 2 in 1 s"] * 2
