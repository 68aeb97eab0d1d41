"""Drop and count events of erased receivers while decoding."""

from collections import Counter
from typing import Any

import pytest

from np6_assets.contact.policy import ContactPolicy
from np6_assets_tests.events.decoding import DAY, HOUR, NOON, SECRET, build_decoder, build_hit, decode_body
from np6_assets_tests.support.builders import render

ADDRESS = "gone@example.com"
EDGES = (*DAY, DAY[1] + 24 * HOUR)


@pytest.mark.parametrize("mode", ["keep", "drop", "pseudonymize"])
def test_decoder_drops_and_counts_events_of_erased_receivers(mode: Any):
    pseudonym = ContactPolicy("pseudonymize", SECRET).compute_pseudonym("other@example.com")
    decoder = build_decoder("hits", mode, ("000ERASED", ADDRESS, pseudonym))
    later = {"timestamp": DAY[1] + HOUR}
    events = [
        *(build_hit("by id", receiver_id="000ERASED"), build_hit("by address", unicity=ADDRESS.upper())),
        *(build_hit("rejected", unicity=ADDRESS, agency=[], **later), build_hit("later", unicity=ADDRESS, **later)),
        *(build_hit("kept"), build_hit("rejected and kept", agency=[])),
        build_hit("outside", EDGES[-1], unicity=ADDRESS),
        build_hit("by pseudonym", NOON + 1, unicity="other@example.com"),
    ]
    result = decode_body("hits", events, edges=EDGES, decoder=decoder)
    more = ["by pseudonym"] if mode == "pseudonymize" else []
    assert sorted(result.ids) == sorted({"by pseudonym", "kept"} - {*more})
    assert result.keys == ["rejected and kept"]
    assert sorted(result.found.erased_keys) == ["by address", "by id", *more, "later", "rejected"]
    [part] = result.parts
    assert part.events.erased_counts == Counter({0: 2 + len(more), 1: 2})


@pytest.mark.parametrize("mode", ["drop", "keep"])
@pytest.mark.parametrize("levels", [10, 900, 4000])
def test_decoder_searches_deep_events_for_erased_receivers(mode: Any, levels: int):
    decoder = build_decoder("hits", mode, (ADDRESS,))

    def build_deep_hit(id_: str, **fields: Any) -> bytes:
        """Build a rejected hit with a deeply nested unknown field."""
        event = build_hit(id_, agency=[], **fields) | {"novelty": "leaf"}
        nested = '{"in":[' * (levels // 2) + '"leaf"' + "]}" * (levels // 2)
        return render(event).replace('"leaf"', nested).encode()

    deep = [build_deep_hit("deep")]
    if levels <= 900:  # deeper ones cannot be parsed
        deep.append(build_deep_hit("erased", unicity=ADDRESS))
    result = decode_body("hits", [build_hit("good"), *deep], mode, decoder=decoder)
    assert (result.ids, len(result.rejected)) == (["good"], 1)
    assert result.found.erased_keys == (["erased"] if levels <= 900 else [])
