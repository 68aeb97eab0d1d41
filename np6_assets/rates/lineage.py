"""Column lineage: from which event columns each column of the rates is computed. Follows rates.sql."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import dagster as dg

from np6_assets.settings import Settings

COLUMN_LINEAGE = "dagster/column_lineage"
"""Dagster's metadata key for where an asset's columns come from."""

_FEEDS = ("activations", "hits", "optouts", "bounces", "impressions")
_GRAIN = ("agency", "customer", "activation_id", "activation_version", "application_id")
# what tells sends apart, and what places them in a cohort and its window
_SEND = ("event_id", "event_time", "stamp_id", "subscription_id", "activated_at")

_Sources: TypeAlias = Mapping[str, tuple[str, ...]]

_HITS: _Sources = {"hits": (*_SEND, "link_type")}
_OPTOUTS: _Sources = {"optouts": _SEND}
_VERDICTS: _Sources = {"bounces": (*_SEND, "bounce_verdict")}
_BOUNCES: _Sources = {"bounces": _SEND}
_SENDS: _Sources = {"activations": _SEND}
_IMPRESSIONS: _Sources = {"impressions": _SEND}
_DELIVERED: _Sources = {**_SENDS, **_BOUNCES}
_REACTIONS: _Sources = {**_HITS, **_OPTOUTS, **_BOUNCES}

_SOURCES: Mapping[str, _Sources] = {
    **{column: dict.fromkeys(_FEEDS, (column,)) for column in _GRAIN},
    "activations": _SENDS,
    "bounces_hard": _VERDICTS,
    "bounces_soft": _VERDICTS,
    "bounces_other": _VERDICTS,
    "bounced": _BOUNCES,
    "delivered": _DELIVERED,
    "hit_activations": _HITS,
    "hits": _HITS,
    "other_hits": _HITS,
    "optout_activations": _OPTOUTS,
    "impression_activations": _IMPRESSIONS,
    "reacting_activations": _REACTIONS,
    "orphan_reactions": {**_SENDS, **_REACTIONS},
    "hit_rate": {**_HITS, **_DELIVERED},
    "optout_rate": {**_OPTOUTS, **_DELIVERED},
    "bounce_rate": _DELIVERED,
    "hard_bounce_rate": {**_SENDS, **_VERDICTS},
    "impression_rate": {**_IMPRESSIONS, **_DELIVERED},
    "hit_rate_low": {**_HITS, **_DELIVERED},
    "hit_rate_high": {**_HITS, **_DELIVERED},
    "hits_per_hit_activation": _HITS,
    "hit_share": _REACTIONS,
    "optout_share": _REACTIONS,
    "bounce_share": _REACTIONS,
}


def build_column_lineage(settings: Settings) -> dg.TableColumnLineage:
    """Build the lineage of `reactivity_rates`. The columns about the window come from no event column."""
    return dg.TableColumnLineage(
        {
            column: [
                dg.TableColumnDep(dg.AssetKey(settings.key(asset)), name)
                for asset, names in sources.items()
                for name in names
            ]
            for column, sources in _SOURCES.items()
        }
    )
