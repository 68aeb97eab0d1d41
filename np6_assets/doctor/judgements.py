"""The table of the doctor's judgements, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from np6_assets.doctor import judge_api, judge_events, machine, stored
from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.doctor.examination import Examination
from np6_assets.doctor.home import find_running, judge_home
from np6_assets.refresh.jobs import DAILY_INGEST, SENSOR, name_late_event_fetchers
from np6_assets.runs import lock


class Judgement(NamedTuple):
    """What the examination must have for a judgement, and how it is made."""

    needs: Callable[[Examination], bool]
    judge: Callable[[Examination], Diagnosis | Iterable[Diagnosis]]


def _judge_settings(of: Examination) -> Diagnosis:
    return machine.judge_settings(of.read_settings, of.environment if of.is_of_environment else {}, of.now())


def _judge_late_events(of: Examination) -> Diagnosis:
    fetchers = name_late_event_fetchers(of.settings) if of.has_settings() else (SENSOR, DAILY_INGEST)
    return machine.judge_late_events(find_running(of.home, fetchers), *fetchers)


def _judge_missing_requests(of: Examination) -> Iterator[Diagnosis]:
    if of.has_settings() and of.settings.missing is not None:
        yield Diagnosis("key", "wrong", of.settings.missing)
    if not of.can_request():
        text = "no request was sent: the settings come first"
        yield Diagnosis("API", "unknown", text, "Put right what is wrong above.")


def _always(of: Examination) -> bool:
    return True


JUDGEMENTS = (
    Judgement(_always, _judge_settings),
    Judgement(Examination.has_settings, lambda of: machine.judge_data_folder(of.settings.data_dir)),
    Judgement(Examination.has_settings, lambda of: stored.judge_files(of.settings, of.now())),
    Judgement(Examination.has_records, lambda of: stored.judge_records(of.settings, of.now(), of.home)),
    Judgement(_always, lambda of: machine.judge_temporary_folder()),
    Judgement(_always, lambda of: judge_home(of.environment)),
    Judgement(_always, _judge_late_events),
    Judgement(_always, lambda of: machine.judge_dead_runs(list(lock.find_dead_runs(of.home)))),
    Judgement(_always, _judge_missing_requests),
    Judgement(
        Examination.can_request, lambda of: judge_api.judge_reachability(of.survey.notifications, of.environment)
    ),
    Judgement(Examination.uses_tls, lambda of: judge_api.judge_certificate(of.survey.notifications)),
    Judgement(Examination.can_request, lambda of: judge_api.judge_clock(of.survey.replies)),
    Judgement(Examination.can_request, lambda of: judge_api.judge_key(of.survey.notifications, of.settings)),
    Judgement(Examination.has_access, lambda of: judge_api.judge_feeds(of.survey)),
    Judgement(Examination.has_access, lambda of: judge_api.judge_notifications(of.survey)),
    Judgement(Examination.can_request, lambda of: judge_api.judge_rate_limit(of.survey.replies)),
    Judgement(Examination.has_replies, lambda of: judge_events.judge_windows(of.survey)),
    Judgement(Examination.has_replies, lambda of: judge_events.judge_lateness(of.survey, of.settings.lookback)),
    Judgement(Examination.has_replies, lambda of: judge_events.judge_link_types(of.survey)),
    Judgement(Examination.has_replies, lambda of: judge_events.judge_bounce_verdicts(of.survey)),
)


def examine(of: Examination) -> Iterator[Diagnosis]:
    """Judge everything that can be judged, this machine first."""
    for judgement in JUDGEMENTS:
        if judgement.needs(of):
            found = judgement.judge(of)
            yield from [found] if isinstance(found, Diagnosis) else found
