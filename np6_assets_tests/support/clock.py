"""A clock that tests set."""

from datetime import datetime, timedelta


class Clock:
    """Returns `now`, until a test changes it; advances by `step` whenever it is read."""

    def __init__(self, now: datetime, step: timedelta = timedelta()) -> None:
        self.now = now
        self.step = step

    def __call__(self) -> datetime:
        self.now += self.step
        return self.now

    def forward(self, **duration: float) -> None:
        self.now += timedelta(**duration)
