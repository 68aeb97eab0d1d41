"""The checks of `reactivity_rates`. What they do with a cohort is in `examine.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from np6_assets.partition_checks import ERROR, Check, Finding, Records, build_partition_checks
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

ASSET = "reactivity_rates"

ORPHANS = 0.01
"""The share of the reacting sends that may lack an activation: a few are published late."""

CHECKS = (
    Check(
        "rates_within_0_and_1",
        "Every rate and share is within 0 and 1, and there are no fewer hits than sends with a hit. A warning where "
        "the row's counts are out of range themselves (more sends reacted than were delivered), and as long as the "
        "cohort's activations are not all closed: reactions can be stored before their sends are.",
        ERROR,
        blocking=True,
    ),
    Check(
        "counts_reconciled",
        "The counts, summed over the rows, equal a recount of the event files. A warning "
        "where event days were materialized again since.",
        ERROR,
        blocking=True,
    ),
    Check(
        "orphans_few",
        f"At most {ORPHANS:.0%} of the reacting sends have no activation. Passes as long as the cohort's activations "
        "are not all closed.",
    ),
    Check(
        "events_counted",
        "Every stored event of the day is counted in a cohort. The result says how many are not, of which asset, and "
        "why. A warning where a send is in no cohort, or more reactions than come after a window has closed.",
    ),
)


def build_rates_checks(settings: Settings) -> dg.AssetsDefinition:
    """Define the checks of the rates."""

    def check(folder: Folder, keys: Sequence[str], records: Records) -> Iterator[tuple[str, Mapping[str, Finding]]]:
        from np6_assets.rates.examine import check_cohorts

        return check_cohorts(settings, folder, keys, records)

    return build_partition_checks(ASSET, CHECKS, settings, check)
