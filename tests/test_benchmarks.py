"""The benchmark that compares two revisions: its rule and its command line. `tox -e bench` runs the rest."""

import pytest

from benchmarks.against import Costs, Turn, orders, row, spread, status, table
from benchmarks.run import arguments


def turns(*costs: tuple[float, float, float]) -> list[Turn]:
    """One turn for each triple of costs: the earlier revision, the same again, the working tree."""
    return [[Costs(*each)] for each in costs]


@pytest.mark.parametrize(("working", "slower"), [(80, False), (105, False), (105.1, True)], ids=["less", "at", "over"])
def test_row_cost_over_bound_is_slower(working: float, slower: bool) -> None:
    """If the earlier revision never varies, the working tree may cost up to 5 % more, the bound included."""
    assert row("cookie", turns(*[(100, 100, working)] * 10)).slower is slower


def test_row_spread_of_earlier_revision_widens_bound() -> None:
    """If the earlier revision differs from itself by 10 % in each turn, the bound is 10 % higher."""
    found = row("cookie", turns(*[(100, 110, 120), (110, 100, 120)] * 5))

    assert found.spread == pytest.approx(0.10)
    assert found.bound == pytest.approx(1.15)
    assert not found.slower


def test_row_load_on_all_candidates_changes_no_ratio() -> None:
    """Costs are compared within a turn: a machine that is busy for half of the run changes no result."""
    found = row("cookie", turns(*[(100, 100, 110)] * 5, *[(300, 300, 330)] * 5))

    assert found.ratio == pytest.approx(1.1)
    assert found.spread == 0
    assert found.slower


def test_row_one_disturbed_measurement_changes_no_ratio() -> None:
    """Medians are compared, within a turn and over the turns."""
    calm, disturbed = Costs(100, 100, 100), Costs(100, 100, 900)

    found = row("cookie", [[calm, disturbed, calm], [disturbed] * 3, [calm] * 3])

    assert (found.earlier, found.ratio, found.slower) == (100, 1, False)


def test_spread_more_turns_narrow_it() -> None:
    """More turns give a narrower spread, because the median varies less by chance."""
    ratios = [0.90, 0.94, 0.98, 1.02, 1.06, 1.10]

    assert 0 < spread(ratios * 8) < spread(ratios * 2) < 0.1


def test_spread_same_ratios_give_same_spread() -> None:
    """The spread of the same ratios is always the same."""
    assert spread([0.9, 1.05, 1.2]) == spread([0.9, 1.05, 1.2])


def test_table_names_every_slower_figure() -> None:
    """Each line has the medians of both, the spread, the ratio, its bound and the verdict."""
    rows = [row("cookie", turns((100, 100, 120))), row("bearer, µs", turns((40, 40, 40)))]

    lines = table(rows, "bb12068").splitlines()

    assert lines[0].split() == ["figure", "bb12068", "spread", "working", "tree", "ratio", "bound", "verdict"]
    assert lines[1].split() == ["cookie", "100", "0.0%", "120", "1.200", "1.050", "SLOWER"]
    assert lines[2].split() == ["bearer,", "µs", "40", "0.0%", "40", "1.000", "1.050", "not", "slower"]
    assert lines[-1] == "1 of 2 figures are slower than bb12068."
    assert table(rows[1:], "bb12068").endswith("\nNot slower than bb12068.")


def test_status_one_slower_figure_is_failure_unless_quick() -> None:
    """A `--quick` run never fails because of slow figures: it is too short and only shows that the benchmark works."""
    slower, same = row("cookie", turns((100, 100, 120))), row("bearer", turns((40, 40, 40)))

    assert status([same, slower], quick=False) == 1
    assert status([same], quick=False) == 0
    assert status([same, slower], quick=True) == 0


def test_orders_two_turns_have_all_six() -> None:
    """Two turns contain all six orders, so that the order favours no candidate."""
    assert orders(1) + orders(2) == [[0, 2, 1], [1, 0, 2], [2, 1, 0], [0, 1, 2], [1, 2, 0], [2, 0, 1]]


def test_arguments_unknown_revision_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A shallow clone lacks earlier revisions; the message says so before anything is measured."""
    with pytest.raises(SystemExit) as ended:
        arguments(["--against", "no-such-revision"])

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no commit no-such-revision" in said
    assert "git fetch --unshallow" in said


def test_arguments_modes_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Modes that exclude each other are an error, so that no option is silently ignored."""
    with pytest.raises(SystemExit):
        arguments(["--parts", "--without-peers"])

    assert "not allowed with" in capsys.readouterr().err


def test_arguments_default_measures_everything() -> None:
    """Without arguments, the whole benchmark runs."""
    given = arguments([])

    assert (given.quick, given.without_peers, given.parts, given.against) == (False, False, False, None)
