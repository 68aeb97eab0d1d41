"""One run of an event asset over some days: from what is stored to what is wanted, fetched, written and recorded."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

import dagster as dg
import pyarrow as pa

from np6_assets.events.decode import Decoder
from np6_assets.events.files import EventFiles, fetched_until
from np6_assets.events.ingest import Arrival, DayEvents, Ingestion, Wanted
from np6_assets.events.kinds import EventKind
from np6_assets.events.ordering import OutOfOrderError
from np6_assets.events.progress import Progress
from np6_assets.events.reasons import Reasons
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import DaysFailedError, RetriesUsedUpError
from np6_assets.np6.resource import NP6Resource
from np6_assets.partitions import Day, day_of
from np6_assets.privacy.erasure import tombstones_of
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder
from np6_assets.storage.io_manager import Partition

FAILURES_IN_A_ROW = 3
"""After so many days that could not be fetched the API is taken to be out of order, and the rest is not tried."""


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
        self._files = EventFiles(folder, kind, settings)
        self._now = now
        self._full_refresh = full_refresh
        self._failed: dict[str, Exception] = {}
        self._failed_in_a_row = 0

    @contextmanager
    def partitions(self, np6: NP6Resource) -> Iterator[Iterator[tuple[str, Partition]]]:
        """Each day's rows, as they come in; the record of a day that an earlier try of this run has written."""
        with in_turn(self._context, np6, self._folder) as client, closing(self._partitions(client)) as partitions:
            yield partitions

    def failed(self, day: str, error: Exception) -> None:
        """Put up with a day that cannot be fetched, where the others may be. Raises the error otherwise."""
        if not isinstance(error, RetriesUsedUpError) or len(self._context.partition_keys) == 1:
            raise error
        self._context.log.error(f"{self._kind.asset} of {day} could not be fetched: {error}")
        self._failed[day] = error
        self._failed_in_a_row += 1
        if self._failed_in_a_row == FAILURES_IN_A_ROW:
            raise self._failure(f"; gave up after {FAILURES_IN_A_ROW} in a row") from error

    def _partitions(self, client: NP6Client) -> Generator[tuple[str, Partition]]:
        kept = self._written_before()
        yield from kept.items()
        days = [day_of(key, self._settings.timezone) for key in self._context.partition_keys if key not in kept]
        progress = Progress(self._kind.asset, len(days), self._context.log.info)
        decoder = Decoder(self._kind, self._settings.contact, tombstones_of(self._folder))
        ingestion = Ingestion(self._kind, client, decoder, self._now)
        with closing(ingestion.days(map(self._wanted, days))) as arrivals:
            for arrival in arrivals:
                yield arrival.wanted.day.key, self._rows(arrival)
                if arrival.wanted.day.key in self._failed:
                    continue
                self._failed_in_a_row = 0
                events = arrival.whole()
                if not events.misfits.rows:
                    self._files.remove_quarantine(events.day)
                progress.day_done(events.events.rows)
        if self._failed:
            raise self._failure()

    def _failure(self, ending: str = "") -> DaysFailedError:
        count = f"{len(self._failed)} of {len(self._context.partition_keys)} days"
        days = "; ".join(f"{day} ({error})" for day, error in self._failed.items())
        return DaysFailedError(
            f"{self._kind.asset}: {count} could not be fetched{ending}. The days that were are stored and recorded; "
            f"launch those that failed or are missing again. Failed: {days}"
        )

    def _wanted(self, day: Day) -> Wanted:
        return self._files.wanted(day, full_refresh=self._full_refresh)

    def _written_before(self) -> dict[str, dg.AssetMaterialization]:
        """The records of the closed days that this run wrote before it, or its step, was started again."""
        run = self._context.run
        tries = {run.run_id, run.parent_run_id, run.root_run_id} - {None}
        keys = self._context.partition_keys
        if len(keys) == 1 or (len(tries) == 1 and not self._context.retry_number):
            return {}
        records = self._context.instance.fetch_materializations(
            dg.AssetRecordsFilter(self._context.asset_key, asset_partitions=keys), limit=len(tries) * len(keys)
        ).records
        found: dict[str, dg.AssetMaterialization] = {}
        for record in records:
            materialization = record.asset_materialization
            if record.run_id in tries and materialization is not None and materialization.partition is not None:
                until = materialization.metadata["fetched_until"].value
                if until == day_of(materialization.partition, self._settings.timezone).end.timestamp():
                    found.setdefault(materialization.partition, materialization)
        return {key: found[key] for key in keys if key in found}

    def _rows(self, arrival: Arrival) -> pa.RecordBatchReader:
        """The day's rows as they come in, to be replaced by those of `_whole` where they come out of order."""

        def in_order() -> Iterator[pa.Table]:
            try:
                yield from arrival.tables()
            except OutOfOrderError:
                events = arrival.whole()
                raise parquet.StartOverError(self._reader(events, arrival, events.events.tables())) from None

        return self._reader(arrival.so_far(), arrival, in_order())

    def _reader(self, events: DayEvents, arrival: Arrival, tables: Iterator[pa.Table]) -> pa.RecordBatchReader:
        until = fetched_until(events.day, events.asked_at, self._settings.refresh_overlap)
        schema = self._files.schema(until)
        before = arrival.wanted.rows_before

        def batches() -> Iterator[pa.RecordBatch]:
            rows = 0
            reasons = Reasons()
            for table in tables:
                rows += table.num_rows
                reasons.add(table)
                for batch in table.to_batches():
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
            # the last step before the file takes its place
            metadata: dict[str, Any] = {
                "fetched_until": dg.MetadataValue.timestamp(until),
                "fetched_from": dg.MetadataValue.timestamp(arrival.wanted.since),
                "hours_after_end": round((events.asked_at - events.day.end).total_seconds() / 3600, 2),
                "events_received": events.events.rows,
                "quarantined": self._files.write_quarantine(events),
                "unknown_fields": dg.MetadataValue.json(sorted(events.unknown_fields)),
            }
            if before is not None:
                metadata["events_gained"] = rows - before
            if shown := reasons.markdown():
                metadata["reasons"] = dg.MetadataValue.md(shown)
            self._context.add_asset_metadata(metadata, partition_key=events.day.key)

        return pa.RecordBatchReader.from_batches(schema, batches())


@contextmanager
def in_turn(context: dg.AssetExecutionContext, np6: NP6Resource, folder: Folder) -> Iterator[NP6Client]:
    """A client, once no other run of this deployment has one.

    The pool does not see runs on the command line, and lets through what is in the queue when it is first used.
    """
    with (
        np6.client(context.log.warning) as client,
        folder.alone(lambda: context.log.info("another run is using the API; this one goes on once it ends")),
    ):
        yield client
