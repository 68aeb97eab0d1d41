"""Write the sentences that the report opens with: what changed, for which notifications, what to look at first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from statistics import NormalDist

from np6_assets.rates.measures import BOUNCE, Share, format_percent
from np6_assets.report.changes import WEEK, Change, Changes
from np6_assets.report.comparison import LEVEL
from np6_assets.report.formatting import (
    ENOUGH_CLICKS,
    format_date,
    format_estimate,
    format_hour,
    format_ranges,
    format_weekday,
    is_few,
    shorten_ids,
)
from np6_assets.report.moments import Slot
from np6_assets.report.queries import Group, ReportData

_CHANCE = "no larger a difference than chance explains"

_BOUNCES_MUCH = 2
"""A notification bounces much if the low end of its rate's interval is this many times the rate of the others."""

_LEAST_BOUNCED = 50

_LEAST_DAYS = 3
"""On how many days an hour of the week must have had sends to be called better: on fewer, it may be the day."""


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the section of the page that it leads to."""

    text: str
    section: str


def write_opening(report: ReportData) -> tuple[Sentence, Sentence, Sentence]:
    """Write the three sentences."""
    return _describe_change(report), _describe_notifications(report), _choose_first_look(report)


def _describe_change(report: ReportData) -> Sentence:
    changes = report.changes
    if changes is None:
        return Sentence(
            f"What changed can be told from the second week of whole days on; {_format_days(len(report.days))} "
            f"{'is' if len(report.days) == 1 else 'are'} there so far.",
            "time",
        )
    total = changes.total
    now, before = format_percent(total.now.rate), format_percent(total.before.rate)
    text = f"In the 7 days to {format_date(changes.last)}, {now} of {total.now.whole:,} delivered sends were clicked"
    if total.is_real:
        direction, more = ("up", "more") if total.clicks > 0 else ("down", "fewer")
        text += f", {direction} from {before} in the 7 days before: about {format_estimate(total.clicks)} {more} clicks"
        text += _describe_mix(changes)
    else:
        text += f", against {before} in the 7 days before: {_CHANCE}"
    return Sentence(f"{text}.", "time")


def _describe_mix(changes: Changes) -> str:
    """Say so where what was sent explains most of the change."""
    clicks = changes.total.clicks
    if changes.mix * clicks <= 0 or abs(changes.mix) <= abs(clicks) / 2:
        return ""
    which = "more" if clicks > 0 else "less"
    return f", most of it because a larger part was sent of what is clicked {which}"


def _describe_notifications(report: ReportData) -> Sentence:
    changes = report.changes
    if changes is None or not changes.notifications:
        return _describe_most_clicked(report)
    if changes.gained is None and changes.lost is None:
        return Sentence(
            "No notification gained or lost clicks beyond what chance explains "
            f"({_format_number(len(changes.notifications), 'was', 'were')} sent in both weeks).",
            "notifications",
        )
    parts = []
    if changes.gained is not None:
        parts.append(_describe_move(report, changes.gained, "gained most"))
    if changes.lost is not None:
        parts.append(_describe_move(report, changes.lost, "lost most"))
    if len(parts) == 1:
        parts.append(f"none {'lost' if changes.lost is None else 'gained'} any beyond what chance explains")
    return Sentence(f"{'; '.join(parts)}.", "notifications")


def _describe_move(report: ReportData, change: Change, how: str) -> str:
    assert change.activation_id is not None
    more = "more" if change.clicks > 0 else "fewer"
    return (
        f"{_quote_name(report, change.activation_id)} {how}: {format_percent(change.now.rate)} against "
        f"{format_percent(change.before.rate)}, about {format_estimate(change.clicks)} {more} clicks"
    )


def _describe_most_clicked(report: ReportData) -> Sentence:
    """Say which notification is clicked most, where two weeks cannot be compared."""
    groups = [group for group in report.notifications if not is_few(group.shares["hit_rate"])]
    best = max(groups, key=lambda group: group.shares["hit_rate"].rate or 0.0, default=None)
    if best is None or not best.shares["hit_rate"].part:
        return Sentence("There are too few clicks yet to tell which notification is clicked most.", "notifications")
    share = best.shares["hit_rate"]
    return Sentence(
        f"So far {_quote_name(report, best.key)} is clicked most: {format_percent(share.rate)} of {share.whole:,} "
        "delivered sends.",
        "notifications",
    )


def _choose_first_look(report: ReportData) -> Sentence:
    """Choose what to look at first: doubtful data, then what costs most clicks a week, then bounces."""
    if doubt := _describe_doubtful_days(report):
        return Sentence(doubt, "state")
    costs = [*_find_beaten_versions(report), *_find_loss(report)]
    if costs:
        return max(costs, key=lambda cost: cost[0])[1]
    if bouncing := _find_bouncing(report):
        return bouncing
    return Sentence(
        "Nothing calls for a look first: no fall, no version proven better than what is sent, no unusual bounces.",
        "notifications",
    )


def _describe_doubtful_days(report: ReportData) -> str | None:
    since = report.last - timedelta(days=2 * WEEK - 1)
    parts = [
        f"{_format_days(len(days))} {what} ({format_ranges(days)})"
        for what, found in (("never loaded", report.never_loaded), ("incomplete", report.incomplete))
        if (days := [day for day in found if day >= since])
    ]
    return f"Look first at the data: of the last two weeks, {' and '.join(parts)}." if parts else None


def _find_beaten_versions(report: ReportData) -> list[tuple[float, Sentence]]:
    """Find the versions that are still sent though another one is better, and what each costs in clicks a week."""
    found = []
    for contest in report.contests:
        winner = contest.winner
        if winner is None or report.final is None:
            continue
        if not any((contest.activation_id, version) in report.sent_lately for version in winner.beaten):
            continue
        weekly = winner.gain * WEEK / report.final.days
        ids = shorten_ids([version for version, _ in contest.versions if version])
        text = (
            f"Look first at the versions of {_quote_name(report, contest.activation_id)}: "
            f"{ids[winner.version] if winner.version else 'the one without an id'}, sent alone, would bring about "
            f"{format_estimate(weekly)} more clicks a week."
        )
        found.append((weekly, Sentence(text, "versions")))
    return found


def _find_loss(report: ReportData) -> list[tuple[float, Sentence]]:
    lost = report.changes.lost if report.changes else None
    if lost is None or lost.activation_id is None:
        return []
    name = _quote_name(report, lost.activation_id)
    text = f"Look first at {name}: nothing else costs as many clicks as its fall."
    return [(-lost.clicks, Sentence(text, "notifications"))]


def _find_bouncing(report: ReportData) -> Sentence | None:
    """Find the notification with the most bounces above the rate of the others."""
    total = report.total.shares[BOUNCE.column]

    def count_excess(group: Group) -> float:
        share = group.shares[BOUNCE.column]
        others = Share(total.part - share.part, total.whole - share.whole)
        if share.interval is None or others.rate is None or share.interval[0] <= _BOUNCES_MUCH * others.rate:
            return 0.0
        return share.part - share.whole * others.rate

    worst = max(report.notifications, key=count_excess, default=None)
    if worst is None or count_excess(worst) < _LEAST_BOUNCED:
        return None
    share = worst.shares[BOUNCE.column]
    return Sentence(
        f"Look first at the bounces of {_quote_name(report, worst.key)}: {format_percent(share.rate)} of its sends "
        f"reached nobody, about {format_estimate(count_excess(worst))} more than at the rate of the others.",
        "bounces",
    )


def describe_best_time(slots: list[Slot]) -> str:
    """Say what is known of the best hour of the week to send."""
    tested = [slot for slot in slots if slot.days >= _LEAST_DAYS and slot.expected >= ENOUGH_CLICKS and slot.variance]
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
        f"Like for like, {format_weekday(best.weekday)} from {format_hour(best.hour)} is best: the notifications sent "
        f"then are clicked {best.share.part / best.expected:.2f} times as often as they are over all hours."
    )


def _quote_name(report: ReportData, activation_id: int) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{report.name(activation_id)}\N{RIGHT DOUBLE QUOTATION MARK}"


def _format_days(number: int) -> str:
    return "1 day" if number == 1 else f"{number:,} days"


def _format_number(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"
