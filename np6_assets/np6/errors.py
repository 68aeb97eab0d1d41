"""Errors of the API: permanent or transient. Retries depend on the class, never on the status.

Their text is one line and holds neither the key nor any byte of an answer.
"""

from __future__ import annotations


class NP6Error(Exception):
    """Data could not be fetched from the API."""


class PermanentError(NP6Error):
    """A retry cannot help: a wrong address, a request that the API refuses."""


class NotFoundError(PermanentError):
    """The API knows nothing at this address (404, 410)."""


class AccessError(PermanentError):
    """The key is unknown or lacks a right: other days would be refused as well."""


class ForbiddenError(AccessError):
    """The key lacks the right to what was requested; for a whole feed, to all of it."""


class TransientError(NP6Error):
    """A retry may help: overload, a rate limit, a broken connection.

    Attributes:
        wait: seconds that the API asks to wait; None if it does not say.
        most_retries: how many retries are worth it; None: as the settings say.
    """

    most_retries: int | None = None

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class NoConnectionError(TransientError):
    """There is no connection: it was refused, or a timeout, an unknown host, or a TLS error."""


class BadResponseError(TransientError):
    """The status is 200, but the body is not the requested array of events."""


class CutResponseError(BadResponseError):
    """The body ends before its array is closed; the events before the cut are good."""


class WrongBodyError(BadResponseError):
    """The body is not an array, which a retry seldom repairs."""

    most_retries = 4


class GaveUpError(NP6Error):
    """All retries have failed; a later run may succeed."""


class UnreachableError(GaveUpError):
    """Nothing has ever answered at this address: it is wrong, or something blocks it."""


class DaysFailedError(NP6Error):
    """Some days of a run could not be fetched; the others were."""


class CancelledError(NP6Error):
    """The client was closed while a request was under way."""
