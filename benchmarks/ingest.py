"""A day of events from a loopback server to Parquet, in several shapes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import inputs
from benchmarks.inputs import Shape
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


def measure(sizes: list[int], rounds: Rounds, shapes: Collection[Shape] = ()) -> list[dict[str, Any]]:
    """Runs by shape, size and contender.

    Without `shapes`: all of them, those other than the plain one at the largest size alone.
    """
    rows = []
    for shape in shapes or Shape:
        for size in sorted(sizes):
            if shapes or shape is Shape.PLAIN or size == max(sizes):
                rows += _measure(shape, size, rounds)
    return rows


def _measure(shape: Shape, size: int, rounds: Rounds) -> list[dict[str, Any]]:
    feed = inputs.feed(rounds.work, size, shape)
    with serving("server", *feed.served) as server:
        started = start_ups(rounds.work, server.url)
        # each start-up right after its contender, while the machine is as fast as it was
        everyone = [
            one
            for contender in contenders(feed, server.url)
            for one in (contender, started.get(contender.name))
            if one is not None
        ]
        runs = rounds.measure(size, everyone, server.cpu, shape)
    inputs.remove(feed)
    rows = []
    for name, found in runs.items():
        if not name.startswith(_START_UP):
            row = {"shape": str(shape), "size": size, "bytes": feed.bytes, "contender": name, "runs": found}
            started_up = runs.get(_START_UP + name)
            rows.append(row | ({"start_up": started_up} if started_up else {}))
    return rows


def contenders(feed: inputs.Feed, url: str) -> list[Contender]:
    """The contenders for one feed: all of them for the plain shape, else this project and DuckDB's COPY."""
    day = inputs.HITS_DAY
    query = f"reactivityStart={day.start_ms}&reactivityEnd={day.end_ms}&sort=asc"
    whole = f"{url}/notifications/reactivities/hits?{query}"
    asset = feed.shape.asset
    named = () if asset == "hits" else (asset,)

    def peer(name: str, program: str, event_id: str = "event_id", link_type: str = "link_type") -> Contender:
        return Contender(
            name,
            lambda folder: script(PEERS, program, whole, str(folder / "out.parquet")),
            checked(feed, "out.parquet", event_id, link_type),
        )

    peers = [
        peer(PLAIN, "ingest_plain", "id", '"source.detail.link.type"'),
        peer("httpx, orjson, pyarrow", "ingest_orjson"),
        peer("httpx, Polars", "ingest_polars"),
        Contender(
            DLT,
            lambda folder: script(PEERS, "ingest_dlt", whole, str(folder / "data"), str(folder / "work")),
            checked(feed, "data/np6/hits/*.parquet", "id", "source__detail__link__type"),
        ),
    ]
    return [
        Contender(
            DAGSTER,
            lambda folder: materialize(asset, day.key),
            checked(feed, f"data/{asset}/*/*.parquet"),
            lambda folder: in_dagster(url, folder / "data", folder / "home"),
        ),
        Contender(
            ALONE,
            lambda folder: script(PROJECT, "ingest_alone", url, str(folder / "data"), day.key, *named),
            checked(feed, f"data/{asset}/*/*.parquet"),
        ),
        *(peers if feed.shape is Shape.PLAIN else ()),
        Contender(
            DUCKDB,
            lambda folder: script(PEERS, "ingest_duckdb", feed.body, str(folder / "out.parquet"), *named),
            checked(feed, "out.parquet"),
        ),
    ]


_START_UP = "start-up: "


def start_ups(work: Path, url: str) -> dict[str, Contender]:
    """The start-up of each contender that has one measured: a day without hits, which is one request and no event."""
    array = work / "empty.body"
    array.write_bytes(b"[]")
    empty = inputs.Feed(Shape.PLAIN, str(array), "", "", "", 2, 0, 0, None, 0)
    day = str(inputs.HITS_DAY.end.date())
    everyone = [
        Contender(
            DAGSTER,
            lambda folder: materialize("hits", day),
            checked(empty, "data/hits/*/*.parquet"),
            lambda folder: in_dagster(url, folder / "data", folder / "home"),
        ),
        Contender(
            ALONE,
            lambda folder: script(PROJECT, "ingest_alone", url, str(folder / "data"), day),
            checked(empty, "data/hits/*/*.parquet"),
        ),
        Contender(
            DUCKDB,
            lambda folder: script(PEERS, "ingest_duckdb", empty.body, str(folder / "out.parquet")),
            checked(empty, "out.parquet"),
        ),
    ]
    return {one.name: replace(one, name=_START_UP + one.name, size=0) for one in everyone}


def checked(
    feed: inputs.Feed, files: str, event_id: str = "event_id", link_type: str = "link_type"
) -> Callable[[Path], Mapping[str, float]]:
    """Check that every event is there once, with its own id, the right type of link and, where asked, its label."""
    has_link = feed.shape.asset == "hits"
    redirections = f"count(*) FILTER ({link_type} = 'redirection')" if has_link else "0"
    labels = "count(*) FILTER (link_label = $label)" if feed.label else redirections

    def check(folder: Path) -> Mapping[str, float]:
        with duckdb.connect(config={"threads": 2, "memory_limit": "2GB"}) as database:
            found = database.execute(
                f"SELECT count(*), count(DISTINCT {event_id}), bit_xor(hash({event_id}))::VARCHAR, "
                f"{redirections}, {labels} FROM read_parquet($files)",
                {"files": str(folder / files)} | ({"label": feed.label} if feed.label else {}),
            ).fetchone()
        ids = None if feed.ids is None else str(feed.ids)
        expected = (feed.rows, feed.distinct, ids, feed.redirections, feed.redirections)
        if found != expected:
            raise WrongOutputError(f"{found} in place of {expected} (rows, ids, ids combined, redirections, labels)")
        return {"bytes": sum(file.stat().st_size for file in folder.glob(files))}

    return check
