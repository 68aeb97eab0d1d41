"""The three sentences that the report opens with: what changed, for which notifications, what to look at first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from statistics import NormalDist

from np6_assets.rates.pictures import BOUNCE, Share, percent
from np6_assets.report import words
from np6_assets.report.changes import WEEK, Change, Changes
from np6_assets.report.comparison import LEVEL
from np6_assets.report.moments import Slot
from np6_assets.report.queries import Findings, Group

_CHANCE = "no larger a difference than chance explains"

_BOUNCES_MUCH = 2
"""A notification bounces much where its rate, at the low end of the interval, is this many times that of the others."""

_LEAST_BOUNCED = 50

_LEAST_DAYS = 3
"""On how many days an hour of the week must have had sends to be called better: on one, it could be the day."""


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the section of the page that it leads to."""

    text: str
    section: str


def opening(findings: Findings) -> tuple[Sentence, Sentence, Sentence]:
    """The three sentences."""
    return _what_changed(findings), _which_changed(findings), _look_first(findings)


def _what_changed(findings: Findings) -> Sentence:
    changes = findings.changes
    if changes is None:
        return Sentence(
            f"What changed can be told from the second week of whole days on; {_days(len(findings.days))} "
            f"{'is' if len(findings.days) == 1 else 'are'} there so far.",
            "time",
        )
    total = changes.total
    now, before = percent(total.now.rate), percent(total.before.rate)
    text = f"In the 7 days to {words.dated(changes.last)}, {now} of {total.now.whole:,} delivered sends were clicked"
    if total.is_real:
        direction, more = ("up", "more") if total.clicks > 0 else ("down", "fewer")
        text += f", {direction} from {before} in the 7 days before: about {words.about(total.clicks)} {more} clicks"
        text += _of_the_mix(changes)
    else:
        text += f", against {before} in the 7 days before: {_CHANCE}"
    return Sentence(f"{text}.", "time")


def _of_the_mix(changes: Changes) -> str:
    """Where what was sent explains most of the change: that it does."""
    clicks = changes.total.clicks
    if changes.mix * clicks <= 0 or abs(changes.mix) <= abs(clicks) / 2:
        return ""
    which = "more" if clicks > 0 else "less"
    return f", most of it because a larger part was sent of what is clicked {which}"


def _which_changed(findings: Findings) -> Sentence:
    changes = findings.changes
    if changes is None or not changes.notifications:
        return _clicked_most(findings)
    if changes.gained is None and changes.lost is None:
        return Sentence(
            "No notification gained or lost clicks beyond what chance explains "
            f"({_numbered(len(changes.notifications), 'was', 'were')} sent in both weeks).",
            "notifications",
        )
    parts = []
    if changes.gained is not None:
        parts.append(_moved(findings, changes.gained, "gained most"))
    if changes.lost is not None:
        parts.append(_moved(findings, changes.lost, "lost most"))
    if len(parts) == 1:
        parts.append(f"none {'lost' if changes.lost is None else 'gained'} any beyond what chance explains")
    return Sentence(f"{'; '.join(parts)}.", "notifications")


def _moved(findings: Findings, change: Change, how: str) -> str:
    assert change.activation_id is not None
    more = "more" if change.clicks > 0 else "fewer"
    return (
        f"{_named(findings, change.activation_id)} {how}: {percent(change.now.rate)} against "
        f"{percent(change.before.rate)}, about {words.about(change.clicks)} {more} clicks"
    )


def _clicked_most(findings: Findings) -> Sentence:
    """Where two weeks cannot be compared: which notification is clicked most."""
    groups = [group for group in findings.notifications if not words.is_few(group.shares["hit_rate"])]
    best = max(groups, key=lambda group: group.shares["hit_rate"].rate or 0.0, default=None)
    if best is None or not best.shares["hit_rate"].part:
        return Sentence("There are too few clicks yet to tell which notification is clicked most.", "notifications")
    share = best.shares["hit_rate"]
    return Sentence(
        f"So far {_named(findings, best.key)} is clicked most: {percent(share.rate)} of {share.whole:,} delivered "
        "sends.",
        "notifications",
    )


def _look_first(findings: Findings) -> Sentence:
    """Doubtful data before all; then what costs most clicks a week; then bounces."""
    if doubt := _doubtful(findings):
        return Sentence(doubt, "state")
    costs = [*_beaten_versions(findings), *_loss(findings)]
    if costs:
        return max(costs, key=lambda cost: cost[0])[1]
    if bouncing := _bouncing(findings):
        return bouncing
    return Sentence(
        "Nothing calls for a look first: no fall, no version proven better than what is sent, no unusual bounces.",
        "notifications",
    )


def _doubtful(findings: Findings) -> str | None:
    since = findings.last - timedelta(days=2 * WEEK - 1)
    parts = [
        f"{_days(len(days))} {what} ({words.stretches(days)})"
        for what, found in (("never loaded", findings.never_loaded), ("incomplete", findings.incomplete))
        if (days := [day for day in found if day >= since])
    ]
    return f"Look first at the data: of the last two weeks, {' and '.join(parts)}." if parts else None


def _beaten_versions(findings: Findings) -> list[tuple[float, Sentence]]:
    """What a version costs, in clicks a week, that still goes out though another one is better."""
    found = []
    for contest in findings.contests:
        winner = contest.winner
        if winner is None or findings.final is None:
            continue
        if not any((contest.activation_id, version) in findings.sent_lately for version in winner.beaten):
            continue
        weekly = winner.gain * WEEK / findings.final.days
        ids = words.short_ids([version for version, _ in contest.versions if version])
        text = (
            f"Look first at the versions of {_named(findings, contest.activation_id)}: "
            f"{ids[winner.version] if winner.version else 'the one without an id'}, sent alone, would bring about "
            f"{words.about(weekly)} more clicks a week."
        )
        found.append((weekly, Sentence(text, "versions")))
    return found


def _loss(findings: Findings) -> list[tuple[float, Sentence]]:
    lost = findings.changes.lost if findings.changes else None
    if lost is None or lost.activation_id is None:
        return []
    name = _named(findings, lost.activation_id)
    text = f"Look first at {name}: nothing else costs as many clicks as its fall."
    return [(-lost.clicks, Sentence(text, "notifications"))]


def _bouncing(findings: Findings) -> Sentence | None:
    """The notification with the most sends that bounced beyond what the others do."""
    total = findings.total.shares[BOUNCE.column]

    def beyond(group: Group) -> float:
        share = group.shares[BOUNCE.column]
        others = Share(total.part - share.part, total.whole - share.whole)
        if share.interval is None or others.rate is None or share.interval[0] <= _BOUNCES_MUCH * others.rate:
            return 0.0
        return share.part - share.whole * others.rate

    worst = max(findings.notifications, key=beyond, default=None)
    if worst is None or beyond(worst) < _LEAST_BOUNCED:
        return None
    share = worst.shares[BOUNCE.column]
    return Sentence(
        f"Look first at the bounces of {_named(findings, worst.key)}: {percent(share.rate)} of its sends reached "
        f"nobody, about {words.about(beyond(worst))} more than at the rate of the others.",
        "bounces",
    )


def best_time(slots: list[Slot]) -> str:
    """What can be said of the best hour of the week to send."""
    tested = [
        slot for slot in slots if slot.days >= _LEAST_DAYS and slot.expected >= words.ENOUGH_CLICKS and slot.variance
    ]
    if not tested:
        return "There are too few clicks yet to name a best time."
    best = max(tested, key=lambda slot: (slot.share.part - slot.expected) / math.sqrt(slot.variance))
    z = (best.share.part - best.expected) / math.sqrt(best.variance)
    if (1 - NormalDist().cdf(z)) * len(tested) >= LEVEL:
        return (
            "No time is proven best: the same notifications are clicked in no hour more than chance explains, whatever "
            "the rates below are."
        )
    return (
        f"Like for like, {words.weekday(best.weekday)} from {words.hour_of(best.hour)} is best: the notifications sent "
        f"then are clicked {best.share.part / best.expected:.2f} times as often as they are over all hours."
    )


def _named(findings: Findings, activation_id: int) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{findings.name(activation_id)}\N{RIGHT DOUBLE QUOTATION MARK}"


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number:,} days"


def _numbered(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"
