"""The checks of the event assets: what they are. How they look at a stored day is in `examine.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import dagster as dg

from np6_assets.events.kinds import EventKind
from np6_assets.partition_checks import ERROR, Check, Finding, Records, partition_checks
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

CLOCK_SKEW = timedelta(minutes=1)
"""How long before its send an event may seem to happen: the two times come from clocks of different machines, which
differ by seconds at worst, while a wrong unit or zone is wrong by minutes at least."""

WEEKS = 8
"""How many weeks before a day its volume is compared with."""

LEAST_WEEKS = 4
"""With fewer of them there is nothing to compare with: the account, or its data, is new."""

USUAL_FACTOR = 3
"""A volume is usual within the range of those weeks, less the least and the greatest of them, widened by this factor.

So one outage or one great campaign does not make another one usual, and an account whose weeks differ is let be."""

CHECKS = (
    Check("ids_unique", "No `event_id` is there twice.", ERROR, blocking=True),
    Check("inside_day", "Every `event_time` is inside the day, in the configured time zone.", ERROR, blocking=True),
    Check(
        "not_before_activation",
        f"No event happened more than {CLOCK_SKEW.seconds} s (what clocks may differ by) before its send went out.",
    ),
    Check("quarantine_empty", "Every event had the shape that the contract asks for."),
    Check("fields_known", "The events had no fields that the contract does not know."),
    Check(
        "volume_as_usual",
        f"The number of events is like that of the same weekday in the {WEEKS} weeks before, less the least and the "
        f"greatest of them: between a {USUAL_FACTOR}rd of the others' least and {USUAL_FACTOR} times their greatest. "
        f"Passes where fewer than {LEAST_WEEKS} of these days are known, or the day is not closed.",
    ),
)


def event_checks(kind: EventKind, settings: Settings) -> dg.AssetsDefinition:
    """The checks of an event asset."""

    def look(folder: Folder, keys: Sequence[str], records: Records) -> Iterator[tuple[str, Mapping[str, Finding]]]:
        from np6_assets.events.examine import examine

        return examine(kind, settings, folder, keys, records)

    return partition_checks(kind.asset, CHECKS, settings, look)
