"""The doctor's judgement: from what was seen to verdicts and advice. Pure functions of what they are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import httpx

from np6_assets.contact.policy import SHORT
from np6_assets.doctor.finding import Finding, Verdict, duration
from np6_assets.doctor.judge_events import CLOCK_WARNING, lateness, link_types, verdicts, windows
from np6_assets.doctor.machine import DagsterHome, Place, SettingsRead
from np6_assets.doctor.probe import NoReply, Reply
from np6_assets.doctor.survey import Survey
from np6_assets.events.kinds import KINDS
from np6_assets.np6.retry import asked_wait, read_reset
from np6_assets.np6.unreachable import ADVICE
from np6_assets.settings import Settings

CLOCK_WRONG = timedelta(seconds=60)
CERTIFICATE_WARNING = timedelta(days=21)
FREE_WARNING, FREE_WRONG = 2 * 2**30, 200 * 2**20
LONGEST_RESET = timedelta(days=1)
"""No rate limit counts over more: a reset further away is not what its size says it is."""

_WORTH_COMPRESSING = 2000
_NO_DATE = "Days are closed a day later, as our clock alone is not believed. Check that this machine uses NTP."


# --- This machine ---------------------------------------------------------------------------------


def settings(read: SettingsRead, today: datetime) -> list[Finding]:
    """The settings, and the key as far as it can be told without a request. `today` is an aware time."""
    if read.settings is None:
        return [
            Finding("settings", "wrong", read.error, "Correct it in .env or the environment; what .env says wins."),
        ]
    if read.unknown:
        names = ", ".join(read.unknown)
        advice = "Is a name misspelt? docs/settings.md lists the settings."
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
        if found.contact.has_short_key:
            advice = "Runs take it only where stored files have pseudonyms of it."
            first = Finding("settings", "warning", f"NP6_PSEUDONYM_KEY {SHORT}", advice)
    return [first] if read.settings.missing is None else [first, Finding("key", "wrong", read.settings.missing)]


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
    if variable == "NP6_DATA_DIR" and not place.has_locks:
        text += ", and its file system has no locks: runs cannot keep out of each other's way"
        return Finding(subject, "warning", text, f"Name a folder on a local disk in {variable}.", values)
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
        clock(found.replies),
        key(first, read),
    ]
    if isinstance(first, Reply) and first.refusal is None:
        findings += [rights(found), notifications(first)]
    findings.append(rate_limit(found.replies))
    if found.replies:
        findings += [
            compression(found.replies),
            *windows(found),
            lateness(found, read.lookback),
            link_types(found.feeds.get("hits")),
            verdicts(found.feeds.get("bounces")),
        ]
    return findings


def reachability(reply: Reply | NoReply, proxies: Sequence[str]) -> Finding:
    """Whether there is an NP6 API at NP6_BASE_URL."""
    subject = "reachability"
    if isinstance(reply, NoReply):
        todo = ADVICE[reply.trouble]
        advice = "See TLS below." if reply.trouble == "certificate" else f"{todo[0].upper()}{todo[1:]}."
        if proxies:
            advice += f" Requests go through the proxy in {', '.join(proxies)}."
        text = f"GET {reply.path}: {reply.reason}"
        return Finding(subject, "wrong", text, advice, {"trouble": reply.trouble})
    milliseconds = round((reply.received - reply.started).total_seconds() * 1000)
    values = {"status": reply.status, "milliseconds": milliseconds}
    if reply.fault:
        text = f"GET {reply.path} returned {reply.status}, but no notifications: {reply.fault}"
        advice = "Set NP6_BASE_URL to the API itself; a page can also be a proxy's or a maintenance notice."
        return Finding(subject, "wrong", text, advice, values)
    if reply.refusal is not None and reply.status not in (401, 403, 429):
        later = reply.status >= 500 or reply.status == 408
        advice = "Try again later; tell NP6 the x-request-id if it lasts." if later else "Correct NP6_BASE_URL."
        return Finding(subject, "wrong", reply.refusal, advice, values)
    return Finding(subject, "ok", f"the API answers after {milliseconds} ms", "", values)


def certificate(reply: Reply | NoReply) -> Finding:
    """TLS, and how long the certificate is valid."""
    if isinstance(reply, NoReply):
        if reply.trouble in ("certificate", "tls"):
            advice = (
                "Check this machine's clock and the host in NP6_BASE_URL. Where a company's proxy signs anew, name its "
                "certificate in SSL_CERT_FILE."
            )
            return Finding("TLS", "wrong", f"no trusted connection: {reply.reason}", advice)
        return Finding("TLS", "unknown", "there is no connection", "See reachability.")
    if reply.tls is None:
        return Finding("TLS", "ok", "not used: the address is this machine's own")
    if reply.certificate_end is None:
        return Finding("TLS", "unknown", f"{reply.tls}, valid; until when is not to be seen")
    left = reply.certificate_end - reply.received
    text = f"{reply.tls}, certificate valid for {left.days} more days (until {reply.certificate_end:%Y-%m-%d})"
    values = {"tls": reply.tls, "certificate_end": reply.certificate_end.isoformat(), "days_left": left.days}
    if left < CERTIFICATE_WARNING:
        return Finding("TLS", "warning", text, "Who runs the API, or the proxy before it, has to renew it.", values)
    return Finding("TLS", "ok", text, "", values)


def clock(replies: Iterable[Reply]) -> Finding:
    """This machine's clock against the API's, by the quickest answer: it leaves the least room for error."""
    dated = [(one.received - one.started, one, date) for one in replies if (date := one.server_time) is not None]
    if not dated:
        return Finding("clock", "unknown", "no answer said what time it is", _NO_DATE)
    trip, reply, date = min(dated, key=lambda one: one[0])
    # Date leaves the fraction of the second out: the API's time is half a second later on average
    offset = (reply.started + trip / 2) - (date + timedelta(seconds=0.5))
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


def key(reply: Reply | NoReply, read: Settings) -> Finding:
    """Whether the API takes the key."""
    if read.is_sandbox:
        return Finding("key", "ok", "the simulated account needs none")
    if isinstance(reply, Reply) and reply.usable:
        return Finding("key", "ok", "the API accepts it")
    if isinstance(reply, Reply) and reply.status == 401:
        advice = "Copy the key again from NP6, whole and without quotes; a NP6_API_KEY in .env wins."
        return Finding("key", "wrong", reply.refusal or "", advice)
    if isinstance(reply, Reply) and reply.status == 403:
        return Finding("key", "wrong", reply.refusal or "", "Who administers NP6 gives the right to the key's user.")
    return Finding("key", "unknown", "set; whether it is the right one, the API did not say", "See reachability.")


def rights(found: Survey) -> Finding:
    """Whether every feed that the assets need can be read."""
    wrong, read = [], []
    for asset, reply in found.feeds.items():
        if isinstance(reply, NoReply):
            wrong.append(f"GET {reply.path}: {reply.reason}")
        elif reply.refusal is not None:
            wrong.append(reply.refusal)
        elif reply.fault:
            wrong.append(f"GET {reply.path} returned {reply.status}, but no events: {reply.fault}")
        else:
            read.append(asset)
    left_out = [kind.asset for kind in KINDS if kind.asset not in found.feeds]
    values = {"read": read, "not_asked": left_out}
    if wrong:
        advice = "The assets of these feeds cannot be made until this is put right."
        return Finding("feeds", "wrong", "; ".join(wrong), advice, values)
    if left_out:
        text = f"{', '.join(read)} can be read; {', '.join(left_out)} not requested: there is no notification"
        return Finding("feeds", "unknown", text, "", values)
    return Finding("feeds", "ok", f"{', '.join(read)} can be read", "", values)


def notifications(reply: Reply) -> Finding:
    """Whether the account has anything to report on."""
    count = len({item.id for item in reply.items if isinstance(item.id, int)})
    values = {"notifications": count, "all": reply.is_whole}
    if not count:
        advice = "Is it the key of the right account, and does its user see the notifications?"
        return Finding("notifications", "warning", "the account has none", advice, values)
    text = f"{count} {'in the account' if reply.is_whole else 'and more in the account'}"
    return Finding("notifications", "ok", text, "", values)


# --- What the reference leaves open ---------------------------------------------------------------


def rate_limit(replies: Sequence[Reply]) -> Finding:
    """What the rate-limit headers say, and what X-RateLimit-Reset counts."""
    subject = "rate limit"
    refused = next((one for one in replies if one.status == 429), None)
    limited = [one for one in replies if any(f"x-ratelimit-{name}" in one.headers for name in _LIMITS)]
    reply = refused or (limited[-1] if limited else None)
    if reply is None:
        if not replies:
            return Finding(subject, "unknown", "there was no answer", "See reachability.")
        text = "the API sends no X-RateLimit headers, so what Reset counts cannot be told"
        return Finding(subject, "unknown", text, "Nothing to do: on 429 the client waits longer each time.")
    said = {name: reply.headers.get(f"x-ratelimit-{name}", "") for name in _LIMITS}
    values: dict[str, object] = {name: _count(text) for name, text in said.items() if name != "reset"}
    parts = [f"{name} {values[name]}" for name in ("limit", "remaining") if values[name] is not None]
    verdict, advice = _reset(reply, said["reset"], parts, values)
    if refused is not None:
        wait = asked_wait(httpx.Headers(dict(refused.headers)), refused.server_time or refused.received)
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


def _reset(reply: Reply, text: str, parts: list[str], values: dict[str, object]) -> tuple[Verdict, str]:
    """What Reset counts, added to what is said."""
    if not text:
        parts.append("no X-RateLimit-Reset")
        return "unknown", "Nothing to do: what it would count cannot be told, and on 429 the client does without."
    now = reply.server_time or reply.received
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


def compression(replies: Iterable[Reply]) -> Finding:
    """Whether large answers come compressed."""
    large = [one for one in replies if one.usable and one.body_bytes >= _WORTH_COMPRESSING]
    used = Counter(one.headers.get("content-encoding", "").strip().lower() or "none" for one in large)
    values = {"encodings": dict(used)}
    if not large:
        return Finding("compression", "unknown", "every answer was too small to be worth compressing", "", values)
    if used["none"] == len(large):
        advice = "It works, and takes some ten times the traffic. Does a proxy take Accept-Encoding away?"
        return Finding("compression", "warning", "the answers are not compressed", advice, values)
    more = f", {used['none']} of {len(large)} answers not" if used["none"] else ""
    return Finding("compression", "ok", f"gzip is used{more}", "", values)
