"""Ingest with this project's client, decoder, merge and writer, without Dagster's run: URL FOLDER DAY ASSET."""

import sys
from contextlib import closing
from datetime import UTC, datetime

import np6_assets.definitions  # noqa: F401 -- sets the memory allocators
from np6_assets.contact.policy import ContactPolicy
from np6_assets.contact.tombstones import Tombstones
from np6_assets.events.day import DayMerge
from np6_assets.events.decode import Decoder
from np6_assets.events.fanout import KnownNotifications
from np6_assets.events.fetch import Fetcher
from np6_assets.events.folder_identity import FolderIdentity
from np6_assets.events.kinds import KINDS
from np6_assets.events.plan import DayPlan
from np6_assets.events.store import EventStore
from np6_assets.np6.client import NP6Client
from np6_assets.partitions import EVENT_DATE, parse_day
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

url, folder, key, asset = sys.argv[1:]
kind = next(kind for kind in KINDS if kind.asset == asset)
client = NP6Client(url, "any")
settings = Settings.from_environment({})
data = Folder(folder)
decoder = Decoder(kind, ContactPolicy("drop"), Tombstones(b""))
store = EventStore(data, kind, settings)
day = parse_day(key, "UTC")
with closing(client):
    known = KnownNotifications(client, data, FolderIdentity(data, settings, print)) if kind.per_notification else None
    fetcher = Fetcher(kind, client, decoder, lambda: datetime.now(UTC), known)
    with closing(fetcher.fetch_days([DayPlan(day, day.start)])) as fetched:
        for fetched_day in fetched:
            assert fetched_day.error is None, fetched_day.error
            merged = DayMerge(fetched_day, store, decoder)
            rows = parquet.stream_tables(merged.merge_tables(), kind.schema)
            parquet.write_file(data, parquet.build_path(kind.asset, EVENT_DATE, key), rows)
            assert not merged.facts.rejected
