"""asgi_auth.checks: invalid options are refused by name."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from asgi_auth.checks import check_count, check_duration, check_mail_url, takes
from asgi_auth.errors import ConfigurationError

A_DAY = timedelta(days=1)
DURATION, COUNT = "x must be a positive timedelta", "x must be a positive number"
URL = "x must be an absolute URL: it goes into a mail"


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (check_duration, None, DURATION),
        (check_duration, 60, DURATION),
        (check_duration, timedelta(0), DURATION),
        (check_duration, -A_DAY, DURATION),
        (partial(check_duration, longest=A_DAY), A_DAY + timedelta.resolution, "x must be at most 1 day, 0:00:00"),
        (check_count, 0, COUNT),
        (check_count, True, COUNT),
        (check_count, 1.0, COUNT),
        (check_mail_url, "/reset", URL),
        (check_mail_url, "reset", URL),
        (check_mail_url, b"https://www.example.org", URL),
    ],
    ids=range(11),
)
def test_invalid_value_is_refused_by_name(check: Callable[..., None], value: Any, message: str) -> None:
    """The message names the parameter and its requirement."""
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        check("x", value)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_duration, timedelta.resolution),
        (partial(check_duration, longest=A_DAY), A_DAY),
        (check_count, 1),
        (check_mail_url, None),
        (check_mail_url, "https://www.example.org/reset?lang=de"),
    ],
    ids=range(5),
)
def test_valid_value_is_accepted(check: Callable[..., None], value: Any) -> None:
    """The limits themselves are valid."""
    check("x", value)


@pytest.mark.parametrize(
    ("function", "counts"),
    [
        (lambda a, b: None, [2]),
        (lambda a, b, c=None: None, [2, 3]),
        (lambda *args: None, [1, 2, 3]),
        (lambda a, *, b: None, []),
        (partial(lambda a, b: None, 1), [1]),
        (dict.fromkeys, [1, 2]),
        (type, []),
        ("text", []),
    ],
    ids=range(8),
)
def test_takes_reports_every_possible_number_of_arguments(function: Any, counts: list[int]) -> None:
    """An optional parameter may be given or not. An object without a signature takes no arguments."""
    assert [count for count in (1, 2, 3) if takes(function, count)] == counts
