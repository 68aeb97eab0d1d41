"""The doctor's judgement: from what was seen to verdicts and advice. Pure functions of what they are given."""

from __future__ import annotations

import email.utils
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median

import httpx

from np6_assets.doctor.finding import Finding, Verdict, duration, shown
from np6_assets.doctor.machine import DagsterHome, Place, SettingsRead
from np6_assets.doctor.probe import Answer, Body, Item, Look, NoAnswer, Survey, Window
from np6_assets.events.kinds import KINDS
from np6_assets.np6.client import asked_wait, read_reset
from np6_assets.settings import NO_KEY, Settings

CLOCK_WARNING, CLOCK_WRONG = timedelta(seconds=5), timedelta(seconds=60)
CERTIFICATE_WARNING = timedelta(days=21)
FREE_WARNING, FREE_WRONG = 2 * 2**30, 200 * 2**20
LONGEST_RESET = timedelta(days=1)
"""No rate limit counts over more: a reset further away is not what its size says it is."""

_WORTH_COMPRESSING = 2000


# --- This machine ---------------------------------------------------------------------------------


def settings(read: SettingsRead, today: datetime) -> list[Finding]:
    """The settings, and the key as far as it can be told without asking. `today` is an aware time."""
    if read.settings is None:
        return [
            Finding("settings", "wrong", read.error, "Correct it in .env or the environment; what .env says wins."),
        ]
    if read.unknown:
        names = ", ".join(read.unknown)
        advice = "Is a name misspelt? README.md lists the settings."
        first = Finding("settings", "warning", f"nothing reads {names}", advice, {"unread": list(read.unknown)})
    elif read.settings.start_date > today.date() + timedelta(days=1):
        text = f"NP6_START_DATE={read.settings.start_date} has not come yet, so there is no day to fetch"
        first = Finding("settings", "warning", text, "Set it to the first day that you want.")
    else:
        found = read.settings
        text = (
            f"{found.base_url}, days in {found.timezone} from {found.start_date}, window {found.window_days} days, "
            f"contact data: {found.contact.mode}"
        )
        first = Finding("settings", "ok", text)
    return [first] if read.settings.missing is None else [first, Finding("key", "wrong", NO_KEY)]


def folder(subject: str, place: Place, variable: str) -> Finding:
    """A folder that is written to; `variable` is the one that names it."""
    values = {"path": place.shown, "exists": place.exists, "free_bytes": place.free}
    if place.error:
        advice = f"Let this user write there, or name another folder in {variable}."
        return Finding(subject, "wrong", f"{place.shown} cannot be written to: {place.error}", advice, values)
    if place.free is None:
        return Finding(subject, "ok", f"{place.shown}: an object was written, read and removed", "", values)
    state = "" if place.exists else ", which the first run makes"
    text = f"{place.shown}{state}: can be written to, {_size(place.free)} free"
    if place.free < FREE_WARNING:
        advice = f"Make room, or name a folder on a larger disk in {variable}."
        return Finding(subject, "wrong" if place.free < FREE_WRONG else "warning", text, advice, values)
    return Finding(subject, "ok", text, "", values)


def dagster(home: DagsterHome | None) -> Finding:
    """DAGSTER_HOME and what its dagster.yaml says of this project's needs."""
    subject = "DAGSTER_HOME"
    if home is None:
        return Finding(subject, "ok", "not set: make dev uses .dagster_home here")
    if not home.is_absolute:
        return Finding(subject, "wrong", f"{home.path} is not an absolute path", "Dagster takes no other; set it so.")
    if not home.place.exists:
        return Finding(subject, "wrong", f"{home.path} does not exist", f"mkdir -p {home.path}")
    if home.place.error:
        text = f"{home.path} cannot be written to: {home.place.error}"
        return Finding(subject, "wrong", text, "Let this user write there: Dagster keeps its records in it.")
    if home.error:
        text = f"{home.path}/dagster.yaml cannot be read: {home.error}"
        return Finding(subject, "wrong", text, "Put the project's dagster.yaml in its place, or a link to it.")
    if home.config is None:
        advice = "Put the project's dagster.yaml, or a link to it, there: without it runs do not wait for each other."
        return Finding(subject, "warning", f"{home.path} has no dagster.yaml", advice)
    pools = _section(home.config, "concurrency", "pools")
    lacks = []
    if pools.get("default_limit") != 1 or pools.get("granularity") != "run":
        lacks.append("concurrency.pools (granularity: run, default_limit: 1)")
    if _section(home.config, "run_monitoring").get("enabled") is not True:
        lacks.append("run_monitoring.enabled")
    if lacks:
        text = f"{home.path}/dagster.yaml does not set {' or '.join(lacks)} as the project's does"
        advice = "Take them over: they keep to NP6_MAX_CONCURRENT_REQUESTS and end runs whose process died."
        return Finding(subject, "warning", text, advice, {"lacks": lacks})
    return Finding(subject, "ok", f"{home.path}, with a dagster.yaml, can be written to")


def _section(config: object, *names: str) -> dict[str, object]:
    for name in names:
        config = config.get(name) if isinstance(config, dict) else None
    return config if isinstance(config, dict) else {}


def _size(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


# --- The way to the API ---------------------------------------------------------------------------


def api(found: Survey, read: Settings, proxies: Sequence[str]) -> list[Finding]:
    """Everything about the account, in the order in which it is told."""
    first = found.notifications
    findings = [
        reachability(first, proxies),
        *([certificate(first)] if not read.is_sandbox else []),
        clock(found.answers),
        key(first, read),
    ]
    if isinstance(first, Answer) and first.refusal is None:
        findings += [rights(found), notifications(first)]
    findings.append(rate_limit(found.answers))
    if found.answers:
        findings += [
            compression(found.answers),
            *windows(found.window),
            lateness(found, read.refresh_overlap),
            link_types(_feed(found, "hits")),
            verdicts(_feed(found, "bounces")),
        ]
    return findings


def reachability(answer: Answer | NoAnswer, proxies: Sequence[str]) -> Finding:
    """Whether there is an NP6 API at NP6_BASE_URL."""
    subject = "reachability"
    if isinstance(answer, NoAnswer):
        advice = {
            "name": "Check the host in NP6_BASE_URL, and this machine's DNS.",
            "refused": "Check NP6_BASE_URL, its port, and whether a firewall is in the way.",
            "timeout": "Check NP6_BASE_URL and whether a firewall lets https out; try again later.",
            "certificate": "See TLS below.",
            "tls": "Does NP6_BASE_URL say https where the server speaks http? Is a proxy in the way?",
            "other": "Try again; check NP6_BASE_URL and the network.",
        }[answer.trouble]
        if proxies:
            advice += f" Requests go through the proxy in {', '.join(proxies)}."
        text = f"GET {answer.path}: {answer.reason}"
        return Finding(subject, "wrong", text, advice, {"trouble": answer.trouble})
    milliseconds = round((answer.answered - answer.asked).total_seconds() * 1000)
    values = {"status": answer.status, "milliseconds": milliseconds}
    if answer.refusal is None and not answer.usable:
        assert answer.body is not None
        text = f"GET {answer.path} answered 200, but not with notifications: {answer.body.value}"
        advice = "Set NP6_BASE_URL to the API itself; a page can also be a proxy's or a maintenance notice."
        return Finding(subject, "wrong", text, advice, values)
    if answer.refusal is not None and answer.status not in (401, 403, 429):
        later = answer.status >= 500 or answer.status == 408
        advice = "Try again later; tell NP6 the x-request-id if it lasts." if later else "Correct NP6_BASE_URL."
        return Finding(subject, "wrong", answer.refusal, advice, values)
    return Finding(subject, "ok", f"the API answers after {milliseconds} ms", "", values)


def certificate(answer: Answer | NoAnswer) -> Finding:
    """TLS, and how long the certificate is valid."""
    if isinstance(answer, NoAnswer):
        if answer.trouble in ("certificate", "tls"):
            advice = (
                "Check this machine's clock and the host in NP6_BASE_URL. Where a company's proxy signs anew, name its "
                "certificate in SSL_CERT_FILE."
            )
            return Finding("TLS", "wrong", f"no trusted connection: {answer.reason}", advice)
        return Finding("TLS", "unknown", "no connection to look at", "See reachability.")
    if answer.tls is None:
        return Finding("TLS", "ok", "not used: the address is this machine's own")
    if answer.certificate_end is None:
        return Finding("TLS", "unknown", f"{answer.tls}, valid; until when is not to be seen")
    left = answer.certificate_end - answer.answered
    text = f"{answer.tls}, certificate valid for {left.days} more days (until {answer.certificate_end:%Y-%m-%d})"
    values = {"tls": answer.tls, "certificate_end": answer.certificate_end.isoformat(), "days_left": left.days}
    if left < CERTIFICATE_WARNING:
        return Finding("TLS", "warning", text, "Who runs the API, or the proxy before it, has to renew it.", values)
    return Finding("TLS", "ok", text, "", values)


def server_time(answer: Answer) -> datetime | None:
    """When the API says that it answered."""
    try:
        moment = email.utils.parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def clock(answers: Iterable[Answer]) -> Finding:
    """This machine's clock against the API's, by the quickest answer: it leaves the least room for error."""
    dated = [(one.answered - one.asked, one, date) for one in answers if (date := server_time(one)) is not None]
    if not dated:
        return Finding("clock", "unknown", "no answer said what time it is", "Check that this machine uses NTP.")
    trip, answer, date = min(dated, key=lambda one: one[0])
    # Date leaves the fraction of the second out: the API's time is half a second later on average
    offset = (answer.asked + trip / 2) - (date + timedelta(seconds=0.5))
    seconds = offset.total_seconds()
    precision = 0.5 + trip.total_seconds() / 2
    values = {"ahead_seconds": round(seconds, 1), "precision_seconds": round(precision, 1)}
    beyond = timedelta(seconds=max(abs(seconds) - precision, 0.0))
    if abs(seconds) <= precision:
        text = f"the same as the API's (within {precision:.1f} s)"
    else:
        text = f"{duration(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'} the API's"
    if beyond <= CLOCK_WARNING:
        return Finding("clock", "ok", text, "", values)
    advice = "Set the clock (NTP): when a day counts as over, and what is fetched, goes by it."
    return Finding("clock", "wrong" if beyond > CLOCK_WRONG else "warning", text, advice, values)


def key(answer: Answer | NoAnswer, read: Settings) -> Finding:
    """Whether the API takes the key."""
    if read.is_sandbox:
        return Finding("key", "ok", "the simulated account needs none")
    if isinstance(answer, Answer) and answer.refusal is None and answer.usable:
        return Finding("key", "ok", "the API accepts it")
    if isinstance(answer, Answer) and answer.status == 401:
        advice = "Copy the key again from NP6, whole and without quotes; a NP6_API_KEY in .env wins."
        return Finding("key", "wrong", answer.refusal or "", advice)
    if isinstance(answer, Answer) and answer.status == 403:
        return Finding("key", "wrong", answer.refusal or "", "Who administers NP6 gives the right to the key's user.")
    return Finding("key", "unknown", "set; whether it is the right one, the API did not say", "See reachability.")


def rights(found: Survey) -> Finding:
    """Whether every feed that the assets need can be read."""
    wrong, read = [], []
    for asset, answer in found.feeds.items():
        if isinstance(answer, NoAnswer):
            wrong.append(f"GET {answer.path}: {answer.reason}")
        elif answer.refusal is not None:
            wrong.append(answer.refusal)
        elif not answer.usable:
            assert answer.body is not None
            wrong.append(f"GET {answer.path} answered 200, but not with events: {answer.body.value}")
        else:
            read.append(asset)
    left_out = [kind.asset for kind in KINDS if kind.asset not in found.feeds]
    values = {"read": read, "not_asked": left_out}
    if wrong:
        advice = "The assets of these feeds cannot be made until this is put right."
        return Finding("feeds", "wrong", "; ".join(wrong), advice, values)
    if left_out:
        text = f"{', '.join(read)} can be read; {', '.join(left_out)} not asked: there is no notification"
        return Finding("feeds", "unknown", text, "", values)
    return Finding("feeds", "ok", f"{', '.join(read)} can be read", "", values)


def notifications(answer: Answer) -> Finding:
    """Whether the account has anything to report on."""
    count = len({item.id for item in answer.items if isinstance(item.id, int)})
    values = {"notifications": count, "all": answer.body is Body.WHOLE}
    if not count:
        advice = "Is it the key of the right account, and does its user see the notifications?"
        return Finding("notifications", "warning", "the account has none", advice, values)
    text = f"{count} {'in the account' if answer.body is Body.WHOLE else 'and more in the account'}"
    return Finding("notifications", "ok", text, "", values)


# --- What the reference leaves open ---------------------------------------------------------------


def rate_limit(answers: Sequence[Answer]) -> Finding:
    """What the rate-limit headers say, and what X-RateLimit-Reset counts."""
    subject = "rate limit"
    refused = next((one for one in answers if one.status == 429), None)
    limited = [one for one in answers if any(f"x-ratelimit-{name}" in one.headers for name in _LIMITS)]
    answer = refused or (limited[-1] if limited else None)
    if answer is None:
        if not answers:
            return Finding(subject, "unknown", "nothing was answered", "See reachability.")
        text = "the API sends no X-RateLimit headers, so what Reset counts cannot be told"
        return Finding(subject, "unknown", text, "Nothing to do: on 429 the client waits longer each time.")
    said = {name: answer.headers.get(f"x-ratelimit-{name}", "") for name in _LIMITS}
    values: dict[str, object] = {name: _count(text) for name, text in said.items() if name != "reset"}
    parts = [f"{name} {values[name]}" for name in ("limit", "remaining") if values[name] is not None]
    verdict, advice = _reset(answer, said["reset"], parts, values)
    if refused is not None:
        wait = asked_wait(httpx.Headers(dict(refused.headers)), server_time(refused) or refused.answered)
        values["wait_seconds"] = wait
        parts.insert(0, refused.refusal or "")
        again = "in a few minutes" if wait is None else f"in {duration(wait)}"
        return Finding(
            subject, "warning", ", ".join(parts), f"Try again {again}; lower NP6_MAX_CONCURRENT_REQUESTS.", values
        )
    if values["remaining"] == 0 and verdict == "ok":
        verdict, advice = "warning", "The account's requests are used up for now; who else uses its key?"
    return Finding(subject, verdict, ", ".join(parts), advice, values)


_LIMITS = ("limit", "remaining", "reset")


def _reset(answer: Answer, text: str, parts: list[str], values: dict[str, object]) -> tuple[Verdict, str]:
    """What Reset counts, added to what is said."""
    if not text:
        parts.append("no X-RateLimit-Reset")
        return "unknown", "Nothing to do: what it would count cannot be told, and on 429 the client does without."
    now = server_time(answer) or answer.answered
    reset = read_reset(text, now)
    if reset is None:
        parts.append("X-RateLimit-Reset is not a number")
        return "warning", "The client cannot use it, and waits longer after each 429; tell the project."
    unit, seconds = reset
    values |= {"reset_counts": unit, "reset_seconds": round(seconds, 1)}
    parts.append(f"Reset counts {unit} (now: in {duration(seconds)})")
    if seconds > LONGEST_RESET.total_seconds():
        return "warning", "That is too far away to be true, so it may count something else; tell the project."
    return "ok", ""


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None


def compression(answers: Iterable[Answer]) -> Finding:
    """Whether large answers come compressed."""
    large = [one for one in answers if one.refusal is None and one.body_bytes >= _WORTH_COMPRESSING]
    used = Counter(
        name if name in ("", "gzip", "zstd", "deflate", "br") else "another encoding"
        for name in (one.headers.get("content-encoding", "").strip().lower() for one in large)
    )
    values = {"encodings": {name or "none": count for name, count in used.items()}}
    if not large:
        return Finding("compression", "unknown", "every answer was too small to be worth compressing", "", values)
    names = [name for name in used if name]
    if not names:
        advice = "It works, and takes some ten times the traffic. Does a proxy take Accept-Encoding away?"
        return Finding("compression", "warning", "the answers are not compressed", advice, values)
    more = f", {used['']} of {len(large)} answers not" if used[""] else ""
    return Finding("compression", "ok", f"{' and '.join(names)} used{more}", "", values)


def windows(window: Window | None) -> list[Finding]:
    """Does the end of a window filter events, is everything inside it there, and does sort=asc sort?"""
    subjects = ("window end", "window content", "sort=asc")
    if window is None or not isinstance(window.answer, Answer) or not window.answer.usable:
        why = "no events to try it on" if window is None else f"{window.asset} did not answer as it should"
        advice = "Run this again when there are reactions of the last 30 days." if window is None else "See feeds."
        return [Finding(subject, "unknown", why, advice) for subject in subjects]
    return [_window_end(window, window.answer), _window_content(window, window.answer), _sorted(window.answer)]


def _window_end(window: Window, answer: Answer) -> Finding:
    subject, parameter = "window end", next(kind.end_parameter for kind in KINDS if kind.asset == window.asset)
    late = [item for item in answer.items if item.timestamp is not None and item.timestamp >= window.end]
    values = {"asset": window.asset, "events": len(answer.items), "after_the_end": len(late)}
    if not late and answer.body is Body.WHOLE:
        return Finding(subject, "ok", f"{parameter} filters events by their timestamp", "", values)
    if not late:
        text = f"{parameter}: the answer was too long to see its end; nothing so far is past it"
        return Finding(subject, "unknown", text, "Run this again at another time.", values)
    advice = "Rates stay right, as events outside are dropped, but downloads are larger. Tell the project."
    if all(item.timestamp == window.end for item in late):
        text = f"{parameter} lets events at its very time in: the window is closed, not half open"
        return Finding(subject, "warning", text, advice, values)
    if _filters_sends(window, answer, late):
        text = f"{parameter} filters by when the send went out, not by the event's timestamp"
    else:
        text = f"{parameter} does not filter events: {len(late)} of {len(answer.items)} came after it"
    return Finding(subject, "warning", text, advice, values)


def _filters_sends(window: Window, answer: Answer, late: Sequence[Item]) -> bool:
    """Whether what is past the end was all sent before it, and what was sent past it and is known is left out."""
    left_out = [
        item
        for item in _others(window.known, answer.items)
        if item.timestamp is not None and item.timestamp >= window.end and (item.sent or 0) >= window.end
    ]
    return bool(left_out) and all(item.sent is not None and item.sent < window.end for item in late)


def _window_content(window: Window, answer: Answer) -> Finding:
    subject = "window content"
    inside = [
        item for item in window.known if item.timestamp is not None and window.start <= item.timestamp < window.end
    ]
    early = sum(item.timestamp is not None and item.timestamp < window.start for item in answer.items)
    missing = len(_others(inside, answer.items))
    values = {"asset": window.asset, "known": len(inside), "missing": missing, "before_the_start": early}
    if missing and answer.body is Body.WHOLE:
        text = f"{missing} of {len(inside)} {window.asset} known to be in a window were not in its answer"
        return Finding(subject, "wrong", text, "Events would be lost. Tell NP6 and the project.", values)
    if early:
        text = f"the start does not filter: {early} events came before it"
        advice = "Rates stay right, as events outside are dropped, but downloads are larger. Tell the project."
        return Finding(subject, "warning", text, advice, values)
    if missing:
        return Finding(subject, "unknown", "the answer was too long to compare", "Run this again later.", values)
    if not inside:
        return Finding(subject, "unknown", "one event is too few to compare", "Run this again later.", values)
    return Finding(subject, "ok", f"all {len(inside)} {window.asset} known to be inside were there", "", values)


def _others(items: Iterable[Item], than: Iterable[Item]) -> list[Item]:
    ids = {item.id for item in than}
    return [item for item in items if item.id not in ids]


def _sorted(answer: Answer) -> Finding:
    times = [item.timestamp for item in answer.items if item.timestamp is not None]
    back = sum(after < before for before, after in pairwise(times))
    values = {"events": len(times), "out_of_order": back}
    if len(set(times)) < 2:
        return Finding("sort=asc", "unknown", "too few events to tell", "Run this again later.", values)
    if back:
        advice = "Data stays right, but a download that is cut off starts anew. Tell the project."
        return Finding("sort=asc", "warning", f"does not sort: {back} of {len(times)} are out of order", advice, values)
    return Finding("sort=asc", "ok", f"sorts ({len(times)} events)", "", values)


def lateness(found: Survey, overlap: timedelta) -> Finding:
    """How late events are published: of those that appeared while they were watched for, and else of the newest."""
    subject, minutes = "lateness", f"NP6_REFRESH_OVERLAP_MINUTES={overlap // timedelta(minutes=1)}"
    if found.looks:
        return _watched(subject, found.looks, overlap, minutes)
    ages = [
        (server_time(answer) or answer.answered).timestamp() - item.timestamp / 1000
        for answer in found.feeds.values()
        if isinstance(answer, Answer)
        for item in answer.items
        if item.timestamp is not None
    ]
    if not ages:
        return Finding(subject, "unknown", "there are no events to tell by", "Try --watch 300 when pushes are sent.")
    age = min(ages)
    values = {"newest_event_seconds": round(age, 1)}
    if age < -CLOCK_WARNING.total_seconds():
        text = f"the newest event is {duration(-age)} in the future by the API's own clock"
        return Finding(subject, "warning", text, "Tell NP6: it is in no day that is fetched until then.", values)
    text = f"the newest event is {duration(max(age, 0.0))} old; how late the others came takes watching"
    return Finding(subject, "unknown", text, "Run with --watch 300 when pushes are being sent.", values)


def _watched(subject: str, looks: Sequence[Look], overlap: timedelta, minutes: str) -> Finding:
    delays, reach = _delays(looks)
    seconds = (looks[-1].time - looks[0].time).total_seconds()
    values: dict[str, object] = {"watched_seconds": round(seconds), "appeared": len(delays)}
    if not delays:
        text = f"no event appeared in {duration(seconds)} of watching"
        return Finding(subject, "unknown", text, "Watch for longer, and when pushes are being sent.", values)
    latest, middle = max(delays), median(delays)
    values |= {"latest_seconds": round(latest, 1), "median_seconds": round(middle, 1), "reach_seconds": round(reach)}
    text = (
        f"{len(delays)} events appeared in {duration(seconds)}, half of them within {duration(middle)} "
        f"and the last {duration(latest)} after their timestamp"
    )
    if latest > overlap.total_seconds():
        return Finding(subject, "warning", text, f"Raise {minutes}, or such events are missed.", values)
    if reach < overlap.total_seconds():
        text += f"; there are so many that only the last {duration(reach)} could be watched"
        return Finding(subject, "unknown", text, "Watch when less is going on.", values)
    return Finding(subject, "ok", f"{text}; {minutes} leaves room", "", values)


def _delays(looks: Sequence[Look]) -> tuple[list[float], float]:
    """The delay of each event that appeared, and how far back every look reached, in seconds.

    A delay is the time from an event's timestamp to the look that saw it first.
    """
    seen = {item.id for item in looks[0].answer.items}
    delays, reach = [], float("inf")
    floor = _floor(looks[0])
    for look in looks[1:]:
        now = (server_time(look.answer) or look.time).timestamp()
        # older ones may have been there before, where a look did not reach
        floor = max(floor, _floor(look))
        reach = min(reach, now - floor)
        fresh = [item for item in look.answer.items if item.id not in seen and (item.timestamp or 0) / 1000 > floor]
        delays += [max(now - item.timestamp / 1000, 0.0) for item in fresh if item.timestamp is not None]
        seen |= {item.id for item in look.answer.items}
    return delays, reach


def _floor(look: Look) -> float:
    """From when on a look saw every event, in seconds since the epoch."""
    if look.answer.body is Body.WHOLE:
        return look.time.timestamp() - timedelta(days=1).total_seconds()
    return min((item.timestamp / 1000 for item in look.answer.items if item.timestamp is not None), default=0.0)


def link_types(answer: Answer | None) -> Finding:
    """Which link types the newest hits have."""
    types = _values(answer, [item.link_type for item in answer.items] if answer else [])
    text, values = _listing(types, "hits")
    if not types:
        return Finding("link types", "unknown", text, "Run this again when there are hits.", values)
    if "redirection" not in types:
        advice = "Only redirections count as hits, so hit_rate would be 0. Tell the project."
        return Finding("link types", "warning", text, advice, values)
    others = len(types) > 1
    return Finding("link types", "ok", f"{text}{'; the others count as other_hits' if others else ''}", "", values)


def verdicts(answer: Answer | None) -> Finding:
    """Which verdicts the newest bounces have."""
    found = _values(answer, [item.bounce_verdict for item in answer.items] if answer else [])
    text, values = _listing(found, "bounces")
    if not found:
        return Finding("bounce verdicts", "unknown", text, "Run this again when there are bounces.", values)
    if not found.keys() & {"hard", "soft"}:
        advice = "All would count as bounces_other. Tell the project."
        return Finding("bounce verdicts", "warning", text, advice, values)
    others = found.keys() - {"hard", "soft"}
    text += "; the others count as bounces_other" if others else ""
    return Finding("bounce verdicts", "ok", text, "", values)


def _values(answer: Answer | None, values: Sequence[str | None]) -> Counter[str]:
    return Counter(shown(value) for value in values) if answer is not None and answer.usable else Counter()


def _listing(values: Counter[str], what: str) -> tuple[str, dict[str, object]]:
    listed = values.most_common(8)
    text = ", ".join(f"{name} {count}" for name, count in listed) + (" and more" if len(values) > 8 else "")
    total = values.total()
    text = f"of the newest {total} {what}: {text}" if total else f"there are no {what} to tell by"
    return text, {"counts": dict(listed)}


def _feed(found: Survey, asset: str) -> Answer | None:
    answer = found.feeds.get(asset)
    return answer if isinstance(answer, Answer) else None
