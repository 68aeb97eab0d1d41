"""Write the sentences that the report opens with: what changed, for which notifications, what to look at first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from np6_assets.rates.measures import format_percent
from np6_assets.report.changes import WEEK
from np6_assets.report.comparison import Comparison
from np6_assets.report.formatting import format_date, format_estimate, format_ranges, is_few
from np6_assets.report.queries import ReportData


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the section of the page that it leads to."""

    text: str
    section: str


def write_opening(report: ReportData) -> tuple[Sentence, Sentence, Sentence]:
    """Write the three sentences."""
    return (
        Sentence(_describe_change(report), "time"),
        Sentence(_describe_notifications(report), "notifications"),
        _choose_first_look(report),
    )


def _describe_change(report: ReportData) -> str:
    changes = report.changes
    if changes is None:
        return (
            f"What changed can be told from the second week of whole days on; {_format_days(len(report.days))} "
            f"{'is' if len(report.days) == 1 else 'are'} there so far."
        )
    total = changes.total
    now, before = format_percent(total.share.rate), format_percent(total.baseline_share.rate)
    text = f"In the 7 days to {format_date(changes.last)}, {now} of {total.share.whole:,} delivered sends were clicked"
    if not total.is_real:
        return f"{text}, against {before} in the 7 days before: no larger a difference than chance explains."
    direction, more = ("up", "more") if total.clicks > 0 else ("down", "fewer")
    return (
        f"{text}, {direction} from {before} in the 7 days before: about {format_estimate(total.clicks)} {more} clicks."
    )


def _describe_notifications(report: ReportData) -> str:
    changes = report.changes
    if changes is None or not changes.notifications:
        return _describe_most_clicked(report)
    gained, lost = changes.gained, changes.lost
    if gained is None and lost is None:
        number = len(changes.notifications)
        return (
            "No notification gained or lost clicks beyond what chance explains "
            f"({number:,} {'was' if number == 1 else 'were'} sent in both weeks)."
        )
    parts = [
        _describe_move(report, gained, "gained most") if gained else "none gained any beyond what chance explains",
        _describe_move(report, lost, "lost most") if lost else "none lost any beyond what chance explains",
    ]
    return f"{'; '.join(parts if gained else reversed(parts))}."


def _describe_move(report: ReportData, change: Comparison, how: str) -> str:
    more = "more" if change.clicks > 0 else "fewer"
    return (
        f"{_quote_name(report, change.activation_id)} {how}: {format_percent(change.share.rate)} against "
        f"{format_percent(change.baseline_share.rate)}, about {format_estimate(change.clicks)} {more} clicks"
    )


def _describe_most_clicked(report: ReportData) -> str:
    """Say which notification is clicked most, where two weeks cannot be compared."""
    groups = [group for group in report.notifications if not is_few(group.shares["hit_rate"])]
    best = max(groups, key=lambda group: group.shares["hit_rate"].rate or 0.0, default=None)
    if best is None or not best.shares["hit_rate"].part:
        return "There are too few clicks yet to tell which notification is clicked most."
    share = best.shares["hit_rate"]
    return (
        f"So far {_quote_name(report, best.key)} is clicked most: {format_percent(share.rate)} of {share.whole:,} "
        "delivered sends."
    )


def _choose_first_look(report: ReportData) -> Sentence:
    """Choose what to look at first: doubtful data of the last two weeks, a fall, a better version."""
    since = report.last - timedelta(days=2 * WEEK - 1)
    doubts = [
        f"{_format_days(len(days))} {what} ({format_ranges(days)})"
        for what, found in (("never loaded", report.never_loaded), ("incomplete", report.incomplete))
        if (days := [day for day in found if day >= since])
    ]
    if doubts:
        return Sentence(f"Look first at the data: of the last two weeks, {' and '.join(doubts)}.", "state")
    if lost := report.changes and report.changes.lost:
        name = _quote_name(report, lost.activation_id)
        return Sentence(f"Look first at {name}: nothing else costs as many clicks as its fall.", "notifications")
    if winner := report.contests and report.contests[0].winner:
        name = _quote_name(report, report.contests[0].activation_id)
        clicks = f"the better one would have brought about {format_estimate(winner.gain)} more clicks"
        return Sentence(f"Look first at the versions of {name}: {clicks}.", "versions")
    nothing = "no day is in doubt, no notification fell, and no version is proven better"
    return Sentence(f"Nothing calls for a look first: {nothing}.", "notifications")


def _quote_name(report: ReportData, activation_id: int) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{report.name(activation_id)}\N{RIGHT DOUBLE QUOTATION MARK}"


def _format_days(number: int) -> str:
    return "1 day" if number == 1 else f"{number:,} days"
