"""Run the project's definitions against a server, in their own data folder, and read that folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

# Without a running webserver there is no public way to add a backfill to an instance.
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from np6_assets.np6.resource import NP6Resource
from np6_assets.settings import Settings
from np6_assets.wiring import build_definitions
from np6_assets_tests.support.events import KINDS, Population, compare_quarantine
from np6_assets_tests.support.oracle import (
    QUARANTINE_COLUMNS,
    RATE_COLUMNS,
    Row,
    compute_day_bounds,
    compute_event_key,
    expect_rows,
    list_columns,
    read_event_time,
)
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import canonicalize, read_rows, read_types

PSEUDONYM_KEY = "a key for pseudonyms, long enough"
TOMBSTONE_KEY = "a key for tombstones, long enough"


def list_days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=ahead) for ahead in range((last - first).days + 1)]


def read_files(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder, hidden ones included, but not its np6.json."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name != "np6.json"}


def tag_range(first: object, last: object) -> dict[str, str]:
    """Return the tags of a run for a range of days."""
    return {"dagster/asset_partition_range_start": f"{first}", "dagster/asset_partition_range_end": f"{last}"}


def read_failure(result: dg.ExecuteInProcessResult) -> str:
    """Return the messages of a failed step's error and of its causes, one a line."""
    error = next(event for event in result.all_events if event.is_step_failure).step_failure_data.error
    messages = []
    while error is not None:
        messages.append(error.message)
        error = error.cause
    return "\n".join(messages)


def select_published(population: Population, until: int, late: int = 0) -> Population:
    """Select the events published before `until` (ms) if every third event is published `late` ms after its time."""

    def is_published(number: int, moment: int) -> bool:
        return moment + (late if number % 3 == 0 else 0) < until

    selected = replace(population)
    for kind in KINDS:
        feed = population.feed(kind)
        setattr(
            selected, kind, [one for number, one in enumerate(feed) if is_published(number, read_event_time(one) or 0)]
        )
    selected.bad_events = [bad_event for bad_event in population.bad_events if is_published(1, bad_event.placed_ms)]
    return selected


def build_resource(server: RudeServer, **options: Any) -> NP6Resource:
    """Build the resource with default settings but short waits."""
    return NP6Resource(base_url=server.url, api_key=server.key, backoff=0.001, longest_wait=0.01, **options)


class Deployment:
    """The project's definitions, their data folder and instance, and a server with the same clock."""

    def __init__(
        self,
        data: Path,
        server: RudeServer,
        instance: dg.DagsterInstance,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        **environment: str,
    ) -> None:
        self.data = data
        self.instance = instance
        self.timezone = environment.get("NP6_TIMEZONE", "UTC")
        settings = Settings.from_environment(
            {
                "NP6_BASE_URL": server.url,
                "NP6_API_KEY": server.key,
                "NP6_DATA_DIR": str(data),
                "NP6_START_DATE": "2026-02-01",
                "NP6_WINDOW_DAYS": "1",
                "NP6_TOMBSTONE_KEY": TOMBSTONE_KEY,
                **environment,
            }
        )
        self.definitions = build_definitions(settings, now)
        server.date = now
        self.np6 = build_resource(server)

    @contextmanager
    def add_backfill(self, asset: str, days: Sequence[str], at: datetime) -> Iterator[None]:
        """Add a running backfill of some days, requested at a time, for the length of the block."""
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id="backfill",
            asset_graph=self.definitions.get_repository_def().asset_graph,
            partition_names=days,
            asset_selection=[dg.AssetKey(asset)],
            backfill_timestamp=at.timestamp(),
            tags={},
            dynamic_partitions_store=self.instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        self.instance.add_backfill(backfill)
        yield
        self.instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))

    def materialize(
        self,
        assets: str | Sequence[str] | dg.AssetSelection,
        first: date | None = None,
        last: date | None = None,
        *,
        checks: bool = False,
        **options: Any,
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets in one run, for a day or a range of days, with or without their checks."""
        tags = {} if first is None or last is None else tag_range(first, last)
        return dg.materialize(
            [*(self.definitions.assets or ()), *((checks and self.definitions.asset_checks) or ())],
            selection=[assets] if isinstance(assets, str) else assets,
            resources={**(self.definitions.resources or {}), "np6": self.np6},
            instance=self.instance,
            partition_key=None if first is None or tags else f"{first}",
            tags=tags,
            **options,
        )

    def check(
        self, asset: str, first: date | None = None, last: date | None = None
    ) -> dict[tuple[str, str | None], dg.AssetCheckEvaluation]:
        """Run an asset's checks alone; return the evaluations by check and partition."""
        selection = dg.AssetSelection.checks_for_assets(asset)
        # also one day as a range: Dagster cannot run checks alone in process for a single partition
        result = self.materialize(selection, first, last or first, checks=True, raise_on_error=False)
        found = {(one.check_name, one.partition): one for one in result.get_asset_check_evaluations()}
        errors = [one for one in found.values() if one.severity == dg.AssetCheckSeverity.ERROR and not one.passed]
        assert result.success != any(one.blocking for one in errors)
        return found

    def run_job(self, name: str, **op_configs: Any) -> dict[str, Any]:
        """Run a job with the config of its ops; return the metadata of the last output."""
        result = self.definitions.resolve_job_def(name).execute_in_process(
            instance=self.instance,
            resources=self.definitions.resources,
            run_config={"ops": {op: {"config": config} for op, config in op_configs.items()}},
        )
        *_, output = (event.step_output_data for event in result.all_events if event.is_successful_output)
        return {name: value.value for name, value in output.metadata.items()}

    def path(self, asset: str, day: date, column: str = "event_date") -> Path:
        return self.data / asset / f"{column}={day}" / "part-0.parquet"

    def rows(self, asset: str, day: date) -> list[Row]:
        """Read the rows of a stored day, whose columns must be those of the contract."""
        table = pq.read_table(self.path(asset, day), partitioning=None)
        assert read_types(table) == list_columns(asset)
        return read_rows(table)

    def rates(self, day: date) -> list[Row]:
        table = pq.read_table(self.path("reactivity_rates", day, "activation_date"), partitioning=None)
        assert read_types(table) == RATE_COLUMNS
        return [{"activation_date": day, **row} for row in read_rows(table)]

    def quarantine(self, asset: str, day: date) -> list[Row]:
        """Read the rows of a day's quarantine."""
        path = self.path(f"quarantine/{asset}", day)
        if not path.exists():
            return []
        table = pq.read_table(path, partitioning=None)
        assert read_types(table) == QUARANTINE_COLUMNS
        return read_rows(table)

    def rejected_events(self, asset: str, day: date) -> list[Any]:
        """Read the rejected events of a day whose text is stored."""
        texts = [row["event"] for row in self.quarantine(asset, day)]
        return [json.loads(text) for text in texts if text is not None]

    def fetched_until(self, asset: str, day: date) -> datetime:
        text = pq.read_metadata(self.path(asset, day)).metadata[b"np6.fetched_until"].decode()
        moment = datetime.fromisoformat(text)
        assert moment.utcoffset() == timedelta(0)
        return moment

    def missing_ids(self, day: date) -> list[int]:
        """Read the notifications that a day of activations lacks."""
        metadata = pq.read_metadata(self.path("activations", day)).metadata
        ids: list[int] = json.loads(metadata.get(b"np6.missing_ids", b"[]"))
        return ids

    def metadata(self, asset: str, day: date) -> dict[str, Any]:
        """Read the metadata of a day's newest materialization."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[f"{day}"]), limit=1
        ).records
        materialization = records[0].asset_materialization
        assert materialization is not None
        return {name: value.value for name, value in materialization.metadata.items()}

    def assert_stored(
        self, population: Population, assets: Iterable[str], first: date, last: date, contact: str = "drop"
    ) -> None:
        """Assert that exactly these days are stored, as the oracle computes them."""
        for asset in assets:
            for day in list_days(first, last):
                bounds = compute_day_bounds(day, self.timezone)
                expected = expect_rows(asset, population.feed(asset), *bounds, contact, PSEUDONYM_KEY)
                assert canonicalize(self.rows(asset, day)) == canonicalize(expected)
                rejected = [
                    bad_event
                    for bad_event in population.bad_events
                    if bad_event.kind == asset and bounds[0] <= bad_event.placed_ms < bounds[1]
                ]
                rows = self.quarantine(asset, day)
                assert compare_quarantine([row["event_key"] for row in rows], rejected) == []
                if contact == "keep":
                    found = {row["event_key"]: row["event"] for row in rows}
                    kept = [one for one in rejected if one.event is not None]
                    assert [json.loads(found[compute_event_key(one.body)]) for one in kept] == [
                        one.event for one in kept
                    ]
        places = {
            str(self.path(asset, day).relative_to(self.data)) for asset in assets for day in list_days(first, last)
        }
        assert {name for name in read_files(self.data) if not name.startswith("quarantine/")} == places
