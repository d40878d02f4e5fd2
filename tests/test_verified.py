"""asgi_auth.verified: a bounded memory of credentials that passed every check."""

import threading
from concurrent.futures import ThreadPoolExecutor

from asgi_auth.verified import LIMIT, VerifiedCredentials


def test_oldest_credential_is_forgotten_first() -> None:
    """At most LIMIT credentials are remembered; an unknown or forgotten one has no value."""
    remembered = VerifiedCredentials[int]()
    for number in range(LIMIT + 1):
        remembered.keep(str(number), number)
    assert len(remembered) == LIMIT == 4096
    assert [remembered.get(each) for each in ("0", "1", str(LIMIT), "other")] == [None, 1, LIMIT, None]


def test_text_that_is_not_utf8_is_remembered() -> None:
    """A header may contain any bytes."""
    remembered = VerifiedCredentials[int]()
    remembered.keep("\udcff", 1)
    assert remembered.get("\udcff") == 1


def test_threads_share_a_memory() -> None:
    """Event loops in several threads may add and forget credentials at once; no call fails."""
    remembered, start = VerifiedCredentials[int](), threading.Barrier(8)
    for number in range(LIMIT):
        remembered.keep(str(number), number)

    def keep(thread: int) -> None:
        start.wait()
        for number in range(2000):
            remembered.keep(f"{thread} {number}", number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, range(8)))
    assert len(remembered) <= LIMIT + 8
