"""Test the IO manager in materializations: it writes what assets return, and reads their inputs."""

import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from np6_assets.storage import parquet
from np6_assets.storage.io_manager import (
    ALLOW_MISSING,
    MissingPartitionsError,
    ParquetIOManager,
    ParquetStore,
    Partition,
    PartitionStream,
    UnexpectedOutputError,
)
from np6_assets.storage.schemas import build_storage_metadata
from np6_assets_tests.support.deployment import tag_range

DAYS = ["2026-03-20", "2026-03-21", "2026-03-22", "2026-03-23"]
PARTITIONS = dg.DailyPartitionsDefinition(DAYS[0], end_date="2026-03-24")
COLUMNS = (
    ("event_id", pa.string(), "Id.", False),
    ("event_time", pa.timestamp("ms", tz="UTC"), "Time.", True),
    ("count", pa.int64(), "A number.", True),
    ("urgent", pa.bool_(), "A flag.", True),
)
SCHEMA = pa.schema([pa.field(name, type_, nullable) for name, type_, _, nullable in COLUMNS])
WITH_DATE = SCHEMA.append(pa.field("event_date", pa.date32()))
UP = dg.AssetKey("up")
ROW_COUNT, DATA_VERSION = "dagster/partition_row_count", "dagster/data_version"


def get_noon(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)


def build_rows(day: str, count: int = 2) -> pa.Table:
    """Build a day's rows, numbered from noon on, some with nulls."""
    return pa.Table.from_pylist(
        [
            {
                "event_id": f"{day} {number}",
                "event_time": get_noon(day).replace(minute=number),
                "count": None if number == 1 else 2**53 + 1,
                "urgent": None if number == 1 else True,
            }
            for number in range(count)
        ],
        schema=SCHEMA,
    )


def build_reader(table: pa.Table, error: Exception | None = None) -> pa.RecordBatchReader:
    """Build a reader of these rows, which fails after them if there is an error."""

    def batches() -> Iterator[pa.RecordBatch]:
        yield from table.to_batches(max_chunksize=1)
        if error is not None:
            raise error

    return pa.RecordBatchReader.from_batches(table.schema, batches())


def build_frame(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper=pd.ArrowDtype)


def build_stream(make: Callable[[], Generator[Partition]]) -> PartitionStream:
    return PartitionStream(lambda: closing(make()))


def build_path(day: str) -> str:
    return f"up/event_date={day}/part-0.parquet"


def map_ahead(days: int) -> dg.TimeWindowPartitionMapping:
    return dg.TimeWindowPartitionMapping(end_offset=days, allow_nonexistent_upstream_partitions=True)


class Lab:
    """An instance, a data folder, and an upstream asset that returns what `make` returns."""

    def __init__(self, url: str, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        store = ParquetStore(data_dir=url)
        self.resources = {"io_manager": ParquetIOManager(store=store)}
        self.folder = store.open_folder()

    def build_upstream(self, make: Callable[[list[str]], Any] = lambda keys: None) -> dg.AssetsDefinition:
        @dg.asset(
            name="up",
            partitions_def=PARTITIONS,
            backfill_policy=dg.BackfillPolicy.single_run(),
            metadata=build_storage_metadata(COLUMNS, "event_date"),
        )
        def up(context: dg.AssetExecutionContext) -> Any:
            output = make(list(context.partition_keys))
            yield from output.yield_outputs() if isinstance(output, PartitionStream) else [dg.Output(output)]

        return up

    def run(self, assets: list[Any], first: str | None = None, last: str | None = None, **options: Any) -> Any:
        tags = {} if first is None or last is None else tag_range(first, last)
        key = None if tags else first
        return dg.materialize(
            assets, resources=self.resources, instance=self.instance, partition_key=key, tags=tags, **options
        )

    def write(self, output: Any, first: str, last: str | None = None) -> None:
        """Materialize days of the upstream asset, which returns this, or what this makes for a stream."""
        self.run([self.build_upstream(lambda _: build_stream(output) if callable(output) else output)], first, last)

    def store(self, *days: str) -> None:
        """Write days without a run."""
        for day in days:
            parquet.write_file(self.folder, build_path(day), build_rows(day))

    def read_back(self, day: str) -> pa.Table:
        with self.folder.open(build_path(day)) as file:
            return pq.read_table(file, partitioning=None)

    def list_days(self) -> list[str]:
        """List the days that are stored, and nothing else."""
        files = self.folder.list_files("")
        days = [file.split("=")[1][:10] for file in files]
        assert files == [build_path(day) for day in days]
        return days

    def read_record(self, day: str) -> dg.AssetMaterialization:
        """Read the latest materialization of a day."""
        found = self.instance.fetch_materializations(dg.AssetRecordsFilter(UP, asset_partitions=[day]), limit=1)
        return found.records[0].asset_materialization

    def load(self, annotation: Any, first: str, last: str | None = None, **asset_in: Any) -> Any:
        """Return the input of a downstream asset of these partitions."""
        inputs = []

        def down(up):
            inputs.append(up.to_table() if isinstance(up, ds.Dataset) else up)

        down.__annotations__ = {"up": annotation, "return": None}
        asset = dg.asset(
            down,
            partitions_def=PARTITIONS,
            backfill_policy=dg.BackfillPolicy.single_run(),
            ins={"up": dg.AssetIn(**asset_in)},
        )
        self.run([self.build_upstream(), asset], first, last, selection=[asset])
        [loaded] = inputs
        return loaded


@pytest.fixture
def lab(tmp_path: Path, instance: dg.DagsterInstance) -> Lab:
    return Lab(str(tmp_path / "data"), instance)


@pytest.fixture(params=["local", "memory"])
def any_lab(request: pytest.FixtureRequest, tmp_path: Path, instance: dg.DagsterInstance) -> Lab:
    """A lab with a local folder, and one with an object store."""
    return Lab(str(tmp_path / "data") if request.param == "local" else f"memory://{uuid.uuid4().hex}/data", instance)


# --- writing -------------------------------------------------------------------------------------------------------


def test_io_manager_writes_readers_tables_and_frames_alike(any_lab: Lab):
    forms = dict(zip(DAYS[1:], (build_reader, lambda table: table, build_frame), strict=True))
    any_lab.write({day: forms[day](build_rows(day)) for day in reversed(DAYS[1:])}, DAYS[1], DAYS[3])
    any_lab.write(build_rows(DAYS[0]), DAYS[0])
    assert any_lab.list_days() == DAYS
    for day in DAYS:
        assert any_lab.read_back(day).equals(build_rows(day))
        assert any_lab.read_back(day).schema.equals(SCHEMA)


def test_partitions_of_a_range_have_the_files_and_records_of_single_days(lab: Lab):
    counts = {DAYS[0]: 3, DAYS[1]: 0, DAYS[2]: 1}

    def make() -> Generator[Partition]:
        for day, count in counts.items():
            metadata: dict[str, Any] = {"early": day}

            def batches(day: str = day, count: int = count, metadata: dict[str, Any] = metadata) -> Iterator[Any]:
                yield from build_rows(day, count).to_batches()
                metadata["late"] = day

            yield Partition(day, pa.RecordBatchReader.from_batches(SCHEMA, batches()), metadata)

    def read_files() -> dict[str, tuple[bytes, str]]:
        return {
            day: (Path(lab.folder.path(build_path(day))).read_bytes(), lab.read_record(day).tags[DATA_VERSION])
            for day in counts
        }

    lab.write(make, DAYS[0], DAYS[2])
    for day, count in counts.items():
        metadata = {name: found.value for name, found in lab.read_record(day).metadata.items()}
        assert metadata.pop("rows_digest") == pq.read_metadata(metadata["path"]).metadata[b"np6.content"].decode()
        times = {"first_event": get_noon(day), "last_event": get_noon(day).replace(minute=max(count - 1, 0))}
        assert metadata == {
            ROW_COUNT: count,
            "early": day,
            "late": day,
            **({name: time.timestamp() for name, time in times.items()} if count else {}),
            "bytes": lab.folder.get_size(build_path(day)),
            "path": lab.folder.path(build_path(day)),
        }
    before = read_files()
    for day, count in counts.items():
        lab.write({day: build_rows(day, count)}, day)
    assert read_files() == before
    counts[DAYS[1]] = 3
    lab.write(make, DAYS[0], DAYS[2])
    after = read_files()
    assert [day for day in counts if after[day][1] != before[day][1]] == [DAYS[1]]


def test_digest_depends_on_the_rows_alone(lab: Lab):
    rows, digests = build_rows(DAYS[0]), []
    for written in (rows, rows.replace_schema_metadata({"np6.fetched_until": "now"}), rows.slice(1)):
        lab.write(written, DAYS[0])
        digests.append(lab.read_record(DAYS[0]).metadata["rows_digest"].value)
    assert digests[0] == digests[1] != digests[2]


def test_long_range_records_partitions_before_its_end(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("np6_assets.storage.io_manager.RECORDED_WITHIN", 0)
    materialized = []

    def make() -> Generator[Partition]:
        for key in DAYS[:3]:
            materialized.append(lab.instance.get_materialized_partitions(UP))
            yield Partition(key, build_reader(build_rows(key, 3)))

    lab.write(make, DAYS[0], DAYS[2])
    assert materialized == [set(), set(DAYS[:1]), set(DAYS[:2])]


@pytest.mark.parametrize("then", [None, DAYS[1], DAYS[2]], ids=["an end", "other rows", "the next partition"])
def test_stream_decides_what_follows_a_write_error(lab: Lab, then: str | None):
    lab.store(DAYS[1])
    caught: list[Exception] = []

    def make() -> Generator[Partition]:
        yield Partition(DAYS[0], build_reader(build_rows(DAYS[0], 4)))
        try:
            yield Partition(DAYS[1], build_reader(build_rows(DAYS[1]), ValueError("broken on purpose")))
        except ValueError as error:
            caught.append(error)
            if then is None:
                raise
            yield Partition(then, build_reader(build_rows(then, 5)))
        if then == DAYS[1]:
            yield Partition(DAYS[2], build_reader(build_rows(DAYS[2])))
        else:
            raise RuntimeError(f"without {DAYS[1]}")

    if then == DAYS[1]:
        lab.write(make, DAYS[0], DAYS[2])
    else:
        with pytest.raises((ValueError, RuntimeError), match=f"without {DAYS[1]}" if then else "broken on purpose"):
            lab.write(make, DAYS[0], DAYS[2])
    assert [str(error) for error in caught] == ["broken on purpose"]
    written = {DAYS[0]: 4, **({then: 5} if then else {}), **({DAYS[2]: 2} if then == DAYS[1] else {})}
    assert {day: lab.read_back(day).num_rows for day in lab.list_days()} == {DAYS[1]: 2} | written
    # also the days before the error are recorded
    assert lab.instance.get_materialized_partitions(UP) == written.keys()
    assert {day: lab.read_record(day).metadata[ROW_COUNT].value for day in written} == written


def test_stored_partition_keeps_its_file_and_its_record(lab: Lab):
    lab.write(build_rows(DAYS[0]), DAYS[0])
    before = lab.read_record(DAYS[0])

    def make() -> Generator[Partition]:
        yield Partition(DAYS[0], before)
        yield Partition(DAYS[1], build_reader(build_rows(DAYS[1])))

    lab.write(make, DAYS[0], DAYS[1])
    assert lab.list_days() == DAYS[:2]
    after = lab.read_record(DAYS[0])
    assert after.tags[DATA_VERSION] == before.tags[DATA_VERSION]
    assert after.metadata["rows_digest"] == before.metadata["rows_digest"]


def test_io_manager_refuses_other_partitions(lab: Lab):
    for output, message in (
        ({day: build_rows(day) for day in DAYS[:3]}, "2026-03-22"),
        ({DAYS[0]: build_rows(DAYS[0])}, "nothing for 2026-03-21"),
        ({}, "nothing for 2026-03-20, 2026-03-21"),
        (build_rows(DAYS[0]), "mapping"),
    ):
        with pytest.raises(UnexpectedOutputError, match=message):
            lab.write(output, DAYS[0], DAYS[1])
        assert set(lab.list_days()) <= set(DAYS[:2])


def test_io_manager_refuses_undeclared_columns(lab: Lab):
    lab.store(DAYS[0])
    rows = build_rows(DAYS[0])
    smaller = pa.schema([SCHEMA.field(0), SCHEMA.field(1), ("count", pa.int32()), SCHEMA.field("urgent")])
    for wrong in (
        rows.drop_columns(["urgent"]),
        rows.append_column("more", pa.array([1, 2])),
        build_reader(rows.select(["event_time", "event_id", "count", "urgent"])),
        rows.cast(smaller, safe=False),
        build_frame(rows.drop_columns(["urgent"])),
        build_frame(rows.append_column("more", pa.array([1, 2]))),
        rows.to_pylist(),
    ):
        with pytest.raises(UnexpectedOutputError):
            lab.write({DAYS[0]: wrong}, DAYS[0])
        assert lab.read_back(DAYS[0]).equals(rows)
        assert lab.list_days() == DAYS[:1]


# --- reading -------------------------------------------------------------------------------------------------------


def build_dated_rows(*days: str) -> list[dict[str, Any]]:
    """Build the rows of these days with their day, as an input has them."""
    return [{**row, "event_date": date.fromisoformat(day)} for day in days for row in build_rows(day).to_pylist()]


def test_input_has_the_same_shape_for_one_day_and_for_many(any_lab: Lab):
    any_lab.store(*DAYS[:3])
    for annotation, days in ((ds.Dataset, DAYS[:3]), (ds.FileSystemDataset, DAYS[:1]), (pa.Table, DAYS[:3])):
        loaded = any_lab.load(annotation, days[0], days[-1])
        assert (loaded.schema.names, loaded.schema.types) == (WITH_DATE.names, WITH_DATE.types)
        assert loaded.sort_by("event_time").to_pylist() == build_dated_rows(*days)
    assert any_lab.load(pa.Table, DAYS[0]).to_pylist() == build_dated_rows(DAYS[0])
    frame = any_lab.load(pd.DataFrame, DAYS[0], DAYS[2])
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == WITH_DATE.names
    for name in ("event_id", "event_date"):
        assert list(frame[name]) == [row[name] for row in build_dated_rows(*DAYS[:3])]


def test_input_dataset_is_lazy_and_pruned_by_day(lab: Lab):
    lab.store(*DAYS[:3])
    found: list[Any] = []

    @dg.asset(partitions_def=PARTITIONS, ins={"up": dg.AssetIn(partition_mapping=map_ahead(2))})
    def down(up: ds.Dataset) -> None:
        is_second_day = ds.field("event_date") == date(2026, 3, 21)
        found.extend(
            [[fragment.path for fragment in up.get_fragments(is_second_day)], up.to_table(filter=is_second_day)]
        )
        for path in up.files:
            Path(path).unlink()
        with pytest.raises(FileNotFoundError):
            up.to_table()

    lab.run([lab.build_upstream(), down], DAYS[0], selection=[down])
    paths, table = found
    assert paths == [lab.folder.path(build_path(DAYS[1]))]
    assert table.to_pylist() == build_dated_rows(DAYS[1])


def test_asset_without_partitions_has_one_file_and_no_partition_column(lab: Lab):
    inputs = []

    @dg.asset(name="plain", metadata=build_storage_metadata(COLUMNS))
    def upstream() -> Any:
        return build_rows(DAYS[0])

    @dg.asset
    def down(plain: pa.Table) -> None:
        inputs.append(plain)

    with pytest.raises(MissingPartitionsError, match="plain was never materialized"):
        lab.run([upstream, down], selection=[down])
    lab.run([upstream, down])
    assert lab.folder.list_files("plain") == ["plain/part-0.parquet"]
    assert inputs[0].to_pylist() == build_rows(DAYS[0]).to_pylist()
    assert inputs[0].schema.names == SCHEMA.names


def test_missing_partitions_are_named_unless_the_inputs_metadata_allows_them(any_lab: Lab):
    missing_allowed = {"metadata": {ALLOW_MISSING: True}}
    assert any_lab.load(ds.Dataset, DAYS[0], DAYS[3], **missing_allowed).num_rows == 0
    any_lab.store(DAYS[1], DAYS[3])
    for last, missing in ((None, DAYS[0]), (DAYS[3], f"{DAYS[0]}, {DAYS[2]}")):
        with pytest.raises(MissingPartitionsError, match=f"^up was never materialized for {missing}; materialize"):
            any_lab.load(pa.Table, DAYS[0], last)
    loaded = any_lab.load(pa.Table, DAYS[0], DAYS[3], **missing_allowed)
    assert loaded.sort_by("event_time").to_pylist() == build_dated_rows(DAYS[1], DAYS[3])
    assert loaded.schema.types == WITH_DATE.types
    # a mapping that goes past the last day
    loaded = any_lab.load(pa.Table, DAYS[3], partition_mapping=map_ahead(7))
    assert loaded.to_pylist() == build_dated_rows(DAYS[3])


def test_unknown_annotation_is_refused(lab: Lab):
    lab.store(DAYS[0])
    with pytest.raises(UnexpectedOutputError, match=r"pyarrow\.Table"):
        lab.load(dict, DAYS[0])
