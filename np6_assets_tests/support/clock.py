"""A clock that tests set."""

from datetime import datetime, timedelta


class Clock:
    """Returns `now`, until a test changes it."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **duration: float) -> None:
        self.now += timedelta(**duration)
