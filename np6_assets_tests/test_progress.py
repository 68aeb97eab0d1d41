"""Test the progress of a run in its log."""

from itertools import count

from np6_assets.progress import Progress


def test_progress_logs_a_line_for_each_day_and_a_total():
    lines: list[str] = []
    clock = count(0, 40).__next__  # read at the start and once a day
    progress = Progress("hits", 3, lines.append, clock=clock)
    for day, events in (("2026-03-20", 1_200), ("2026-03-21", 0), ("2026-03-22", 4_800)):
        progress.record_day(day, events)
    assert lines == [
        "2026-03-20 hits: 1,200 events (1 of 3 days, about 1 min 20 s left)",
        "2026-03-21 hits: 0 events (2 of 3 days, about 40 s left)",
        "2026-03-22 hits: 4,800 events (3 of 3 days)",
        "hits: in all 3 days, 2026-03-20 to 2026-03-22, 6,000 events, 50 a second, in 2 min 0 s",
    ]


def test_progress_logs_a_single_day_in_one_line():
    lines: list[str] = []
    Progress("reactivity_rates", 1, lines.append, unit="rows").record_day("2026-03-20", 16)
    assert lines == ["2026-03-20 reactivity_rates: 16 rows"]
