"""One run of an event asset: a stream of days, each fetched, merged and ready to be written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from np6_assets.contact.tombstones import TombstonesWatch
from np6_assets.events.absent import absent_table
from np6_assets.events.belonging import Belonging, has_answered
from np6_assets.events.day import MergedDay, RepeatedIdsError
from np6_assets.events.decode import Decoder
from np6_assets.events.fanout import reasons
from np6_assets.events.fetch import FetchedDay, Fetcher
from np6_assets.events.kinds import EventKind
from np6_assets.events.known import KnownNotifications
from np6_assets.events.plan import DayPlan, plan_day
from np6_assets.events.reasons import reasons_table
from np6_assets.events.store import EventStore, is_wrong, watermark
from np6_assets.events.written import check_pseudonym_key
from np6_assets.np6.client import FAILURES_IN_A_ROW, NP6Client
from np6_assets.np6.errors import DaysFailedError, NP6Error, PermanentError
from np6_assets.np6.resource import NP6Resource
from np6_assets.partitions import EVENT_DATE, Day, day_of
from np6_assets.progress import Progress
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.alone import alone
from np6_assets.storage.files import ATTEMPTS, ChangedError, Folder
from np6_assets.storage.io_manager import Partition

if TYPE_CHECKING:
    from np6_assets.events.assets import IngestConfig


@dataclass(frozen=True)
class Run:
    """One run of an event asset over some days."""

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
    def partitions(self, np6: NP6Resource) -> Iterator[Generator[Partition]]:
        """The days as they are complete; the record of a day that an earlier attempt of this run has written."""
        with exclusive_client(self.context, np6, self.folder, self.now) as client, closing(self._days(client)) as days:
            yield days

    def _days(self, client: NP6Client) -> Generator[Partition]:
        written = self._written_before()
        for key, record in written.items():
            yield Partition(key, record)
        days = [day_of(key, self.settings.timezone) for key in self.context.partition_keys if key not in written]
        progress = Progress(self.kind.asset, len(days), self.context.log.info)
        belonging = Belonging(self.folder, self.settings, self.context.log.warning)
        check_pseudonym_key(self.settings.contact, self.folder, self.context.log.warning)
        watch = TombstonesWatch(self.folder, self.settings.tombstone_key)
        decoder = Decoder(self.kind, self.settings.contact, watch.tombstones, belonging.agencies)
        known = KnownNotifications(client, self.folder, belonging) if self.kind.per_notification else None
        fetcher = Fetcher(self.kind, client, decoder, self.now, known)
        failed: dict[str, NP6Error] = {}
        in_a_row = 0
        with closing(_fetched(fetcher, map(self._plan, days))) as fetched:
            for day in fetched:
                if day.error is not None:
                    in_a_row += 1
                    self._record_failed(day.plan.day, day.error, failed)
                    if in_a_row == FAILURES_IN_A_ROW:
                        raise self._failure(failed, f"; gave up after {in_a_row} in a row")
                    continue
                in_a_row = 0
                yield from self._written(day, decoder, belonging, watch)
                progress.day_done(day.received)
        if failed:
            raise self._failure(failed)

    def _written(
        self, day: FetchedDay, decoder: Decoder, belonging: Belonging, watch: TombstonesWatch
    ) -> Generator[Partition]:
        """A day to be written: again where another run wrote it meanwhile, or where receivers were erased."""
        merged = MergedDay(day, self._store, decoder, is_filtered=watch.have_grown)
        lost = 0
        while True:
            is_written = False
            try:
                yield self._partition(merged, belonging)
                is_written = True
            except RepeatedIdsError:
                continue  # the merge knows by now which rows lose
            except ChangedError:
                lost += 1
                if lost == ATTEMPTS:
                    raise
            have_grown = watch.look_again()
            if is_written and not have_grown:
                self.folder.doubt(parquet.file_of(self.kind.asset, EVENT_DATE, day.plan.day.key))
                return
            decoder.policy = replace(decoder.policy, tombstones=watch.tombstones)
            merged = MergedDay(self._with_what_is_stored(day), self._store, decoder, is_filtered=watch.have_grown)

    def _with_what_is_stored(self, day: FetchedDay) -> FetchedDay:
        """A day that is stored otherwise than when it was asked for."""
        stored = self._store.look_again(day.plan.day)
        also_missing = stored.missing - (day.answered or frozenset()) if stored is not None else frozenset()
        return replace(day, plan=replace(day.plan, stored=stored), missing=day.missing | also_missing)

    def _record_failed(self, day: Day, error: NP6Error, failed: dict[str, NP6Error]) -> None:
        """Record a failed day; re-raise where it is the only one."""
        if len(self.context.partition_keys) == 1:
            raise error
        self.context.log.error(f"{self.kind.asset} {day.key}: {error}")
        failed[day.key] = error

    def _failure(self, failed: dict[str, NP6Error], ending: str = "") -> NP6Error:
        count = f"{len(failed)} of {len(self.context.partition_keys)} days"
        days = "; ".join(f"{day} ({error})" for day, error in failed.items())
        is_permanent = all(isinstance(error, PermanentError) for error in failed.values())
        return (PermanentError if is_permanent else DaysFailedError)(
            f"{self.kind.asset}: {count} could not be fetched{ending}. The other days that were fetched are stored; "
            f"launch those that failed or are missing again. Failed: {days}"
        )

    def _plan(self, day: Day) -> DayPlan:
        stored, lookback = self._store.stored(day), self.settings.lookback
        config, now = self.config, self.now()
        return plan_day(
            self.kind,
            day,
            stored,
            lookback,
            now,
            full=config.full_refresh,
            replaces=config.replace,
            missing_only=config.missing_only,
        )

    def _written_before(self) -> dict[str, dg.AssetMaterialization]:
        """The records of the closed days that this run wrote before it, or its step, was started again."""
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
                end = day_of(materialization.partition, self.settings.timezone).end.timestamp()
                if until is not None and until.value == end:
                    found.setdefault(materialization.partition, materialization)
        return {key: found[key] for key in keys if key in found}

    def _partition(self, merged: MergedDay, belonging: Belonging) -> Partition:
        fetched = merged.fetched
        until = watermark(fetched.plan.day, fetched.asked, self.settings.lookback, fetched.plan.stored)
        metadata: dict[str, Any] = {}

        def tables() -> Iterator[pa.Table]:
            yield from merged.tables()
            belonging.add(merged.facts.identities, None if fetched.asked_ids is None else fetched.gone)
            metadata.update(_metadata(fetched, merged, until))

        rows = parquet.stream(tables(), self._store.schema(until, fetched.missing))
        return Partition(fetched.plan.day.key, rows, metadata, self._store.before(fetched.plan.day))


def _fetched(fetcher: Fetcher, plans: Iterable[DayPlan]) -> Generator[FetchedDay]:
    """The days; one that was asked for from a watermark on that turns out to be wrong is fetched again, whole."""
    for day in fetcher.days(plans):
        if day.error is None and not day.plan.is_full and day.plan.stored and is_wrong(day.plan.stored, day.asked):
            yield from fetcher.days([replace(day.plan, start=day.plan.day.start)])
        else:
            yield day


def _metadata(fetched: FetchedDay, merged: MergedDay, until: datetime) -> dict[str, Any]:
    """What the fetch and the merge of a day found out, as its materialization says it."""
    facts, plan = merged.facts, fetched.plan
    metadata: dict[str, Any] = {
        "fetched_until": dg.MetadataValue.timestamp(until),
        "fetched_from": dg.MetadataValue.timestamp(plan.start),
        "hours_after_end": round((fetched.asked.at - plan.day.end).total_seconds() / 3600, 2),
        "events_received": fetched.received,
        "events_outside_window": fetched.outside,
        "events_kept": facts.kept,
        "events_of_erased": fetched.of_erased,
        "events_before_send": facts.early,
        "seconds_before_send": -facts.earliest / 1000,
        "quarantined": facts.rejected,
        "absent": dg.MetadataValue.md(absent_table(fetched, facts)),
        "unknown_fields": dg.MetadataValue.json(fetched.unknown),
        "unreadable_values": dg.MetadataValue.json(fetched.unreadable),
    }
    if fetched.asked_ids is not None:
        metadata["notifications_asked"] = dg.MetadataValue.json(reasons(fetched.asked_ids))
        metadata["notifications_missing"] = dg.MetadataValue.json(sorted(fetched.missing))
        metadata["notifications_gone"] = dg.MetadataValue.json(sorted(fetched.gone))
    if plan.stored is not None:
        metadata["events_gained"] = facts.rows - plan.stored.rows
    if facts.reasons:
        metadata["reasons"] = dg.MetadataValue.md(reasons_table(facts.reasons))
    return metadata


@contextmanager
def exclusive_client(
    context: dg.AssetExecutionContext, np6: NP6Resource, folder: Folder, now: Callable[[], datetime]
) -> Iterator[NP6Client]:
    """A client, once no other run of this deployment has one.

    The pool does not see runs on the command line, and lets through what is in the queue when it is first used.
    """
    with (
        np6.client(
            context.log.warning,
            now,
            attempt=context.retry_number,
            has_answered=has_answered(folder, np6.base_url),
        ) as client,
        alone(folder, context),
    ):
        yield client
