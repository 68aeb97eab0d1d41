"""The Parquet IO manager: what an asset returns becomes files, and files become what an asset asks for."""

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import dagster as dg
import pyarrow as pa
from pydantic import Field

from np6_assets.storage.files import ANYTHING, Before, Folder
from np6_assets.storage.schemas import PARTITION_COLUMN, arrow_schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as ds

    from np6_assets.storage import parquet

ALLOW_MISSING = "allow_missing_partitions"
"""Metadata key of an input that takes missing partitions for normal."""


FILE_MODE = "np6/file_mode"
"""Metadata key of an asset: the mode of its local files; without it, as the umask says."""

RECORDED_WITHIN = 30
"""Seconds after which Dagster knows of a partition at the latest, while its step goes on."""

DATA_VERSION = "dagster/data_version"
"""Dagster's tag for what tells one content of a partition from another."""


class MissingPartitionsError(Exception):
    """An input needs partitions that were never materialized."""


class UnexpectedOutputError(Exception):
    """An asset returned something that does not fit its declaration."""


Dataset: TypeAlias = Any
"""`pyarrow.dataset.Dataset`, as the annotation of an input. Its own name would make the definitions import pandas."""

Rows: TypeAlias = "pa.RecordBatchReader | pa.Table | pd.DataFrame"


@dataclass
class Partition:
    """A partition to be written.

    `rows` may be the record of a partition whose file is there already and stays. `metadata` is complete once the rows
    have been read. `before` is what is there until then; where it is not, writing raises ChangedError.
    """

    key: str
    rows: "Rows | dg.AssetMaterialization"
    metadata: dict[str, Any] = field(default_factory=dict)
    before: Before = ANYTHING


class PartitionStream:
    """Partitions that are made one after another while they are written. Returned by an asset through `outputs`.

    `opened` gives the context in which they are made, and in it a generator. An error in writing a partition is thrown
    into the generator, which raises it or gives what is to be written instead. A partition that is given again, as the
    next one, takes the place of what was written.
    """

    def __init__(self, opened: Callable[[], AbstractContextManager[Generator[Partition]]]) -> None:
        self.opened = opened
        self.records: list[dg.AssetMaterialization] = []
        """The record of each partition that was written, or was there."""

    def outputs(self) -> Iterator[dg.Output["PartitionStream"] | dg.AssetMaterialization]:
        """What an asset that returns the stream yields.

        Of a range Dagster makes a record for each partition at the end of the step, all with one data version. The
        partitions' own records follow it, so that each one's latest says whether anything in it has changed.
        """
        yield dg.Output(self)
        if len(self.records) > 1:
            yield from self.records


class ParquetStore(dg.ConfigurableResource["ParquetStore"]):
    """The data folder."""

    data_dir: str = Field(description="Where Parquet goes: a local folder or an address such as s3://bucket/prefix.")

    def folder(self) -> Folder:
        """The folder, ready for use."""
        return Folder(self.data_dir)

    def definition(
        self, during: Callable[[dg.InitResourceContext], AbstractContextManager[None]]
    ) -> dg.ResourceDefinition:
        """The resource as runs have it: their config cannot change it. `during` is open as long as a run has it."""

        def opened(context: dg.InitResourceContext) -> Iterator[ParquetStore]:
            with during(context):
                yield self

        return dg.ResourceDefinition(opened, config_schema={}, description=type(self).__doc__)


class ParquetIOManager(dg.ConfigurableIOManager):
    """Writes each partition as one Parquet file, whole or not at all, and reads any number of them back.

    Takes `pyarrow.RecordBatchReader`, `pyarrow.Table` and `pandas.DataFrame`, one or a mapping from partition to one.
    Gives what the input's annotation asks for: `pyarrow.dataset.Dataset` (lazy; also where there is no annotation),
    `pyarrow.Table` or `pandas.DataFrame`, the partition column included. Missing partitions raise
    MissingPartitionsError unless the input's metadata has `allow_missing_partitions`.
    """

    store: dg.ResourceDependency[ParquetStore]

    def definition(self) -> dg.IOManagerDefinition:
        """The IO manager as runs have it: their config cannot change it."""
        return dg.IOManagerDefinition(lambda _: self, config_schema={}, description=type(self).__doc__)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write what an asset returned, partition by partition."""
        from np6_assets.storage import parquet

        asset = context.asset_key.path[-1]
        declared = context.definition_metadata
        schema = arrow_schema(declared)
        column = declared.get(PARTITION_COLUMN)
        mode = declared.get(FILE_MODE)
        folder = self.store.folder()
        execution = dg.AssetExecutionContext.get()
        if not context.has_asset_partitions:
            written = parquet.write(folder, parquet.file_of(asset), _rows(obj, schema))
            context.add_output_metadata(written_metadata(written))
            execution.set_data_version(context.asset_key, dg.DataVersion(written.version))
            return
        expected = list(context.asset_partition_keys)
        stream = obj if isinstance(obj, PartitionStream) else _stream(obj, expected)
        # else the stream's own records follow Dagster's, and say it: what is said twice costs twice
        says_all = stream is not obj or len(expected) == 1
        with _InTime(context) as in_time, stream.opened() as partitions:
            partition = next(partitions, None)
            while partition is not None:
                key = partition.key
                is_again = bool(stream.records) and stream.records[-1].partition == key
                if key not in expected and not is_again:
                    raise UnexpectedOutputError(f"{asset} returned partition {key}, which this run is not for")
                if isinstance(partition.rows, dg.AssetMaterialization):
                    record = partition.rows
                else:
                    try:
                        rows = _rows(partition.rows, schema)
                        written = parquet.write(
                            folder, parquet.file_of(asset, column, key), rows, mode, partition.before
                        )
                    except Exception as error:  # noqa: BLE001 - the stream raises it, or gives another partition
                        partition = partitions.throw(error)
                        continue
                    metadata = {**partition.metadata, **written_metadata(written)}
                    record = _record(context, key, metadata, written.version)
                    in_time.written(record, more=len(expected) > 1)
                if says_all:
                    execution.add_asset_metadata(record.metadata, context.asset_key, key)
                if is_again:
                    stream.records.pop()
                else:
                    expected.remove(key)
                stream.records.append(record)
                partition = next(partitions, None)
            if expected:
                raise UnexpectedOutputError(f"{asset} returned nothing for {', '.join(expected)}")
        execution.set_data_version(context.asset_key, dg.DataVersion(_version(stream.records)))

    def load_input(self, context: dg.InputContext) -> Any:
        """Read what an asset needs, as the type that it asks for."""
        import pandas as pd
        import pyarrow.dataset as ds

        data = self._dataset(context)
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

    def _dataset(self, context: dg.InputContext) -> "ds.FileSystemDataset":
        from np6_assets.storage import parquet

        assert context.upstream_output is not None
        asset = context.asset_key.path[-1]
        declared = context.upstream_output.definition_metadata
        schema = arrow_schema(declared)
        folder = self.store.folder().listed()
        if not context.has_asset_partitions:
            if not folder.exists(parquet.file_of(asset)):
                raise MissingPartitionsError(f"{asset} was never materialized; materialize it first")
            return parquet.dataset(folder, asset, schema)
        column = declared[PARTITION_COLUMN]
        keys = list(context.asset_partition_keys)
        data = parquet.partitioned_dataset(folder, asset, schema, column, keys)
        if not context.definition_metadata.get(ALLOW_MISSING):
            there = parquet.partitions_of(data, column)
            if missing := [key for key in keys if key not in there]:
                raise MissingPartitionsError(
                    f"{asset} was never materialized for {', '.join(missing)}; materialize these partitions first"
                )
        return data


def _stream(obj: Any, expected: list[str]) -> PartitionStream:
    """What an asset returned at once, as a stream."""
    if not isinstance(obj, Mapping):
        if len(expected) != 1:
            raise UnexpectedOutputError(f"a run for {len(expected)} partitions has to return a mapping of partitions")
        obj = {expected[0]: obj}
    return PartitionStream(lambda: closing(Partition(key, rows) for key, rows in obj.items()))


class _InTime:
    """Records the partitions that a step has written, in time for a step that does not succeed.

    Dagster does so at the end of a step that succeeds. What is written is to be known as well where the step fails or
    is terminated; and after RECORDED_WITHIN, as its process may be killed. A record costs what a small partition does.
    """

    def __init__(self, context: dg.OutputContext) -> None:
        self._context = context
        self._waiting: list[dg.AssetMaterialization] = []
        self._recorded_at = time.monotonic()

    def written(self, record: dg.AssetMaterialization, *, more: bool) -> None:
        """Take the record of a partition; there is `more` where it is not the last."""
        self._waiting.append(record)
        if more and time.monotonic() - self._recorded_at >= RECORDED_WITHIN:
            self._record()

    def _record(self) -> None:
        while self._waiting:
            self._context.log_event(self._waiting.pop(0))
        self._recorded_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            self._record()


def _record(context: dg.OutputContext, key: str, metadata: dict[str, Any], version: str) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata, tags={DATA_VERSION: version})


def _version(records: list[dg.AssetMaterialization]) -> str:
    """The data version of all partitions of a run: Dagster has one for the step."""
    versions = [(record.tags or {})[DATA_VERSION] for record in records]
    return (
        versions[0] if len(versions) == 1 else hashlib.blake2b("".join(versions).encode(), digest_size=16).hexdigest()
    )


def _rows(value: Any, schema: pa.Schema) -> "parquet.Tables":
    """The rows in the declared schema. Metadata that a reader or a table brings in its schema goes into the file."""
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


def written_metadata(written: "parquet.Written") -> dict[str, Any]:
    """What Dagster shows of a file that was written."""
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": written.rows,
        "bytes": written.bytes,
        "content": written.content,
        "path": dg.MetadataValue.path(written.path),
    }
    if written.first_event is not None and written.last_event is not None:
        metadata["first_event"] = dg.MetadataValue.timestamp(written.first_event)
        metadata["last_event"] = dg.MetadataValue.timestamp(written.last_event)
    return metadata
