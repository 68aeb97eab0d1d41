"""The contact policy: what becomes of columns, of stored columns under another policy, and of rejected events."""

import hashlib
import hmac
import json
from typing import Any

import pyarrow as pa
import pytest

from np6_assets.contact.policy import ContactPolicy
from np6_assets_tests.support.builders import event, put

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


def column(*values: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([value], pa.string()) for value in values], pa.string())


@each_policy
def test_column_is_treated(policy: ContactPolicy, expected: str | None):
    treated = policy.treated(column(ADDRESS, None, ADDRESS))
    assert treated.to_pylist() == [expected, None, expected]
    assert treated.type == pa.string()
    assert policy.treated(column()).to_pylist() == []


@pytest.mark.parametrize("stored", [DROP, KEEP, PSEUDONYMIZE, OTHER_KEY], ids=lambda policy: policy.mode)
@each_policy
def test_stored_column_is_treated_again(policy: ContactPolicy, expected: str | None, stored: ContactPolicy):
    values = stored.treated(column(ADDRESS, None))
    again = policy.treated_again(values, stored.fingerprint).to_pylist()
    if stored == policy:
        assert again == values.to_pylist()
    else:
        assert again == [expected if stored == KEEP else None, None]
    # of a file of another program nothing is known
    assert policy.treated_again(values, "").to_pylist() == [None, None]


def test_fingerprints_tell_policies_apart_and_do_not_show_the_key():
    policies = [DROP, KEEP, PSEUDONYMIZE, OTHER_KEY]
    assert len({policy.fingerprint for policy in policies}) == len(policies)
    assert all(SECRET not in f"{policy!r} {policy.fingerprint}" for policy in policies)


@each_policy
def test_rejected_event_is_whole_but_for_contact_data(policy: ContactPolicy, expected: str | None):
    made = event("hits", id="", timestamp=1, agency=5, unicity=ADDRESS, hash=ADDRESS, channel='é "x" \\ud800')
    whole = json.loads(json.dumps(made))
    put(whole, "unicity", expected)
    put(whole, "hash", expected)
    assert json.loads(policy.redact(made, b"") or "") == whole


@pytest.mark.parametrize("policy", [DROP, PSEUDONYMIZE], ids=lambda policy: policy.mode)
@pytest.mark.parametrize(
    "odd",
    [
        *(event("hits", id="x", timestamp=1, receiver=value) for value in (ADDRESS, [ADDRESS], [[{"value": ADDRESS}]])),
        *(event("hits", id="x", timestamp=1, receiver_value=value) for value in (ADDRESS, [{"unicity": ADDRESS}])),
        *(event("hits", id="x", timestamp=1, unicity=value) for value in ([ADDRESS], {"address": ADDRESS})),
        event("hits", id="x", timestamp=1, hash={"of": [ADDRESS]}),
        event("hits", id="x", timestamp=1, channel=f"to {ADDRESS}"),
        {"unicity": ADDRESS},
        ADDRESS,
        [ADDRESS, {"receiver": {"value": {"unicity": ADDRESS}}}],
    ],
)
def test_rejected_event_shows_no_address(policy: ContactPolicy, odd: Any):
    assert ADDRESS not in (policy.redact(odd, json.dumps(odd).encode()) or "")


def test_event_that_cannot_be_parsed_is_text_under_keep_alone():
    assert KEEP.redact(None, b"caf\xe9") == "caf\\xe9"
    assert DROP.redact(None, b"caf\xe9") is None
    assert PSEUDONYMIZE.redact(None, b"caf\xe9") is None
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert KEEP.redact(deep, b"raw") == "raw"
    assert DROP.redact(deep, b"raw") is None
