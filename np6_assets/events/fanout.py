"""Which notifications a fetch of activations asks. Pure: what is known of them is handed in.

The API gives activations for one notification at a time, and its list is not the truth about the past: a deleted
notification is no longer listed, and its sends are still the denominators of its reactions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

ACTIVE_DAYS = 7
"""A notification that sent within so many days before is asked by every refresh; the others when a day closes."""

Ids = Mapping[date, Collection[int]]
"""Ids of notifications by event day."""


@dataclass(frozen=True)
class Known:
    """What is known of an account's notifications.

    Attributes:
        listed: those that the API lists now.
        stored: those of the stored `notifications`, listed or not.
        sent: those with stored sends, by event day; ACTIVE_DAYS before the days asked as well.
        reacted: those that the stored reactions of a day name.
        missing: those that did not answer when a day was fetched.
        gone: those that the API did not know (404) when it was asked last.
        joined: for closed days, those that the API never listed and reactions of any day have named since.
    """

    listed: Collection[int]
    stored: Collection[int] = ()
    sent: Ids = field(default_factory=dict)
    reacted: Ids = field(default_factory=dict)
    missing: Ids = field(default_factory=dict)
    gone: Collection[int] = ()
    joined: Collection[int] = ()


def asked(known: Known, days: Sequence[date], *, everyone: bool) -> dict[int, str]:
    """The ids to ask for some days, in their order, each with the reason.

    `everyone`: all that are known, as a day that closes needs them; else those that may have sent.
    """
    found: dict[int, str] = {}

    def add(ids: Collection[int], why: str) -> None:
        for id_ in ids:
            found.setdefault(id_, why)

    for day in days:
        add(known.missing.get(day, ()), "did not answer before")
        add(known.sent.get(day, ()), "sent that day")
    add({*_named(known, days), *known.joined}, "named by a reaction")
    if everyone:
        add(known.listed, "listed")
        add(known.stored, "known from before")
    else:
        if known.stored:  # else all of the list would be new, in each refresh
            add(set(known.listed) - set(known.stored), "new in the list")
        for ago in range(1, ACTIVE_DAYS + 1):
            add(known.sent.get(min(days) - timedelta(days=ago), ()), "sent in the week before")
    return {id_: found[id_] for id_ in sorted(set(found) - _gone(known, days))}


def asked_again(known: Known, days: Sequence[date]) -> dict[int, str]:
    """The ids alone that did not answer for some days, in their order, each with the reason."""
    missing = {id_ for day in days for id_ in known.missing.get(day, ())}
    return dict.fromkeys(sorted(missing - _gone(known, days)), "did not answer before")


def _gone(known: Known, days: Sequence[date]) -> set[int]:
    """The ids that are not asked again: the API did not know them, and neither its list nor a reaction names them."""
    return set(known.gone) - set(known.listed) - _named(known, days)


def _named(known: Known, days: Sequence[date]) -> set[int]:
    """The ids that stored reactions of the days name."""
    return {id_ for day in days for id_ in known.reacted.get(day, ())}


def reasons(ids: Mapping[int, str]) -> dict[str, int]:
    """How many ids are asked for which reason."""
    return dict(sorted(Counter(ids.values()).items()))
