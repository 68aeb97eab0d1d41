"""Name the faults that the rude server can inject."""

from __future__ import annotations

from dataclasses import dataclass

RATE_LIMITS = (
    *("429", "429 retry-after seconds", "429 retry-after date"),
    *("429 reset seconds", "429 reset milliseconds", "429 reset wait"),
)
SERVER_ERRORS = ("500", "502", "503", "503 retry-after seconds")
PERMANENT = ("400", "401", "403", "404", "410")  # with an x-request-id
BROKEN = ("reset before", "reset in body", "no answer")
CUT = ("cut length", "cut chunked", "cut close", "cut gzip")  # in the middle of an event
INCOMPLETE = (  # in a complete HTTP message
    *("cut after comma", "cut before bracket", "cut in event", "trailing comma", "empty body"),
    *("html page", "garbage after", "two arrays", "not an array"),
)
STALLS = ("stall before", "stall in body")  # until the server is released
TRICKLES = ("trickle", "trickle headers")  # a byte every TRICKLE_SECONDS, until the server is released
BOMBS = ("gzip bomb",)  # kilobytes that become more than 64 MiB
OTHER_FORMATS = ("ndjson", "object around the array", "unknown encoding")
ODD_BUT_WHOLE = ("wrong content type", "duplicated", "shuffled", "BOM")

# A client must recover from these by itself.
TRANSIENT = (*RATE_LIMITS, *SERVER_ERRORS, *BROKEN, *CUT, *INCOMPLETE, *ODD_BUT_WHOLE)
MISBEHAVIOURS = (
    *(*TRANSIENT, *PERMANENT, *STALLS, *TRICKLES, *BOMBS, *OTHER_FORMATS),
    "204",  # correct for an empty window only
    # The reference does not say whether to retry, ignore or give up.
    *("outside window", "end ignored", "shuffled and cut", "redirect"),
)

END_MODES = ("half open", "inclusive", "ignored", "refused in the future", "by activation", "both by activation")
"""How a server applies the end of a window.

"by activation": to the stamp's time in place of the event's; "both by activation": so is the start, and no window has
all events of its time. An event without a stamp's time is filtered by its own time.
"""


@dataclass(frozen=True)
class Act:
    """One misbehaviour.

    Attributes:
        name: one of MISBEHAVIOURS.
        at: how far into the body it happens, 0 to 1; a trickle is white space below 0.5, else half an event.
        wait: seconds that a rate limit asks for.
        url: the target of a redirect.
    """

    name: str
    at: float = 0.5
    wait: float = 1
    url: str = ""

    def __post_init__(self) -> None:
        assert self.name in MISBEHAVIOURS, f"no such misbehaviour: {self.name}"
