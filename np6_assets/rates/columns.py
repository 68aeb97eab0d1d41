"""The columns of `reactivity_rates`: names, types and what each number means (units in the text).

The calculation is `rates.sql`; a metric is a line there, a line here and a test.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

Status: TypeAlias = Literal["final", "incomplete", "open"]
"""`final`: the numbers stay; `incomplete`: events are missing; `open`: the window has not closed yet."""

_COUNT = pa.int64()
_RATE = pa.float64()

# name, type, description, nullable
COLUMNS: tuple[tuple[str, pa.DataType, str, bool], ...] = (
    ("agency", pa.string(), "Agency of the account.", True),
    ("customer", pa.string(), "Customer of the account.", True),
    ("activation_id", _COUNT, "Id of the notification.", False),
    ("activation_version", pa.string(), "Version of the notification.", True),
    ("application_id", pa.string(), "The mobile application.", True),
    ("activations", _COUNT, "Sends. Null where the day's activations are not materialized.", True),
    ("bounces_hard", _COUNT, "Sends whose worst bounce is hard.", False),
    ("bounces_soft", _COUNT, "Sends whose worst bounce is soft.", False),
    ("bounces_other", _COUNT, "Sends with bounces that are neither hard nor soft.", False),
    ("bounced", _COUNT, "Sends with a bounce.", False),
    ("delivered", _COUNT, "Sends less bounced sends, not below 0.", True),
    ("hit_activations", _COUNT, "Sends with a click-through.", False),
    ("hits", _COUNT, "Click-throughs: hits whose link type is `redirection`.", False),
    ("other_hits", _COUNT, "Hits of any other link type, such as dismissals.", False),
    ("optout_activations", _COUNT, "Sends that reached a muted device.", False),
    ("impression_activations", _COUNT, "Sends that were displayed.", True),
    ("reacting_activations", _COUNT, "Sends with a click-through, an optout or a bounce.", False),
    ("orphan_reactions", _COUNT, "Reacting sends that the activations do not know.", True),
    ("hit_rate", _RATE, "hit_activations / delivered, 0 to 1.", True),
    ("optout_rate", _RATE, "optout_activations / delivered, 0 to 1.", True),
    ("bounce_rate", _RATE, "bounced / activations, 0 to 1.", True),
    ("hard_bounce_rate", _RATE, "bounces_hard / activations, 0 to 1.", True),
    ("impression_rate", _RATE, "impression_activations / delivered, 0 to 1.", True),
    ("hit_rate_low", _RATE, "Lower end of the 95 % Wilson score interval of hit_rate.", True),
    ("hit_rate_high", _RATE, "Upper end of the 95 % Wilson score interval of hit_rate.", True),
    ("hits_per_hit_activation", _RATE, "hits / hit_activations, 1 or more.", True),
    ("hit_share", _RATE, "hit_activations / reacting_activations, 0 to 1.", True),
    ("optout_share", _RATE, "optout_activations / reacting_activations, 0 to 1.", True),
    ("bounce_share", _RATE, "bounced / reacting_activations, 0 to 1.", True),
    ("window_days", pa.int32(), "Days after the send's day on which events count.", False),
    (
        "days_loaded",
        pa.int32(),
        "Event days of the window with hits, optouts and bounces, 0 to window_days + 1.",
        False,
    ),
    (
        "status",
        pa.string(),
        "`final`; `incomplete` where a day that it needs, or the notification on such a day, should be there by now "
        "and is not; `open` where the window has not closed yet.",
        False,
    ),
    (
        "is_final",
        pa.bool_(),
        "The window has closed, and every day that it needs was fetched after its end, with this notification.",
        False,
    ),
)

SCHEMA = pa.schema([pa.field(name, type_, nullable) for name, type_, _, nullable in COLUMNS])


def fill_status(rates: pa.Table) -> pa.Table:
    """Fill in the column `status` of stored rates where version 0.1 did not have it, from `is_final`."""
    status = pc.if_else(rates.column("is_final"), "final", "open")
    place = rates.schema.get_field_index("status")
    if place < 0:
        return rates.append_column("status", status)
    return rates.set_column(place, "status", pc.coalesce(rates.column("status"), status))
