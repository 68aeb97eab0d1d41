"""Column lineage: from which event columns each column of the rates is computed. Follows rates.sql."""

from __future__ import annotations

import dagster as dg

from np6_assets.settings import Settings

COLUMN_LINEAGE = "dagster/column_lineage"
"""Dagster's metadata key for where an asset's columns come from."""

_GRAIN = ("agency", "customer", "activation_id", "activation_version", "application_id")
# what tells sends apart, and what places them in a cohort and its window
_SEND = ("event_id", "event_time", "stamp_id", "subscription_id", "activated_at")
_VERDICTS = ("bounces_hard", "bounces_soft", "bounces_other", "hard_bounce_rate")

# event assets: the columns that are counted from them
_COUNTED = {
    ("activations",): ("activations",),
    ("bounces",): ("bounces_hard", "bounces_soft", "bounces_other", "bounced"),
    ("activations", "bounces"): ("delivered", "bounce_rate", "hard_bounce_rate"),
    ("hits",): ("hit_activations", "hits", "other_hits", "hits_per_hit_activation"),
    ("optouts",): ("optout_activations",),
    ("impressions",): ("impression_activations",),
    ("hits", "optouts", "bounces"): ("reacting_activations", "hit_share", "optout_share", "bounce_share"),
    ("activations", "hits", "optouts", "bounces"): ("orphan_reactions",),
    ("hits", "activations", "bounces"): ("hit_rate", "hit_rate_low", "hit_rate_high"),
    ("optouts", "activations", "bounces"): ("optout_rate",),
    ("impressions", "activations", "bounces"): ("impression_rate",),
}


def build_column_lineage(settings: Settings) -> dg.TableColumnLineage:
    """Build the lineage of `reactivity_rates`. The columns about the window come from no event column."""

    def depend(asset: str, *columns: str) -> list[dg.TableColumnDep]:
        return [dg.TableColumnDep(dg.AssetKey(settings.key(asset)), column) for column in columns]

    feeds = ("activations", "hits", "optouts", "bounces", "impressions")
    found = {column: [dep for asset in feeds for dep in depend(asset, column)] for column in _GRAIN}
    for assets, columns in _COUNTED.items():
        for column in columns:
            own = {"hits": ["link_type"], "bounces": ["bounce_verdict"] if column in _VERDICTS else []}
            found[column] = [dep for asset in assets for dep in depend(asset, *_SEND, *own.get(asset, []))]
    return dg.TableColumnLineage(found)
