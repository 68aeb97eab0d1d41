"""Judge what the feeds hold: windows, order, lateness and values. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from statistics import median

from np6_assets.doctor.diagnosis import Diagnosis, Verdict, mask_value
from np6_assets.doctor.probe import Item, NoReply, Reply
from np6_assets.doctor.survey import Survey
from np6_assets.doctor.windows import (
    Meaning,
    Trial,
    count_out_of_order,
    deduplicate_events,
    find_possible_meanings,
    select_ids,
)
from np6_assets.events.kinds import EventKind
from np6_assets.progress import format_duration

CLOCK_WARNING = timedelta(seconds=5)
_REFUSED = {400, 404, 409, 410, 422}
_DROPPED = "Nothing is lost: events outside the window are dropped and counted."
_LONGER = "But the answer for an old day also holds"
_ACTIVATION = "is applied to the activation's time instead of the event's"
_LOST = "A reaction on a later day than its send is lost: it comes with the send's day only, and is dropped there."
_MEANINGS: dict[Meaning, tuple[Verdict, str, str]] = {
    "half open": ("ok", "is half open, as documented", ""),
    "inclusive": ("warning", "is inclusive: an event at the end comes as well", "It costs next to nothing."),
    "ignored": ("warning", "is ignored", f"{_LONGER} every later event: N days ago costs N times the bytes."),
    "by activation": ("warning", _ACTIVATION, f"{_LONGER} all later reactions to sends before its end."),
    "both by activation": ("wrong", f"{_ACTIVATION}, and so is the start", f"{_LOST} Tell NP6 and the project."),
}


def judge_windows(found: Survey) -> list[Diagnosis]:
    """Judge what the end of a window means, what a window holds, and whether the API sorts."""
    subjects = ("window end", "window content", "sort")
    if found.kind is None:
        advice = "Run this again when there are reactions of the last 30 days."
        return [Diagnosis(subject, "unknown", "no events to try it on", advice) for subject in subjects]
    newest = found.feeds[found.kind.asset]
    trials = [trial for trial in found.windows if trial.reply.usable]
    if not trials or not isinstance(newest, Reply):
        text = f"{found.kind.asset} did not answer as it should"
        return [Diagnosis(subject, "unknown", text, "See feeds.") for subject in subjects]
    known = deduplicate_events(newest.items)
    return [
        _judge_window_end(found.kind, known, trials, found.future),
        _judge_window_content(found.kind, known, trials),
        _judge_sort({"asc": max((trial.reply.times for trial in trials), key=len), "desc": newest.times[::-1]}),
    ]


def _judge_window_end(
    kind: EventKind, known: Sequence[Item], trials: Sequence[Trial], future: Reply | NoReply | None
) -> Diagnosis:
    meanings, in_future = find_possible_meanings(known, trials), "unknown"
    if isinstance(future, Reply) and (future.usable or future.status in _REFUSED):
        in_future = "accepted" if future.usable else "refused"
    values = {"asset": kind.asset, "known": len(known), "meanings": meanings, "in_the_future": in_future}
    verdict, text, advice = _MEANINGS[meanings[0]] if meanings else ("unknown", "has no meaning that is known", "")
    if verdict == "warning":
        advice = f"{_DROPPED} {advice}"
    if len(meanings) > 1:
        is_whole = all(trial.reply.is_whole for trial in trials)
        why = f"{len(known)} events are too few to tell" if is_whole else "the answer is too long to tell"
        verdict, text = "unknown", f"may be {' or '.join(meanings)}: {why}"
        advice = "Run this again when there are other events."
    text = f"{kind.end_parameter} {text}; an end in the future: {in_future} (it costs nothing: no run sends one)"
    return Diagnosis("window end", verdict, text, advice, values)


def _judge_window_content(kind: EventKind, known: Sequence[Item], trials: Sequence[Trial]) -> Diagnosis:
    subject = "window content"
    start, end, reply = max(trials, key=lambda trial: len(select_ids(known, trial.start, trial.end)))
    inside = select_ids(known, start, end)
    early = sum(time < start for time in reply.times)
    missing = len(inside - {item.id for item in reply.items})
    values = {"asset": kind.asset, "known": len(inside), "missing": missing, "before_the_start": early}
    if missing and reply.is_whole:
        text = f"{missing} of {len(inside)} {kind.asset} known to be in a window were not in its answer"
        return Diagnosis(subject, "wrong", text, "Events would be lost. Tell NP6 and the project.", values)
    if early:
        text = f"the start does not filter: {early} events came before it"
        return Diagnosis(subject, "warning", text, f"{_DROPPED} But downloads are larger. Tell the project.", values)
    if missing:
        return Diagnosis(subject, "unknown", "the answer was too long to compare", "Run this again later.", values)
    if not inside:
        return Diagnosis(subject, "unknown", "one event is too few to compare", "Run this again later.", values)
    return Diagnosis(subject, "ok", f"all {len(inside)} {kind.asset} known to be inside were there", "", values)


def _judge_sort(times: Mapping[str, Sequence[int]]) -> Diagnosis:
    """Judge the order of events. `times` are to ascend, for each order that was requested."""
    back = {order: count_out_of_order(found) for order, found in times.items()}
    few = [order for order, found in times.items() if len(set(found)) < 2]
    ignored = [order for order in times if back[order]]
    values = {order: {"events": len(found), "out_of_order": back[order]} for order, found in times.items()}
    if ignored:
        text = f"{' and '.join(ignored)} ignored: {sum(back.values())} events are out of order"
        advice = "Nothing is lost: runs sort. But a download that is cut starts again from its first event. Tell NP6."
        return Diagnosis("sort", "warning", text, advice, values)
    if few:
        text = f"{' and '.join(few)}: too few events to tell"
        return Diagnosis("sort", "unknown", text, "Run this again when there are more.", values)
    return Diagnosis("sort", "ok", "asc and desc are honoured", "", values)


def judge_lateness(found: Survey, lookback: timedelta) -> Diagnosis:
    """Judge how late events are published: those that appeared while watching, or else the newest ones."""
    subject, minutes = "lateness", f"NP6_LOOKBACK_MINUTES={lookback // timedelta(minutes=1)}"
    if found.samples:
        return _judge_watched_events(subject, found.samples, lookback, minutes)
    ages = [
        (reply.server_time or reply.received).timestamp() - time / 1000
        for reply in found.feeds.values()
        if isinstance(reply, Reply)
        for time in reply.times
    ]
    if not ages:
        return Diagnosis(subject, "unknown", "there are no events to tell by", "Try --watch 300 when pushes are sent.")
    age = min(ages)
    values = {"newest_event_seconds": round(age, 1)}
    if age < -CLOCK_WARNING.total_seconds():
        text = f"the newest event is {format_duration(-age)} in the future by the API's own clock"
        return Diagnosis(subject, "warning", text, "Tell NP6: it is in no day that is fetched until then.", values)
    text = f"the newest event is {format_duration(max(age, 0.0))} old; how late the others came takes watching"
    return Diagnosis(subject, "unknown", text, "Run with --watch 300 when pushes are being sent.", values)


def _judge_watched_events(subject: str, samples: Sequence[Reply], lookback: timedelta, minutes: str) -> Diagnosis:
    delays, reach = _measure_delays(samples)
    seconds = (samples[-1].received - samples[0].received).total_seconds()
    values: dict[str, object] = {"watched_seconds": round(seconds), "appeared": len(delays)}
    if not delays:
        text = f"no event appeared in {format_duration(seconds)} of watching"
        return Diagnosis(subject, "unknown", text, "Watch for longer, and when pushes are being sent.", values)
    latest, middle = max(delays), median(delays)
    values |= {"latest_seconds": round(latest, 1), "median_seconds": round(middle, 1), "reach_seconds": round(reach)}
    text = (
        f"{len(delays)} events appeared in {format_duration(seconds)}, half of them within {format_duration(middle)} "
        f"and the last {format_duration(latest)} after their timestamp"
    )
    if latest > lookback.total_seconds():
        return Diagnosis(subject, "warning", text, f"Raise {minutes}, or such events are missed.", values)
    if reach < lookback.total_seconds():
        text += f"; there are so many that only the last {format_duration(reach)} could be watched"
        return Diagnosis(subject, "unknown", text, "Watch when less is going on.", values)
    return Diagnosis(subject, "ok", f"{text}; {minutes} leaves room", "", values)


def _measure_delays(samples: Sequence[Reply]) -> tuple[list[float], float]:
    """Measure the delay of each event that appeared, and how far back every sample reached, in seconds.

    A delay is the time from an event's timestamp to the sample that had it first.
    """
    seen = {item.id for item in samples[0].items}
    delays, reach = [], float("inf")
    floor = _find_reach(samples[0])
    for sample in samples[1:]:
        now = (sample.server_time or sample.received).timestamp()
        # older ones may have been there before, where a sample did not reach
        floor = max(floor, _find_reach(sample))
        reach = min(reach, now - floor)
        fresh = [item for item in sample.items if item.id not in seen and item.timestamp / 1000 > floor]
        delays += [max(now - item.timestamp / 1000, 0.0) for item in fresh]
        seen |= {item.id for item in sample.items}
    return delays, reach


def _find_reach(sample: Reply) -> float:
    """From when on a sample has every event, in seconds since the epoch."""
    if sample.is_whole:
        return sample.received.timestamp() - timedelta(days=1).total_seconds()
    return min(sample.times, default=0) / 1000


def judge_link_types(found: Survey) -> Diagnosis:
    """Judge which link types the newest hits have."""
    counts = _count_values(found.feeds.get("hits"), lambda item: item.link_type)
    advice = "Only redirections count as hits, so hit_rate would be 0. Tell the project."
    return _judge_values("link types", "hits", counts, {"redirection"}, advice, "other_hits")


def judge_bounce_verdicts(found: Survey) -> Diagnosis:
    """Judge which verdicts the newest bounces have."""
    counts = _count_values(found.feeds.get("bounces"), lambda item: item.bounce_verdict)
    advice = "All would count as bounces_other. Tell the project."
    return _judge_values("bounce verdicts", "bounces", counts, {"hard", "soft"}, advice, "bounces_other")


def _count_values(reply: Reply | NoReply | None, value: Callable[[Item], str | None]) -> Counter[str]:
    items = reply.items if isinstance(reply, Reply) and reply.usable else ()
    return Counter(mask_value(value(item)) for item in items)


def _judge_values(
    subject: str, asset: str, counts: Counter[str], known: set[str], advice: str, others_column: str
) -> Diagnosis:
    """Judge the values of the newest events: whether a known one is among them, and which column counts the others."""
    listed = counts.most_common(8)
    values = {"counts": dict(listed)}
    if not counts:
        text = f"there are no {asset} to tell by"
        return Diagnosis(subject, "unknown", text, f"Run this again when there are {asset}.", values)
    text = f"of the newest {counts.total()} {asset}: {', '.join(f'{name} {count}' for name, count in listed)}"
    if len(counts) > len(listed):
        text += " and more"
    if not counts.keys() & known:
        return Diagnosis(subject, "warning", text, advice, values)
    text += f"; the others count as {others_column}" if counts.keys() - known else ""
    return Diagnosis(subject, "ok", text, "", values)
