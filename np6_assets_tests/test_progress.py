"""The progress of a run, as its log tells it."""

from itertools import count

from np6_assets.progress import Progress


def test_each_day_has_a_line_that_begins_with_it_and_all_days_one_in_the_end():
    lines: list[str] = []
    clock = count(0, 40).__next__  # it is asked at the start and once a day
    progress = Progress("hits", 3, lines.append, clock=clock)
    for day, events in (("2026-03-20", 1_200), ("2026-03-21", 0), ("2026-03-22", 4_800)):
        progress.day_done(day, events)
    assert lines == [
        "2026-03-20 hits: 1,200 events (1 of 3 days, about 1 min 20 s left)",
        "2026-03-21 hits: 0 events (2 of 3 days, about 40 s left)",
        "2026-03-22 hits: 4,800 events (3 of 3 days)",
        "hits: in all 3 days, 2026-03-20 to 2026-03-22, 6,000 events, 50 a second, in 2 min 0 s",
    ]


def test_one_day_is_told_in_one_line():
    lines: list[str] = []
    Progress("reactivity_rates", 1, lines.append, unit="rows").day_done("2026-03-20", 16)
    assert lines == ["2026-03-20 reactivity_rates: 16 rows"]
