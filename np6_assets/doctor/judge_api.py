"""Judge the way to the API, the key, and what the API's reference leaves open. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta

import httpx

from np6_assets.doctor.diagnosis import Diagnosis, Verdict, format_duration
from np6_assets.doctor.judge_events import CLOCK_WARNING
from np6_assets.doctor.probe import NoReply, Reply
from np6_assets.doctor.survey import Survey
from np6_assets.events.kinds import KINDS
from np6_assets.np6.retry import read_requested_wait, read_reset
from np6_assets.np6.unreachable import ADVICE
from np6_assets.settings import Settings

CLOCK_WRONG = timedelta(seconds=60)
CERTIFICATE_WARNING = timedelta(days=21)
LONGEST_RESET = timedelta(days=1)
"""No rate limit counts over more: a reset further away is not what its size says it is."""

_WORTH_COMPRESSING = 2000
_NO_DATE = "Days are closed a day later, as our clock alone is not believed. Check that this machine uses NTP."


# --- The way to the API ---------------------------------------------------------------------------


def judge_reachability(reply: Reply | NoReply, proxies: Sequence[str]) -> Diagnosis:
    """Judge whether there is an NP6 API at NP6_BASE_URL."""
    subject = "reachability"
    if isinstance(reply, NoReply):
        todo = ADVICE[reply.trouble]
        advice = "See TLS below." if reply.trouble == "certificate" else f"{todo[0].upper()}{todo[1:]}."
        if proxies:
            advice += f" Requests go through the proxy in {', '.join(proxies)}."
        text = f"GET {reply.path}: {reply.reason}"
        return Diagnosis(subject, "wrong", text, advice, {"trouble": reply.trouble})
    milliseconds = round((reply.received - reply.started).total_seconds() * 1000)
    values = {"status": reply.status, "milliseconds": milliseconds}
    if reply.fault:
        text = f"GET {reply.path} returned {reply.status}, but no notifications: {reply.fault}"
        advice = "Set NP6_BASE_URL to the API itself; a page can also be a proxy's or a maintenance notice."
        return Diagnosis(subject, "wrong", text, advice, values)
    if reply.refusal is not None and reply.status not in (401, 403, 429):
        later = reply.status >= 500 or reply.status == 408
        advice = "Try again later; tell NP6 the x-request-id if it lasts." if later else "Correct NP6_BASE_URL."
        return Diagnosis(subject, "wrong", reply.refusal, advice, values)
    return Diagnosis(subject, "ok", f"the API answers after {milliseconds} ms", "", values)


def judge_certificate(reply: Reply | NoReply) -> Diagnosis:
    """Judge TLS, and how long the certificate is valid."""
    if isinstance(reply, NoReply):
        if reply.trouble in ("certificate", "tls"):
            advice = (
                "Check this machine's clock and the host in NP6_BASE_URL. Where a company's proxy signs anew, name its "
                "certificate in SSL_CERT_FILE."
            )
            return Diagnosis("TLS", "wrong", f"no trusted connection: {reply.reason}", advice)
        return Diagnosis("TLS", "unknown", "there is no connection", "See reachability.")
    if reply.tls is None:
        return Diagnosis("TLS", "ok", "not used: the address is this machine's own")
    if reply.certificate_end is None:
        return Diagnosis("TLS", "unknown", f"{reply.tls}, valid; until when is not to be seen")
    left = reply.certificate_end - reply.received
    text = f"{reply.tls}, certificate valid for {left.days} more days (until {reply.certificate_end:%Y-%m-%d})"
    values = {"tls": reply.tls, "certificate_end": reply.certificate_end.isoformat(), "days_left": left.days}
    if left < CERTIFICATE_WARNING:
        return Diagnosis("TLS", "warning", text, "Who runs the API, or the proxy before it, has to renew it.", values)
    return Diagnosis("TLS", "ok", text, "", values)


def judge_clock(replies: Iterable[Reply]) -> Diagnosis:
    """Judge this machine's clock by the API's, from the quickest answer: it leaves the least room for error."""
    dated = [(one.received - one.started, one, date) for one in replies if (date := one.server_time) is not None]
    if not dated:
        return Diagnosis("clock", "unknown", "no answer said what time it is", _NO_DATE)
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
        text = f"{format_duration(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'} the API's"
    if beyond <= CLOCK_WARNING:
        return Diagnosis("clock", "ok", text, "", values)
    advice = "Set the clock (NTP): when a day counts as over, and what is fetched, goes by it."
    return Diagnosis("clock", "wrong" if beyond > CLOCK_WRONG else "warning", text, advice, values)


def judge_key(reply: Reply | NoReply, read: Settings) -> Diagnosis:
    """Judge whether the API takes the key."""
    if read.is_sandbox:
        return Diagnosis("key", "ok", "the simulated account needs none")
    if isinstance(reply, Reply) and reply.usable:
        return Diagnosis("key", "ok", "the API accepts it")
    if isinstance(reply, Reply) and reply.status == 401:
        advice = "Copy the key again from NP6, whole and without quotes; a NP6_API_KEY in .env wins."
        return Diagnosis("key", "wrong", reply.refusal or "", advice)
    if isinstance(reply, Reply) and reply.status == 403:
        return Diagnosis("key", "wrong", reply.refusal or "", "Who administers NP6 gives the right to the key's user.")
    return Diagnosis("key", "unknown", "set; whether it is the right one, the API did not say", "See reachability.")


def judge_feeds(found: Survey) -> Diagnosis:
    """Judge whether every feed that the assets need can be read."""
    faults = {asset: _find_feed_fault(reply) for asset, reply in found.feeds.items()}
    wrong = [fault for fault in faults.values() if fault]
    read = [asset for asset, fault in faults.items() if not fault]
    left_out = [kind.asset for kind in KINDS if kind.asset not in found.feeds]
    values = {"read": read, "not_asked": left_out}
    if wrong:
        advice = "The assets of these feeds cannot be made until this is put right."
        return Diagnosis("feeds", "wrong", "; ".join(wrong), advice, values)
    if left_out:
        text = f"{', '.join(read)} can be read; {', '.join(left_out)} not requested: there is no notification"
        return Diagnosis("feeds", "unknown", text, "", values)
    return Diagnosis("feeds", "ok", f"{', '.join(read)} can be read", "", values)


def _find_feed_fault(reply: Reply | NoReply) -> str:
    """Say why a feed cannot be read; empty where it can."""
    if isinstance(reply, NoReply):
        return f"GET {reply.path}: {reply.reason}"
    if reply.refusal is not None:
        return reply.refusal
    return f"GET {reply.path} returned {reply.status}, but no events: {reply.fault}" if reply.fault else ""


def judge_notifications(reply: Reply) -> Diagnosis:
    """Judge whether the account has anything to report on."""
    count = len({item.id for item in reply.items if isinstance(item.id, int)})
    values = {"notifications": count, "all": reply.is_whole}
    if not count:
        advice = "Is it the key of the right account, and does its user see the notifications?"
        return Diagnosis("notifications", "warning", "the account has none", advice, values)
    text = f"{count} {'in the account' if reply.is_whole else 'and more in the account'}"
    return Diagnosis("notifications", "ok", text, "", values)


# --- What the reference leaves open ---------------------------------------------------------------


def judge_rate_limit(replies: Sequence[Reply]) -> Diagnosis:
    """Judge what the rate-limit headers say, and what X-RateLimit-Reset counts."""
    subject = "rate limit"
    refused = next((one for one in replies if one.status == 429), None)
    limited = [one for one in replies if any(f"x-ratelimit-{name}" in one.headers for name in _LIMITS)]
    reply = refused or (limited[-1] if limited else None)
    if reply is None:
        if not replies:
            return Diagnosis(subject, "unknown", "there was no answer", "See reachability.")
        text = "the API sends no X-RateLimit headers, so what Reset counts cannot be told"
        return Diagnosis(subject, "unknown", text, "Nothing to do: on 429 the client waits longer each time.")
    limits = {name: reply.headers.get(f"x-ratelimit-{name}", "") for name in _LIMITS}
    values: dict[str, object] = {name: _parse_count(text) for name, text in limits.items() if name != "reset"}
    parts = [f"{name} {values[name]}" for name in ("limit", "remaining") if values[name] is not None]
    verdict, advice = _judge_reset(reply, limits["reset"], parts, values)
    if refused is not None:
        wait = read_requested_wait(httpx.Headers(dict(refused.headers)), refused.server_time or refused.received)
        values["wait_seconds"] = wait
        parts.insert(0, refused.refusal or "")
        again = "in a few minutes" if wait is None else f"in {format_duration(wait)}"
        return Diagnosis(
            subject, "warning", ", ".join(parts), f"Try again {again}; lower NP6_MAX_CONCURRENT_REQUESTS.", values
        )
    if values["remaining"] == 0 and verdict == "ok":
        verdict, advice = "warning", "The account's requests are used up for now; who else uses its key?"
    return Diagnosis(subject, verdict, ", ".join(parts), advice, values)


_LIMITS = ("limit", "remaining", "reset")


def _judge_reset(reply: Reply, text: str, parts: list[str], values: dict[str, object]) -> tuple[Verdict, str]:
    """Judge what Reset counts; adds it to `parts` and `values`."""
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
    parts.append(f"Reset counts {unit} (now: in {format_duration(seconds)})")
    if seconds > LONGEST_RESET.total_seconds():
        return "warning", "That is too far away to be true, so it may count something else; tell the project."
    return "ok", ""


def _parse_count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None


def judge_compression(replies: Iterable[Reply]) -> Diagnosis:
    """Judge whether large answers come compressed."""
    large = [one for one in replies if one.usable and one.body_bytes >= _WORTH_COMPRESSING]
    used = Counter(one.headers.get("content-encoding", "").strip().lower() or "none" for one in large)
    values = {"encodings": dict(used)}
    if not large:
        return Diagnosis("compression", "unknown", "every answer was too small to be worth compressing", "", values)
    if used["none"] == len(large):
        advice = "It works, and takes some ten times the traffic. Does a proxy take Accept-Encoding away?"
        return Diagnosis("compression", "warning", "the answers are not compressed", advice, values)
    more = f", {used['none']} of {len(large)} answers not" if used["none"] else ""
    return Diagnosis("compression", "ok", f"gzip is used{more}", "", values)
