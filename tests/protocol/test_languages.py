"""Which language a client reads. RFC 9110 section 12.5.4, RFC 4647 section 3.4."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.protocol.languages import MAX_RANGES, preferred_language

AVAILABLE = ["en", "de", "fr", "zh-hant", "da"]


def preferred(*headers: str) -> str:
    """The language that is chosen from AVAILABLE; ``en`` if none matches."""
    return preferred_language(headers, AVAILABLE, default="en")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        pytest.param("da, en-gb;q=0.8, en;q=0.7", "da", id="the example of RFC 9110"),
        pytest.param("fr;q=0.5, de", "de", id="no weight is 1"),
        pytest.param("fr;q=0.5,de;q=0.7", "de", id="the weight counts, not the order"),
        pytest.param("fr;q=0.7, de;q=0.7", "fr", id="of equal weight the first"),
        pytest.param("fr ; Q=0.1\t,\tde ;q=0.001", "fr", id="white space, capital q"),
        pytest.param("fr;q=1.000, de;q=0.999", "fr", id="three digits"),
        pytest.param("FR", "fr", id="case does not matter"),
        pytest.param(",, fr ,", "fr", id="empty members of a list"),
        pytest.param("sv, nl, de;q=0.1", "de", id="what is not available is passed over"),
        pytest.param("sv", "en", id="nothing fits"),
        pytest.param("", "en", id="empty"),
        pytest.param("*", "en", id="anything is the default"),
        pytest.param("*, fr;q=0.5", "fr", id="anything names no language"),
    ],
)
def test_preferred_language_is_the_heaviest_that_is_available(header: str, language: str) -> None:
    """RFC 9110 section 12.5.4: a weight from 0 to 1 with at most three digits, 1 where none is given."""
    assert preferred(header) == language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        pytest.param("zh-Hant-CN-x-private1-private2", "zh-hant", id="the example of RFC 4647"),
        pytest.param("de-AT", "de", id="without the region"),
        pytest.param("de-AT-1996", "de", id="two steps"),
        pytest.param("zh-Hans, de;q=0.1", "de", id="no longer tag for a shorter one"),
        pytest.param("fr-a-b-c", "fr", id="single letters in a row"),
        pytest.param("x-de", "en", id="private use"),
        pytest.param("de-CH, fr;q=0.9", "de", id="shortened before the next range"),
    ],
)
def test_preferred_language_shortens_a_range_from_its_end(header: str, language: str) -> None:
    """RFC 4647 section 3.4: the last part is dropped, and a single letter before it, until a language fits."""
    assert preferred(header) == language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        pytest.param("de;q=0, fr;q=0.1", "fr", id="not wanted"),
        pytest.param("de;q=0.000", "en", id="three zeros"),
        pytest.param("de-CH, de;q=0, fr;q=0.1", "fr", id="not by way of a longer range"),
        pytest.param("de-AT;q=0", "en", id="of a longer range the shorter is not meant"),
        pytest.param("de, de;q=0", "de", id="of two the first counts"),
    ],
)
def test_preferred_language_weight_zero_is_not_wanted(header: str, language: str) -> None:
    """RFC 9110 section 12.4.2: a weight of 0 means not acceptable."""
    assert preferred(header) == language


@pytest.mark.parametrize(
    "member",
    [
        "de;q=2",
        "de;q=1.001",
        "de;q=0.1234",
        "de;q=",
        "de;q=-1",
        "de;q=0.٣",
        "de;q=1;x=1",
        "de_DE",
        "de-",
        "d e",
        "ninelettr",
    ],
)
def test_preferred_language_unreadable_member_is_passed_over(member: str) -> None:
    """An invalid member is skipped; the others are read."""
    assert preferred(f"{member}, fr;q=0.001") == "fr"


def test_preferred_language_several_headers_are_one_list() -> None:
    """RFC 9110 section 5.3: lines of one name are joined by commas."""
    assert preferred("fr;q=0.5", "de") == "de"
    assert preferred() == "en"


def test_preferred_language_reads_the_first_ranges_only() -> None:
    """Only the first 32 ranges are read."""
    assert preferred(*["sv"] * (MAX_RANGES - 1), "fr") == "fr"
    assert preferred(*["sv"] * MAX_RANGES, "fr") == "en"


@given(st.lists(st.text(), max_size=3))
def test_preferred_language_takes_any_text(headers: list[str]) -> None:
    """Any header gives an available language."""
    assert preferred(*headers) in AVAILABLE


@given(st.text(alphabet="deEN-*;q=01. \t,x", max_size=60))
def test_preferred_language_takes_what_looks_like_a_header(header: str) -> None:
    """The same for text that resembles a valid header."""
    assert preferred(header) in AVAILABLE
