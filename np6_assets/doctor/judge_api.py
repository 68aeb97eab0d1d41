"""Judge the way to the API, the key, and what the API's reference leaves open. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus

from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.doctor.judge_events import CLOCK_WARNING
from np6_assets.doctor.probe import NoReply, Reply
from np6_assets.doctor.survey import Survey
from np6_assets.events.kinds import KINDS
from np6_assets.np6.retry import read_requested_wait, read_reset
from np6_assets.np6.unreachable import ADVICE
from np6_assets.progress import format_duration
from np6_assets.settings import Settings

CLOCK_WRONG = timedelta(seconds=60)
CERTIFICATE_WARNING = timedelta(days=21)
LONGEST_RESET = timedelta(days=1)
"""No rate limit counts over more: a reset further away is not what its size says it is."""

_PROXIES = {"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"}
_WITHOUT_RESET = "Nothing to do: on 429 the client waits longer each time."
_KEY_ADVICE = {
    401: "Copy the key again from NP6, whole and without quotes; a NP6_API_KEY in .env wins.",
    403: "Who administers NP6 gives the right to the key's user.",
}
_NO_DATE = "Days are closed a day later, as our clock alone is not believed. Check that this machine uses NTP."


# --- The way to the API ---------------------------------------------------------------------------


def judge_reachability(reply: Reply | NoReply, environment: Mapping[str, str]) -> Diagnosis:
    """Judge whether there is an NP6 API at NP6_BASE_URL."""
    subject = "reachability"
    if isinstance(reply, NoReply):
        advice = "See TLS below." if reply.trouble == "certificate" else _advise(reply)
        proxies = [name for name in environment if name.upper() in _PROXIES and environment[name]]
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


def _advise(reply: NoReply) -> str:
    advice = ADVICE[reply.trouble]
    return f"{advice[0].upper()}{advice[1:]}."


def judge_certificate(reply: Reply | NoReply) -> Diagnosis:
    """Judge TLS, and how long the certificate is valid."""
    if isinstance(reply, NoReply):
        if reply.trouble not in ("certificate", "tls"):
            return Diagnosis("TLS", "unknown", "there is no connection", "See reachability.")
        return Diagnosis("TLS", "wrong", f"no trusted connection: {reply.reason}", _advise(reply))
    if reply.certificate_end is None:
        return Diagnosis("TLS", "ok", "not used: the address is this machine's own")
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
    if reply.usable:
        return Diagnosis("key", "ok", "the API accepts it")
    if isinstance(reply, Reply) and reply.status in _KEY_ADVICE:
        return Diagnosis("key", "wrong", reply.refusal or "", _KEY_ADVICE[reply.status])
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


def judge_notifications(found: Survey) -> Diagnosis:
    """Judge whether the account has anything to report on."""
    listed = found.notifications
    assert isinstance(listed, Reply)
    count = len({item.id for item in listed.items if isinstance(item.id, int)})
    values = {"notifications": count, "all": listed.is_whole}
    if not count:
        advice = "Is it the key of the right account, and does its user see the notifications?"
        return Diagnosis("notifications", "warning", "the account has none", advice, values)
    more = "" if listed.is_whole else "and more "
    return Diagnosis("notifications", "ok", f"{count} {more}in the account", "", values)


# --- What the reference leaves open ---------------------------------------------------------------


def judge_rate_limit(replies: Sequence[Reply]) -> Diagnosis:
    """Judge what the rate-limit headers say, and what X-RateLimit-Reset counts."""
    subject = "rate limit"
    if refused := next((one for one in replies if one.status == HTTPStatus.TOO_MANY_REQUESTS), None):
        wait = read_requested_wait(refused.headers, refused.server_time or refused.received)
        again = "in a few minutes" if wait is None else f"in {format_duration(wait)}"
        advice = f"Try again {again}; lower NP6_MAX_CONCURRENT_REQUESTS."
        return Diagnosis(subject, "warning", refused.refusal or "", advice, {"wait_seconds": wait})
    limited = [one for one in replies if any(name.startswith("x-ratelimit-") for name in one.headers)]
    if not limited:
        text = "the API sends no X-RateLimit headers, so what Reset counts cannot be told"
        return Diagnosis(subject, "unknown", text, _WITHOUT_RESET)
    reply = limited[-1]
    values: dict[str, object] = {
        name: int(text) if re.fullmatch("[0-9]{1,17}", text := reply.headers.get(f"x-ratelimit-{name}", "")) else None
        for name in ("limit", "remaining")
    }
    parts = [f"{name} {value}" for name, value in values.items() if value is not None]
    reset = read_reset(reply.headers.get("x-ratelimit-reset", ""), reply.server_time or reply.received)
    if reset is None:
        text = ", ".join([*parts, "no X-RateLimit-Reset that is a number"])
        return Diagnosis(subject, "unknown", text, _WITHOUT_RESET, values)
    unit, seconds = reset
    text = ", ".join([*parts, f"Reset counts {unit} (now: in {format_duration(seconds)})"])
    values |= {"reset_counts": unit, "reset_seconds": round(seconds, 1)}
    if seconds > LONGEST_RESET.total_seconds():
        advice = "That is too far away to be true, so it may count something else; tell the project."
        return Diagnosis(subject, "warning", text, advice, values)
    if values["remaining"] == 0:
        advice = "The account's requests are used up for now; who else uses its key?"
        return Diagnosis(subject, "warning", text, advice, values)
    return Diagnosis(subject, "ok", text, "", values)
