"""Compute the rates of a cohort with Polars, with its streaming engine: FOLDER DAY FILE."""

import sys
from datetime import UTC, datetime, timedelta

import polars as pl

GRAIN = ["agency", "customer", "activation_id", "activation_version", "application_id"]
SEND = [*GRAIN, "subscription_id", "stamp_id"]

folder, day, file = sys.argv[1:]
start = datetime.fromisoformat(day).replace(tzinfo=UTC)


def scan(asset: str, days: int, *more: str) -> pl.LazyFrame:
    """Scan the cohort's events."""
    dates = [f"{start + timedelta(days=ahead):%Y-%m-%d}" for ahead in range(days + 1)]
    files = [f"{folder}/{asset}/event_date={date}/part-0.parquet" for date in dates]
    events = pl.scan_parquet(files, hive_partitioning=False)
    is_cohort = (pl.col("activated_at") >= start) & (pl.col("activated_at") < start + timedelta(days=1))
    return events.filter(is_cohort).select(*SEND, "event_id", *more, kind=pl.lit(asset))


events = pl.concat(
    [
        scan("activations", 1),
        scan("hits", 7, "link_type"),
        scan("optouts", 7),
        scan("bounces", 7, "bounce_verdict"),
        scan("impressions", 7),
    ],
    how="diagonal",
)
kind, is_redirection = pl.col("kind"), pl.col("link_type") == "redirection"
is_hit = kind == "hits"
sends = events.group_by(SEND).agg(
    is_sent=(kind == "activations").any(),
    is_impressed=(kind == "impressions").any(),
    is_optout=(kind == "optouts").any(),
    is_bounced=(kind == "bounces").any(),
    is_hard=(pl.col("bounce_verdict") == "hard").any(),
    is_soft=(pl.col("bounce_verdict") == "soft").any(),
    hits=pl.col("event_id").filter(is_hit & is_redirection).n_unique(),
    other_hits=pl.col("event_id").filter(is_hit & is_redirection.not_()).n_unique(),
)
is_hard, is_bounced, is_sent = pl.col("is_hard"), pl.col("is_bounced"), pl.col("is_sent")
reacts = (pl.col("hits") > 0) | pl.col("is_optout") | is_bounced
counts = sends.group_by(GRAIN).agg(
    activations=is_sent.sum(),
    bounces_hard=is_hard.sum(),
    bounces_soft=(pl.col("is_soft") & is_hard.not_()).sum(),
    bounced=is_bounced.sum(),
    hit_activations=(pl.col("hits") > 0).sum(),
    hits=pl.col("hits").sum(),
    other_hits=pl.col("other_hits").sum(),
    optout_activations=pl.col("is_optout").sum(),
    impression_activations=pl.col("is_impressed").sum(),
    reacting_activations=reacts.sum(),
    orphan_reactions=(reacts & is_sent.not_()).sum(),
)
rates = counts.with_columns(pl.col(pl.UInt32).cast(pl.Int64)).with_columns(
    delivered=(pl.col("activations") - pl.col("bounced")).clip(lower_bound=0)
)
rates = rates.with_columns(
    hit_rate=pl.col("hit_activations") / pl.col("delivered"),
    optout_rate=pl.col("optout_activations") / pl.col("delivered"),
    bounce_rate=pl.col("bounced") / pl.col("activations"),
)
rates.sort(GRAIN).collect(engine="streaming").write_parquet(file)
