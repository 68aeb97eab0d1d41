"""Test the IO manager in materializations: it writes what assets return, and reads their inputs."""

import tempfile
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
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


def build_rows(day: str, count: int = 2) -> pa.Table:
    """Build a day's rows, numbered from noon on, some with nulls."""
    noon = datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
    return pa.Table.from_pylist(
        [
            {
                "event_id": f"{day} {number}",
                "event_time": noon.replace(minute=number),
                "count": None if number == 1 else 2**53 + 1,
                "urgent": None if number == 1 else True,
            }
            for number in range(count)
        ],
        schema=SCHEMA,
    )


def build_reader(table: pa.Table) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=1))


def build_frame(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper=pd.ArrowDtype)


def build_stream(tables: Mapping[str, pa.Table]) -> PartitionStream:
    return build_lazy_stream(lambda: (Partition(key, build_reader(table)) for key, table in tables.items()))


def build_lazy_stream(make: Callable[[], Generator[Partition]]) -> PartitionStream:
    return PartitionStream(lambda: closing(make()))


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

    def build_plain(self, make: Callable[[], Any] = lambda: None) -> dg.AssetsDefinition:
        @dg.asset(name="plain", metadata=build_storage_metadata(COLUMNS))
        def plain() -> Any:
            return make()

        return plain

    def run(self, assets: list[Any], first: str | None = None, last: str | None = None, **options: Any) -> Any:
        tags = {} if first is None or last is None else tag_range(first, last)
        key = None if tags else first
        return dg.materialize(
            assets, resources=self.resources, instance=self.instance, partition_key=key, tags=tags, **options
        )

    def write(self, make: Callable[[list[str]], Any], first: str, last: str | None = None) -> None:
        self.run([self.build_upstream(make)], first, last)

    def write_days(self, *days: str) -> None:
        for day in days:
            self.write(lambda keys: build_rows(keys[0]), day)

    def read_back(self, day: str) -> pa.Table:
        with self.folder.open(f"up/event_date={day}/part-0.parquet") as file:
            return pq.read_table(file, partitioning=None)

    def read_bytes(self, place: str) -> bytes:
        with self.folder.open(place) as file:
            return file.read()

    def list_files(self) -> list[str]:
        return self.folder.list_files("")

    def load(
        self, annotation: Any, first: str, last: str | None = None, mapping: Any = None, metadata: Any = None
    ) -> Any:
        """Return the input of a downstream asset of these partitions."""
        inputs = []

        def down(up):
            inputs.append(up.to_table() if isinstance(up, ds.Dataset) else up)

        down.__annotations__ = {"up": annotation, "return": None}
        asset = dg.asset(
            down,
            partitions_def=PARTITIONS,
            backfill_policy=dg.BackfillPolicy.single_run(),
            ins={"up": dg.AssetIn(partition_mapping=mapping, metadata=metadata)},
        )
        self.run([self.build_upstream(), asset], first, last, selection=[asset])
        [loaded] = inputs
        return loaded


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def lab(tmp_path: Path, instance: dg.DagsterInstance) -> Lab:
    return Lab(str(tmp_path / "data"), instance)


@pytest.fixture(params=["local", "memory"])
def any_lab(request: pytest.FixtureRequest, tmp_path: Path, instance: dg.DagsterInstance) -> Lab:
    """A lab with a local folder, and one with an object store."""
    return Lab(str(tmp_path / "data") if request.param == "local" else f"memory://{uuid.uuid4().hex}/data", instance)


def build_paths(*days: str) -> list[str]:
    return [f"up/event_date={day}/part-0.parquet" for day in days]


def map_ahead(days: int) -> dg.TimeWindowPartitionMapping:
    return dg.TimeWindowPartitionMapping(end_offset=days, allow_nonexistent_upstream_partitions=True)


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [build_reader, lambda table: table, build_frame])
def test_io_manager_writes_readers_tables_and_frames_alike(lab: Lab, form: Callable[[pa.Table], Any]):
    lab.write(lambda keys: form(build_rows(keys[0])), DAYS[0])
    assert lab.list_files() == build_paths(DAYS[0])
    back = lab.read_back(DAYS[0])
    assert back.equals(build_rows(DAYS[0]))
    assert back.schema.equals(SCHEMA)


@pytest.mark.parametrize("form", [build_reader, lambda table: table, build_frame])
def test_io_manager_writes_a_mapping_partition_by_partition(any_lab: Lab, form: Callable[[pa.Table], Any]):
    any_lab.write(lambda keys: {key: form(build_rows(key)) for key in reversed(keys)}, DAYS[1], DAYS[3])
    assert any_lab.list_files() == build_paths(*DAYS[1:])
    assert all(any_lab.read_back(day).equals(build_rows(day)) for day in DAYS[1:])


def test_io_manager_writes_the_same_bytes_for_a_range_and_for_days(any_lab: Lab):
    any_lab.write(lambda keys: build_stream({key: build_rows(key, 5) for key in keys}), DAYS[0], DAYS[2])
    range_bytes = [any_lab.read_bytes(place) for place in build_paths(*DAYS[:3])]
    for day in DAYS[:3]:
        any_lab.write(lambda keys: {keys[0]: build_rows(keys[0], 5)}, day, day)
    assert [any_lab.read_bytes(place) for place in build_paths(*DAYS[:3])] == range_bytes


def test_io_manager_writes_one_file_without_partitions(lab: Lab):
    lab.run([lab.build_plain(lambda: build_rows(DAYS[0]))])
    assert lab.list_files() == ["plain/part-0.parquet"]


def test_partitions_of_a_range_have_their_own_metadata(any_lab: Lab):
    counts = {DAYS[0]: 3, DAYS[1]: 0, DAYS[2]: 1}
    any_lab.write(lambda keys: build_stream({key: build_rows(key, counts[key]) for key in keys}), DAYS[0], DAYS[2])
    for day, count in counts.items():
        metadata = read_materialization(any_lab, day).metadata
        path = any_lab.folder.path(build_paths(day)[0])
        assert metadata["dagster/partition_row_count"].value == count
        assert metadata["bytes"].value == any_lab.folder.get_size(build_paths(day)[0])
        assert metadata["path"].value == path
        noon = datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
        if count:
            assert metadata["first_event"].value == noon.timestamp()
            assert metadata["last_event"].value == noon.replace(minute=count - 1).timestamp()
        else:
            assert metadata.keys().isdisjoint({"first_event", "last_event"})


def read_materialization(lab: Lab, day: str) -> dg.AssetMaterialization:
    """Read the latest materialization of a day."""
    found = lab.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("up"), asset_partitions=[day]), limit=1
    )
    return found.records[0].asset_materialization


def test_failed_range_records_its_written_partitions():
    def make(keys: list[str]) -> PartitionStream:
        def rows():
            for key in keys[:2]:
                yield Partition(key, build_reader(build_rows(key, 3)))
            raise OSError("no more today")

        return build_lazy_stream(rows)

    with dg.DagsterInstance.ephemeral() as instance, tempfile.TemporaryDirectory() as folder:
        lab = Lab(folder, instance)
        assert not lab.run([lab.build_upstream(make)], DAYS[0], DAYS[3], raise_on_error=False).success
        assert instance.get_materialized_partitions(dg.AssetKey("up")) == {DAYS[0], DAYS[1]}
        for day in DAYS[:2]:
            assert read_materialization(lab, day).metadata["dagster/partition_row_count"].value == 3


def test_long_range_records_partitions_before_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("np6_assets.storage.io_manager.RECORDED_WITHIN", 0)
    materialized = []

    def make(keys: list[str]) -> PartitionStream:
        def rows():
            for key in keys:
                materialized.append(instance.get_materialized_partitions(dg.AssetKey("up")))
                yield Partition(key, build_reader(build_rows(key, 3)))

        return build_lazy_stream(rows)

    with dg.DagsterInstance.ephemeral() as instance, tempfile.TemporaryDirectory() as folder:
        Lab(folder, instance).write(make, DAYS[0], DAYS[2])
    assert materialized == [set(), set(DAYS[:1]), set(DAYS[:2])]


def test_partitions_of_a_range_have_their_own_data_version(lab: Lab):
    def write_and_read_versions(**counts: int) -> list[str]:
        rows = {day: build_rows(day, count) for day, count in zip(DAYS, counts.values(), strict=False)}
        lab.write(lambda keys: build_stream(rows), DAYS[0], DAYS[len(rows) - 1])
        return [read_materialization(lab, day).tags["dagster/data_version"] for day in rows]

    before = write_and_read_versions(first=2, second=2, third=2)
    after = write_and_read_versions(first=2, second=3, third=2)
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] != before[1]
    lab.write_days(DAYS[0])
    assert read_materialization(lab, DAYS[0]).tags["dagster/data_version"] == before[0]


def build_failing_reader(*tables: pa.Table) -> pa.RecordBatchReader:
    """Build a reader that fails after these rows."""

    def batches() -> Iterator[pa.RecordBatch]:
        for table in tables:
            yield from table.to_batches()
        raise ValueError("broken on purpose")

    return pa.RecordBatchReader.from_batches(SCHEMA, batches())


@pytest.mark.parametrize("then", [DAYS[1], DAYS[2]], ids=["other rows", "the next partition"])
def test_stream_may_yield_another_partition_after_a_write_error(then: str):
    caught: list[Exception] = []

    def make() -> Generator[Partition]:
        yield Partition(DAYS[0], build_reader(build_rows(DAYS[0])))
        try:
            yield Partition(DAYS[1], build_failing_reader(build_rows(DAYS[1])))
        except ValueError as error:
            caught.append(error)
            yield Partition(then, build_reader(build_rows(then, 5)))
        if then == DAYS[1]:
            yield Partition(DAYS[2], build_reader(build_rows(DAYS[2])))
        else:
            raise RuntimeError(f"without {DAYS[1]}")

    with dg.DagsterInstance.ephemeral() as instance, tempfile.TemporaryDirectory() as folder:
        lab = Lab(folder, instance)
        if then == DAYS[1]:
            lab.write(lambda keys: build_lazy_stream(make), DAYS[0], DAYS[2])
        else:
            with pytest.raises(RuntimeError, match=DAYS[1]):
                lab.write(lambda keys: build_lazy_stream(make), DAYS[0], DAYS[2])
        assert [str(error) for error in caught] == ["broken on purpose"]
        written = [DAYS[0], DAYS[1], DAYS[2]] if then == DAYS[1] else [DAYS[0], DAYS[2]]
        assert lab.list_files() == build_paths(*written)
        assert lab.read_back(then).num_rows == 5
        assert instance.get_materialized_partitions(dg.AssetKey("up")) == set(written)
        assert [read_materialization(lab, day).metadata["dagster/partition_row_count"].value for day in written] == [
            5 if day == then else 2 for day in written
        ]


def test_stream_may_add_metadata_while_its_rows_are_read(any_lab: Lab):
    def make() -> Generator[Partition]:
        for key in DAYS[:2]:
            metadata: dict[str, Any] = {"early": key}

            def batches(key: str = key, metadata: dict[str, Any] = metadata) -> Iterator[pa.RecordBatch]:
                yield from build_rows(key).to_batches()
                metadata["late"] = key

            yield Partition(key, pa.RecordBatchReader.from_batches(SCHEMA, batches()), metadata)

    any_lab.write(lambda keys: build_lazy_stream(make), DAYS[0], DAYS[1])
    for day in DAYS[:2]:
        metadata = read_materialization(any_lab, day).metadata
        assert (metadata["early"].value, metadata["late"].value) == (day, day)
        assert metadata["dagster/partition_row_count"].value == 2


def test_stored_partition_keeps_its_file_and_its_record(lab: Lab):
    lab.write_days(DAYS[0])
    before = read_materialization(lab, DAYS[0])

    def make() -> Generator[Partition]:
        yield Partition(DAYS[0], before)
        yield Partition(DAYS[1], build_reader(build_rows(DAYS[1])))

    lab.write(lambda keys: build_lazy_stream(make), DAYS[0], DAYS[1])
    assert lab.list_files() == build_paths(*DAYS[:2])
    after = read_materialization(lab, DAYS[0])
    assert after.tags["dagster/data_version"] == before.tags["dagster/data_version"]
    assert after.metadata["rows_digest"] == before.metadata["rows_digest"]


def test_digest_depends_on_the_rows_alone(lab: Lab):
    def write_and_read_digest(rows: pa.Table) -> str:
        lab.write(lambda keys: rows, DAYS[0])
        path = lab.folder.path(build_paths(DAYS[0])[0])
        digest = pq.read_metadata(path).metadata[b"np6.content"].decode()
        materialization = read_materialization(lab, DAYS[0])
        assert materialization.metadata["rows_digest"].value == digest
        return digest

    rows = build_rows(DAYS[0])
    assert write_and_read_digest(rows) == write_and_read_digest(
        rows.replace_schema_metadata({"np6.fetched_until": "now"})
    )
    assert write_and_read_digest(rows) != write_and_read_digest(rows.slice(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda keys: {day: build_rows(day) for day in DAYS[:3]}, "2026-03-22"),
        (lambda keys: {DAYS[0]: build_rows(DAYS[0])}, "nothing for 2026-03-21"),
        (lambda keys: {}, "nothing for 2026-03-20, 2026-03-21"),
        (lambda keys: build_rows(DAYS[0]), "mapping"),
    ],
)
def test_io_manager_refuses_other_partitions(lab: Lab, make: Callable[[list[str]], Any], message: str):
    with pytest.raises(UnexpectedOutputError, match=message):
        lab.write(make, DAYS[0], DAYS[1])
    assert set(lab.list_files()) <= set(build_paths(*DAYS[:2]))


@pytest.mark.parametrize(
    "wrong",
    [
        build_rows(DAYS[0]).drop_columns(["urgent"]),
        build_rows(DAYS[0]).append_column("more", pa.array([1, 2])),
        build_rows(DAYS[0]).select(["event_time", "event_id", "count", "urgent"]),
        build_rows(DAYS[0]).cast(
            pa.schema([*list(SCHEMA)[:2], ("count", pa.int32()), SCHEMA.field("urgent")]), safe=False
        ),
        build_frame(build_rows(DAYS[0]).drop_columns(["urgent"])),
        build_frame(build_rows(DAYS[0]).append_column("more", pa.array([1, 2]))),
        build_rows(DAYS[0]).to_pylist(),
        None,
    ],
    ids=[
        "a column less",
        "a column more",
        "another order",
        "another type",
        "a frame of less",
        "a frame of more",
        "a list",
        "nothing",
    ],
)
def test_io_manager_refuses_undeclared_columns(lab: Lab, wrong: Any):
    lab.write_days(DAYS[0])
    for make in (
        lambda keys: wrong,
        lambda keys: {keys[0]: build_reader(wrong) if isinstance(wrong, pa.Table) else wrong},
    ):
        with pytest.raises(UnexpectedOutputError):
            lab.write(make, DAYS[0])
    assert lab.read_back(DAYS[0]).equals(build_rows(DAYS[0]))
    assert lab.list_files() == build_paths(DAYS[0])


def test_failed_range_keeps_the_days_that_it_wrote(lab: Lab):
    lab.write_days(DAYS[1], DAYS[2])
    closed = []

    def make() -> Generator[Partition]:
        try:
            yield Partition(DAYS[0], build_reader(build_rows(DAYS[0], 4)))
            yield Partition(DAYS[1], build_failing_reader(build_rows("2026-01-01")))
            yield Partition(DAYS[2], build_reader(build_rows(DAYS[2], 4)))
        finally:
            closed.append(True)

    with pytest.raises(ValueError, match="broken on purpose"):
        lab.write(lambda keys: build_lazy_stream(make), DAYS[0], DAYS[2])
    assert closed == [True]
    assert [lab.read_back(day).num_rows for day in DAYS[:3]] == [4, 2, 2]
    assert lab.list_files() == build_paths(*DAYS[:3])


# --- reading -------------------------------------------------------------------------------------------------------


def build_dated_rows(*days: str) -> pa.Table:
    """Build the rows of these days with their day, as an input has them."""
    parts = [
        build_rows(day).append_column("event_date", pa.array([date.fromisoformat(day)] * 2, pa.date32()))
        for day in days
    ]
    return pa.concat_tables(parts) if parts else WITH_DATE.empty_table()


@pytest.mark.parametrize("annotation", [ds.Dataset, ds.FileSystemDataset, pa.Table])
@pytest.mark.parametrize("days", [DAYS[:1], DAYS[:3]], ids=["one day", "many days"])
def test_input_has_the_same_shape_for_one_day_and_for_many(any_lab: Lab, annotation: Any, days: list[str]):
    any_lab.write_days(*days)
    loaded = any_lab.load(annotation, days[0], days[-1])
    assert loaded.schema.names == WITH_DATE.names
    assert loaded.schema.types == WITH_DATE.types
    assert loaded.sort_by("event_time").to_pylist() == build_dated_rows(*days).to_pylist()


@pytest.mark.parametrize("days", [DAYS[:1], DAYS[:3]], ids=["one day", "many days"])
def test_input_annotated_with_pandas_is_a_data_frame(lab: Lab, days: list[str]):
    lab.write_days(*days)
    loaded = lab.load(pd.DataFrame, days[0], days[-1])
    assert isinstance(loaded, pd.DataFrame)
    assert list(loaded.columns) == WITH_DATE.names
    assert list(loaded["event_id"]) == build_dated_rows(*days).column("event_id").to_pylist()
    assert list(loaded["event_date"]) == build_dated_rows(*days).column("event_date").to_pylist()


def test_input_of_a_partition_equals_that_of_its_range(lab: Lab):
    lab.write_days(DAYS[0])
    assert lab.load(pa.Table, DAYS[0]).equals(lab.load(pa.Table, DAYS[0], DAYS[0]))


def test_input_dataset_is_lazy_and_pruned_by_day(lab: Lab, tmp_path: Path):
    lab.write_days(*DAYS[:3])
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
    assert paths == [str(tmp_path / "data" / build_paths(DAYS[1])[0])]
    assert table.to_pylist() == build_dated_rows(DAYS[1]).to_pylist()


def test_input_without_rows_has_all_columns(lab: Lab):
    lab.write(lambda keys: SCHEMA.empty_table(), DAYS[0])
    loaded = lab.load(pa.Table, DAYS[0])
    assert loaded.num_rows == 0
    assert loaded.schema.types == WITH_DATE.types


def test_input_without_partitions_has_no_partition_column(lab: Lab):
    inputs = []

    @dg.asset
    def down(plain: pa.Table) -> None:
        inputs.append(plain)

    upstream = lab.build_plain(lambda: build_rows(DAYS[0]))
    with pytest.raises(MissingPartitionsError, match="plain was never materialized"):
        lab.run([upstream, down], selection=[down])
    lab.run([upstream, down])
    assert inputs[0].to_pylist() == build_rows(DAYS[0]).to_pylist()
    assert inputs[0].schema.names == SCHEMA.names


@pytest.mark.parametrize("first_to_last", [(DAYS[0], None), (DAYS[0], DAYS[3])])
def test_missing_partitions_are_named(lab: Lab, first_to_last: tuple[str, str | None]):
    lab.write_days(DAYS[1], DAYS[3])
    with pytest.raises(MissingPartitionsError) as raised:
        lab.load(pa.Table, *first_to_last)
    assert DAYS[0] in str(raised.value)
    assert (DAYS[2] in str(raised.value)) == (first_to_last[1] is not None)
    assert DAYS[1] not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [([DAYS[1], DAYS[3]], [DAYS[1], DAYS[3]]), ([], [])],
    ids=["some are there", "none is there"],
)
@pytest.mark.parametrize("annotation", [ds.Dataset, pa.Table])
def test_missing_partitions_are_allowed_by_the_inputs_metadata(
    any_lab: Lab, annotation: Any, stored: Iterable[str], expected: list[str]
):
    any_lab.write_days(*stored)
    loaded = any_lab.load(annotation, DAYS[0], DAYS[3], metadata={ALLOW_MISSING: True})
    assert loaded.sort_by("event_time").to_pylist() == build_dated_rows(*expected).to_pylist()
    assert loaded.schema.types == WITH_DATE.types


def test_mapping_past_the_last_day_reads_existing_days(lab: Lab):
    lab.write_days(*DAYS[1:])
    loaded = lab.load(pa.Table, DAYS[2], mapping=map_ahead(7))
    assert loaded.to_pylist() == build_dated_rows(*DAYS[2:]).to_pylist()


def test_unknown_annotation_is_refused(lab: Lab):
    lab.write_days(DAYS[0])
    with pytest.raises(UnexpectedOutputError, match=r"pyarrow\.Table"):
        lab.load(dict, DAYS[0])
