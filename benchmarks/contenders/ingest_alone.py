"""This project's client, decoder and writer without Dagster's run: URL FOLDER."""

import sys
from contextlib import closing
from datetime import UTC, datetime

import pyarrow as pa

import np6_assets.definitions  # noqa: F401 -- for the allocators that it sets
from np6_assets.contact import ContactPolicy
from np6_assets.events.decode import Decoder
from np6_assets.events.ingest import Ingestion, Wanted
from np6_assets.events.kinds import KINDS
from np6_assets.np6.client import NP6Client
from np6_assets.partitions import EVENT_DATE, day_of
from np6_assets.privacy.tombstones import Tombstones
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

url, folder, day = sys.argv[1:]
kind = next(kind for kind in KINDS if kind.asset == "hits")
client = NP6Client(url, "any")
ingestion = Ingestion(kind, client, Decoder(kind, ContactPolicy("drop"), Tombstones(b"")), lambda: datetime.now(UTC))
with closing(client), closing(ingestion.days([Wanted.in_full(day_of(day, "UTC"))])) as arrivals:
    for arrival in arrivals:
        batches = (
            pa.RecordBatch.from_arrays(batch.columns, schema=kind.schema)
            for table in arrival.tables()
            for batch in table.to_batches()
        )
        rows = pa.RecordBatchReader.from_batches(kind.schema, batches)
        parquet.write(Folder(folder), parquet.file_of(kind.asset, EVENT_DATE, day), rows)
        assert not arrival.whole().misfits.rows
