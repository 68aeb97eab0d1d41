"""What can go wrong with the API, sorted once into what is worth another try and what is not.

Everything that retries (the client, Dagster's retry policy) asks the class of the error, never the status code.
"""

from __future__ import annotations


class NP6Error(Exception):
    """Any failure to get data from the API; its text is one line and carries neither the key nor any event."""


class PermanentError(NP6Error):
    """Another try cannot help: a wrong key, a wrong address, a request that the API refuses."""


class TransientError(NP6Error):
    """Another try may help: overload, a rate limit, a broken connection.

    `wait` is how many seconds the API asked to wait, or None where it did not ask.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class BadResponseError(TransientError):
    """The answer arrived with status 200 but is not the array of events that was asked for."""


class CutResponseError(BadResponseError):
    """The answer ended before its array was closed: what came before the cut is good."""


class RetriesUsedUpError(NP6Error):
    """Every try that the settings allow has failed; a later run may succeed."""


class DaysFailedError(NP6Error):
    """Some days of a run could not be fetched, and the others were."""


class CancelledError(NP6Error):
    """The download was given up because its consumer went away."""
