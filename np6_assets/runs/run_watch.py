"""What watches a run while its process lives: its lock, its time limit, and SIGHUP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import dagster as dg

from np6_assets.contact.days import read_run_days
from np6_assets.dagster_private import get_home, tag_run
from np6_assets.runs import lock

TIME_LIMIT = "dagster/max_runtime"
"""Dagster's tag for the limit in seconds; `max_runtime_seconds` in dagster.yaml is for runs without it.

Dagster ends and retries the run then, also if a worker died on another machine.
"""

_SECONDS = 3600
"""For every run: a request that is retried as often as possible takes half of it."""

_SECONDS_PER_DAY = 600
"""For each day: five million events of 900 bytes, as gzip a tenth of that, take seven minutes at 1 MB/s."""


@contextmanager
def watch_run(context: dg.InitResourceContext) -> Iterator[None]:
    """Limit a run's time, hold its lock, and end it at SIGHUP; does nothing outside of a run."""
    if context.run is None or context.instance is None:
        yield
        return
    days = len(read_run_days(context.run.tags))
    if days and TIME_LIMIT not in context.run.tags:
        limit = _SECONDS + days * _SECONDS_PER_DAY
        tag_run(context.instance, context.run.run_id, TIME_LIMIT, str(limit))
    with lock.hold_lock(get_home(context.instance), context.run.run_id), end_at_hangup():
        yield


@contextmanager
def end_at_hangup() -> Iterator[None]:
    """Handle SIGHUP, which Dagster ignores, like SIGINT. Under nohup it stays ignored."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(number, frame)
