"""One run of an event asset: a stream of days, each fetched, merged and ready to be written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

import dagster as dg
import pyarrow as pa

from np6_assets.contact.tombstones import tombstones_of
from np6_assets.events.day import MergedDay, RepeatedIdsError
from np6_assets.events.decode import Decoder
from np6_assets.events.fetch import Fetcher
from np6_assets.events.found import FetchedDay
from np6_assets.events.kinds import EventKind
from np6_assets.events.plan import DayPlan, plan_day
from np6_assets.events.store import EventStore, watermark
from np6_assets.events.written import check_pseudonym_key
from np6_assets.np6.client import FAILURES_IN_A_ROW, NP6Client
from np6_assets.np6.errors import DaysFailedError, NP6Error, PermanentError
from np6_assets.np6.resource import NP6Resource
from np6_assets.partitions import Day, day_of
from np6_assets.progress import Progress
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.io_manager import Partition


class Run:
    """One run of an event asset over some days."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        kind: EventKind,
        settings: Settings,
        folder: Folder,
        now: Callable[[], datetime],
        *,
        full_refresh: bool,
    ) -> None:
        self._context = context
        self._kind = kind
        self._settings = settings
        self._folder = folder
        self._store = EventStore(folder, kind, settings)
        self._now = now
        self._full_refresh = full_refresh

    @contextmanager
    def partitions(self, np6: NP6Resource) -> Iterator[Generator[Partition]]:
        """The days as they are complete; the record of a day that an earlier attempt of this run has written."""
        with exclusive_client(self._context, np6, self._folder) as client, closing(self._days(client)) as days:
            yield days

    def _days(self, client: NP6Client) -> Generator[Partition]:
        written = self._written_before()
        for key, record in written.items():
            yield Partition(key, record)
        days = [day_of(key, self._settings.timezone) for key in self._context.partition_keys if key not in written]
        progress = Progress(self._kind.asset, len(days), self._context.log.info)
        check_pseudonym_key(self._settings.contact, self._folder, self._context.log.warning)
        tombstones = tombstones_of(self._folder, self._settings.tombstone_key)
        decoder = Decoder(self._kind, self._settings.contact, tombstones)
        fetcher = Fetcher(self._kind, client, decoder, self._now)
        failed: dict[str, NP6Error] = {}
        in_a_row = 0
        with closing(fetcher.days(map(self._plan, days))) as fetched:
            for day in fetched:
                if day.error is not None:
                    in_a_row += 1
                    self._record_failed(day.plan.day, day.error, failed)
                    if in_a_row == FAILURES_IN_A_ROW:
                        raise self._failure(failed, f"; gave up after {in_a_row} in a row")
                    continue
                in_a_row = 0
                merged = MergedDay(day, self._store, decoder)
                try:
                    yield self._partition(merged)
                except RepeatedIdsError:
                    yield self._partition(merged)
                progress.day_done(day.received)
        if failed:
            raise self._failure(failed)

    def _record_failed(self, day: Day, error: NP6Error, failed: dict[str, NP6Error]) -> None:
        """Record a failed day; re-raise where it is the only one."""
        if len(self._context.partition_keys) == 1:
            raise error
        self._context.log.error(f"{self._kind.asset} {day.key}: {error}")
        failed[day.key] = error

    def _failure(self, failed: dict[str, NP6Error], ending: str = "") -> NP6Error:
        count = f"{len(failed)} of {len(self._context.partition_keys)} days"
        days = "; ".join(f"{day} ({error})" for day, error in failed.items())
        is_permanent = all(isinstance(error, PermanentError) for error in failed.values())
        return (PermanentError if is_permanent else DaysFailedError)(
            f"{self._kind.asset}: {count} could not be fetched{ending}. The other days that were fetched are stored; "
            f"launch those that failed or are missing again. Failed: {days}"
        )

    def _plan(self, day: Day) -> DayPlan:
        lookback, timezone = self._settings.lookback, self._settings.timezone
        return plan_day(day, self._store.stored(day), timezone, lookback, full=self._full_refresh)

    def _written_before(self) -> dict[str, dg.AssetMaterialization]:
        """The records of the closed days that this run wrote before it, or its step, was started again."""
        run = self._context.run
        attempts = {run.run_id, run.parent_run_id, run.root_run_id} - {None}
        keys = self._context.partition_keys
        if len(keys) == 1 or (len(attempts) == 1 and not self._context.retry_number):
            return {}
        records = self._context.instance.fetch_materializations(
            dg.AssetRecordsFilter(self._context.asset_key, asset_partitions=keys), limit=len(attempts) * len(keys)
        ).records
        found: dict[str, dg.AssetMaterialization] = {}
        for record in records:
            materialization = record.asset_materialization
            if record.run_id in attempts and materialization is not None and materialization.partition is not None:
                until = materialization.metadata["fetched_until"].value
                if until == day_of(materialization.partition, self._settings.timezone).end.timestamp():
                    found.setdefault(materialization.partition, materialization)
        return {key: found[key] for key in keys if key in found}

    def _partition(self, merged: MergedDay) -> Partition:
        fetched = merged.fetched
        until = watermark(fetched.plan.day, fetched.asked_at, self._settings.lookback)
        schema = self._store.schema(until)
        metadata: dict[str, Any] = {}

        def batches() -> Iterator[pa.RecordBatch]:
            for table in merged.tables():
                for batch in table.to_batches():
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
            metadata.update(_metadata(fetched, merged, until))

        return Partition(fetched.plan.day.key, pa.RecordBatchReader.from_batches(schema, batches()), metadata)


def _metadata(fetched: FetchedDay, merged: MergedDay, until: datetime) -> dict[str, Any]:
    """What the fetch and the merge of a day found out, as its materialization says it."""
    facts, plan = merged.facts, fetched.plan
    metadata: dict[str, Any] = {
        "fetched_until": dg.MetadataValue.timestamp(until),
        "fetched_from": dg.MetadataValue.timestamp(plan.start),
        "hours_after_end": round((fetched.asked_at - plan.day.end).total_seconds() / 3600, 2),
        "events_received": fetched.received,
        "events_outside_window": fetched.outside,
        "events_kept": facts.kept,
        "events_of_erased": fetched.of_erased,
        "events_before_send": facts.early,
        "seconds_before_send": -facts.earliest / 1000,
        "quarantined": facts.rejected,
        "unknown_fields": dg.MetadataValue.json(fetched.unknown),
        "unreadable_values": dg.MetadataValue.json(fetched.unreadable),
    }
    if plan.stored is not None:
        metadata["events_gained"] = facts.rows - plan.stored.rows
    if shown := facts.reasons.markdown():
        metadata["reasons"] = dg.MetadataValue.md(shown)
    return metadata


@contextmanager
def exclusive_client(context: dg.AssetExecutionContext, np6: NP6Resource, folder: Folder) -> Iterator[NP6Client]:
    """A client, once no other run of this deployment has one.

    The pool does not see runs on the command line, and lets through what is in the queue when it is first used.
    """
    with (
        np6.client(context.log.warning) as client,
        folder.alone(lambda: context.log.info("another run is using the API; this one goes on once it ends")),
    ):
        yield client
