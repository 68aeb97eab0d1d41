"""In which cohort each stored event counts, and which events count in none.

An event counts for the day of its send, or for its own day where the send's is unknown, if that is at most
`window_days` days before its own day and not before NP6_START_DATE.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from np6_assets.events.kinds import TIME
from np6_assets.partition_checks import Finding
from np6_assets.partitions import EVENT_DATE, Day, parse_day
from np6_assets.rates.compute import create_view
from np6_assets.rates.feeds import Feeds
from np6_assets.settings import Settings

UNCOUNTED_REACTIONS = 0.05
"""The share of a feed's reactions of a day that may count in no cohort: some come after the window has closed."""

BEFORE_WINDOW = "sent more than the window before"
BEFORE_START = "sent before NP6_START_DATE"
AFTER_EVENT = "sent on a later day"
NOT_COMPUTED = "their cohort's rates are not computed"

# --- by the rates' asset, for its metadata ----------------------------------------------------------------------------

_SQL = """
    SELECT CAST(event_date AS VARCHAR), count(*)
    FROM ({events}) AS events JOIN event_days USING (event_date)
    WHERE sent_at < first_at OR sent_at >= ends_at
    GROUP BY event_date
"""


def count_events_in_no_cohort(
    database: duckdb.DuckDBPyConnection, feeds: Feeds, days: Sequence[str], settings: Settings
) -> Mapping[str, int]:
    """Count the stored events of each event day that are in no cohort; days without any are left out."""
    database.register("event_days", _build_event_days(days, settings))
    for asset in feeds.datasets:
        create_view(database, asset, feeds.dataset(asset, days))
    events = " UNION ALL ".join(
        f"SELECT event_date, coalesce(activated_at, event_time) AS sent_at FROM {asset}" for asset in feeds.datasets
    )
    return dict(database.execute(_SQL.format(events=events)).fetchall())


def _build_event_days(keys: Sequence[str], settings: Settings) -> pa.Table:
    """Build, for each event day, when the first cohort of its events starts, and when the day ends."""
    days = [parse_day(key, settings.timezone) for key in keys]
    firsts = [max(day.date - timedelta(days=settings.window_days), settings.start_date) for day in days]
    return pa.table(
        {
            EVENT_DATE: pa.array([day.date for day in days], pa.date32()),
            "first_at": pa.array([parse_day(str(first), settings.timezone).start for first in firsts], TIME),
            "ends_at": pa.array([day.end for day in days], TIME),
        }
    )


# --- by the check, from the same files in another way -----------------------------------------------------------------


class Placement:
    """Where the events of a day count, by asset."""

    def __init__(self, day: Day, settings: Settings) -> None:
        self._start_date = settings.start_date
        self._cohorts = [day.date - timedelta(days=ago) for ago in range(settings.window_days, -1, -1)]
        starts = [parse_day(str(cohort), settings.timezone).start_ms for cohort in self._cohorts]
        self._edges = np.array([*starts, day.end_ms])
        self._counts: dict[str, npt.NDArray[np.int64]] = {}
        self._untimed = 0

    def add(self, asset: str, sent_at: npt.NDArray[np.int64], untimed: int) -> None:
        """Add events: their send times in ms, and how many of them do not say when their send was."""
        places = np.searchsorted(self._edges, sent_at, side="right")
        counts = np.bincount(places, minlength=len(self._edges) + 1)
        self._counts[asset] = self._counts.get(asset, np.zeros_like(counts)) + counts
        self._untimed += untimed

    def check(self, computed: Collection[date]) -> Finding:
        """Check that the day's events are counted; `computed` are the cohorts that have rates."""
        stored = {asset: int(counts.sum()) for asset, counts in self._counts.items()}
        missing = {asset: found for asset in stored if (found := self._count_missing(asset, computed))}
        counted = {asset: number - sum(missing.get(asset, {}).values()) for asset, number in stored.items()}
        own_day = sum(int(counts[-2]) for counts in self._counts.values()) - self._untimed
        earlier = sum(int(counts[1:-2].sum()) for counts in self._counts.values())
        placed = {"own_day": own_day, "earlier_day": earlier, "time_of_send_unknown": self._untimed}
        text = f"{sum(counted.values())} of {sum(stored.values())} events are counted in a cohort"
        for asset, reasons in missing.items():
            text += f"; {asset}: " + ", ".join(f"{number} {reason}" for reason, number in reasons.items())
        passed = not any(self._is_lost(asset, stored[asset], reasons) for asset, reasons in missing.items())
        metadata = {"stored": stored, "counted": counted, "not_counted": missing, "placed": placed}
        return Finding(passed, text, metadata)

    def _count_missing(self, asset: str, computed: Collection[date]) -> dict[str, int]:
        """Count the events of an asset that count nowhere, by reason."""
        before, *by_cohort, after = map(int, self._counts[asset])
        placed = list(zip(self._cohorts, by_cohort, strict=True))
        reasons = {
            BEFORE_WINDOW: before,
            BEFORE_START: sum(number for cohort, number in placed if cohort < self._start_date),
            AFTER_EVENT: after,
            NOT_COMPUTED: sum(
                number for cohort, number in placed if cohort >= self._start_date and cohort not in computed
            ),
        }
        if self._cohorts[0] < self._start_date:  # how long before is not told apart
            reasons[BEFORE_START] += reasons.pop(BEFORE_WINDOW)
        return {reason: number for reason, number in reasons.items() if number}

    @staticmethod
    def _is_lost(asset: str, stored: int, reasons: Mapping[str, int]) -> bool:
        """Tell whether the events that no cohort will ever count are more than some late reactions."""
        lost = sum(reasons.get(reason, 0) for reason in (BEFORE_WINDOW, AFTER_EVENT))
        return lost > (0 if asset == "activations" else UNCOUNTED_REACTIONS * stored)
