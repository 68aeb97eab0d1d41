"""A day of hits from a loopback server to Parquet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import inputs
from benchmarks.rounds import (
    ALONE,
    DAGSTER,
    PEERS,
    PROJECT,
    Contender,
    Rounds,
    WrongOutputError,
    in_dagster,
    materialize,
    script,
)
from benchmarks.server import serving

PLAIN = "httpx, json, json_normalize"
DLT = "dlt"
DUCKDB = "DuckDB COPY, local file"


def measure(sizes: list[int], rounds: Rounds) -> list[dict[str, Any]]:
    """Runs by size and contender."""
    rows = []
    for size in sorted(sizes):
        feed = inputs.feed(rounds.work, size)
        with serving("server", feed.body, feed.index) as server:
            runs = rounds.measure(size, contenders(feed, server.url), server.cpu)
        rows += [{"size": size, "bytes": feed.bytes, "contender": name, "runs": found} for name, found in runs.items()]
        inputs.remove(feed)
    return rows


def contenders(feed: inputs.Feed, url: str) -> list[Contender]:
    """Everyone, for one feed."""
    day = inputs.HITS_DAY
    query = f"reactivityStart={day.start_ms}&reactivityEnd={day.end_ms}&sort=asc"
    whole = f"{url}/notifications/reactivities/hits?{query}"

    def peer(name: str, program: str, event_id: str = "event_id", link_type: str = "link_type") -> Contender:
        return Contender(
            name,
            lambda folder: script(PEERS, program, whole, str(folder / "out.parquet")),
            checked(feed, "out.parquet", event_id, link_type),
        )

    return [
        Contender(
            DAGSTER,
            lambda folder: materialize("hits", day.key),
            checked(feed, "data/hits/*/*.parquet"),
            lambda folder: in_dagster(url, folder / "data", folder / "home"),
        ),
        Contender(
            ALONE,
            lambda folder: script(PROJECT, "ingest_alone", url, str(folder / "data"), day.key),
            checked(feed, "data/hits/*/*.parquet"),
        ),
        peer(PLAIN, "ingest_plain", "id", '"source.detail.link.type"'),
        peer("httpx, orjson, pyarrow", "ingest_orjson"),
        peer("httpx, Polars", "ingest_polars"),
        Contender(
            DLT,
            lambda folder: script(PEERS, "ingest_dlt", whole, str(folder / "data"), str(folder / "work")),
            checked(feed, "data/np6/hits/*.parquet", "id", "source__detail__link__type"),
        ),
        Contender(
            DUCKDB,
            lambda folder: script(PEERS, "ingest_duckdb", feed.body, str(folder / "out.parquet")),
            checked(feed, "out.parquet"),
        ),
    ]


def checked(
    feed: inputs.Feed, files: str, event_id: str = "event_id", link_type: str = "link_type"
) -> Callable[[Path], Mapping[str, float]]:
    """Every event is there, once, with its own id and the right kind of link."""

    def check(folder: Path) -> Mapping[str, float]:
        with duckdb.connect(config={"threads": 2, "memory_limit": "2GB"}) as database:
            found = database.execute(
                f"SELECT count(*), count(DISTINCT {event_id}), bit_xor(hash({event_id}))::VARCHAR, "
                f"count(*) FILTER ({link_type} = 'redirection') FROM read_parquet(?)",
                [str(folder / files)],
            ).fetchone()
        expected = (feed.rows, feed.distinct, str(feed.ids), feed.redirections)
        if found != expected:
            raise WrongOutputError(f"{found} in place of {expected} (rows, ids, ids combined, click-throughs)")
        return {"bytes": sum(file.stat().st_size for file in folder.glob(files))}

    return check
