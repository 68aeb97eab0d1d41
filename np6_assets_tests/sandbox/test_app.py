"""Test the simulated account over HTTP, on a loopback port."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from hashlib import md5, sha256
from typing import Any

import httpx
import pytest

from np6_assets.sandbox.app import create_app
from np6_assets.sandbox.population import Account
from np6_assets.sandbox.server import serve_in_thread

KEY = "an-invented-key"
NOON = datetime(2026, 3, 18, 12, tzinfo=UTC)
DAY_MS = 86_400_000
KINDS = {"hits": "hit", "optouts": "optout", "bounces": "bounce", "impressions": "impression"}

# The samples of the API's reference.
ENVELOPE = (
    '{"type":"%s","id":"14d3d192-bd40-4c0b-9048-4469ab3a981c","timestamp":1614089593000,"identity":{"type":'
    '"customer","agency":"DEMO","customer":"028"},"source":{"type":"notification","detail":{"activation":{"id":156,'
    '"version":"ecce4585-1627-4495-90fc-7bbc27d2ae26","kind":"application","receiver":{"type":"contact","value":'
    '{"type":"footprint","id":"000R4M0T","unicity":"example@np6.com","hash":"0441619ab4631d18548aa8835dd2c28b"}},'
    '"application":"076db4f8-4304-4b8e-b232-4820f2639a8a","subscription":"65b51edb-0cc2-4fed-a6d0-2aa5a722d39a",'
    '"stamp":{"time":1614089576625,"id":"d52055cd-e854-4177-8ef5-b10fd8d568a7","thread":'
    '"a3078b19-b379-4bc2-b29a-e8229a9c9332"},"channel":"notification_channel","urgent":true,"expiration":'
    '"0001-01-01T00:00:00Z"}%s}}}'
)
EXTRA = {
    "activation": "",
    "impression": "",
    "hit": ',"link":{"type":"redirection","label":null,"uri":"deeplink://product?id=594"}',
    "optout": ',"optout":{"type":"channel","channel":"channel"}',
    "bounce": ',"bounce":{"status":null,"analysis":{"verdict":"hard","subject":{"type":"token","detail":'
    '{"type":"unregistered"}}}}',
}

Event = dict[str, Any]


def to_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def get_stamp(event: Event) -> Event:
    found: Event = event["source"]["detail"]["activation"]["stamp"]
    return found


def list_ids(events: list[Event]) -> list[str]:
    return [event["id"] for event in events]


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    app = create_app(Account(), api_key=KEY, now=lambda: NOON)
    with serve_in_thread(app) as url, httpx.Client(base_url=url, headers={"X-Key": KEY}) as client:
        yield client


@pytest.fixture(scope="module")
def get(api: httpx.Client) -> Callable[..., Any]:
    def get(path: str, **query: str | int) -> Any:
        return api.get(path, params=query).raise_for_status().json()

    return get


@pytest.fixture(scope="module")
def notifications(get: Callable[..., Any]) -> list[int]:
    return [one["id"] for one in get("/notifications")]


@pytest.fixture(scope="module")
def activations(get: Callable[..., Any], notifications: list[int]) -> list[Event]:
    """The activations of 2026-03-02 to 2026-03-04."""
    window = {"start": "2026-03-02", "end": "2026-03-05"}
    return [one for id in notifications for one in get(f"/notifications/{id}/events/activations", **window)]


@pytest.fixture(scope="module")
def hits(get: Callable[..., Any]) -> list[Event]:
    """The hits of the sends of 2026-03-02 and 2026-03-03, all of whose hits are over at `NOON`."""
    window = {"activationStart": "2026-03-02", "activationEnd": "2026-03-04"}
    found: list[Event] = get("/notifications/reactivities/hits", **window)
    return found


def test_notifications_are_listed_with_id_name_and_type(get):
    listed = get("/notifications")
    assert len(listed) == 6
    assert all(list(one) == ["id", "name", "type"] for one in listed)
    assert {"id": 118, "name": "Cart reminder", "type": "application"} in listed


def describe_layout(value: Any) -> Any:
    """List the keys of an event in order, with the types of their values."""
    if isinstance(value, dict):
        return [(key, describe_layout(inner)) for key, inner in value.items()]
    return type(value)


@pytest.mark.parametrize(
    ("path", "kind"),
    [(f"/notifications/reactivities/{feed}", kind) for feed, kind in KINDS.items()]
    + [("/notifications/127/events/activations", "activation")],
)
def test_events_have_the_keys_and_types_of_the_reference(api, path, kind):
    day = {"start": "2026-03-17", "end": "2026-03-18", "reactivityStart": "2026-03-17"}
    text = api.get(path, params=day).raise_for_status().text
    events = json.loads(text)
    assert len(events) > 100
    assert json.dumps(events, separators=(",", ":")) == text
    expected = dict(describe_layout(json.loads(ENVELOPE % (kind, EXTRA[kind]))))
    for event in events[:200]:
        assert event["type"] == kind
        receiver = event["source"]["detail"]["activation"]["receiver"]["value"]
        assert re.fullmatch(r"user\d+@example\.com", receiver["unicity"])
        assert receiver["hash"] == md5(receiver["unicity"].encode()).hexdigest()
        found = dict(describe_layout(event))
        if kind == "hit":  # a link's label and uri can be null or text
            assert list(event["source"]["detail"]["link"]) == ["type", "label", "uri"]
            event["source"]["detail"]["link"] = {"type": "", "label": None, "uri": ""}
            found = dict(describe_layout(event))
        assert list(found.items()) == list(expected.items())
        assert event["timestamp"] - get_stamp(event)["time"] >= 200


def test_account_sends_thousands_a_day_and_few_at_night(activations):
    days: dict[int, int] = {}
    night = 0
    for one in activations:
        day, time = divmod(get_stamp(one)["time"], DAY_MS)
        days[day] = days.get(day, 0) + 1
        night += time < 6 * 3_600_000
    assert all(3_500 < days[to_ms(f"2026-03-0{day}T00:00Z") // DAY_MS] < 8_500 for day in (2, 3))
    assert 0 < night < 0.1 * len(activations)


# What happens to sends


def test_reactions_repeat_the_activation_of_their_send(get, activations, hits):
    sends = {get_stamp(one)["id"]: one["source"]["detail"]["activation"] for one in activations}
    assert len(sends) == len(activations)
    reactions = hits + get(
        "/notifications/reactivities", activationStart="2026-03-03T08:00", activationEnd="2026-03-03T12:00"
    )
    assert {event["type"] for event in reactions} == {"hit", "optout", "bounce", "impression"}
    for event in reactions:
        assert event["source"]["detail"]["activation"] == sends[get_stamp(event)["id"]]


def test_hits_come_late_several_times_and_as_dismissals(hits):
    days_later = [hit["timestamp"] // DAY_MS - get_stamp(hit)["time"] // DAY_MS for hit in hits]
    assert 0.002 < sum(days > 7 for days in days_later) / len(hits) < 0.03
    assert set(Counter(get_stamp(hit)["id"] for hit in hits).values()) == {1, 2, 3}
    links = [hit["source"]["detail"]["link"] for hit in hits]
    assert 0.02 < sum(link["type"] == "dismissal" for link in links) / len(links) < 0.06
    assert {"type": "redirection", "label": None, "uri": "deeplink://product?id=594"} in links


def test_hit_rates_differ_by_notification_and_version(activations, hits):
    def group_sends(events: list[Event]) -> dict[tuple[int, str], set[str]]:
        found: dict[tuple[int, str], set[str]] = {}
        for event in events:
            send = event["source"]["detail"]["activation"]
            if to_ms("2026-03-02T00:00Z") <= send["stamp"]["time"] < to_ms("2026-03-04T00:00Z"):
                found.setdefault((send["id"], send["version"]), set()).add(send["stamp"]["id"])
        return found

    sent, hit = group_sends(activations), group_sends(hits)
    rates = {row: len(hit[row]) / len(sends) for row, sends in sent.items()}
    assert len(rates) == 10
    assert sorted(rates, key=rates.__getitem__)[-1][0] == 133  # Order shipped
    assert {id for id, _ in sorted(rates, key=rates.__getitem__)[:2]} == {156}  # Win-back
    welcome = [rate for (id, _), rate in rates.items() if id == 101]
    assert max(welcome) > 1.3 * min(welcome)


def test_bounced_sends_and_muted_receivers_react_in_no_other_way(get):
    window = {"activationStart": "2026-03-09", "activationEnd": "2026-03-10"}
    bounces = get("/notifications/reactivities/bounces", **window)
    verdicts: dict[str, set[str]] = {}
    for bounce in bounces:
        analysis = bounce["source"]["detail"]["bounce"]["analysis"]
        verdicts.setdefault(get_stamp(bounce)["id"], set()).add(analysis["verdict"])
        if analysis["verdict"] == "hard":
            assert analysis["subject"] == {"type": "token", "detail": {"type": "unregistered"}}
    # Some soft bounces are tried again, and then bounce hard.
    assert set(map(frozenset, verdicts.values())) == {
        *(frozenset({verdict}) for verdict in ("hard", "soft")),
        frozenset({"hard", "soft"}),
    }
    others = [one for one in get("/notifications/reactivities", **window) if one["type"] != "bounce"]
    assert verdicts.keys().isdisjoint(get_stamp(one)["id"] for one in others)
    receivers: dict[str, set[str]] = {}
    for one in others:
        receiver = one["source"]["detail"]["activation"]["receiver"]["value"]["id"]
        receivers.setdefault(one["type"], set()).add(receiver)
    assert len(receivers["optout"]) > 50
    assert receivers["optout"].isdisjoint(receivers["impression"] | receivers["hit"])


# Windows and order


@pytest.mark.parametrize(
    ("prefix", "time"),
    [("reactivity", lambda event: event["timestamp"]), ("activation", lambda event: get_stamp(event)["time"])],
    ids=["published", "sent"],
)
def test_windows_are_half_open(get, prefix, time):
    def fetch(start: str | int, end: str | int) -> list[Event]:
        window = {f"{prefix}Start": start, f"{prefix}End": end}
        return get("/notifications/118/reactivities/impressions", **window)

    day = fetch("2026-03-10", "2026-03-11")
    assert all(to_ms("2026-03-10T00:00Z") <= time(event) < to_ms("2026-03-11T00:00Z") for event in day)
    edge = sorted(map(time, day))[len(day) // 2]
    before, after = fetch("2026-03-10", edge), fetch(edge, "2026-03-11")
    assert sorted(list_ids(before + after)) == sorted(list_ids(day))
    assert max(map(time, before)) < edge == min(map(time, after))


def test_two_windows_select_their_intersection(get, hits):
    both = get(
        "/notifications/reactivities/hits",
        activationStart="2026-03-02",
        activationEnd="2026-03-04",
        reactivityStart="2026-03-08T06:00:00+01:00",
        reactivityEnd="2026-03-12",
    )
    start, end = to_ms("2026-03-08T05:00Z"), to_ms("2026-03-12T00:00Z")
    assert both
    assert sorted(list_ids(both)) == sorted(one["id"] for one in hits if start <= one["timestamp"] < end)


def test_times_are_dates_datetimes_or_milliseconds(get):
    feed = "/notifications/133/events/activations"
    spellings = [
        ("2026-03-10", "2026-03-11"),
        ("2026-03-10T00:00:00Z", "2026-03-11T00:00:00.000Z"),
        ("2026-03-10T02:00:00+02:00", "2026-03-10T19:00:00-05:00"),
        (1773100800000, 1773187200000),
    ]
    answers = [list_ids(get(feed, start=start, end=end, sort="asc")) for start, end in spellings]
    assert len(answers[0]) > 1000
    assert all(answer == answers[0] for answer in answers)


def test_unsorted_feeds_are_in_random_order(get):
    window = {"reactivityStart": "2026-03-09T22:00Z", "reactivityEnd": "2026-03-10T04:00Z"}
    feed = "/notifications/reactivities"
    times = {order: [one["timestamp"] for one in get(feed, sort=order, **window)] for order in ("asc", "desc")}
    assert times["asc"] == sorted(times["asc"])
    assert times["desc"] == times["asc"][::-1]
    first, second = get(feed, **window), get(feed, **window)
    assert list_ids(first) != list_ids(second)
    assert sorted(list_ids(first)) == sorted(list_ids(second))
    assert sorted(one["timestamp"] for one in first) == times["asc"] != [one["timestamp"] for one in first]
    assert get(feed, reactivityStart="2026-03-10", reactivityEnd="2026-03-10") == []


def test_feeds_of_all_notifications_add_up_to_the_whole_feed(get, notifications):
    window = {"reactivityStart": "2026-03-16T00:00Z", "reactivityEnd": "2026-03-16T06:00Z"}
    feeds = {feed: list_ids(get(f"/notifications/reactivities/{feed}", **window)) for feed in KINDS}
    every = list_ids(get("/notifications/reactivities", **window))
    assert sorted(every) == sorted(id for feed in feeds.values() for id in feed)
    parts = {id: get(f"/notifications/{id}/reactivities/hits", **window) for id in notifications}
    for id, part in parts.items():
        assert {one["source"]["detail"]["activation"]["id"] for one in part} <= {id}
    assert sorted(id for part in parts.values() for id in list_ids(part)) == sorted(feeds["hits"])


# Time


def test_same_seed_gives_the_same_bytes():
    query = "/notifications/reactivities?reactivityStart=2026-03-10&reactivityEnd=2026-03-12&sort=asc"
    bodies = []
    for account in (Account.small(), Account.small(), Account(seed=7, sends_per_day=50)):
        with serve_in_thread(create_app(account, api_key=None, now=lambda: NOON)) as url:
            bodies.append(httpx.get(url + query).content)
    assert bodies[0] == bodies[1] != bodies[2]
    # A change of this value breaks every demonstration and test that relies on the account.
    assert sha256(bodies[0]).hexdigest() == "00441a667edc74ca459ef87a30305f349d3284b54625bd483c781dd9ab02d7d9"


def test_events_exist_from_their_timestamp_on():
    clock = [NOON]
    app = create_app(Account(sends_per_day=1000, first_day=date(2026, 3, 17)), api_key=None, now=lambda: clock[0])
    answers: list[list[Event]] = []
    with serve_in_thread(app) as url, httpx.Client(base_url=url) as client:
        for _ in range(3):
            today = {"reactivityStart": "2026-03-18", "reactivityEnd": "2026-03-20", "sort": "asc"}
            answers.append(client.get("/notifications/reactivities", params=today).json())
            assert max(one["timestamp"] for one in answers[-1]) <= clock[0].timestamp() * 1000
            clock[0] += timedelta(hours=3)
        clock[0] = datetime.fromtimestamp(answers[-1][-1]["timestamp"] / 1000, UTC)
        last_answer = client.get("/notifications/reactivities", params=today).json()
        everything = client.get("/notifications/reactivities", params={"sort": "asc"}).json()
    assert to_ms("2026-03-17T00:00Z") <= everything[0]["timestamp"] < to_ms("2026-03-18T00:00Z")  # its first day
    assert 10 < len(answers[0]) < len(answers[1]) < len(answers[2])
    assert list_ids(answers[2])[: len(answers[0])] == list_ids(answers[0])
    assert list_ids(last_answer) == list_ids(answers[2])  # an event exists from the millisecond of its timestamp on


# Requests that are refused


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        ("/notifications/reactivities/hits", {"reactivityStart": "yesterday"}, "reactivityStart"),
        ("/notifications/reactivities/hits", {"reactivityEnd": ""}, "reactivityEnd"),
        ("/notifications/reactivities", {"activationStart": "2026-02-30"}, "activationStart"),
        ("/notifications/101/reactivities/bounces", {"activationEnd": "2026-03-10T25:00"}, "activationEnd"),
        ("/notifications/101/events/activations", {"start": "9" * 40}, "start"),
        ("/notifications/101/events/activations", {"sort": "up"}, "sort"),
    ],
)
def test_bad_value_is_400_and_named(api, path, query, name):
    response = api.get(path, params=query)
    assert response.status_code == 400
    assert response.json()["message"].startswith(f"{name}: ")


@pytest.mark.parametrize(
    "path",
    [
        "/notifications/999/events/activations",
        "/notifications/reactivities/replies",
        "/notifications/welcome/reactivities/hits",
        "/contacts",
    ],
)
def test_unknown_path_is_404(api, path):
    response = api.get(path)
    assert response.status_code == 404
    assert response.json()["message"]


def test_wrong_key_is_401(api):
    for path in ("/notifications", "/contacts"):
        for headers in ({}, {"X-Key": "another"}, {"X-Key": "clé".encode()}):
            response = httpx.get(api.base_url.join(path), headers=headers)
            assert response.status_code == 401
            assert response.json() == {"message": "X-Key is missing or wrong"}
            assert response.headers["x-request-id"]


def test_every_response_has_its_own_request_id(api):
    paths = ["/notifications", "/notifications", "/contacts", "/notifications/reactivities?sort=up"]
    assert len({api.get(path).headers["x-request-id"] for path in paths}) == 4


def test_rate_limit_answers_429_until_its_minute_is_over():
    clock = [1_773_100_800.5]
    app = create_app(Account.small(), api_key=KEY, now=lambda: NOON, requests_per_minute=2, clock=lambda: clock[0])
    with serve_in_thread(app) as url, httpx.Client(base_url=url) as client:

        def get(key: str = KEY) -> httpx.Response:
            return client.get("/notifications", headers={"X-Key": key})

        first = get()
        assert get("wrong").status_code == 401  # and does not count
        clock[0] += 20
        second, refused = get(), get()
        assert [one.status_code for one in (first, second, refused)] == [200, 200, 429]
        assert [one.headers["X-RateLimit-Remaining"] for one in (first, second, refused)] == ["1", "0", "0"]
        for one in (first, second, refused):
            assert one.headers["X-RateLimit-Limit"] == "2"
            assert one.headers["X-RateLimit-Reset"] == "1773100861"
            assert one.headers["x-request-id"]
        assert refused.headers["Retry-After"] == "40"
        assert "Retry-After" not in second.headers
        assert refused.json()["message"]
        clock[0] += int(refused.headers["Retry-After"])
        assert get().status_code == 200


def test_response_is_gzipped_for_a_client_that_accepts_it(api):
    day = {"reactivityStart": "2026-03-10", "reactivityEnd": "2026-03-11", "sort": "asc"}
    feed = "/notifications/reactivities/hits"
    plain = api.get(feed, params=day, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    with api.stream("GET", feed, params=day, headers={"Accept-Encoding": "gzip"}) as response:
        packed = b"".join(response.iter_raw())
    assert response.headers["content-encoding"] == "gzip"
    assert len(packed) < len(plain.content) / 3
    assert gzip.decompress(packed) == plain.content
