"""Compute the rates of a cohort with pandas: FOLDER DAY FILE."""

import sys
from pathlib import Path

import pandas as pd

GRAIN = ["agency", "customer", "activation_id", "activation_version", "application_id"]
SEND = [*GRAIN, "subscription_id", "stamp_id"]

folder, day, file = sys.argv[1:]
start = pd.Timestamp(day, tz="UTC")


def read(asset: str, days: int, *more: str) -> pd.DataFrame:
    """Read the cohort's events, without duplicates."""
    dates = [f"{start + pd.Timedelta(days=ahead):%Y-%m-%d}" for ahead in range(days + 1)]
    files = [Path(folder, asset, f"event_date={date}", "part-0.parquet") for date in dates]
    columns = [*SEND, "event_id", "activated_at", *more]
    events = pd.concat(pd.read_parquet(path, columns=columns, partitioning=None) for path in files)
    events = events[(events["activated_at"] >= start) & (events["activated_at"] < start + pd.Timedelta(days=1))]
    return events.drop_duplicates("event_id")


def count(events: pd.DataFrame) -> pd.Series:
    return events.groupby(GRAIN).size()


sends = read("activations", 1)[SEND].drop_duplicates()
hits = read("hits", 7, "link_type")
redirections = hits[hits["link_type"] == "redirection"]
hit = redirections[SEND].drop_duplicates()
optouts = read("optouts", 7)[SEND].drop_duplicates()
impressions = read("impressions", 7)[SEND].drop_duplicates()
bounces = read("bounces", 7, "bounce_verdict")
bounces["rank"] = bounces["bounce_verdict"].map({"hard": 0, "soft": 1}).fillna(2)
bounced = bounces.groupby(SEND, as_index=False)["rank"].min()
reacting = pd.concat([hit, optouts, bounced[SEND]]).drop_duplicates()
known = reacting.merge(sends, on=SEND, how="left", indicator=True)

rates = pd.DataFrame(
    {
        "activations": count(sends),
        "bounces_hard": count(bounced[bounced["rank"] == 0]),
        "bounces_soft": count(bounced[bounced["rank"] == 1]),
        "bounced": count(bounced),
        "hit_activations": count(hit),
        "hits": count(redirections),
        "other_hits": count(hits[hits["link_type"] != "redirection"]),
        "optout_activations": count(optouts),
        "impression_activations": count(impressions),
        "reacting_activations": count(reacting),
        "orphan_reactions": count(known[known["_merge"] == "left_only"]),
    }
).fillna(0)
rates = rates.astype("int64")
rates["delivered"] = (rates["activations"] - rates["bounced"]).clip(lower=0)
rates["hit_rate"] = rates["hit_activations"] / rates["delivered"]
rates["optout_rate"] = rates["optout_activations"] / rates["delivered"]
rates["bounce_rate"] = rates["bounced"] / rates["activations"]
rates.reset_index().to_parquet(file)
