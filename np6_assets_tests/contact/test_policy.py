"""The contact policy: what becomes of columns, of stored columns under another policy, and of rejected events."""

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


def column(*values: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([value], pa.string()) for value in values], pa.string())


@each_policy
def test_column_is_treated(policy: ContactPolicy, expected: str | None):
    treated = policy.treat_column(column(ADDRESS, None, ADDRESS))
    assert treated.to_pylist() == [expected, None, expected]
    assert treated.type == pa.string()
    assert policy.treat_column(column()).to_pylist() == []


@pytest.mark.parametrize("stored", [DROP, KEEP, PSEUDONYMIZE, OTHER_KEY], ids=lambda policy: policy.mode)
@each_policy
def test_stored_column_is_treated_for_a_new_policy(policy: ContactPolicy, expected: str | None, stored: ContactPolicy):
    values = stored.treat_column(column(ADDRESS, None))
    again = policy.treat_stored_column(values, stored.fingerprint).to_pylist()
    if stored == policy:
        assert again == values.to_pylist()
    else:
        assert again == [expected if stored == KEEP else None, None]
    # of a file of another program nothing is known
    assert policy.treat_stored_column(values, "").to_pylist() == [None, None]


def test_fingerprints_tell_policies_apart_and_do_not_show_the_key():
    policies = [DROP, KEEP, PSEUDONYMIZE, OTHER_KEY]
    assert len({policy.fingerprint for policy in policies}) == len(policies)
    assert all(SECRET not in f"{policy!r} {policy.fingerprint}" for policy in policies)


def texts(policy: ContactPolicy, text: str, unicity: str | None, stored_as: str | None = None) -> list[str | None]:
    return policy.treat_texts(column(text, None), [column(unicity, None)], stored_as).to_pylist()


def test_free_text_is_treated_but_under_keep():
    assert texts(DROP, f"?id=1&to={ADDRESS}", ADDRESS) == ["?id=1&to=[removed]", None]
    assert texts(PSEUDONYMIZE, "to C-1234567", "C-1234567") == ["to [removed]", None]
    assert texts(KEEP, f"to {ADDRESS}", ADDRESS) == [f"to {ADDRESS}", None]


def test_free_text_of_version_0_1_and_of_other_parameters_is_treated_again():
    strict = ContactPolicy(parameters=frozenset({"id"}))
    text = f"https://a.example/?id=1&q=zoe&to={ADDRESS}"
    once = "https://a.example/?id=1&q=zoe&to=[removed]"
    assert texts(DROP, text, None, "drop") == [once, None]
    assert texts(DROP, text, None, DROP.fingerprint) == [text, None]
    assert texts(strict, once, None, DROP.fingerprint) == ["https://a.example/?id=1&q=[removed]&to=[removed]", None]


@pytest.mark.parametrize("policy", [DROP, PSEUDONYMIZE], ids=lambda policy: policy.mode)
def test_receivers_of_version_0_1_stay_as_they_are_stored(policy: ContactPolicy):
    stored = policy.treat_column(column(ADDRESS, None))
    assert policy.treat_stored_column(stored, policy.fingerprint_of_0_1).to_pylist() == stored.to_pylist()
    made = build_event("hits", id="", timestamp=1, unicity=stored[0].as_py(), hash=None, channel=f"to {ADDRESS}")
    again = json.loads(policy.treat_stored_event(made, json.dumps(made), policy.fingerprint_of_0_1) or "")
    set_field(made, "channel", "to [removed]")
    assert again == made


def test_fingerprint_makes_guessing_a_short_key_slow():
    short = ContactPolicy("pseudonymize", "pepper")
    assert short.has_short_key
    fast = {hashlib.new(name, b"pepper").hexdigest()[:8] for name in ("md5", "sha256", "blake2b")}
    fast.add(hmac.new(b"pepper", b"pseudonymize", hashlib.sha256).hexdigest()[:8])
    assert not any(digest in short.fingerprint for digest in fast)
    begun = time.process_time()
    ContactPolicy("pseudonymize", "salt").fingerprint  # noqa: B018
    assert time.process_time() - begun > 0.01


@each_policy
def test_rejected_event_is_whole_but_for_contact_data(policy: ContactPolicy, expected: str | None):
    made = build_event("hits", id="", timestamp=1, agency=5, unicity=ADDRESS, hash=ADDRESS, channel='é "x" \\ud800')
    whole = json.loads(json.dumps(made))
    set_field(whole, "unicity", expected)
    set_field(whole, "hash", expected)
    assert json.loads(policy.treat_event(made, b"") or "") == whole


SHOWN = {
    "an address": ADDRESS,
    "a customer's number": "C-1234567",
    "a phone number": "+33612345678",
}


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("policy", [DROP, PSEUDONYMIZE], ids=lambda policy: policy.mode)
def test_rejected_event_shows_no_contact_data_in_any_shape(policy: ContactPolicy, shown: str):
    own = SHOWN[shown]

    def hit(**fields: Any) -> Any:
        return build_event("hits", id="x", timestamp=1, **fields)

    odd = [
        *(hit(receiver=value) for value in (own, [own], [[{"value": own}]], {"type": "mail", "value": own})),
        *(hit(receiver_value=value) for value in (own, [{"unicity": own}])),
        *(hit(unicity=value) for value in ([own], {"address": own})),
        hit(hash={"of": [own]}),
        # free text, with the receiver's own value beside it
        hit(unicity=own, hash=None, channel=f"to {own}"),
        hit(unicity=own, hash=None, link_uri=f"https://a.example/{own.upper()}?id=594&email={own}"),
        hit(unicity=own, hash=None, link_label=[{"deep": f"for {own}"}]),
        {"unicity": own, "other": {own: 1}},
        [own, {"receiver": {"value": {"unicity": own}}}],
    ]
    for one in odd:
        text = policy.treat_event(one, json.dumps(one).encode()) or ""
        assert own.lower() not in text.lower().replace("%40", "@"), text
    assert "id=594" in (policy.treat_event(odd[10], b"") or "")


@each_policy
def test_receiver_s_id_stays_in_a_rejected_event(policy: ContactPolicy, expected: str | None):
    made = build_event("hits", id="", timestamp=1, receiver={"type": "id", "value": "000ABC12"}, channel="000ABC12")
    assert json.loads(policy.treat_event(made, b"") or "") == made


def test_unparsable_event_is_stored_as_text_only_under_keep():
    assert KEEP.treat_event(None, b"caf\xe9") == "caf\\xe9"
    assert DROP.treat_event(None, b"caf\xe9") is None
    assert PSEUDONYMIZE.treat_event(None, b"caf\xe9") is None
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert KEEP.treat_event(deep, b"raw") == "raw"
    assert DROP.treat_event(deep, b"raw") is None
