"""Test the opening sentences: what changed, what gained and lost, and what to look at first."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from np6_assets.report.sentences import write_opening
from np6_assets_tests.report.rendering import TODAY, build_row, read_report, write_events, write_rates
from np6_assets_tests.support.oracle import Row

YESTERDAY = TODAY - timedelta(days=1)
NAMES = {1: "Cart", 2: "Welcome", 3: "Digest"}
NO_CHANGE = "no larger a difference than chance explains."
NOTHING_FIRST = (
    "Nothing calls for a look first: no day is in doubt, no notification fell, and no version is proven better."
)


def build_weeks(activation_id: int, number: int, now: int, before: int, *, days: int = 14) -> Iterator[Row]:
    """Yield a row of `number` sends a day, with `now` hits a day in the last week and `before` hits earlier."""
    for ago in range(days):
        hits, status = (now, "open") if ago < 7 else (before, "final")
        day = YESTERDAY - timedelta(days=ago)
        yield build_row(day, activation_id, number, status=status, hit_activations=hits)


def write_sentences(root: Path, rows: list[Row]) -> list[str]:
    write_rates(root, rows, NAMES)
    write_events(root, rows, assets=("hits",))
    return [sentence.text for sentence in write_opening(read_report(root))]


def test_opening_names_what_gained_and_what_lost(tmp_path: Path):
    alike = list(build_weeks(3, 100, 10, 10))
    # of 5,600: 630 against 770; of 2,800: 420 against 280; of 2,100: 140 against 420
    both = [*build_weeks(1, 400, 60, 40), *build_weeks(2, 300, 20, 60), *alike]
    assert write_sentences(tmp_path / "both", both) == [
        "In the 7 days to Tue 31 Mar, 11.25% of 5,600 delivered sends were clicked, down from 13.75% in the 7 days "
        "before: about 140 fewer clicks.",
        "“Cart” gained most: 15.00% against 10.00%, about 140 more clicks; "
        "“Welcome” lost most: 6.67% against 20.00%, about 280 fewer clicks.",
        "Look first at “Welcome”: nothing else costs as many clicks as its fall.",
    ]
    changed, which, look = write_sentences(tmp_path / "gained", [*build_weeks(1, 400, 60, 40), *alike])
    assert "up from 10.00%" in changed
    assert which == (
        "“Cart” gained most: 15.00% against 10.00%, about 140 more clicks; none lost any beyond what chance explains."
    )
    assert look == NOTHING_FIRST
    assert write_sentences(tmp_path / "neither", [*build_weeks(1, 400, 41, 40), *alike]) == [
        "In the 7 days to Tue 31 Mar, 10.20% of 3,500 delivered sends were clicked, against 10.00% in the 7 days "
        f"before: {NO_CHANGE}",
        "No notification gained or lost clicks beyond what chance explains (2 were sent in both weeks).",
        NOTHING_FIRST,
    ]


def test_opening_compares_nothing_without_two_weeks_of_hits(tmp_path: Path):
    changed, which, _ = write_sentences(tmp_path / "days", list(build_weeks(1, 400, 60, 40, days=13)))
    assert changed == "What changed can be told from the second week of whole days on; 13 days are there so far."
    assert which == "So far “Cart” is clicked most: 12.69% of 5,200 delivered sends."
    write_rates(tmp_path / "hits", build_weeks(1, 400, 0, 0), NAMES)
    report = read_report(tmp_path / "hits")
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
    assert (changes.total.share.part, changes.total.baseline_share.part) == (400, 400)
    assert (changes.total.share.whole, changes.total.baseline_share.whole) == (7_000, 7_000)
    assert not changes.total.is_real


def test_one_exceptional_day_is_no_change(tmp_path: Path):
    # the week is clicked less for one bad day alone, which other days do not bear out
    rows = list(build_weeks(1, 1_000, 100, 100))
    rows[3]["hit_activations"] = 20
    changed, which, _ = write_sentences(tmp_path, rows)
    assert changed.endswith(NO_CHANGE)
    assert which.startswith("No notification gained or lost")
