"""A run of an event asset: yields one day after the other, fetched, merged and ready to be written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from np6_assets.contact.tombstones import TombstonesWatcher
from np6_assets.events.day import DayMerge, RepeatedIdsError
from np6_assets.events.decode import Decoder
from np6_assets.events.fanout import KnownNotifications
from np6_assets.events.fetch import Fetcher
from np6_assets.events.file_policy import check_pseudonym_key
from np6_assets.events.folder_identity import FolderIdentity, has_answered
from np6_assets.events.kinds import EventKind
from np6_assets.events.metadata import build_metadata
from np6_assets.events.plan import DayPlan, plan_day
from np6_assets.events.receive import FetchedDay
from np6_assets.events.store import EventStore, compute_watermark, is_watermark_wrong
from np6_assets.np6.client import FAILURES_IN_A_ROW, NP6Client
from np6_assets.np6.errors import DaysFailedError, NP6Error, PermanentError
from np6_assets.np6.resource import NP6Resource
from np6_assets.partitions import EVENT_DATE, Day, parse_day
from np6_assets.progress import Progress
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import ATTEMPTS, ChangedError, Folder
from np6_assets.storage.folder_lock import lock_folder
from np6_assets.storage.io_manager import Partition

if TYPE_CHECKING:
    from np6_assets.events.assets import IngestConfig


@dataclass(frozen=True)
class EventRun:
    """A run of an event asset over some days."""

    context: dg.AssetExecutionContext
    kind: EventKind
    settings: Settings
    folder: Folder
    now: Callable[[], datetime]
    config: IngestConfig

    @cached_property
    def _store(self) -> EventStore:
        return EventStore(self.folder, self.kind, self.settings)

    @contextmanager
    def open_partitions(self, np6: NP6Resource) -> Iterator[Generator[Partition]]:
        """Open the stream of days; a day that an earlier attempt has written is its record."""
        with (
            open_exclusive_client(self.context, np6, self.folder, self.now) as client,
            closing(self._fetch_and_merge(client)) as days,
        ):
            yield days

    def _fetch_and_merge(self, client: NP6Client) -> Generator[Partition]:
        written = self._find_written_days()
        for key, record in written.items():
            yield Partition(key, record)
        days = [parse_day(key, self.settings.timezone) for key in self.context.partition_keys if key not in written]
        progress = Progress(self.kind.asset, len(days), self.context.log.info)
        identity = FolderIdentity(self.folder, self.settings, self.context.log.warning)
        check_pseudonym_key(self.settings.contact, self.folder, self.context.log.warning)
        watch = TombstonesWatcher(self.folder, self.settings.tombstone_key)
        decoder = Decoder(self.kind, self.settings.contact, watch.tombstones, identity.agencies)
        known = KnownNotifications(client, self.folder, identity) if self.kind.per_notification else None
        fetcher = Fetcher(self.kind, client, decoder, self.now, known)
        failed: dict[str, NP6Error] = {}
        in_a_row = 0
        with closing(_fetch_days(fetcher, map(self._plan_day, days))) as fetched:
            for day in fetched:
                if day.error is not None:
                    in_a_row += 1
                    self._record_failed_day(day.plan.day, day.error, failed)
                    if in_a_row == FAILURES_IN_A_ROW:
                        raise self._build_error(failed, f"; gave up after {in_a_row} in a row")
                    continue
                in_a_row = 0
                yield from self._offer_day(day, decoder, identity, watch)
                progress.record_day(day.plan.day.key, day.received)
        if failed:
            raise self._build_error(failed)

    def _offer_day(
        self, day: FetchedDay, decoder: Decoder, identity: FolderIdentity, watch: TombstonesWatcher
    ) -> Generator[Partition]:
        """Yield a day to be written; again if another run wrote it meanwhile or receivers were erased."""
        merged = DayMerge(day, self._store, decoder, tombstones_grew=watch.has_grown)
        conflicts = 0
        while True:
            is_written = False
            try:
                yield self._build_partition(merged, identity)
                is_written = True
            except RepeatedIdsError:
                continue  # merged again, without the rows that lose
            except ChangedError:
                conflicts += 1
                if conflicts == ATTEMPTS:
                    raise
            has_grown = watch.reload()
            if is_written and not has_grown:
                self.folder.invalidate(parquet.build_path(self.kind.asset, EVENT_DATE, day.plan.day.key))
                return
            decoder.policy = replace(decoder.policy, tombstones=watch.tombstones)
            merged = DayMerge(self._reread_stored(day), self._store, decoder, tombstones_grew=watch.has_grown)

    def _reread_stored(self, day: FetchedDay) -> FetchedDay:
        """Return the day with what is stored now, where that has changed since it was requested."""
        stored = self._store.reread_day(day.plan.day)
        also_missing = stored.missing_ids - (day.answered_ids or frozenset()) if stored is not None else frozenset()
        return replace(day, plan=replace(day.plan, stored=stored), missing_ids=day.missing_ids | also_missing)

    def _record_failed_day(self, day: Day, error: NP6Error, failed: dict[str, NP6Error]) -> None:
        """Record a failed day; re-raise if it is the only one."""
        if len(self.context.partition_keys) == 1:
            raise error
        self.context.log.error(f"{day.key} {self.kind.asset}: {error}")
        failed[day.key] = error

    def _build_error(self, failed: dict[str, NP6Error], ending: str = "") -> NP6Error:
        count = f"{len(failed)} of {len(self.context.partition_keys)} days"
        days = "; ".join(f"{day} ({error})" for day, error in failed.items())
        is_permanent = all(isinstance(error, PermanentError) for error in failed.values())
        return (PermanentError if is_permanent else DaysFailedError)(
            f"{self.kind.asset}: {count} could not be fetched{ending}. The other days that were fetched are stored; "
            f"launch those that failed or are missing again. Failed: {days}"
        )

    def _plan_day(self, day: Day) -> DayPlan:
        return plan_day(
            self.kind,
            day,
            self._store.read_day(day),
            self.settings.lookback,
            self.now(),
            full=self.config.full_refresh,
            replaces=self.config.replace,
            missing_only=self.config.missing_only,
        )

    def _find_written_days(self) -> dict[str, dg.AssetMaterialization]:
        """Find the records of the closed days that this run wrote before it, or its step, was retried."""
        run = self.context.run
        attempts = {run.run_id, run.parent_run_id, run.root_run_id} - {None}
        keys = self.context.partition_keys
        if len(keys) == 1 or (len(attempts) == 1 and not self.context.retry_number):
            return {}
        records = self.context.instance.fetch_materializations(
            dg.AssetRecordsFilter(self.context.asset_key, asset_partitions=keys), limit=len(attempts) * len(keys)
        ).records
        found: dict[str, dg.AssetMaterialization] = {}
        for record in records:
            materialization = record.asset_materialization
            if record.run_id in attempts and materialization is not None and materialization.partition is not None:
                until = materialization.metadata.get("fetched_until")  # Dagster's own record of a range has none
                end = parse_day(materialization.partition, self.settings.timezone).end.timestamp()
                if until is not None and until.value == end:
                    found.setdefault(materialization.partition, materialization)
        return {key: found[key] for key in keys if key in found}

    def _build_partition(self, merged: DayMerge, identity: FolderIdentity) -> Partition:
        fetched = merged.fetched
        until = compute_watermark(fetched.plan.day, fetched.requested_at, self.settings.lookback, fetched.plan.stored)
        metadata: dict[str, Any] = {}

        def tables() -> Iterator[pa.Table]:
            yield from merged.merge_tables()
            identity.record_events(merged.facts.identities, None if fetched.requested_ids is None else fetched.gone_ids)
            metadata.update(build_metadata(merged, until))

        rows = parquet.stream_tables(tables(), self._store.build_schema(until, fetched.missing_ids))
        return Partition(fetched.plan.day.key, rows, metadata, self._store.get_expected_version(fetched.plan.day))


def _fetch_days(fetcher: Fetcher, plans: Iterable[DayPlan]) -> Generator[FetchedDay]:
    """Fetch days; an incremental fetch from a watermark that proves wrong is repeated as a full one."""
    for day in fetcher.fetch_days(plans):
        plan = day.plan
        is_incremental = day.error is None and not plan.is_full
        if is_incremental and plan.stored is not None and is_watermark_wrong(plan.stored, day.requested_at):
            yield from fetcher.fetch_days([replace(plan, start=plan.day.start)])
        else:
            yield day


@contextmanager
def open_exclusive_client(
    context: dg.AssetExecutionContext, np6: NP6Resource, folder: Folder, now: Callable[[], datetime]
) -> Iterator[NP6Client]:
    """Open a client once no other run of this machine uses the data folder.

    Dagster's pool does not see runs on the command line, and admits too many when it is first used.
    """
    with (
        np6.open_client(
            context.log.warning,
            now,
            attempt=context.retry_number,
            has_answered=has_answered(folder, np6.base_url),
        ) as client,
        lock_folder(folder, context),
    ):
        yield client
