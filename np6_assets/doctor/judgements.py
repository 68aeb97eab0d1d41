"""The table of the doctor's judgements, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from np6_assets.doctor import judge_api, judge_events, judge_machine, machine, stored
from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.doctor.examination import Examination
from np6_assets.doctor.probe import Reply
from np6_assets.refresh.jobs import DAILY_INGEST, SENSOR, name_late_event_fetchers
from np6_assets.runs import lock


class Judgement(NamedTuple):
    """What is judged, how, and what the examination must have for it."""

    subject: str
    judge: Callable[[Examination], Diagnosis | Iterable[Diagnosis]]
    needs: Callable[[Examination], bool] = lambda of: True


def _judge_late_events(of: Examination) -> Diagnosis:
    fetchers = name_late_event_fetchers(of.settings) if of.has_settings() else (SENSOR, DAILY_INGEST)
    return judge_machine.judge_late_events(machine.find_running(of.home, fetchers), *fetchers)


def _judge_missing_request(of: Examination) -> Iterator[Diagnosis]:
    if not of.can_request():
        text = "no request was sent: the settings come first"
        yield Diagnosis("API", "unknown", text, "Put right what is wrong above.")


def _judge_notifications(of: Examination) -> Diagnosis:
    first = of.survey.notifications
    assert isinstance(first, Reply)
    return judge_api.judge_notifications(first)


JUDGEMENTS = (
    Judgement("settings, key", lambda of: judge_machine.judge_settings(of.read, of.now())),
    Judgement(
        "data folder",
        lambda of: judge_machine.judge_folder(
            "data folder", machine.probe_data_folder(of.settings.data_dir), "NP6_DATA_DIR"
        ),
        Examination.has_settings,
    ),
    Judgement("np6.json, stored days", lambda of: stored.judge_files(of.settings, of.now()), Examination.has_settings),
    Judgement("kept events", lambda of: stored.judge_records(of.settings, of.now(), of.home), Examination.has_records),
    Judgement(
        "temporary files",
        lambda of: judge_machine.judge_folder("temporary files", machine.probe_temporary_folder(), "TMPDIR"),
    ),
    Judgement("DAGSTER_HOME", lambda of: judge_machine.judge_dagster_home(machine.read_dagster_home(of.environment))),
    Judgement("late events", _judge_late_events),
    Judgement("runs", lambda of: judge_machine.judge_dead_runs(list(lock.find_dead_runs(of.home)))),
    Judgement("API", _judge_missing_request),
    Judgement(
        "reachability",
        lambda of: judge_api.judge_reachability(of.survey.notifications, list(machine.list_proxies(of.environment))),
        Examination.can_request,
    ),
    Judgement("TLS", lambda of: judge_api.judge_certificate(of.survey.notifications), Examination.uses_tls),
    Judgement("clock", lambda of: judge_api.judge_clock(of.survey.replies), Examination.can_request),
    Judgement("key", lambda of: judge_api.judge_key(of.survey.notifications, of.settings), Examination.can_request),
    Judgement("feeds", lambda of: judge_api.judge_feeds(of.survey), Examination.has_access),
    Judgement("notifications", _judge_notifications, Examination.has_access),
    Judgement("rate limit", lambda of: judge_api.judge_rate_limit(of.survey.replies), Examination.can_request),
    Judgement("compression", lambda of: judge_api.judge_compression(of.survey.replies), Examination.has_replies),
    Judgement(
        "window end, window content, sort", lambda of: judge_events.judge_windows(of.survey), Examination.has_replies
    ),
    Judgement(
        "lateness", lambda of: judge_events.judge_lateness(of.survey, of.settings.lookback), Examination.has_replies
    ),
    Judgement(
        "link types", lambda of: judge_events.judge_link_types(of.survey.feeds.get("hits")), Examination.has_replies
    ),
    Judgement(
        "bounce verdicts",
        lambda of: judge_events.judge_bounce_verdicts(of.survey.feeds.get("bounces")),
        Examination.has_replies,
    ),
)


def examine(of: Examination) -> Iterator[Diagnosis]:
    """Judge everything that can be judged, this machine first."""
    for judgement in JUDGEMENTS:
        if judgement.needs(of):
            found = judgement.judge(of)
            yield from [found] if isinstance(found, Diagnosis) else found
