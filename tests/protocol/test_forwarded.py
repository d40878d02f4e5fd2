"""X-Forwarded-For and Forwarded (RFC 7239), from the right."""

import time
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.protocol.forwarded import ForwardedHeader, hops


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["203.0.113.7"], ["203.0.113.7"]),
        (["198.51.100.1, 203.0.113.7"], ["203.0.113.7", "198.51.100.1"]),
        (["198.51.100.1", "203.0.113.7 ,\t10.0.0.1,"], ["10.0.0.1", "203.0.113.7", "198.51.100.1"]),
        (["junk, 203.0.113.7"], ["203.0.113.7", "junk"]),
    ],
)
def test_x_forwarded_for(values: list[str], expected: list[str]) -> None:
    """The entries between commas are returned; the caller decides which are addresses."""
    assert list(hops("x-forwarded-for", values)) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # the examples of RFC 7239 section 4
        (['for="_gazonk"'], ["_gazonk"]),
        (['For="[2001:db8:cafe::17]:4711"'], ["[2001:db8:cafe::17]:4711"]),
        (["for=192.0.2.60;proto=http;by=203.0.113.43"], ["192.0.2.60"]),
        (["for=192.0.2.43, for=198.51.100.17"], ["198.51.100.17", "192.0.2.43"]),
        # and of sections 6.3 and 7.1
        (["for=_hidden, for=_SEVKISEK"], ["_SEVKISEK", "_hidden"]),
        (['for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown'], ["unknown", "[2001:db8:cafe::17]", "192.0.2.43"]),
        (
            ["for=192.0.2.43", 'for="[2001:db8:cafe::17]", for=unknown'],
            ["unknown", "[2001:db8:cafe::17]", "192.0.2.43"],
        ),
        # what is allowed and rare
        ([";FOR=192.0.2.1;;secret=_a;"], ["192.0.2.1"]),
        (["proto=https ; for=192.0.2.1"], ["192.0.2.1"]),
        ([", for=192.0.2.1 , ,"], ["192.0.2.1"]),
        ([r'for="192\.0.2.1"'], ["192.0.2.1"]),
        (['for=192.0.2.1;host="a,b;c=d"'], ["192.0.2.1"]),
        (['for=192.0.2.2, for="192.0.2.1:80";host="a,for=198.51.100.1,b"'], ["192.0.2.1:80", "192.0.2.2"]),
    ],
)
def test_forwarded(values: list[str], expected: list[str]) -> None:
    """RFC 7239 section 4: names in any case, tokens or quoted strings, several elements and lines are read."""
    assert list(hops("forwarded", values)) == expected


@pytest.mark.parametrize(
    "broken",
    [
        "203.0.113.7",
        "for",
        "for=",
        "for=[2001:db8::1]",
        "for=192.0.2.1:80",
        "for =192.0.2.1",
        "for=192.0.2.1 proto=https",
        "for=192.0.2.1;for=192.0.2.2",
        "proto=https",
        'for="192.0.2.1',
        'for=192.0.2.1"',
        'for="192.0.2.1"x',
        'for="',
        "for='192.0.2.1';=",
        "for=192.0.2.1\x00",
        ";",
    ],
)
def test_forwarded_ends_at_what_cannot_be_read(broken: str) -> None:
    """HT-2: an element without exactly one readable ``for`` ends the reading, which begins at the right."""
    for values in ([f"for=198.51.100.1, {broken}, for=203.0.113.7"], ["for=198.51.100.1", broken, "for=203.0.113.7"]):
        assert list(hops("forwarded", values)) == ["203.0.113.7"]
    assert list(hops("forwarded", [broken])) == []


@pytest.mark.parametrize("appended", ["for=203.0.113.7", 'for="203.0.113.7";proto="https"'])
@pytest.mark.parametrize("mark", ['for="', 'for="\\', '"', 'for=192.0.2.1;x="a,b'])
def test_open_quotation_mark_hides_no_hop(mark: str, appended: str) -> None:
    """HT-2: an open quotation mark of a client does not hide the entry that the proxy appends."""
    assert next(hops("forwarded", [f"{mark}, {appended}"])) == "203.0.113.7"


def test_end_of_a_long_header_is_read() -> None:
    """HT-2, DO-4: the last 1,024 characters are read, without an element that begins before them."""
    for header, element in (("x-forwarded-for", "10.0.0.2"), ("forwarded", "for=10.0.0.2")):
        long = ",".join([element] * 200_000)
        count = 1024 // (len(element) + 1)
        assert list(hops(header, [f"for=192.0.2.1,{long}"])) == ["10.0.0.2"] * count  # type: ignore[arg-type]
    assert list(hops("forwarded", ['for=192.0.2.1;x="' + "," * 2000 + '";y=z, for=192.0.2.2'])) == ["192.0.2.2"]


@given(st.sampled_from(get_args(ForwardedHeader)), st.lists(st.text('for=;, "\\192.0[:]_') | st.text()))
def test_hops_never_raise(header: ForwardedHeader, values: list[str]) -> None:
    """Any header gives a list of texts."""
    assert all(list(hops(header, values)))


NODES = st.ip_addresses(v=4).map(str) | st.from_regex(r"_[A-Za-z0-9._-]{1,8}", fullmatch=True)
QUOTED_NODES = st.ip_addresses(v=6).map(lambda address: f"[{address}]:80") | st.text("unkow,;=[]:", min_size=1)


@given(st.lists(st.lists(st.tuples(st.booleans(), NODES) | st.tuples(st.just(True), QUOTED_NODES), max_size=4)))
def test_every_hop_of_a_forwarded_header_is_read(lines: list[list[tuple[bool, str]]]) -> None:
    """RFC 7239 section 4: every hop is read, whatever its quoted strings and lines are."""
    values = [", ".join(f'By=_x;FOR="{node}"' if quoted else f"for={node}" for quoted, node in line) for line in lines]
    nodes = [node for line in lines for _, node in line]

    found = list(hops("forwarded", values))
    assert found == nodes[::-1][: len(found)]
    assert len(found) == len(nodes) or len(",".join(values)) > 1024


@pytest.mark.parametrize("filler", [",", '"', ";", " ", '\\"', ' "', "for=a", "for=a;", 'for="', '",', "\t;"])
def test_hops_take_linear_time(filler: str) -> None:
    """DO-4: any header of 64 KiB takes under 50 ms."""
    started = time.process_time()
    for header in get_args(ForwardedHeader):
        for end in ("", "x", '"'):
            list(hops(header, [filler * (65536 // len(filler)) + end]))

    assert time.process_time() - started < 0.05
