"""Test the opening sentences: what changed, what gained and lost, and what to look at first."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from np6_assets.report.sentences import describe_best_time, write_opening
from np6_assets_tests.report.rendering import TODAY, build_row, read_report, write_events, write_rates
from np6_assets_tests.support.oracle import Row

YESTERDAY = TODAY - timedelta(days=1)
NAMES = {1: "Cart", 2: "Welcome", 3: "Digest"}


def build_weeks(
    activation_id: int, number: int, now: int, before: int, *, days: int = 14, version: str = "v", **counts: int
) -> Iterator[Row]:
    """Yield a row of `number` sends a day, with `now` hits a day in the last week and `before` hits earlier."""
    for ago in range(days):
        hits = now if ago < 7 else before
        status = "open" if ago < 7 else "final"
        day = YESTERDAY - timedelta(days=ago)
        yield build_row(day, activation_id, number, version=version, status=status, hit_activations=hits, **counts)


def write_sentences(root: Path, rows: list[Row], days_later: int = 0) -> list[str]:
    write_rates(root, rows, NAMES)
    write_events(root, rows, days_later)
    return [sentence.text for sentence in write_opening(read_report(root))]


def test_opening_names_what_gained_and_what_lost(tmp_path: Path):
    rows = [*build_weeks(1, 400, 60, 40), *build_weeks(2, 300, 20, 60), *build_weeks(3, 100, 10, 10)]
    changed, which, look = write_sentences(tmp_path, rows)
    # of 5,600: 630 against 770; of 2,800: 420 against 280; of 2,100: 140 against 420
    assert changed == (
        "In the 7 days to Tue 31 Mar, 11.25% of 5,600 delivered sends were clicked, down from 13.75% in the 7 days "
        "before: about 140 fewer clicks."
    )
    assert which == (
        "“Cart” gained most: 15.00% against 10.00%, about 140 more clicks; "
        "“Welcome” lost most: 6.67% against 20.00%, about 280 fewer clicks."
    )
    assert look == "Look first at “Welcome”: nothing else costs as many clicks as its fall."


def test_opening_names_only_what_gained(tmp_path: Path):
    changed, which, look = write_sentences(tmp_path, [*build_weeks(1, 400, 60, 40), *build_weeks(3, 100, 10, 10)])
    assert "up from 10.00%" in changed
    assert which == (
        "“Cart” gained most: 15.00% against 10.00%, about 140 more clicks; none lost any beyond what chance explains."
    )
    assert look.startswith("Nothing calls for a look first")


def test_opening_reports_no_change_within_chance(tmp_path: Path):
    changed, which, look = write_sentences(tmp_path, [*build_weeks(1, 400, 41, 40), *build_weeks(3, 100, 10, 10)])
    assert changed == (
        "In the 7 days to Tue 31 Mar, 10.20% of 3,500 delivered sends were clicked, against 10.00% in the 7 days "
        "before: no larger a difference than chance explains."
    )
    assert which == "No notification gained or lost clicks beyond what chance explains (2 were sent in both weeks)."
    assert look.startswith("Nothing calls for a look first")


def test_opening_compares_nothing_before_two_weeks(tmp_path: Path):
    changed, which, _ = write_sentences(tmp_path, list(build_weeks(1, 400, 60, 40, days=13)))
    assert changed == "What changed can be told from the second week of whole days on; 13 days are there so far."
    assert which == "So far “Cart” is clicked most: 12.69% of 5,200 delivered sends."


def test_opening_compares_nothing_without_hits(tmp_path: Path):
    write_rates(tmp_path, build_weeks(1, 400, 0, 0), NAMES)
    report = read_report(tmp_path)
    assert report.changes is None
    assert write_opening(report)[1].text == "There are too few clicks yet to tell which notification is clicked most."


def test_changes_count_both_weeks_at_the_same_age(tmp_path: Path):
    # all clicks come three days later: those of the last three days have none yet, and yesterday has events
    rows = list(build_weeks(1, 1_000, 100, 100))
    for row in rows:
        if row["activation_date"] > YESTERDAY - timedelta(days=3):
            row["hit_activations"] = 0
    write_rates(tmp_path, rows, NAMES)
    write_events(tmp_path, rows, days_later=3)
    changes = read_report(tmp_path).changes
    assert changes is not None
    assert (changes.total.now.part, changes.total.before.part) == (400, 400)
    assert (changes.total.now.whole, changes.total.before.whole) == (7_000, 7_000)
    assert not changes.total.is_real


def test_opening_explains_a_change_by_what_was_sent(tmp_path: Path):
    # each is clicked as before; of the one that is clicked less there is five times as much
    rows = []
    for ago in range(14):
        day = YESTERDAY - timedelta(days=ago)
        rows.append(build_row(day, 1, 400, hit_activations=80))
        number = 1_000 if ago < 7 else 200
        rows.append(build_row(day, 2, number, hit_activations=number // 50))
    changed, which, _ = write_sentences(tmp_path, rows)
    assert changed.endswith("fewer clicks, most of it because a larger part was sent of what is clicked less.")
    assert which.startswith("No notification gained or lost")


def test_one_exceptional_day_is_no_change(tmp_path: Path):
    # the week is clicked less for one bad day alone, which other days do not bear out
    rows = list(build_weeks(1, 1_000, 100, 100))
    rows[3]["hit_activations"] = 20
    changed, which, _ = write_sentences(tmp_path, rows)
    assert changed.endswith("no larger a difference than chance explains.")
    assert which.startswith("No notification gained or lost")


@pytest.mark.slow
def test_opening_names_a_beaten_version_that_is_still_sent(tmp_path: Path):
    a, b = "aaaaaaaa-1", "bbbbbbbb-1"
    rows = [
        *build_weeks(1, 400, 40, 40, days=21, version=a),
        *build_weeks(1, 400, 60, 60, days=21, version=b),
    ]
    # 5 points of the 400 sends a day of a
    assert write_sentences(tmp_path / "both", rows)[2] == (
        "Look first at the versions of “Cart”: bbbbbbbb-1, sent alone, would bring about 140 more clicks a week."
    )
    recent = [row for row in rows if row["activation_version"] == b or row["status"] == "final"]
    assert "versions" not in write_sentences(tmp_path / "ended", recent)[2]


def test_opening_names_bounces_if_nothing_costs_clicks(tmp_path: Path):
    rows = [*build_weeks(1, 400, 40, 40, bounced=4), *build_weeks(2, 100, 9, 9, bounced=11)]
    # 154 of 1,400 bounced, where the others do one in a hundred
    assert write_sentences(tmp_path, rows)[2] == (
        "Look first at the bounces of “Welcome”: 11.00% of its sends reached nobody, about 140 more than at the rate "
        "of the others."
    )


@pytest.mark.slow
@pytest.mark.parametrize(("hits", "is_best"), [(40, False), (80, True)])
def test_best_time_compares_the_same_notification(tmp_path: Path, hits: int, is_best: bool):
    # Digest is clicked much, and goes out at one hour alone; Cart is clicked `hits` times at 17:00 on Fridays
    rows = [*build_weeks(1, 400, 40, 40, days=42), *build_weeks(3, 400, 200, 200, days=42)]
    rows += [build_row(day, 1, 400, version="evening", hit_activations=hits) for day in list_fridays(6)]
    write_rates(tmp_path, rows, NAMES)
    write_events(tmp_path, rows, hours={"evening": 16})
    sentence = describe_best_time(read_report(tmp_path).slots)
    if is_best:
        # of 48 x 400 sends of Cart 42 x 40 + 6 x 80 were clicked, of its 2,400 on Friday evenings 480
        times = 480 / (2_400 * (42 * 40 + 480) / (48 * 400))
        assert sentence.startswith("Like for like, Fri from 17:00 to 17:59 is best")
        assert f"clicked {times:.2f} times as often" in sentence
    else:
        assert sentence.startswith("No time is proven best")


def list_fridays(number: int) -> list[date]:
    newest = YESTERDAY - timedelta(days=(YESTERDAY.weekday() - 4) % 7)
    return [newest - timedelta(days=7 * ago) for ago in range(number)]
