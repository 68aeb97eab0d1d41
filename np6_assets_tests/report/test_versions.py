"""Test which of several versions wins, and how many clicks it gains."""

from collections.abc import Mapping

import pytest

from np6_assets.rates.measures import Share
from np6_assets.report.versions import Contest, decide_contests


def decide_contest(**versions: Mapping[str, tuple[int, int]]) -> Contest:
    """Decide among the versions of a notification, given hits and delivered sends by day."""
    [found] = decide_contests(
        {7: {name: {(day,): Share(*counts) for day, counts in days.items()} for name, days in versions.items()}}
    )
    return found


def test_winner_beats_all_other_versions():
    found = decide_contest(
        a={"mon": (100, 1_000), "tue": (100, 1_000)},
        b={"mon": (160, 1_000)},
        c={"mon": (60, 1_000), "tue": (60, 1_000)},
    )
    assert found.winner is not None
    assert (found.winner.version, set(found.winner.beaten)) == ("b", {"a", "c"})
    # on Monday 6 points more than a and 10 more than c, of the 2,000 sends of each on both days
    assert found.winner.gain == pytest.approx(0.06 * 2_000 + 0.10 * 2_000)
    assert 0 < found.winner.low < found.winner.gain < found.winner.high
    assert found.winner.high - found.winner.gain == pytest.approx(found.winner.gain - found.winner.low)


def test_contest_of_two_good_versions_has_no_winner():
    found = decide_contest(a={"mon": (150, 1_000)}, b={"mon": (152, 1_000)}, c={"mon": (60, 1_000)})
    assert found.winner is None
    assert found.verdict == "no winner: the differences are no larger than chance explains"


def test_untested_version_does_not_prevent_a_winner():
    found = decide_contest(a={"mon": (100, 1_000)}, b={"mon": (160, 1_000)}, new={"mon": (2, 3)}, old={"sun": (1, 900)})
    assert found.winner is not None
    assert (found.winner.version, found.winner.beaten) == ("b", ("a",))


def test_contests_are_sorted_by_gain():
    def build_days(hits: int, sends: int) -> dict[tuple[int], Share]:
        return {(1,): Share(hits, sends)}

    found = decide_contests(
        {
            1: {"a": build_days(100, 1_000), "b": build_days(101, 1_000)},
            2: {"a": build_days(1_000, 10_000), "b": build_days(60, 1_000)},
            3: {"a": build_days(1_000, 10_000), "b": build_days(1_200, 9_000)},
            4: {"a": build_days(7, 70)},
        }
    )
    assert [one.activation_id for one in found] == [3, 2, 1]
    [second] = [one.winner for one in found if one.activation_id == 2]
    assert second is not None
    assert second.version == "a"
    assert second.gain == pytest.approx(0.04 * 1_000)
