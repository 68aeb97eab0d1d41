"""Errors of the API, sorted once into permanent and transient; whatever retries asks the class, never the status.

Their text is one line and carries neither the key nor any byte of an answer.
"""

from __future__ import annotations


class NP6Error(Exception):
    """Any failure to get data from the API."""


class PermanentError(NP6Error):
    """A retry cannot help: a wrong address, a request that the API refuses."""


class NotFoundError(PermanentError):
    """The API knows nothing at this address (404, 410)."""


class AccessError(PermanentError):
    """The key is unknown, or has no right: other days would be refused as well."""


class ForbiddenError(AccessError):
    """The key has no right to what was asked for: to all of it where that is a whole feed."""


class TransientError(NP6Error):
    """A retry may help: overload, a rate limit, a broken connection.

    Attributes:
        wait: seconds that the API asks to wait; None where it does not ask.
        most_retries: how often it is worth a retry; None for as often as the settings allow.
    """

    most_retries: int | None = None

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class NoConnectionError(TransientError):
    """There is no connection: a refused one, an unknown host, a timeout, TLS that fails."""


class BadResponseError(TransientError):
    """The status is 200, but the body is not the array of events that was asked for."""


class CutResponseError(BadResponseError):
    """The body ends before its array is closed; the events before the cut are good."""


class WrongBodyError(BadResponseError):
    """The body is something else than an array, which a retry seldom mends."""

    most_retries = 4


class GaveUpError(NP6Error):
    """Every retry that the settings allow has failed; a later run may succeed."""


class UnreachableError(GaveUpError):
    """Nothing has ever answered at this address: it is wrong, or something stands in between."""


class DaysFailedError(NP6Error):
    """Some days of a run could not be fetched; the others were."""


class CancelledError(NP6Error):
    """The client was closed while a request was under way."""
