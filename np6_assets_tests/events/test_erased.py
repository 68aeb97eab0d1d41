"""Drop and count events of erased receivers while decoding."""

from collections import Counter
from typing import Any

import pytest

from np6_assets_tests.events.decoding import DAY, HOUR, NOON, build_decoder, build_hit, decode_body
from np6_assets_tests.support.builders import render

ADDRESS = "gone@example.com"
EDGES = (*DAY, DAY[1] + 24 * HOUR)


def build_deep_hit(levels: int, **fields: Any) -> bytes:
    """Build a rejected hit with a deeply nested unknown field."""
    event = build_hit("deep", agency=[], **fields)
    event["novelty"] = "leaf"
    nested = '{"in":[' * (levels // 2) + '"leaf"' + "]}" * (levels // 2)
    return render(event).replace('"leaf"', nested).encode()


@pytest.mark.parametrize("mode", ["drop", "keep", "pseudonymize"])
@pytest.mark.parametrize("levels", [10, 300, 600, 900, 4000])
def test_decoder_searches_deep_events_for_erased_receivers(mode: Any, levels: int):
    decoder = build_decoder("hits", mode, (ADDRESS,))
    result = decode_body("hits", [build_hit("good"), build_deep_hit(levels)], mode, decoder=decoder)
    assert result.ids == ["good"]
    assert len(result.rejected) == 1
    if levels <= 900:  # deeper ones cannot be parsed
        result = decode_body(
            "hits", [build_hit("good"), build_deep_hit(levels, unicity=ADDRESS)], mode, decoder=decoder
        )
        assert (result.ids, result.rejected, result.found.erased_keys) == (["good"], [], ["deep"])


def test_decoder_counts_events_of_erased_receivers_by_day():
    receiver = {"unicity": ADDRESS.upper()}
    events = [
        build_hit("other"),
        *(build_hit(f"first {number}", NOON, **receiver) for number in range(3)),
        build_hit("second", DAY[1] + HOUR, **receiver),
        build_hit("rejected", DAY[1] + HOUR, agency=[], **receiver),
        build_hit("outside", EDGES[-1], **receiver),
    ]
    result = decode_body("hits", events, edges=EDGES, decoder=build_decoder("hits", "keep", (ADDRESS,)))
    assert result.ids == ["other"]
    [part] = result.parts
    assert part.events.erased_counts == Counter({0: 3, 1: 2})
