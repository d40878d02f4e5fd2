"""A clock that stands still."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """A ``clock`` for ``Authentication``. It moves only by ``advance``.

    >>> clock = FakeClock()
    >>> clock.advance(timedelta(hours=1))
    >>> clock().isoformat()
    '2030-01-01T01:00:00+00:00'
    """

    def __init__(self, now: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        """Args: now: The first instant; aware."""
        self._now = now.astimezone(UTC)

    def __call__(self) -> datetime:
        """The current instant, aware, in UTC."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move the clock by *by*, which may be negative."""
        self._now += by
