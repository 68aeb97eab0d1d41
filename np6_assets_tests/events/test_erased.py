"""Events of erased receivers in a part: kept out whatever their depth and shape, and counted by day."""

from collections import Counter
from typing import Any

import pytest

from np6_assets_tests.events.decoding import DAY, HOUR, NOON, decode, decoder, hit
from np6_assets_tests.support.builders import render

ADDRESS = "gone@example.com"
EDGES = (*DAY, DAY[1] + 24 * HOUR)


def deep(levels: int, **fields: Any) -> bytes:
    """A hit that is rejected, with an unknown field of so many levels."""
    made = hit("deep", agency=[], **fields)
    made["novelty"] = "leaf"
    nested = '{"in":[' * (levels // 2) + '"leaf"' + "]}" * (levels // 2)
    return render(made).replace('"leaf"', nested).encode()


@pytest.mark.parametrize("mode", ["drop", "keep", "pseudonymize"])
@pytest.mark.parametrize("levels", [10, 300, 600, 900, 4000])
def test_deep_event_stops_no_fetch_while_there_are_tombstones(mode: Any, levels: int):
    using = decoder("hits", mode, (ADDRESS,))
    result = decode("hits", [hit("good"), deep(levels)], mode, using=using)
    assert result.ids == ["good"]
    assert len(result.rejected) == 1
    if levels <= 900:  # deeper ones cannot be parsed, and show no receiver
        result = decode("hits", [hit("good"), deep(levels, unicity=ADDRESS)], mode, using=using)
        assert (result.ids, result.rejected, result.found.erased_keys) == (["good"], [], ["deep"])


def test_events_that_are_kept_out_are_counted_by_day():
    who = {"unicity": ADDRESS.upper()}
    events = [
        hit("other"),
        *(hit(f"first {number}", NOON, **who) for number in range(3)),
        hit("second", DAY[1] + HOUR, **who),
        hit("rejected", DAY[1] + HOUR, agency=[], **who),
        hit("outside", EDGES[-1], **who),
    ]
    result = decode("hits", events, edges=EDGES, using=decoder("hits", "keep", (ADDRESS,)))
    assert result.ids == ["other"]
    [part] = result.parts
    assert part.events.erased_counts == Counter({0: 3, 1: 2})
