"""What a run has while its process lives: its lock, an ear for a terminal that is closed, and a bound on its time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import dagster as dg

from np6_assets.dagster_private import home_of
from np6_assets.runs import lock
from np6_assets.runs.bound import bound


@contextmanager
def alive(context: dg.InitResourceContext) -> Iterator[None]:
    """Bound the run that a resource is made for, hold its lock, and end it at SIGHUP; nothing outside of a run."""
    if context.run is None or context.instance is None:
        yield
        return
    bound(context.instance, context.run)
    with lock.held(home_of(context.instance), context.run.run_id), ending_at_hangup():
        yield


@contextmanager
def ending_at_hangup() -> Iterator[None]:
    """Let SIGHUP, which Dagster leaves alone, do what SIGINT does at that moment. Under nohup it stays ignored."""
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
