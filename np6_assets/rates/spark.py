"""Runs queries on a Spark Connect server: Spark, Databricks, EMR or Sail.

The server reads the event files itself, where they are: no event passes through here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from np6_assets.events.kinds import TIME
from np6_assets.partitions import EVENT_DATE
from np6_assets.rates.compute import Run

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ANSWERS_WITHIN = 30
"""Seconds in which a server has to answer the first time."""

_RETRIES = 7
"""How often a server that answered and does so no more is asked again: for two minutes in all, with longer waits."""

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

T = TypeVar("T")


class SparkError(Exception):
    """The server did not do what it was asked; the text is one line without a secret."""


@contextmanager
def on_spark(address: str) -> Iterator[Run]:
    """Let the server at an address run queries, in a session of its own. Raises SparkError."""
    server = _Server(address)
    session = server.ask(lambda: _session(address))
    try:
        yield lambda sql, datasets, tables: server.ask(lambda: _run(session, sql, datasets, tables))
    finally:
        session.stop()


class _Server:
    """A server, as errors name it: without the parameters of its address, which may be secrets."""

    def __init__(self, address: str) -> None:
        host, _, parameters = address.removeprefix("sc://").partition("/")
        self.name = f"sc://{host}"
        values = {parameter.partition("=")[2] for parameter in parameters.split(";")} - {"", "true", "false"}
        self._hidden = values | set(map(unquote, values))

    def ask(self, action: Callable[[], T]) -> T:
        """Do something with the server. Raises SparkError in place of the client's errors."""
        import grpc
        from pyspark.errors import PySparkException

        try:
            return action()
        except grpc.FutureTimeoutError:
            text = f"did not answer within {ANSWERS_WITHIN} seconds"
        except (PySparkException, grpc.RpcError, _UnseenError) as error:
            said = error.details() if isinstance(error, grpc.Call) else error
            text = f"failed: {' '.join(str(said).split())}"
        for hidden in self._hidden:
            text = text.replace(hidden, "***")
        raise SparkError(f"NP6_SPARK_CONNECT: {self.name} {text[:_LONGEST]}") from None


class _UnseenError(Exception):
    """The server does not see the event files."""


def _session(address: str) -> SparkSession:
    with warnings.catch_warnings():
        # that pandas 3 is new to it: no pandas passes between us
        warnings.simplefilter("ignore", FutureWarning)
        import grpc
        from pyspark.sql import SparkSession
        from pyspark.sql.connect.client import DefaultChannelBuilder
        from pyspark.sql.connect.client.retries import DefaultPolicy

        # without an answer the client would go on asking for ten minutes
        with DefaultChannelBuilder(address).toChannel() as channel:
            grpc.channel_ready_future(channel).result(ANSWERS_WITHIN)
        session: SparkSession = SparkSession.builder.remote(address).create()
        session.client.set_retry_policies([DefaultPolicy(max_retries=_RETRIES)])
        for name, value in _CONF.items():
            session.conf.set(name, value)
        return session


def _run(
    session: SparkSession, sql: str, datasets: Mapping[str, ds.FileSystemDataset], tables: Mapping[str, pa.Table]
) -> pa.Table:
    for name, table in tables.items():
        _frame(session, table).createOrReplaceTempView(name)
    for name, data in datasets.items():
        _read(session, data).createOrReplaceTempView(name)
    _refuse_unseen(session, datasets)
    return session.sql(sql).toArrow()


def _frame(session: SparkSession, table: pa.Table) -> DataFrame:
    """A small table; the client cannot tell the types of one without rows."""
    return session.createDataFrame(table) if table.num_rows else session.createDataFrame([], _ddl(table.schema))


def _read(session: SparkSession, data: ds.FileSystemDataset) -> DataFrame:
    """The columns in the files, without the partition's. The server is told them: else it opens files to see."""
    schema = pa.schema([field for field in data.schema if field.name != EVENT_DATE])
    if not data.files:
        return _frame(session, schema.empty_table())
    return session.read.schema(_ddl(schema)).parquet(*_urls(data))


def _urls(data: ds.FileSystemDataset) -> list[str]:
    if isinstance(data.filesystem, pafs.PyFileSystem):
        return [data.filesystem.handler.fs.unstrip_protocol(file) for file in data.files]
    return [f"file://{file}" for file in data.files]


def _ddl(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {_TYPES[field.type]}" for field in schema)


def _refuse_unseen(session: SparkSession, datasets: Mapping[str, ds.FileSystemDataset]) -> None:
    """Raise _UnseenError where the server reads fewer events than there are: Sail takes a missing file for no rows."""
    there = sum(data.count_rows() for data in datasets.values())
    counts = " UNION ALL ".join(f"SELECT count(*) AS events FROM {name}" for name in datasets)
    read: Any = session.sql(f"SELECT sum(events) AS events FROM ({counts})").toArrow()["events"][0]
    if read.as_py() < there:
        first = next(url for data in datasets.values() for url in _urls(data))
        raise _UnseenError(
            f"it reads {read} of {there} events; it has to see the data folder under the same name: {first}"
        )
