"""asgi_auth.testing: helpers for the tests of an application."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from asgi_auth import testing
from asgi_auth.testing import FakeClock


def test_clock_stands_still_until_it_is_moved() -> None:
    """The clock returns the same instant, in UTC, until it is advanced."""
    clock = FakeClock(datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    assert clock() == clock() == datetime(2030, 1, 1, tzinfo=UTC)
    assert clock().tzinfo is UTC
    clock.advance(timedelta(seconds=1))
    assert clock() == datetime(2030, 1, 1, 0, 0, 1, tzinfo=UTC)
    clock.advance(timedelta(seconds=-2))
    assert clock() == datetime(2029, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_testing_has_its_public_names() -> None:
    """Every name in __all__ exists; another name is an AttributeError."""
    assert testing.__all__ == sorted(testing.__all__)
    assert all(getattr(testing, name) for name in testing.__all__)
    with pytest.raises(AttributeError, match="Nothing"):
        testing.Nothing  # noqa: B018  # the look-up is what fails
