"""Recount cohorts from the event files without `rates.sql`: the check of the counts compares with this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from np6_assets.partitions import EVENT_DATE, Day
from np6_assets.rates.distinct import DistinctCount
from np6_assets.rates.placement import Placement
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder
from np6_assets.storage.query import Query, open_query

Counts = dict[str, int | None]
"""A cohort's sums, by column; None where an asset that is not materialized makes them unknown."""

COUNTED = (
    "activations",
    "bounced",
    "hit_activations",
    "hits",
    "other_hits",
    "optout_activations",
    "impression_activations",
    "reacting_activations",
)


_SQL = """
    SELECT event_date, epoch_ms(coalesce(activated_at, event_time)) AS sent_at, activated_at IS NULL AS is_untimed,
           hash(agency, customer, activation_id, activation_version, application_id, subscription_id,
                coalesce(stamp_id, event_id), stamp_id IS NULL) AS send{more}
    FROM read_parquet($file, hive_partitioning = true)
"""
_HITS_TOO = """,
           hash(event_id, send) AS hit,
           link_type IS NOT DISTINCT FROM 'redirection' AS is_redirection"""

BYTES_AT_ONCE = 2**20
"""Most bytes of event files that one query reads, unless a day has more: small files cost less than planning."""

_SENDS = {
    "activations": "activations",
    "hits": "hit_activations",
    "optouts": "optout_activations",
    "bounces": "bounced",
    "impressions": "impression_activations",
}
"""For each asset the column that counts its sends."""

_REACTING = ("hit_activations", "optout_activations", "bounced")


class _CohortCount:
    """The count of a cohort: distinct hashes, by column, in bounded memory."""

    def __init__(self, day: Day, settings: Settings) -> None:
        self.day = day
        self.placement = Placement(day, settings)
        self.loaded: set[str] = set()
        """The assets that the day itself has."""
        self._hashes = {name: DistinctCount() for name in COUNTED}

    def add(self, name: str, hashes: npt.NDArray[np.uint64]) -> None:
        """Add hashes; repeated ones count once."""
        self._hashes[name].add(hashes)

    def counts(self) -> Counts:
        """Count the distinct hashes. Nothing can be added after."""
        counts: Counts = {name: hashes.count() for name, hashes in self._hashes.items()}
        reacting = self._hashes["reacting_activations"]
        for name in _REACTING:
            reacting.absorb(self._hashes[name])
        counts["reacting_activations"] = reacting.count()
        for asset in ("activations", "impressions"):
            if asset not in self.loaded:
                counts[_SENDS[asset]] = None
        return counts

    def close(self) -> None:
        """Free memory and disk."""
        for hashes in self._hashes.values():
            hashes.close()


def recount_cohorts(folder: Folder, days: Sequence[Day], settings: Settings) -> Iterator[tuple[Day, Counts, Placement]]:
    """Recount each cohort's events, and find in which cohorts the events of its own day count.

    Each event file is read once for all its cohorts, and small ones together.
    """
    window = timedelta(settings.window_days)
    wanted = {day.date: day for day in days}
    event_dates = sorted({first + timedelta(ahead) for first in wanted for ahead in range(window.days + 1)})
    cohorts: dict[date, _CohortCount] = {}
    with ExitStack() as stack:
        query = stack.enter_context(open_query(folder))
        for chunk in _group_days(folder, event_dates):
            for day in (wanted[event_date] for event_date in chunk if event_date in wanted):
                cohorts[day.date] = stack.enter_context(closing(_CohortCount(day, settings)))
            for asset in _SENDS if cohorts else ():
                files = {event_date: files[asset] for event_date, files in chunk.items() if asset in files}
                for event_date in files.keys() & cohorts.keys():
                    cohorts[event_date].loaded.add(asset)
                if files:
                    _add_events(query, asset, list(files.values()), list(cohorts.values()), window)
            for cohort_date in [one for one in cohorts if one + window <= max(chunk)]:
                cohort = cohorts.pop(cohort_date)
                yield cohort.day, cohort.counts(), cohort.placement
                cohort.close()


def _group_days(folder: Folder, event_dates: Sequence[date]) -> Iterator[dict[date, dict[str, str]]]:
    """Group the event days, with their files by asset: days together whose files have at most BYTES_AT_ONCE."""
    chunk: dict[date, dict[str, str]] = {}
    held = 0
    for event_date in event_dates:
        places = {asset: parquet.build_path(asset, EVENT_DATE, event_date.isoformat()) for asset in _SENDS}
        files = {asset: file for asset, file in places.items() if folder.exists(file)}
        size = sum(map(folder.get_size, files.values()))
        if chunk and held + size > BYTES_AT_ONCE:
            yield chunk
            chunk, held = {}, 0
        chunk[event_date] = files
        held += size
    if chunk:
        yield chunk


def _add_events(
    query: Query, asset: str, files: Sequence[str], cohorts: Sequence[_CohortCount], window: timedelta
) -> None:
    """Add an asset's events to the cohorts that count them."""
    is_hits = asset == "hits"
    for batch in query.fetch_batches(_SQL.format(more=_HITS_TOO if is_hits else ""), files):
        dates, times, untimed, sends, *more = (column.to_numpy(zero_copy_only=False) for column in batch.columns)
        for cohort in cohorts:
            day = cohort.day
            own = dates == np.datetime64(day.date)
            if own.any():
                cohort.placement.add(asset, times[own], int(np.count_nonzero(untimed[own])))
            mine = (times >= day.start_ms) & (times < day.end_ms)
            mine &= (dates >= np.datetime64(day.date)) & (dates <= np.datetime64(day.date + window))
            if not mine.any():
                continue
            if is_hits:
                hits, is_redirection = more
                cohort.add("hits", hits[mine & is_redirection])
                cohort.add("other_hits", hits[mine & ~is_redirection])
                mine &= is_redirection
            cohort.add(_SENDS[asset], sends[mine])
