"""Treat columns, stored columns and rejected events by contact policy."""

import hashlib
import hmac
import json
import time
from typing import Any

import pyarrow as pa
import pytest

from np6_assets.contact.policy import ContactPolicy
from np6_assets_tests.support.builders import build_event, set_field

SECRET = "a secret for tests, long enough"
ADDRESS = "zoé@example.com"
DROP, KEEP, PSEUDONYMIZE = ContactPolicy(), ContactPolicy("keep"), ContactPolicy("pseudonymize", SECRET)
OTHER_KEY = ContactPolicy("pseudonymize", SECRET + "!")
PSEUDONYM = hmac.new(SECRET.encode(), ADDRESS.encode(), hashlib.sha256).hexdigest()

each_policy = pytest.mark.parametrize(
    ("policy", "expected"),
    [(DROP, None), (KEEP, ADDRESS), (PSEUDONYMIZE, PSEUDONYM)],
    ids=lambda one: one.mode if isinstance(one, ContactPolicy) else "",
)


def build_column(*values: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([value], pa.string()) for value in values], pa.string())


@each_policy
def test_policy_treats_a_column(policy: ContactPolicy, expected: str | None):
    treated = policy.treat_column(build_column(ADDRESS, None, ADDRESS))
    assert treated.to_pylist() == [expected, None, expected]
    assert treated.type == pa.string()
    assert policy.treat_column(build_column()).to_pylist() == []


@pytest.mark.parametrize("stored", [DROP, KEEP, PSEUDONYMIZE, OTHER_KEY], ids=lambda policy: policy.mode)
@each_policy
def test_policy_treats_a_column_stored_under_another_policy(
    policy: ContactPolicy, expected: str | None, stored: ContactPolicy
):
    values = stored.treat_column(build_column(ADDRESS, None))
    again = policy.treat_column(values, stored.fingerprint).to_pylist()
    if stored == policy:
        assert again == values.to_pylist()
    else:
        assert again == [expected if stored == KEEP else None, None]
    # nothing is known of the file of another program
    assert policy.treat_column(values, "").to_pylist() == [None, None]


def test_fingerprint_distinguishes_policies_and_hides_the_key():
    policies = [DROP, KEEP, PSEUDONYMIZE, OTHER_KEY]
    assert len({policy.fingerprint for policy in policies}) == len(policies)
    assert all(SECRET not in f"{policy!r} {policy.fingerprint}" for policy in policies)


def treat_text(policy: ContactPolicy, text: str, unicity: str | None, stored_as: str | None = None) -> list[str | None]:
    [found] = policy.treat_texts([build_column(text, None)], [build_column(unicity, None)], stored_as)
    return found.to_pylist()


def test_policy_treats_free_text_except_under_keep_or_if_it_was_treated():
    assert treat_text(PSEUDONYMIZE, "to C-1234567", "C-1234567") == ["to [removed]", None]
    assert treat_text(KEEP, f"to {ADDRESS}", ADDRESS) == [f"to {ADDRESS}", None]
    text = f"https://a.example/?id=1&q=zoe&to={ADDRESS}"
    once = "https://a.example/?id=1&q=zoe&to=[removed]"
    for stored_as in (None, "drop"):  # the latter by version 0.1
        assert treat_text(DROP, text, None, stored_as) == [once, None]
    assert treat_text(DROP, text, None, DROP.fingerprint) == [text, None]
    strict = ContactPolicy(parameters=frozenset({"id"}))
    twice = "https://a.example/?id=1&q=[removed]&to=[removed]"
    assert treat_text(strict, once, None, DROP.fingerprint) == [twice, None]


@pytest.mark.parametrize("policy", [DROP, PSEUDONYMIZE], ids=lambda policy: policy.mode)
def test_policy_keeps_receivers_stored_by_version_0_1(policy: ContactPolicy):
    stored = policy.treat_column(build_column(ADDRESS, None))
    assert policy.treat_column(stored, policy.fingerprint_of_0_1).to_pylist() == stored.to_pylist()
    event = build_event("hits", id="", timestamp=1, unicity=stored[0].as_py(), hash=None, channel=f"to {ADDRESS}")
    again = json.loads(policy.treat_stored_event(event, json.dumps(event), policy.fingerprint_of_0_1) or "")
    set_field(event, "channel", "to [removed]")
    assert again == event


def test_fingerprint_is_slow_to_compute_from_a_short_key():
    short = ContactPolicy("pseudonymize", "pepper")
    assert short.has_short_key
    fast = {hashlib.new(name, b"pepper").hexdigest()[:8] for name in ("md5", "sha256", "blake2b")}
    fast.add(hmac.new(b"pepper", b"pseudonymize", hashlib.sha256).hexdigest()[:8])
    assert not any(digest in short.fingerprint for digest in fast)
    begun = time.process_time()
    ContactPolicy("pseudonymize", "salt").fingerprint  # noqa: B018
    assert time.process_time() - begun > 0.01


@each_policy
def test_policy_treats_only_contact_data_of_a_rejected_event(policy: ContactPolicy, expected: str | None):
    event = build_event("hits", id="", timestamp=1, agency=5, unicity=ADDRESS, hash=ADDRESS, channel='é "x" \\ud800')
    whole = json.loads(json.dumps(event))
    set_field(whole, "unicity", expected)
    set_field(whole, "hash", expected)
    assert json.loads(policy.treat_event(event, b"") or "") == whole
    # the id stays, wherever it is
    event = build_event("hits", id="", timestamp=1, receiver={"type": "id", "value": "000ABC12"}, channel="000ABC12")
    assert json.loads(policy.treat_event(event, b"") or "") == event


@pytest.mark.parametrize("value", [ADDRESS, "C-1234567", "+33612345678"], ids=["address", "customer", "phone"])
@pytest.mark.parametrize("policy", [DROP, PSEUDONYMIZE], ids=lambda policy: policy.mode)
def test_policy_treats_contact_data_anywhere_in_a_rejected_event(policy: ContactPolicy, value: str):
    def build_hit(**fields: Any) -> Any:
        return build_event("hits", id="x", timestamp=1, **fields)

    events = [
        *(
            build_hit(receiver=value)
            for value in (value, [value], [[{"value": value}]], {"type": "mail", "value": value})
        ),
        *(build_hit(receiver_value=value) for value in (value, [{"unicity": value}])),
        *(build_hit(unicity=value) for value in ([value], {"address": value})),
        build_hit(hash={"of": [value]}),
        # free text that holds the receiver's value
        build_hit(unicity=value, hash=None, channel=f"to {value}"),
        build_hit(unicity=value, hash=None, link_uri=f"https://a.example/{value.upper()}?id=594&email={value}"),
        build_hit(unicity=value, hash=None, link_label=[{"deep": f"for {value}"}]),
        {"unicity": value, "other": {value: 1}},
        [value, {"receiver": {"value": {"unicity": value}}}],
    ]
    for event in events:
        text = policy.treat_event(event, json.dumps(event).encode()) or ""
        assert value.lower() not in text.lower().replace("%40", "@"), text
    assert "id=594" in (policy.treat_event(events[10], b"") or "")


def test_policy_keeps_an_unparsable_event_only_under_keep():
    assert KEEP.treat_event(None, b"caf\xe9") == "caf\\xe9"
    assert DROP.treat_event(None, b"caf\xe9") is None
    assert PSEUDONYMIZE.treat_event(None, b"caf\xe9") is None
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    assert KEEP.treat_event(deep, b"raw") == "raw"
    assert DROP.treat_event(deep, b"raw") is None
