"""Test the test support: expected values against values computed by hand, the server against a plain client."""

import json
import random
from collections.abc import Iterator
from datetime import date, timedelta

import httpx
import pytest

from np6_assets_tests.support.events import (
    KINDS,
    MISSING,
    POISON,
    RawEvent,
    build_bad_events,
    build_coerced,
    build_event,
    build_poison,
    build_population,
    list_field_poison,
    render,
)
from np6_assets_tests.support.oracle import (
    build_row,
    compute_day_bounds,
    compute_event_key,
    count_unreadable,
    expect_rates,
    expect_rejected,
    expect_rows,
    find_reason,
    list_columns,
    parse,
    read_event_time,
)
from np6_assets_tests.support.rude_acts import BROKEN, CUT, INCOMPLETE, OTHER_FORMATS, Act
from np6_assets_tests.support.rude_server import RudeServer

D = date(2026, 3, 20)
DAY = 86_400_000
D_MS = 1_773_964_800_000  # 2026-03-20T00:00:00Z: 20 532 days of 86 400 000 ms
HITS = "/notifications/reactivities/hits"


# --- events ------------------------------------------------------------------------------------------------


def test_population_follows_from_its_seed_and_has_every_variant():
    options = {"bad_event_days": [D], "poison_days": [D], "coerced_share": 0.1}
    population = build_population(7, D, 3, "Europe/Paris", **options)
    assert population == build_population(7, D, 3, "Europe/Paris", **options)
    assert population.hits != build_population(8, D, 3, "Europe/Paris").hits
    start, end = compute_day_bounds(D, "Europe/Paris")
    for kind in KINDS:
        feed = population.feed(kind)
        assert expect_rejected(kind, feed) == []
        ids = [one["id"] for one in feed]
        assert len(set(ids)) < len(ids)  # repeats
        times = {one["id"]: read_event_time(one) for one in feed}.values()
        assert len(set(times)) < len(times)  # ties
        assert {start, end - 1} <= set(times)
        assert sum((count_unreadable(kind, one) for one in feed), start=count_unreadable(kind, feed[0]))["urgent"] > 3
        assert any(isinstance(one, RawEvent) for one in feed)
        keys = [compute_event_key(one.body) for one in population.bad_events if one.kind == kind]
        assert len(set(keys)) == len(keys) > 80
    stamps = [one["source"]["detail"]["activation"].get("stamp") or {} for one in population.activations]
    assert any("time" not in stamp for stamp in stamps)
    assert len({stamp.get("id") for stamp in stamps}) < len(stamps)


@pytest.mark.parametrize("kind", KINDS)
def test_variants_are_rejected_or_coerced(kind: str):
    for bad_event in build_bad_events(kind, 1, D_MS, 100):
        assert find_reason(kind, bad_event.event) is not None, bad_event.name
        assert parse(bad_event.body) == bad_event.event
    for name, event in build_coerced(kind, 1, D_MS, 100):
        assert find_reason(kind, event) is None, name
        assert D_MS <= read_event_time(event) < D_MS + DAY, name


@pytest.mark.parametrize("kind", KINDS)
def test_poison_has_the_outcome_it_says(kind: str):
    several = [*build_poison(kind, 1, D_MS, 100), *(one for one in list_field_poison() if one.kind == kind)]
    for one in several:
        assert (one.outcome == "stored") <= (one.event is not None), one.name
        assert one.event is None or find_reason(kind, one.event) is None, one.name
        try:
            value = parse(one.raw)
        except ValueError:
            assert one.outcome != "stored" or "100,000 levels" in one.name, one.name
            continue
        if one.outcome == "rejected":
            assert find_reason(kind, value) is not None, one.name
        elif one.event is not None:
            assert build_row(kind, value, "keep", None) == build_row(kind, one.event, "keep", None), one.name


def test_rendered_events_mean_the_same_in_every_style():
    population, rng = build_population(3, D, 1), random.Random(1)
    for one in population.hits + population.bounces:
        assert json.loads(render(one, rng)) == one


# --- expected values ---------------------------------------------------------------------------------------


def test_day_bounds_follow_clock_changes():
    hours = [
        (end - start) / 3_600_000
        for start, end in (
            compute_day_bounds(date(2026, 3, 29), "Europe/Paris"),
            compute_day_bounds(date(2026, 10, 25), "Europe/Paris"),
            compute_day_bounds(D, "Europe/Paris"),
        )
    ]
    assert hours == [23, 25, 24]
    assert compute_day_bounds(D, "UTC") == (D_MS, D_MS + DAY)
    # Midnight in Paris is 23:00 UTC of the day before in winter, 22:00 in summer.
    assert compute_day_bounds(D, "Europe/Paris")[0] == D_MS - 3_600_000
    assert compute_day_bounds(date(2026, 3, 30), "Europe/Paris")[0] == D_MS + 10 * DAY - 2 * 3_600_000


def test_expected_rows_are_in_the_window_sorted_and_unique():
    events = [
        build_event("hits", id="b", timestamp=D_MS),
        build_event("hits", id="c", timestamp=D_MS + DAY),  # the end is not in it
        build_event("hits", id="a", timestamp=D_MS),
        build_event("hits", id="d", timestamp=D_MS - 1),
        build_event("hits", id="b", timestamp=D_MS),
        {"id": "e"},
    ]
    rows = expect_rows("hits", events, D_MS, D_MS + DAY)
    assert [row["event_id"] for row in rows] == ["a", "b"]
    assert list(rows[0]) == list(list_columns("hits"))


def test_expected_rows_take_the_earlier_of_two_versions():
    later, earlier = (
        build_event("hits", id="a", timestamp=D_MS + 2),
        build_event("hits", id="a", timestamp=D_MS + 1, link_type="x"),
    )
    for events in ([later, earlier], [earlier, later]):
        [row] = expect_rows("hits", events, D_MS, D_MS + DAY)
        assert (row["event_time"], row["link_type"]) == (D_MS + 1, "x")
    [row] = expect_rows("hits", [later, earlier], D_MS + 2, D_MS + DAY)
    assert row["event_time"] == D_MS + 2


def test_row_has_the_values_of_the_contract():
    event = build_event(
        "bounces",
        id="a",
        timestamp=D_MS,
        stamp_time=D_MS - 5,
        status={"code": 550, "text": "é"},
        subject="mailbox",
        verdict="soft",
        expiration="2026-03-21T01:00:00.250+02:00",  # 2026-03-20T23:00:00.250Z
        urgent=MISSING,
        identity=None,
    )
    [row] = expect_rows("bounces", [event], D_MS, D_MS + DAY, "pseudonymize", "k")
    assert row == {
        "event_id": "a",
        "event_time": D_MS,
        "activation_id": 156,
        "agency": None,
        "customer": None,
        "activation_version": "ecce4585-1627-4495-90fc-7bbc27d2ae26",
        "activation_kind": "application",
        "application_id": "076db4f8-4304-4b8e-b232-4820f2639a8a",
        "subscription_id": "65b51edb-0cc2-4fed-a6d0-2aa5a722d39a",
        "stamp_id": "d52055cd-e854-4177-8ef5-b10fd8d568a7",
        "stamp_thread": "a3078b19-b379-4bc2-b29a-e8229a9c9332",
        "activated_at": D_MS - 5,
        "channel": "notification_channel",
        "urgent": None,
        "expires_at": D_MS + 23 * 3_600_000 + 250,
        "receiver_type": "contact",
        "receiver_id": "000R4M0T",
        # printf someone@example.com | openssl dgst -sha256 -hmac k
        "receiver_unicity": "02ebb99e9332db63d5fb3262e2f4fe1b86b0cdf981624d2f91138354fc5bba51",
        "receiver_hash": "ae9fa526482c2491dcaa3ad8fcefbc596624c0e93e3af28c796c69c7646f6013",
        "bounce_status": '{"code":550,"text":"é"}',
        "bounce_verdict": "soft",
        "bounce_subject": "mailbox",
        "bounce_reason": None,
    }


def send(stamp: str | None, subscription: str | None, at: int = D_MS + 1000) -> dict:
    return {"stamp_id": stamp, "subscription": subscription, "stamp_time": at}


def group_by_day(kind: str, events: list, days: int = 9) -> dict:
    """Group the rows of events by the days D to D + days - 1."""
    return {D + timedelta(days=n): expect_rows(kind, events, D_MS + n * DAY, D_MS + (n + 1) * DAY) for n in range(days)}


def test_expected_rates_of_three_sends():
    # Three sends on D: s1 and s2 share a stamp, s3 has no subscription and is published after midnight.
    s1, s2, s3 = send("A", "x"), send("A", "y"), send("B", None, D_MS + DAY - 1)
    activations = [
        build_event("activations", id="1", timestamp=D_MS + 2000, **s1),
        build_event("activations", id="2", timestamp=D_MS + 2000, **s2),
        build_event("activations", id="3", timestamp=D_MS + DAY + 500, **s3),
        build_event("activations", id="4", timestamp=D_MS + 8 * DAY, **send("C", "x")),  # D + 8: too late
    ]
    hits = [
        build_event("hits", id="5", timestamp=D_MS + 3000, **s1),
        build_event("hits", id="6", timestamp=D_MS + 8 * DAY - 1, **s1),  # the last millisecond of D + 7
        build_event("hits", id="7", timestamp=D_MS + 8 * DAY, **s1),  # D + 8: too late
        build_event("hits", id="8", timestamp=D_MS + 4000, link_type="dismissal", **s1),
        build_event("hits", id="9", timestamp=D_MS + DAY, link_type=None, **s3),
    ]
    bounces = [
        build_event("bounces", id="10", timestamp=D_MS + 3000, verdict="soft", **s2),
        build_event("bounces", id="11", timestamp=D_MS + DAY, verdict="hard", **s2),
        build_event("bounces", id="12", timestamp=D_MS + DAY, verdict=None, **s2),
    ]
    optouts = [build_event("optouts", id="13", timestamp=D_MS + 3000, **send("D", "z"))]  # an orphan
    impressions = [build_event("impressions", id="14", timestamp=D_MS + 3000, **s1)]
    feeds = {
        "activations": group_by_day("activations", activations),
        "hits": group_by_day("hits", hits),
        "bounces": group_by_day("bounces", bounces),
        "optouts": group_by_day("optouts", optouts),
        "impressions": group_by_day("impressions", impressions),
    }
    [row] = expect_rates(D, "UTC", 7, feeds)
    third = 1 / 3
    assert row == {
        "activation_date": D,
        "agency": "DEMO",
        "customer": "028",
        "activation_id": 156,
        "activation_version": "ecce4585-1627-4495-90fc-7bbc27d2ae26",
        "application_id": "076db4f8-4304-4b8e-b232-4820f2639a8a",
        "activations": 3,
        "bounces_hard": 1,
        "bounces_soft": 0,
        "bounces_other": 0,
        "bounced": 1,
        "delivered": 2,
        "hit_activations": 1,
        "hits": 2,
        "other_hits": 2,
        "optout_activations": 1,
        "impression_activations": 1,
        "reacting_activations": 3,
        "orphan_reactions": 1,
        "hit_rate": 0.5,
        "optout_rate": 0.5,
        "bounce_rate": third,
        "hard_bounce_rate": third,
        "impression_rate": 0.5,
        # p = 1/2, n = 2: 1/2 -+ 1.96 sqrt(1/8 + 3.8415/16) / (1 + 3.8415/2)
        "hit_rate_low": pytest.approx(0.094531, abs=1e-6),
        "hit_rate_high": pytest.approx(0.905469, abs=1e-6),
        "hits_per_hit_activation": 2.0,
        "hit_share": third,
        "optout_share": third,
        "bounce_share": third,
        "window_days": 7,
        "days_loaded": 8,
        "status": "final",
        "is_final": True,
    }


def test_expected_rates_are_null_without_their_feeds():
    hits = [build_event("hits", id="1", timestamp=D_MS, **send("A", "x"))]
    feeds = {
        "hits": group_by_day("hits", hits),
        "optouts": group_by_day("optouts", []),
        "bounces": group_by_day("bounces", []),
    }
    feeds["optouts"][D + timedelta(days=3)] = None
    [row] = expect_rates(D, "UTC", 7, feeds)
    unknown = {name for name, value in row.items() if value is None}
    assert unknown == {
        *("activations", "delivered", "orphan_reactions", "impression_activations", "impression_rate"),
        *("hit_rate", "optout_rate", "bounce_rate", "hard_bounce_rate", "hit_rate_low", "hit_rate_high"),
    }
    assert (row["hit_share"], row["days_loaded"], row["status"], row["is_final"]) == (1.0, 7, "open", False)


def test_expected_rates_take_events_without_stamp_as_sends():
    # Two activations and two hits without any stamp: two sends, two orphans; the one of D + 1 is not D's.
    blank = {"stamp": MISSING}
    feeds = {
        "activations": group_by_day(
            "activations", [build_event("activations", id=name, timestamp=D_MS, **blank) for name in "ab"]
        ),
        "hits": group_by_day(
            "hits",
            [
                build_event("hits", id="c", timestamp=D_MS, **blank),
                build_event("hits", id="d", timestamp=D_MS, **blank),
                build_event("hits", id="e", timestamp=D_MS + DAY, **blank),
            ],
        ),
    }
    [row] = expect_rates(D, "UTC", 7, feeds)
    assert (row["activations"], row["hit_activations"], row["orphan_reactions"]) == (2, 2, 2)


# --- the server --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[RudeServer]:
    with RudeServer(build_population(1, D, 2), seed=4) as running:
        yield running
        running.reset_faults()


@pytest.fixture
def client(server: RudeServer) -> Iterator[httpx.Client]:
    server.reset_faults()
    with httpx.Client(base_url=server.url, headers={"X-Key": server.key}, timeout=5) as client:
        yield client


WINDOW = {"reactivityStart": str(D_MS), "reactivityEnd": "2026-03-21", "sort": "asc"}


def test_server_serves_the_window(server: RudeServer, client: httpx.Client):
    rows = expect_rows("hits", build_population(1, D, 2).hits, D_MS, D_MS + DAY)
    answers = []
    for _ in range(12):  # every transport and encoding
        got = client.get(HITS, params=WINDOW).json()
        assert [one["timestamp"] for one in got] == sorted(one["timestamp"] for one in got)
        assert {one["id"] for one in got} == {row["event_id"] for row in rows}
        answers.append([one["id"] for one in got])
    assert len({tuple(ids) for ids in answers}) > 1  # ties are not in one order
    last = server.requests[-1]
    assert (last.path, last.query, last.outcome, last.status) == (HITS, WINDOW, "ok", 200)
    assert last.headers["x-key"] == server.key
    assert last.bytes_sent > 0


def test_server_serves_activations_of_one_notification_and_the_list(server: RudeServer, client: httpx.Client):
    population = build_population(1, D, 2)
    listed = client.get("/notifications").json()
    assert listed == population.notifications
    params = {"start": str(D_MS), "end": str(D_MS + DAY)}
    total = 0
    for entry in listed:
        got = client.get(f"/notifications/{entry['id']}/events/activations", params=params).json()
        assert {one["source"]["detail"]["activation"]["id"] for one in got} <= {entry["id"]}
        total += len({one["id"] for one in got})
    assert total == len(expect_rows("activations", population.activations, D_MS, D_MS + DAY))


def _read_array(response: httpx.Response) -> list:
    got = response.json()
    if not isinstance(got, list):
        raise ValueError("not an array")
    return got


def test_server_breaks_bodies_so_that_clients_notice(server: RudeServer, client: httpx.Client):
    for name in (*BROKEN, *CUT, *INCOMPLETE, *OTHER_FORMATS):
        for at in (0.0, 0.5, 1.0):
            server.script(HITS, Act(name, at=at))
            with pytest.raises((httpx.TransportError, ValueError)):
                _read_array(client.get(HITS, params=WINDOW))
            assert server.requests[-1].outcome == name


def test_server_stays_correct_when_it_is_odd(server: RudeServer, client: httpx.Client):
    whole = {one["id"] for one in client.get(HITS, params=WINDOW).json()}
    server.script(HITS, "BOM", "wrong content type", "duplicated", "shuffled", "outside window")
    marked = client.get(HITS, params=WINDOW)
    assert marked.content.startswith(b"\xef\xbb\xbf")
    assert {one["id"] for one in marked.json()} == whole
    odd = client.get(HITS, params=WINDOW)
    assert not odd.headers["content-type"].startswith("application/json")
    assert {one["id"] for one in odd.json()} == whole
    assert {one["id"] for one in client.get(HITS, params=WINDOW).json()} == whole
    shuffled = client.get(HITS, params=WINDOW).json()
    assert {one["id"] for one in shuffled} == whole
    assert [one["timestamp"] for one in shuffled] != sorted(one["timestamp"] for one in shuffled)
    assert {one["id"] for one in client.get(HITS, params=WINDOW).json()} > whole


def test_server_fails_a_fraction_and_no_window_for_ever(server: RudeServer, client: httpx.Client):
    server.fail_randomly(0.9, seed=2, kinds=["500"], streak=3)
    statuses = [client.get(HITS, params=WINDOW).status_code for _ in range(12)]
    assert statuses[3::4] == [200, 200, 200]
    assert statuses.count(500) >= 6


def test_server_sends_poison_unchanged():
    population = build_population(1, D, 1, poison_days=[D])
    raw = {one.raw for one in population.hits if isinstance(one, RawEvent)}
    raw |= {one.body for one in population.bad_events if one.kind == "hits"}
    with (
        RudeServer(population) as running,
        httpx.Client(base_url=running.url, headers={"X-Key": running.key}) as client,
    ):
        body = client.get(HITS, params=WINDOW).content
    assert all(one in body for one in raw)
    assert len(raw) > len(POISON) // 2
