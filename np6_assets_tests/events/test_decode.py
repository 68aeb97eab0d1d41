"""The decoder against an independent plain-Python reference: what fits, what does not, and what is said about it."""

import hashlib
import hmac
import json
import random
from collections.abc import Iterable
from datetime import date
from functools import cache
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from np6_assets.contact import ContactMode, ContactPolicy
from np6_assets.events.decode import ID_HASH, Decoded, Decoder
from np6_assets.events.kinds import KINDS, Column, EventKind, Reading
from np6_assets.np6.errors import BadResponseError
from np6_assets.np6.spool import Part, Spool
from np6_assets.privacy.tombstones import Tombstones
from np6_assets_tests.support.events import (
    MISSING,
    PATHS,
    TEXTS,
    Event,
    Misfit,
    event,
    misfits,
    population,
    put,
    render,
)
from np6_assets_tests.support.oracle import columns, row_of, why_not
from np6_assets_tests.support.tables import canonical, rows_of, types_of

KIND = {kind.asset: kind for kind in KINDS}
D = date(2026, 3, 20)
NOON = 1_774_008_000_000  # 2026-03-20T12:00:00Z
SECRET = "a secret for tests"

each_kind = pytest.mark.parametrize("kind", KIND)


@cache
def decoder(kind: EventKind, mode: ContactMode = "drop") -> Decoder:
    return Decoder(kind, ContactPolicy(mode, SECRET if mode == "pseudonymize" else ""), Tombstones(b""))


def parts(body: bytes, part_bytes: int = 2**24) -> list[Part]:
    """The body as the downloads hand it to the decoder."""
    found: list[Part] = []
    spool = Spool(found.append, part_bytes)
    for start in range(0, len(body), 1000):
        spool.feed(body[start : start + 1000])
    spool.finish()
    return found


def decode_body(kind: str, body: bytes | str, mode: ContactMode = "drop") -> Decoded:
    [part] = parts(body.encode() if isinstance(body, str) else body)
    return decoder(KIND[kind], mode).decode(part)


def decode(kind: str, events: Iterable[Any], mode: ContactMode = "drop", rng: random.Random | None = None) -> Decoded:
    return decode_body(kind, f"[{','.join(render(one, rng) for one in events)}]", mode)


def stored(decoded: Decoded) -> list[dict[str, Any]]:
    """The decoded rows, as they will be stored."""
    return rows_of(decoded.rows.drop_columns([ID_HASH]))


def quarantined(decoded: Decoded) -> list[Any]:
    return [json.loads(text) for text in decoded.misfits.column("event").to_pylist()]


def reasons(decoded: Decoded) -> list[str]:
    return decoded.misfits.column("reason").to_pylist()


def alike(some: Iterable[Any], others: Iterable[Any]) -> bool:
    """Whether these are the same JSON values, in whatever order."""

    def sort(values: Iterable[Any]) -> list[str]:
        return sorted(json.dumps(value, sort_keys=True) for value in values)

    return sort(some) == sort(others)


def expected(kind: str, events: Iterable[Any], mode: str = "drop") -> list[dict[str, Any]]:
    return [row_of(kind, one, mode, SECRET) for one in events if why_not(kind, one) is None]


# --- what fits -----------------------------------------------------------------------------------------------------

# np6-api.md, as the reference prints them
_ENVELOPE = (
    '{"type":"%s","id":"14d3d192-bd40-4c0b-9048-4469ab3a981c","timestamp":1614089593000,"identity":{"type":"customer",'
    '"agency":"DEMO","customer":"028"},"source":{"type":"notification","detail":{"activation":{"id":156,"version":"%s",'
    '"kind":"application","receiver":{"type":"contact","value":{"type":"footprint","id":"000R4M0T","unicity":'
    '"example@example.com","hash":"0441619ab4631d18548aa8835dd2c28b"}},"application":"%s","subscription":"%s","stamp":'
    '{"time":1614089576625,"id":"d52055cd-e854-4177-8ef5-b10fd8d568a7","thread":"a3078b19-b379-4bc2-b29a-e8229a9c9332"},'
    '"channel":"notification_channel","urgent":true,"expiration":"0001-01-01T00:00:00Z"},%s}}}'
)
SAMPLES = {
    "hits": _ENVELOPE
    % (
        "hit",
        "ecce4585-1627-4495-90fc-7bbc27d2ae26",
        "076db4f8-4304-4b8e-b232-4820f2639a8a",
        "65b51edb-0cc2-4fed-a6d0-2aa5a722d39a",
        '"link":{"type":"redirection","label":null,"uri":"deeplink://product?id=594"}',
    ),
    "optouts": _ENVELOPE
    % (
        "optout",
        "3c74d8f9-b9e9-4864-b3fb-c97f57d7a80f",
        "798691ae-6a59-45f8-bff4-d7405bdab850",
        "05b327b3-274c-47ab-bc73-0879a302c241",
        '"optout":{"type":"channel","channel":"channel"}',
    ),
    "bounces": _ENVELOPE
    % (
        "bounce",
        "8cffe119-dd55-4548-bac9-fea5e47f83aa",
        "5968b344-0e10-4b41-94ea-8385fad7f866",
        "1912df6e-743e-47e8-ad54-010d37e4b0d5",
        '"bounce":{"status":null,"analysis":{"verdict":"hard","subject":{"type":"token","detail":'
        '{"type":"unregistered"}}}}',
    ),
}
SAMPLE_ROW = {
    "event_id": "14d3d192-bd40-4c0b-9048-4469ab3a981c",
    "event_time": 1614089593000,
    "activation_id": 156,
    "agency": "DEMO",
    "customer": "028",
    "activation_kind": "application",
    "stamp_id": "d52055cd-e854-4177-8ef5-b10fd8d568a7",
    "stamp_thread": "a3078b19-b379-4bc2-b29a-e8229a9c9332",
    "activated_at": 1614089576625,
    "channel": "notification_channel",
    "urgent": True,
    "expires_at": None,
    "receiver_type": "contact",
    "receiver_id": "000R4M0T",
    "receiver_unicity": "example@example.com",
    "receiver_hash": "0441619ab4631d18548aa8835dd2c28b",
}
SAMPLE_OWN = {
    "hits": {
        "activation_version": "ecce4585-1627-4495-90fc-7bbc27d2ae26",
        "application_id": "076db4f8-4304-4b8e-b232-4820f2639a8a",
        "subscription_id": "65b51edb-0cc2-4fed-a6d0-2aa5a722d39a",
        "link_type": "redirection",
        "link_label": None,
        "link_uri": "deeplink://product?id=594",
    },
    "optouts": {
        "activation_version": "3c74d8f9-b9e9-4864-b3fb-c97f57d7a80f",
        "application_id": "798691ae-6a59-45f8-bff4-d7405bdab850",
        "subscription_id": "05b327b3-274c-47ab-bc73-0879a302c241",
        "optout_type": "channel",
        "optout_channel": "channel",
    },
    "bounces": {
        "activation_version": "8cffe119-dd55-4548-bac9-fea5e47f83aa",
        "application_id": "5968b344-0e10-4b41-94ea-8385fad7f866",
        "subscription_id": "1912df6e-743e-47e8-ad54-010d37e4b0d5",
        "bounce_status": None,
        "bounce_verdict": "hard",
        "bounce_subject": "token",
        "bounce_reason": "unregistered",
    },
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_the_events_of_the_reference_become_the_rows_of_the_contract(kind: str):
    decoded = decode_body(kind, f"[{SAMPLES[kind]}]", "keep")
    assert stored(decoded) == [SAMPLE_ROW | SAMPLE_OWN[kind]]
    assert decoded.misfits.num_rows == 0
    assert decoded.unknown_fields == set()


@each_kind
def test_columns_are_those_of_the_contract_and_the_first_three_are_never_null(kind: str):
    rows = decode(kind, [event(kind, id="e", timestamp=NOON)]).rows
    assert types_of(rows.drop_columns([ID_HASH])) == columns(kind)
    assert [field.name for field in rows.schema if not field.nullable] == ["event_id", "event_time", "activation_id"]


@each_kind
def test_no_events_are_no_rows_of_the_same_columns(kind: str):
    decoded = decode_body(kind, " [ \n] ")
    assert decoded.rows.num_rows == decoded.misfits.num_rows == 0
    assert types_of(decoded.rows.drop_columns([ID_HASH])) == columns(kind)
    assert decoded.rows.schema == decode(kind, [event(kind, id="e", timestamp=NOON)]).rows.schema


@each_kind
@pytest.mark.parametrize("mode", ["drop", "pseudonymize", "keep"])
def test_a_population_with_misfits_decodes_as_the_reference_does(kind: str, mode: ContactMode):
    made = population(11, D, 2, "Europe/Paris", misfit_days=[D])
    events = made.feed(kind) + [misfit.event for misfit in made.misfits if misfit.kind == kind]
    random.Random(kind).shuffle(events)
    decoded = decode(kind, events, mode, random.Random(mode))
    assert canonical(stored(decoded)) == canonical(expected(kind, events, mode))
    misfit = [one for one in events if why_not(kind, one) is not None]
    assert len(quarantined(decoded)) == len(misfit)
    if mode == "keep":
        assert alike(quarantined(decoded), misfit)


COMMON_MISFITS = [misfit.name for misfit in misfits("impressions", 1, NOON, 156)]


@pytest.mark.parametrize(
    ("kind", "misfit"),
    [
        pytest.param(kind, misfit, id=f"{kind}: {misfit.name}")
        for kind in ("bounces", "hits", "optouts")
        for misfit in misfits(kind, 1, NOON, 156)
        if kind == "bounces" or misfit.name not in COMMON_MISFITS
    ],
)
def test_each_way_not_to_fit_is_quarantined_with_a_reason_and_takes_no_other_event_along(kind: str, misfit: Misfit):
    before, after = (event(kind, id=name, timestamp=NOON) for name in ("before", "after"))
    decoded = decode(kind, [before, misfit.event, after], "keep")
    assert [row["event_id"] for row in stored(decoded)] == ["before", "after"]
    assert quarantined(decoded) == [misfit.event]
    assert all(len(reason) > 5 and "\n" not in reason for reason in reasons(decoded))


def test_a_misfits_place_in_time_is_that_of_the_good_event_before_it():
    good = [event("hits", id=str(number), timestamp=NOON + number) for number in range(3)]
    decoded = decode("hits", ["a", good[0], {}, 5, good[1], {"id": 7}, good[2]], "keep")
    placed = [(row["event_time"], row["event"]) for row in rows_of(decoded.misfits)]
    assert sorted(placed) == [(0, '"a"'), (NOON, "5"), (NOON, "{}"), (NOON + 1, '{"id":7}')]


def test_a_misfit_that_says_when_it_happened_is_placed_there():
    good = event("hits", id="good", timestamp=NOON)
    for odd in (
        event("hits", id="odd", timestamp=NOON + 5, activation_id=None),  # read by the JSON reader, and refused
        event("hits", id="odd", timestamp=NOON + 5, stamp="text"),  # too odd for the JSON reader
    ):
        decoded = decode("hits", [good, odd])
        assert rows_of(decoded.misfits.select(["event_time"])) == [{"event_time": NOON + 5}]


def test_a_time_that_no_column_can_hold_places_nothing():
    wild = event("hits", id="wild", timestamp=10**20)
    decoded = decode("hits", [event("hits", id="good", timestamp=NOON), wild, "no object", True])
    assert rows_of(decoded.misfits.select(["event_time"])) == [{"event_time": NOON}] * 3


def test_parts_together_hold_what_the_whole_holds():
    made = population(5, D, 1, misfit_days=[D])
    events = made.bounces + [misfit.event for misfit in made.misfits if misfit.kind == "bounces"]
    body = f"[{','.join(render(one, random.Random(3)) for one in events)}]".encode()
    decoded = [decoder(KIND["bounces"]).decode(part) for part in parts(body, 5000)]
    assert len(decoded) > 5
    assert canonical(row for part in decoded for row in stored(part)) == canonical(expected("bounces", events))
    assert sum(part.misfits.num_rows for part in decoded) == sum(misfit.kind == "bounces" for misfit in made.misfits)


def test_the_hash_beside_the_id_is_the_same_for_the_same_id_in_whatever_spelling():
    one, same, other = (event("hits", id=name, timestamp=NOON) for name in ("é/1", "é/1", "é/2"))
    body = f"[{render(one)},{json.dumps(same).replace('/', chr(92) + '/')},{render(other)}]"
    first, second, third = decode_body("hits", body).rows.column(ID_HASH).to_pylist()
    assert first == second != third


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**70).filter(lambda number: not 2**47 < abs(number) < 2**63)
    | st.integers(-1000, 1000).map(lambda number: number + 0.5)
    | st.sampled_from([*TEXTS, "2026-04-30T12:00:00Z", "0001-01-01T00:00:00Z", "hard", "token"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "id", "detail", "x"]), inner),
    max_leaves=4,
)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(KIND)),
    changes=st.lists(
        st.dictionaries(st.sampled_from([name for name in PATHS if name != "id"]), JSON_VALUES, max_size=3), max_size=12
    ),
    style=st.integers(0, 2**16),
)
def test_any_value_in_any_field_fits_or_not_as_the_reference_says(kind: str, changes: list[dict[str, Any]], style: int):
    events: list[Event] = []
    for number, fields in enumerate(changes):
        made = event(kind, id=f"event {number}", timestamp=NOON + number)
        for name in sorted(fields, key=lambda name: len(PATHS[name])):
            put(made, name, fields[name])
        events.append(made)
    decoded = decode(kind, events, "keep", random.Random(style))
    assert canonical(stored(decoded)) == canonical(expected(kind, events, "keep"))
    odd = [one for one in events if why_not(kind, one) is not None]
    assert alike(quarantined(decoded), odd)


PLAIN = st.sampled_from(
    [None, "", "a", "ab", "abcd", "1", "12", "true", 1, 12, 1234, -1, True, False, 1.5, {}, [], MISSING]
)
TEXT_FIELDS = [
    "agency",
    "customer",
    "version",
    "kind",
    "application",
    "channel",
    "thread",
    "unicity",
    "link_type",
    "link_uri",
]


@hypothesis_settings(max_examples=40, deadline=None)
@given(changes=st.lists(st.dictionaries(st.sampled_from(TEXT_FIELDS), PLAIN, max_size=3), min_size=1, max_size=8))
def test_events_that_differ_in_a_value_alone_are_told_apart(changes: list[dict[str, Any]]):
    """Without escapes and spaces, alike in all but a value: what a decoder could be tempted to take a shortcut for."""
    events = [event("hits", id=f"{number}", timestamp=NOON, **fields) for number, fields in enumerate(changes)]
    decoded = decode("hits", events, "keep")
    assert stored(decoded) == expected("hits", events, "keep")
    assert alike(quarantined(decoded), [one for one in events if why_not("hits", one) is not None])


def hit(number: int, old: str = "", new: str = "") -> str:
    text = render(event("hits", id=f"{number}", timestamp=NOON, channel="news"))
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    "bodies",
    [
        # an unknown field in all, and two oddities whose bytes and quotation marks cancel out
        [
            hit(0, '"urgent"', '"novelty":1000,"urgent"'),
            hit(1, '"urgent"', '"novelty":"1234","urgent"'),
            hit(2, '"channel":"news"', '"novelty":1000,"channel":12'),
        ],
        # a field that was renamed to a name of the same length, and a number for a text
        [hit(0), hit(1, '"channel":"news"', '"chanexl":"news"'), hit(2, '"channel":"news"', '"channel":1234')],
    ],
)
def test_oddities_that_cancel_out_in_size_are_told_apart(bodies: list[str]):
    decoded = decode_body("hits", f"[{','.join(bodies)}]")
    assert [row["event_id"] for row in stored(decoded)] == ["0", "1"]
    assert [misfit["id"] for misfit in quarantined(decoded)] == ["2"]


def test_misfits_that_look_alike_without_their_contact_data_are_different_ones():
    bodies = [hit(0), '"one@example.com"', '"two@example.com"', "null", '"one@example.com"']
    decoded = decode_body("hits", f"[{','.join(bodies)}]")
    assert quarantined(decoded) == [None] * 4
    assert len(set(decoded.misfits.column("identity").to_pylist())) == 3


# --- odd text ------------------------------------------------------------------------------------------------------


ODD_TEXTS = [*TEXTS, "\x00", "a\x00b", "\ufffe\uffff", "\U0010ffff", "[{", "0001-01-01T00:00:00Z"]


@pytest.mark.parametrize("style", [None, 1, 2, 3])
def test_any_text_comes_out_as_it_went_in(style: int | None):
    events = [
        event("hits", id=f"id {text}", timestamp=NOON, channel=text, link_uri=text, unicity=text, agency=text)
        for text in ODD_TEXTS
    ]
    decoded = decode("hits", events, "keep", None if style is None else random.Random(style))
    assert stored(decoded) == expected("hits", events, "keep")
    assert decoded.rows.column("channel").to_pylist() == ODD_TEXTS


def sandwiched(raw: bytes, mode: ContactMode = "drop") -> Decoded:
    """A part in which `raw` stands between two good events; both of them come out whatever it is."""
    good = [render(event("hits", id=name, timestamp=NOON)).encode() for name in ("before", "after")]
    decoded = decode_body("hits", b"[" + good[0] + b"," + raw + b"," + good[1] + b"]", mode)
    ids = [row["event_id"] for row in stored(decoded)]
    assert ids[0] == "before"
    assert ids[-1] == "after"
    assert len(ids) + decoded.misfits.num_rows == 3
    return decoded


def raw_event(**fields: Any) -> bytes:
    return render(event("hits", **{"id": "odd", "timestamp": NOON, **fields})).encode()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(raw_event(channel="?").replace(b'"?"', b'"\\ud800"'), id="lone high surrogate"),
        pytest.param(raw_event(channel="?").replace(b'"?"', b'"\\udc00 x"'), id="lone low surrogate"),
        pytest.param(raw_event(channel="?").replace(b'"?"', b'"\\udc00\\ud800"'), id="surrogates the wrong way round"),
        pytest.param(raw_event(channel="?").replace(b'"?"', b'"caf\xe9"'), id="Latin-1 in place of UTF-8"),
        pytest.param(raw_event(channel="?").replace(b'"?"', b'"\xed\xa0\x80"'), id="UTF-8 of a surrogate"),
        pytest.param(raw_event(channel="?").replace(b'"?"', b'"\xf0\x9f\x8e"'), id="UTF-8 cut off"),
        pytest.param(raw_event(channel="?").replace(b'"?"', b'"a\x01b"'), id="control character"),
        pytest.param(raw_event(channel="?").replace(b'"?"', b'"a\nb"'), id="newline in a string"),
        pytest.param(raw_event(channel="?").replace(b'"?"', b'"a\x00b"'), id="null byte"),
    ],
)
def test_text_that_is_not_json_is_quarantined_alone(raw: bytes):
    decoded = sandwiched(raw)
    assert decoded.misfits.num_rows == 1
    [odd] = quarantined(decoded)
    assert odd["id"] == "odd"
    assert odd["source"]["detail"]["activation"]["receiver"]["value"]["unicity"] is None


def test_bad_bytes_where_nobody_reads_do_not_cost_the_event_its_neighbours():
    sandwiched(raw_event().replace(b'"type":"hit"', b'"type":"hit","novelty":"caf\xe9 \\ud800"'))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"id":"odd"', b'"id":"odd","id":"other"'),
        (b'"timestamp":', b'"timestamp":12,"timestamp":'),
        (b'"identity":', b'"identity":{"agency":"X"},"identity":'),
        (b'"agency":"DEMO"', b'"agency":"DEMO","agency":"OTHER"'),
        (b'"stamp":', b'"stamp":null,"stamp":'),
    ],
)
def test_a_field_that_is_there_twice_says_two_things_and_fits_nowhere(before: bytes, after: bytes):
    raw = raw_event()
    assert before in raw
    decoded = sandwiched(raw.replace(before, after))
    assert len(reasons(decoded)) == 1
    assert "twice" in reasons(decoded)[0]


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"9" * 400, b"-0.5", b"12.5e-1"])
@pytest.mark.parametrize("field", ["timestamp", "activation_id", "stamp_time"])
def test_a_number_that_no_column_can_hold_is_a_misfit(field: str, number: bytes):
    decoded = sandwiched(raw_event(**{field: 987654321}).replace(b"987654321", number))
    assert decoded.misfits.num_rows == 1


@pytest.mark.parametrize("number", [b"1e400", b"9" * 400, b"-0.5", b"123456789012345678901234567890"])
def test_a_huge_number_in_an_unknown_field_costs_nothing(number: bytes):
    decoded = sandwiched(raw_event().replace(b'"type":"hit"', b'"type":"hit","novelty":' + number))
    assert decoded.misfits.num_rows == 0


@pytest.mark.parametrize(
    "raw", [b"null", b"true", b"0", b"-1.5e3", b'"}],[{"', b'""', b"[]", b"[[[]]]", b"{}", b'[{"id":"x"}]']
)
def test_an_element_that_is_no_event_is_quarantined_alone(raw: bytes):
    assert quarantined(sandwiched(raw, "keep")) == [json.loads(raw)]


@pytest.mark.parametrize(
    "body",
    ['[{"id":}]', "[{id:1}]", "[{]}", '[{"a":1}{"b":2}]', "[{},,{}]", '[{"a":1,}]', "[{'a':1}]", "[{}{}]", "[[}]"],
)
def test_what_is_not_json_is_a_failure_of_the_request(body: str):
    found: list[Part] = []
    spool = Spool(found.append)

    def take() -> None:
        spool.feed(body.encode())
        spool.finish()
        decoder(KIND["hits"]).decode(found[0])

    with pytest.raises(BadResponseError):  # whoever sees it first: an unbalanced array never gets to the decoder
        take()
    spool.close()
    assert all(part.file.closed for part in found)


def test_a_part_is_given_back_once_it_is_decoded():
    [part] = parts(f"[{SAMPLES['hits']}]".encode())
    decoder(KIND["hits"]).decode(part)
    assert part.file.closed


# --- contact data --------------------------------------------------------------------------------------------------


def pseudonym(value: str) -> str:
    return hmac.new(SECRET.encode(), value.encode(), hashlib.sha256).hexdigest()


CONTACTS = [("zoé@example.com", "16d113840f999444259f73bac9ab8b10"), (None, None), ("", "x"), ("zoé@example.com", "y")]


@pytest.mark.parametrize(
    ("mode", "treated"),
    [("drop", lambda value: None), ("keep", lambda value: value), ("pseudonymize", pseudonym)],
)
def test_contact_columns_hold_what_the_policy_says(mode: ContactMode, treated: Any):
    events = [
        event("impressions", id=str(number), timestamp=NOON, unicity=unicity, hash=hashed)
        for number, (unicity, hashed) in enumerate(CONTACTS)
    ]
    rows = decode("impressions", events, mode).rows
    for column, place in (("receiver_unicity", 0), ("receiver_hash", 1)):
        values = [contact[place] for contact in CONTACTS]
        assert rows.column(column).to_pylist() == [None if value is None else treated(value) for value in values]
        assert rows.schema.field(column).type == pa.string()


@pytest.mark.parametrize(
    ("mode", "treated"),
    [("drop", lambda value: None), ("keep", lambda value: value), ("pseudonymize", pseudonym)],
)
def test_quarantined_events_are_whole_but_for_contact_data(mode: ContactMode, treated: Any):
    odd = event("hits", id="", timestamp=NOON, agency=5, unicity="zoé@example.com", hash="abc", channel="é \\ud800")
    whole = json.loads(json.dumps(odd))
    put(whole, "unicity", treated("zoé@example.com"))
    put(whole, "hash", treated("abc"))
    assert quarantined(decode("hits", [odd], mode)) == [whole]


ADDRESS = "someone@example.com"


@pytest.mark.parametrize("mode", ["drop", "pseudonymize"])
@pytest.mark.parametrize(
    "odd",
    [
        event("hits", id="x", timestamp=NOON, receiver=ADDRESS),
        event("hits", id="x", timestamp=NOON, receiver=[ADDRESS]),
        event("hits", id="x", timestamp=NOON, receiver=[[{"value": ADDRESS}]]),
        event("hits", id="x", timestamp=NOON, receiver_value=ADDRESS),
        event("hits", id="x", timestamp=NOON, receiver_value=[{"unicity": ADDRESS}]),
        event("hits", id="x", timestamp=NOON, unicity=[ADDRESS]),
        event("hits", id="x", timestamp=NOON, unicity={"address": ADDRESS}),
        event("hits", id="x", timestamp=NOON, hash={"of": [ADDRESS]}),
        {"unicity": ADDRESS},
        ADDRESS,
        [ADDRESS, {"receiver": {"value": {"unicity": ADDRESS}}}],
    ],
)
def test_no_address_gets_into_quarantine_wherever_it_stands(odd: Any, mode: ContactMode):
    decoded = decode("hits", [odd], mode)
    [text] = decoded.misfits.column("event").to_pylist()
    assert ADDRESS not in text
    assert ADDRESS not in reasons(decoded)[0]


def test_a_policy_does_not_show_its_key():
    assert SECRET not in repr(ContactPolicy("pseudonymize", SECRET))


# --- unknown fields ------------------------------------------------------------------------------------------------


def test_unknown_fields_are_told_by_their_paths_and_cost_nothing():
    made = event("hits", id="e", timestamp=NOON)
    made["novelty"] = {"id": [1, {"deep": None}]}
    made["identity"]["set"] = 3
    detail = made["source"]["detail"]
    detail["optout"] = {"type": "channel"}
    detail["activation"]["stamp"]["sets"] = []
    detail["activation"]["receiver"]["value"]["phone"] = "+33"
    detail["link"]["colour"] = None
    decoded = decode("hits", [event("hits", id="plain", timestamp=NOON), made])
    assert decoded.unknown_fields == {
        "novelty",
        "identity.set",
        "source.detail.optout",
        "source.detail.activation.stamp.sets",
        "source.detail.activation.receiver.value.phone",
        "source.detail.link.colour",
    }
    assert stored(decoded)[1] == expected("hits", [made])[0]


def test_fields_that_the_reference_documents_are_not_news():
    made = event("bounces", id="e", timestamp=NOON)
    made["source"]["detail"]["activation"]["stamp"]["set"] = {"any": "thing"}
    made["source"]["detail"]["bounce"]["status"] = {"code": 550}
    assert decode("bounces", [made]).unknown_fields == set()


# --- readings ------------------------------------------------------------------------------------------------------

MADE_UP = EventKind(
    "complaints",
    "complaint",
    "/notifications/reactivities/complaints",
    "reactivityStart",
    "reactivityEnd",
    "Receivers who complained: a kind that does not exist yet.",
    (
        Column("text", pa.string(), "source.detail.complaint.text", Reading.TEXT, "…"),
        Column("needed", pa.string(), "source.detail.complaint.needed", Reading.REQUIRED_TEXT, "…"),
        Column("number", pa.int64(), "source.detail.complaint.number", Reading.INTEGER, "…"),
        Column("moment", pa.timestamp("ms", "UTC"), "source.detail.complaint.moment", Reading.MILLISECONDS, "…"),
        Column("flag", pa.bool_(), "source.detail.complaint.flag", Reading.BOOLEAN, "…"),
        Column("iso", pa.timestamp("ms", "UTC"), "source.detail.complaint.iso", Reading.ISO_TIME, "…"),
        Column("any", pa.string(), "source.detail.complaint.any", Reading.TEXT_OR_JSON, "…"),
        Column("subject", pa.string(), "source.detail.complaint.on.subject", Reading.TEXT_OR_TYPE, "…"),
        Column("why", pa.string(), "source.detail.complaint.on.subject", Reading.DETAIL_TYPE, "…"),
    ),
)


def complain(*complaints: str) -> Decoded:
    """Events of the made-up kind, each with one of these JSON texts as its own part."""
    plain = event("impressions", id="c", timestamp=NOON)
    plain["source"]["detail"]["complaint"] = "?"
    texts = (render(plain).replace('"?"', complaint) for complaint in complaints)
    [part] = parts(f"[{','.join(texts)}]".encode())
    return decoder(MADE_UP).decode(part)


def test_adding_an_event_kind_is_one_entry():
    decoded = complain(
        '{"text":"t","needed":"n","number":-3,"moment":1500,"flag":false,"iso":"1970-01-01T00:00:02Z","any":{"a":[1]},'
        '"on":{"subject":{"type":"s","detail":{"type":"w"}}}}'
    )
    own = ["text", "needed", "number", "moment", "flag", "iso", "any", "subject", "why"]
    assert rows_of(decoded.rows.select(["event_id", *own])) == [
        {
            "event_id": "c",
            "text": "t",
            "needed": "n",
            "number": -3,
            "moment": 1500,
            "flag": False,
            "iso": 2000,
            "any": '{"a":[1]}',
            "subject": "s",
            "why": "w",
        }
    ]
    assert decoded.rows.schema.names == [*MADE_UP.schema.names, ID_HASH]
    assert decoded.unknown_fields == set()


def test_what_is_missing_or_null_is_null_in_every_reading():
    own = [column.name for column in MADE_UP.own_columns]
    names = [column.path.split(".")[3] for column in MADE_UP.own_columns]
    nulls = "{" + ",".join(f'"{name}":null' for name in dict.fromkeys(names)) + "}"
    decoded = complain("null", "{}", nulls, '{"on":{}}', '{"on":{"subject":null}}')
    assert decoded.misfits.num_rows == 0
    assert rows_of(decoded.rows.select(own)) == [dict.fromkeys(own)] * 5


MS_2026_04_30_NOON = 1_777_550_400_000
FITS = [
    ("text", '""', ""),
    ("text", '"null"', "null"),
    ("text", '"5"', "5"),
    ("text", r'"\u00e9\"\\\/\ud83c\udf89"', 'é"\\/🎉'),
    ("needed", '" "', " "),
    ("number", "0", 0),
    ("number", "9223372036854775807", 2**63 - 1),
    ("number", "-9223372036854775808", -(2**63)),
    ("number", "9007199254740993", 2**53 + 1),
    ("moment", "-1", -1),
    ("moment", "-62135596800000", -62_135_596_800_000),  # the first of the year 1
    ("moment", "253402300799999", 253_402_300_799_999),  # the last of the year 9999
    ("flag", "true", True),
    ("flag", "false", False),
    ("iso", '"0001-01-01T00:00:00Z"', None),
    ("iso", '"0001-01-01T00:00:00.000Z"', None),
    ("iso", '"2026-04-30T12:00:00Z"', MS_2026_04_30_NOON),
    ("iso", '"2026-04-30T12:00:00"', MS_2026_04_30_NOON),  # UTC where nothing else is said
    ("iso", '"2026-04-30T14:00:00+02:00"', MS_2026_04_30_NOON),
    ("iso", '"2026-04-30T06:30:00-05:30"', MS_2026_04_30_NOON),
    ("iso", '"2026-04-30T12:00:00.25Z"', MS_2026_04_30_NOON + 250),
    ("iso", '"2026-04-30T12:00:00.1239999Z"', MS_2026_04_30_NOON + 123),
    ("iso", '"2026-04-30"', MS_2026_04_30_NOON - 12 * 3_600_000),
    ("iso", r'"2026-04-30T12:00:00\u005a"', MS_2026_04_30_NOON),
    ("iso", '"1969-12-31T23:59:59.500Z"', -500),
    ("iso", '"9999-12-31T23:59:59Z"', 253_402_300_799_000),
    ("iso", '"9999-12-31T23:59:59.9999999Z"', 253_402_300_799_999),
    ("any", '"550"', "550"),
    ("any", "550", "550"),
    ("any", "true", "true"),
    ("any", '{ "a" : [ 1 , null , "\\u00e9" ] }', '{"a":[1,null,"é"]}'),
    ("any", "[]", "[]"),
    ("subject", '"mailbox"', "mailbox"),
    ("subject", '""', ""),
    ("subject", '{"type":"token"}', "token"),
    ("subject", '{"type":null,"detail":null}', None),
    ("subject", "{}", None),
    ("why", '"mailbox"', None),
    ("why", '{"type":"token","detail":{"type":"unregistered","more":1}}', "unregistered"),
    ("why", '{"detail":{"type":null}}', None),
    ("why", '{"detail":{}}', None),
]
FITS_NOT = [
    *(("text", value) for value in ("1", "true", "[]", "{}", '["a"]', '{"a":"b"}')),
    *(("needed", value) for value in ('""', "1", "false", "[]", "{}")),
    *(
        ("number", value)
        for value in ('"1"', "1.5", "true", "[1]", "{}", "9223372036854775808", "-9223372036854775809")
    ),
    *(("moment", value) for value in ("253402300800000", "-62135596800001", '"5"', "0.5", "false", "[5]")),
    *(("flag", value) for value in ('"true"', "0", "1", "[]", "{}", '""')),
    *(
        ("iso", value)
        for value in ('"tomorrow"', '""', '"infinity"', '"epoch"', '"2026-02-30T00:00:00Z"', "0", "{}", "[]")
    ),
    *(("iso", value) for value in ('"2026-04-30T25:00:00Z"', '"20260430T120000Z"', '"1777550400000"', "true")),
    *(("subject", value) for value in ("5", "true", "[]", '["a"]', '{"type":5}', '{"type":{}}', '{"type":["a"]}')),
    *(("why", value) for value in ('{"detail":"x"}', '{"detail":[]}', '{"detail":5}', '{"detail":{"type":5}}')),
]


def complaint_with(column: str, value: str) -> str:
    return f'{{"on":{{"subject":{value}}}}}' if column in ("subject", "why") else f'{{"{column}":{value}}}'


def test_readings_give_their_values():
    decoded = complain(*(complaint_with(column, value) for column, value, _ in FITS))
    assert reasons(decoded) == []
    rows = rows_of(decoded.rows)
    assert [(*case[:2], row[case[0]]) for case, row in zip(FITS, rows, strict=True)] == FITS


def test_readings_refuse_what_is_of_another_type():
    decoded = complain(*(complaint_with(column, value) for column, value in FITS_NOT))
    assert rows_of(decoded.rows.select([column.name for column in MADE_UP.own_columns])) == []
    odd = [json.dumps(json.loads(complaint_with(*case)), separators=(",", ":")) for case in FITS_NOT]
    assert sorted(
        json.dumps(one["source"]["detail"]["complaint"], separators=(",", ":")) for one in quarantined(decoded)
    ) == sorted(odd)
    assert all("source.detail.complaint" in reason for reason in reasons(decoded))


def test_every_reading_is_tried():
    assert {column.reading for column in MADE_UP.own_columns} == set(Reading)
