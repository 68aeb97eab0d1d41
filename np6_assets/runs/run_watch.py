"""What watches a run while its process lives: its lock, its time limit, and SIGHUP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import dagster as dg

from np6_assets.dagster_private import get_home
from np6_assets.runs import lock
from np6_assets.runs.time_limit import limit_runtime


@contextmanager
def watch_run(context: dg.InitResourceContext) -> Iterator[None]:
    """Limit a run's time, hold its lock, and end it at SIGHUP; does nothing outside of a run."""
    if context.run is None or context.instance is None:
        yield
        return
    limit_runtime(context.instance, context.run)
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
