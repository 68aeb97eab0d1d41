"""The Parquet IO manager: writes what an asset returns, and reads what an asset's inputs ask for."""

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg
import pyarrow as pa
from pydantic import Field

from np6_assets.storage.files import ANY_VERSION, ExpectedVersion, Folder
from np6_assets.storage.schemas import PARTITION_COLUMN, build_arrow_schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as ds

    from np6_assets.storage import parquet

ALLOW_MISSING = "allow_missing_partitions"
"""Metadata key of an input for which missing partitions are no error."""

FILE_MODE = "np6/file_mode"
"""Metadata key of an asset: the mode of its local files; without it, as the umask says."""

RECORDED_WITHIN = 30
"""Seconds after which Dagster has a partition's record at the latest, while its step goes on."""

DATA_VERSION = "dagster/data_version"
"""Dagster's tag for the version of a partition's content."""

ROW_COUNT = "dagster/partition_row_count"
"""Dagster's metadata key for a partition's rows."""

ROWS_DIGEST = "rows_digest"
"""Metadata key of a record: the digest of its rows."""

FILE_FACTS = (ROW_COUNT, "first_event", "last_event", "bytes", "path", ROWS_DIGEST)
"""Metadata keys of a record that describe the file."""


class MissingPartitionsError(Exception):
    """An input needs partitions that were never materialized."""


class UnexpectedOutputError(Exception):
    """An asset returned something that does not fit its declaration."""


Dataset: TypeAlias = Any
"""`pyarrow.dataset.Dataset`, as the annotation of an input: its own name would import pandas with the definitions."""

Rows: TypeAlias = "pa.RecordBatchReader | pa.Table | pd.DataFrame"


@dataclass
class Partition:
    """A partition to be written.

    `rows` may be the record of a partition whose file exists already and stays. `metadata` is complete once the rows
    have been read. Writing raises ChangedError if the file is not of the version expected `before`.
    """

    key: str
    rows: "Rows | dg.AssetMaterialization"
    metadata: dict[str, Any] = field(default_factory=dict)
    before: ExpectedVersion = ANY_VERSION


class PartitionStream:
    """Partitions that are computed one after another while they are written; returned through `yield_outputs`.

    `open_partitions` gives the context in which they are computed, and in it a generator. An error in writing a
    partition is thrown into the generator, which raises it or yields what is to be written instead. A partition that is
    yielded again replaces what was written.
    """

    def __init__(self, opened: Callable[[], AbstractContextManager[Generator[Partition]]]) -> None:
        self.open_partitions = opened
        self.records: dict[str, dg.AssetMaterialization] = {}
        """The record of each partition that was written, or was there, by its key."""

    def yield_outputs(self) -> Iterator[dg.Output["PartitionStream"] | dg.AssetMaterialization]:
        """Yield what an asset that returns the stream yields.

        For a range Dagster makes one record for each partition at the end of the step, all with one data version. The
        partitions' own records follow, so that the latest record of each says whether it has changed.
        """
        yield dg.Output(self)
        if len(self.records) > 1:
            yield from self.records.values()


class ParquetStore(dg.ConfigurableResource["ParquetStore"]):
    """The data folder."""

    data_dir: str = Field(description="Where Parquet goes: a local folder or an address such as s3://bucket/prefix.")

    def open_folder(self) -> Folder:
        """Open the data folder."""
        return Folder(self.data_dir)

    def build_definition(
        self, during: Callable[[dg.InitResourceContext], AbstractContextManager[None]]
    ) -> dg.ResourceDefinition:
        """Build the definition for runs, without config. `during` is open as long as a run has the resource."""

        def opened(context: dg.InitResourceContext) -> Iterator[ParquetStore]:
            with during(context):
                yield self

        return dg.ResourceDefinition(opened, config_schema={}, description=type(self).__doc__)


class ParquetIOManager(dg.ConfigurableIOManager):
    """Writes each partition as one Parquet file, atomically, and reads any number of them back.

    Takes `pyarrow.RecordBatchReader`, `pyarrow.Table` and `pandas.DataFrame`, one or a mapping from partition to one.
    Returns what the input's annotation asks for: `pyarrow.dataset.Dataset` (lazy; the default), `pyarrow.Table` or
    `pandas.DataFrame`, with the partition column. Missing partitions raise MissingPartitionsError unless the input's
    metadata has `allow_missing_partitions`.
    """

    store: dg.ResourceDependency[ParquetStore]

    def build_definition(self) -> dg.IOManagerDefinition:
        """Build the definition for runs, without config."""
        return dg.IOManagerDefinition(lambda _: self, config_schema={}, description=type(self).__doc__)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write what an asset returned, partition by partition."""
        execution = dg.AssetExecutionContext.get()
        if context.has_asset_partitions:
            keys = list(context.asset_partition_keys)
            stream = obj if isinstance(obj, PartitionStream) else _to_stream(obj, keys)
            self._write_partitions(context, stream, keys)
            # a stream's own records of a range have the metadata: writing it twice costs twice
            if stream is not obj or len(keys) == 1:
                for key, record in stream.records.items():
                    execution.add_asset_metadata(record.metadata, context.asset_key, key)
            version = _combine_versions(stream.records.values())
        else:
            written = self._write(context, None, obj)
            context.add_output_metadata(build_file_metadata(written))
            version = written.version
        execution.set_data_version(context.asset_key, dg.DataVersion(version))

    def _write_partitions(self, context: dg.OutputContext, stream: PartitionStream, keys: list[str]) -> None:
        """Write a stream's partitions, and keep their records; all of `keys` have to come, and no others."""
        asset = context.asset_key.path[-1]
        with _log_early(context, is_range=len(keys) > 1) as log, stream.open_partitions() as partitions:
            partition = next(partitions, None)
            while partition is not None:
                if partition.key not in keys:
                    raise UnexpectedOutputError(f"{asset} returned partition {partition.key}, which is not of this run")
                if isinstance(partition.rows, dg.AssetMaterialization):
                    record = partition.rows
                else:
                    try:
                        written = self._write(context, partition.key, partition.rows, partition.before)
                    except Exception as error:  # noqa: BLE001 - the stream raises it, or gives another partition
                        partition = partitions.throw(error)
                        continue
                    record = dg.AssetMaterialization(
                        context.asset_key,
                        partition=partition.key,
                        metadata=build_file_metadata(written, partition.metadata),
                        tags={DATA_VERSION: written.version},
                    )
                    log(record)
                stream.records[partition.key] = record
                partition = next(partitions, None)
            if missing := [key for key in keys if key not in stream.records]:
                raise UnexpectedOutputError(f"{asset} returned nothing for {', '.join(missing)}")

    def _write(
        self, context: dg.OutputContext, key: str | None, rows: "Rows", before: ExpectedVersion = ANY_VERSION
    ) -> "parquet.WrittenFile":
        """Write the file of a partition, or of an asset without partitions."""
        from np6_assets.storage import parquet

        declared = context.definition_metadata
        path = parquet.build_path(context.asset_key.path[-1], declared.get(PARTITION_COLUMN), key)
        rows = _to_rows(rows, build_arrow_schema(declared))
        return parquet.write_file(self.store.open_folder(), path, rows, declared.get(FILE_MODE), before)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read what an asset's input asks for, as the annotated type."""
        import pandas as pd
        import pyarrow.dataset as ds

        data = self._open_dataset(context)
        wanted = context.dagster_type.typing_type
        if wanted is pa.Table:
            return data.to_table()
        if wanted is pd.DataFrame:
            return data.to_table().to_pandas()
        if wanted in (Dataset, ds.Dataset, ds.FileSystemDataset):
            return data
        raise UnexpectedOutputError(
            f"an input is annotated with {wanted}; use pyarrow.dataset.Dataset, pyarrow.Table or pandas.DataFrame"
        )

    def _open_dataset(self, context: dg.InputContext) -> "ds.FileSystemDataset":
        from np6_assets.storage import parquet

        assert context.upstream_output is not None
        asset = context.asset_key.path[-1]
        declared = context.upstream_output.definition_metadata
        schema = build_arrow_schema(declared)
        folder = self.store.open_folder().cache_listing()
        if not context.has_asset_partitions:
            if not folder.exists(parquet.build_path(asset)):
                raise MissingPartitionsError(f"{asset} was never materialized; materialize it first")
            return parquet.open_dataset(folder, asset, schema)
        column = declared[PARTITION_COLUMN]
        keys = list(context.asset_partition_keys)
        data = parquet.open_partitioned_dataset(folder, asset, schema, column, keys)
        if not context.definition_metadata.get(ALLOW_MISSING):
            there = parquet.list_partitions(data, column)
            if missing := [key for key in keys if key not in there]:
                raise MissingPartitionsError(
                    f"{asset} was never materialized for {', '.join(missing)}; materialize these partitions first"
                )
        return data


def _to_stream(obj: Any, expected: list[str]) -> PartitionStream:
    """Turn what an asset returned at once into a stream."""
    if not isinstance(obj, Mapping):
        if len(expected) != 1:
            raise UnexpectedOutputError(f"a run for {len(expected)} partitions has to return a mapping of partitions")
        obj = {expected[0]: obj}
    return PartitionStream(lambda: closing(Partition(key, rows) for key, rows in obj.items()))


@contextmanager
def _log_early(context: dg.OutputContext, *, is_range: bool) -> Iterator[Callable[[dg.AssetMaterialization], None]]:
    """Log the records of written partitions before the end of the step, if it fails or takes long.

    Dagster logs them at the end of a step that succeeds. A step that fails or is terminated, or whose process is killed
    after RECORDED_WITHIN, has to leave them as well. A record costs about as much as a small partition.
    """
    waiting: list[dg.AssetMaterialization] = []
    recorded_at = time.monotonic()

    def log_all() -> None:
        nonlocal recorded_at
        while waiting:
            context.log_event(waiting.pop(0))
        recorded_at = time.monotonic()

    def add(record: dg.AssetMaterialization) -> None:
        waiting.append(record)
        if is_range and time.monotonic() - recorded_at >= RECORDED_WITHIN:
            log_all()

    try:
        yield add
    except BaseException:
        log_all()
        raise


def _combine_versions(records: Iterable[dg.AssetMaterialization]) -> str:
    """Combine the data versions of a run's partitions to one: Dagster has one for the step."""
    versions = [(record.tags or {})[DATA_VERSION] for record in records]
    return (
        versions[0] if len(versions) == 1 else hashlib.blake2b("".join(versions).encode(), digest_size=16).hexdigest()
    )


def _to_rows(value: Any, schema: pa.Schema) -> "parquet.Tables":
    """Check and convert rows to the declared schema; metadata in their schema goes into the file."""
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        if list(value.columns) != schema.names:
            raise UnexpectedOutputError(f"the columns are not those declared: {list(value.columns)}")
        return pa.Table.from_pandas(value, schema=schema, preserve_index=False).replace_schema_metadata()
    if isinstance(value, pa.RecordBatchReader | pa.Table):
        if not value.schema.equals(schema):
            raise UnexpectedOutputError(f"the columns are not those declared: {value.schema.names}")
        return value
    raise UnexpectedOutputError(f"cannot write {type(value).__name__} as Parquet")


def build_file_metadata(written: "parquet.WrittenFile", facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Build what Dagster shows of a written file, in order: number of rows, the facts, the file."""
    metadata: dict[str, Any] = {ROW_COUNT: written.rows, **(facts or {})}
    if written.first_event is not None and written.last_event is not None:
        metadata["first_event"] = dg.MetadataValue.timestamp(written.first_event)
        metadata["last_event"] = dg.MetadataValue.timestamp(written.last_event)
    return metadata | {
        "bytes": written.bytes,
        "path": dg.MetadataValue.path(written.path),
        ROWS_DIGEST: written.content,
    }
