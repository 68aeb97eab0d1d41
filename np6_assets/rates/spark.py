"""Run queries on a Spark Connect server: Spark, Databricks, EMR or Sail.

The server reads the event files itself: no event passes through this process.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from np6_assets.events.kinds import TIME
from np6_assets.partitions import EVENT_DATE
from np6_assets.rates.compute import QueryRunner

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ANSWERS_WITHIN = 30
"""Seconds in which a server has to answer the first request."""

_RETRIES = 7
"""Retries after a server stopped answering: two minutes in all, with growing waits."""

_CONF = {"spark.sql.session.timeZone": "UTC", "spark.sql.ansi.enabled": "true"}

_TYPES = {
    pa.string(): "STRING",
    pa.int64(): "BIGINT",
    pa.int32(): "INT",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    TIME: "TIMESTAMP",
}

_LONGEST = 300


class SparkError(Exception):
    """The server failed; the text is one line without a secret."""


@contextmanager
def open_spark_runner(address: str) -> Iterator[QueryRunner]:
    """Open a session on the server at an address, and give what runs queries in it. Raises SparkError."""

    def run(sql: str, datasets: Mapping[str, ds.FileSystemDataset], tables: Mapping[str, pa.Table]) -> pa.Table:
        with _one_line_errors(address):
            return _run_query(session, sql, datasets, tables)

    with _one_line_errors(address):
        session = _open_session(address)
    try:
        yield run
    finally:
        session.stop()


@contextmanager
def _one_line_errors(address: str) -> Iterator[None]:
    """Raise SparkError in place of the client's errors, without the address's parameters, which may be secrets."""
    import grpc
    from pyspark.errors import PySparkException

    host, _, parameters = address.removeprefix("sc://").partition("/")
    values = {parameter.partition("=")[2] for parameter in parameters.split(";")} - {"", "true", "false"}
    try:
        yield
        return
    except grpc.FutureTimeoutError:
        text = f"did not answer within {ANSWERS_WITHIN} seconds"
    except (PySparkException, grpc.RpcError, SparkError) as error:
        details = error.details() if isinstance(error, grpc.Call) else error
        text = f"failed: {' '.join(str(details).split())}"
    for hidden in values | set(map(unquote, values)):
        text = text.replace(hidden, "***")
    raise SparkError(f"NP6_SPARK_CONNECT: sc://{host} {text[:_LONGEST]}") from None


def _open_session(address: str) -> SparkSession:
    with warnings.catch_warnings():
        # it warns of pandas 3, which is not used
        warnings.simplefilter("ignore", FutureWarning)
        import grpc
        from pyspark.sql import SparkSession
        from pyspark.sql.connect.client import DefaultChannelBuilder
        from pyspark.sql.connect.client.retries import DefaultPolicy

        # without an answer the client would retry for ten minutes
        with DefaultChannelBuilder(address).toChannel() as channel:
            grpc.channel_ready_future(channel).result(ANSWERS_WITHIN)
        session: SparkSession = SparkSession.builder.remote(address).create()
        session.client.set_retry_policies([DefaultPolicy(max_retries=_RETRIES)])
        for name, value in _CONF.items():
            session.conf.set(name, value)
        return session


def _run_query(
    session: SparkSession, sql: str, datasets: Mapping[str, ds.FileSystemDataset], tables: Mapping[str, pa.Table]
) -> pa.Table:
    for name, table in tables.items():
        _create_frame(session, table).createOrReplaceTempView(name)
    for name, data in datasets.items():
        _read_dataset(session, data).createOrReplaceTempView(name)
    _refuse_unseen(session, datasets)
    return session.sql(sql).toArrow()


def _create_frame(session: SparkSession, table: pa.Table) -> DataFrame:
    """Send a small table; of one without rows the client needs to be told the types."""
    return session.createDataFrame(table) if table.num_rows else session.createDataFrame([], _format_ddl(table.schema))


def _read_dataset(session: SparkSession, data: ds.FileSystemDataset) -> DataFrame:
    """Read the files' own columns. Without the schema the server would open files to find it."""
    schema = pa.schema([field for field in data.schema if field.name != EVENT_DATE])
    if not data.files:
        return _create_frame(session, schema.empty_table())
    return session.read.schema(_format_ddl(schema)).parquet(*_list_urls(data))


def _list_urls(data: ds.FileSystemDataset) -> list[str]:
    if isinstance(data.filesystem, pafs.PyFileSystem):
        return [data.filesystem.handler.fs.unstrip_protocol(file) for file in data.files]
    return [f"file://{file}" for file in data.files]


def _format_ddl(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {_TYPES[field.type]}" for field in schema)


def _refuse_unseen(session: SparkSession, datasets: Mapping[str, ds.FileSystemDataset]) -> None:
    """Raise SparkError if the server reads fewer events than are stored: Sail reads a missing file as empty."""
    stored = sum(data.count_rows() for data in datasets.values())
    counts = " UNION ALL ".join(f"SELECT count(*) AS events FROM {name}" for name in datasets)
    read: Any = session.sql(f"SELECT sum(events) AS events FROM ({counts})").toArrow()["events"][0]
    if read.as_py() < stored:
        first = next(url for data in datasets.values() for url in _list_urls(data))
        raise SparkError(
            f"it reads {read} of {stored} events; it has to see the data folder under the same name: {first}"
        )
