"""Measure the ingestion of a day of events, from a loopback server to Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import commands, inputs
from benchmarks.inputs import Feed, Shape
from benchmarks.rounds import THIS_PROJECT, WITHOUT_DAGSTER, Check, Contender, Rounds, WrongOutputError, build_rows
from benchmarks.server import run_server

DUCKDB = "DuckDB COPY, local file"

_START_UP = "start-up: "


def measure(size: int, rounds: Rounds, shape: Shape = Shape.PLAIN) -> list[dict[str, Any]]:
    """Measure a day of so many events; a row has the runs of its contender's start-up, where these are measured."""
    feed = inputs.write_feed(rounds.work, size, shape)
    with run_server("server", *feed.files) as server:
        start_ups = _build_start_ups(rounds.work, server.url)
        # Each start-up follows its contender, as the machine's speed varies.
        contenders = [
            each
            for contender in _build_contenders(feed, server.url)
            for each in (contender, start_ups.get(contender.name))
            if each is not None
        ]
        runs = rounds.measure(size, contenders, server.read_cpu, shape)
    feed.remove()
    rows = build_rows(size, runs, shape=str(shape), bytes=feed.bytes)
    return [
        row | ({"start_up": runs[_START_UP + row["contender"]]} if row["contender"] in start_ups else {})
        for row in rows
        if not row["contender"].startswith(_START_UP)
    ]


def _build_contenders(feed: Feed, url: str) -> list[Contender]:
    """Build all contenders for the plain shape, else this project's and DuckDB's COPY."""
    day = inputs.DAY
    query = f"reactivityStart={day.start_ms}&reactivityEnd={day.end_ms}&sort=asc"
    feed_url = f"{url}/notifications/reactivities/hits?{query}"

    def build_peer(name: str, program: str, event_id: str = "event_id", link_type: str = "link_type") -> Contender:
        return Contender(
            name,
            lambda folder: commands.build_peer_script(program, feed_url, folder / "out.parquet"),
            build_check(feed, "out.parquet", event_id, link_type),
        )

    peers = [
        build_peer("httpx, json, json_normalize", "ingest_plain", "id", '"source.detail.link.type"'),
        build_peer("httpx, orjson, pyarrow", "ingest_orjson"),
        build_peer("httpx, Polars", "ingest_polars"),
        Contender(
            "dlt",
            lambda folder: commands.build_peer_script("ingest_dlt", feed_url, folder / "data", folder / "work"),
            build_check(feed, "data/np6/hits/*.parquet", "id", "source__detail__link__type"),
        ),
    ]
    with_dagster, without_dagster, copy = _build_main_contenders(feed, url, day.key)
    return [with_dagster, without_dagster, *(peers if feed.shape is Shape.PLAIN else ()), copy]


def _build_main_contenders(feed: Feed, url: str, day: str) -> list[Contender]:
    """Build those that are measured in every shape, and with their start-up."""
    asset = feed.shape.asset
    return [
        Contender(
            THIS_PROJECT,
            lambda folder: commands.build_materialize(asset, day),
            build_check(feed, f"data/{asset}/*/*.parquet"),
            lambda folder: commands.prepare_deployment(folder, url),
        ),
        Contender(
            WITHOUT_DAGSTER,
            lambda folder: commands.build_project_script("ingest_without_dagster", url, folder / "data", day, asset),
            build_check(feed, f"data/{asset}/*/*.parquet"),
        ),
        Contender(
            DUCKDB,
            lambda folder: commands.build_peer_script("ingest_duckdb", feed.body, folder / "out.parquet", asset),
            build_check(feed, "out.parquet"),
        ),
    ]


def _build_start_ups(work: Path, url: str) -> dict[str, Contender]:
    """Build the main contenders for an empty day of hits, by name: one request and no event, so start-up only."""
    body = work / "empty.body"
    body.write_bytes(b"[]")
    feed = Feed(Shape.PLAIN, str(body), "", "", "", 2, 0, 0, None, 0)
    contenders = _build_main_contenders(feed, url, str(inputs.DAY.end.date()))
    return {each.name: replace(each, name=_START_UP + each.name, size=0) for each in contenders}


def build_check(feed: Feed, files: str, event_id: str = "event_id", link_type: str = "link_type") -> Check:
    """Check that the files have every event once, by id, with its type of link and, in some shapes, its label."""
    redirections = f"count(*) FILTER ({link_type} = 'redirection')" if feed.shape.asset == "hits" else "0"
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
            raise WrongOutputError(
                f"rows, distinct ids, combined ids, redirections, labels: {found}, expected {expected}"
            )
        return {"bytes": sum(file.stat().st_size for file in folder.glob(files))}

    return check
