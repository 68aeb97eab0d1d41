"""The report: its numbers against the oracle's, what it says of what is not known, and who can read it."""

import re
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow.parquet as pq
import pytest

from np6_assets.events.kinds import KINDS
from np6_assets.rates.columns import COLUMNS
from np6_assets_tests.report.made import TODAY, found, make, rendered, report, sends
from np6_assets_tests.support.deployment import Deployment, days
from np6_assets_tests.support.events import population
from np6_assets_tests.support.html import Page
from np6_assets_tests.support.oracle import GRAIN, day_bounds, day_of, expected_rates, expected_rows, wilson
from np6_assets_tests.support.rude_server import RudeServer

FIRST, LAST = date(2026, 3, 28), date(2026, 3, 31)  # 2026-03-29 has 23 hours in Paris
ASSETS = [kind.asset for kind in KINDS]
D = date(2026, 3, 20)
WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


# --- a whole deployment --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """A population, its events and rates as the oracle has them, and the report on it as a page and as text."""
    timezone, window = "Europe/Paris", 1
    made = population(40, FIRST, 3, timezone, window_days=window)
    folder = tmp_path_factory.mktemp("whole")
    with RudeServer(seed=2) as server, dg.DagsterInstance.ephemeral() as instance:
        server.serve(made)
        deployment = Deployment(
            folder / "data",
            server,
            instance,
            now=lambda: datetime(2026, 4, 20, 12, tzinfo=UTC),
            NP6_TIMEZONE=timezone,
            NP6_WINDOW_DAYS=str(window),
            NP6_CONTACT_DATA="keep",
        )
        deployment.materialize([*ASSETS, "notifications", "reactivity_rates", "reactivity_report"], FIRST, LAST)
        text = (deployment.data / "reactivity_report" / "report.html").read_text()
    feeds = {
        asset: {day: expected_rows(asset, made.feed(asset), *day_bounds(day, timezone)) for day in days(FIRST, LAST)}
        for asset in ASSETS
    }
    rows = [row for day in days(FIRST, LAST) for row in expected_rates(day, timezone, window, feeds)]
    return made, feeds, rows, Page(text), text


def percent(part: int, whole: int) -> list[str]:
    if not whole:
        return ["—"]
    low, high = wilson(part, whole)
    if low is None or high is None:
        return [f"{part / whole:.2%}"]
    digits = 2 if high < 0.01 else 1
    return [f"{part / whole:.2%}", f"{low * 100:.{digits}f} to {high * 100:.{digits}f}%"]


def total(rows: list[Any], name: str) -> int:
    return sum(row[name] for row in rows)


def expected_rates_of(rows: list[Any]) -> list[list[str]]:
    """Hit, optout, bounce and impression rate; the last of applications with impressions."""

    def rate(part: str, whole: str, rows: list[Any]) -> list[str]:
        known = [row for row in rows if row["status"] != "incomplete" and row[whole]]
        return percent(total(known, part), total(known, whole))

    return [
        rate("hit_activations", "delivered", rows),
        rate("optout_activations", "delivered", rows),
        rate("bounced", "activations", rows),
        rate("impression_activations", "delivered", rows),
    ]


def application_of(row: Any) -> tuple[Any, ...]:
    return row["agency"], row["customer"], row["application_id"]


def test_every_notification_day_and_application_has_the_rates_of_the_sums(whole: Any):
    made, _, rows, page, _ = whole
    assert all(row["impression_activations"] is not None for row in rows)
    by_id, by_day, by_application = defaultdict(list), defaultdict(list), defaultdict(list)
    for row in rows:
        by_id[row["activation_id"]].append(row)
        by_day[row["activation_date"]].append(row)
        by_application[row["application_id"]].append(row)
    impressions = Counter[Any]()
    for row in rows:
        impressions[application_of(row)] += row["impression_activations"]
    reporting = [row for row in rows if impressions[application_of(row)]]
    names = {entry["id"]: entry.get("name") or f"notification {entry['id']}" for entry in made.notifications}
    found = {int(cells[0][-1]): cells for cells in page.tables["list"][1:]}
    assert found.keys() == by_id.keys()
    for key, cells in found.items():
        hit, optout, bounce, _ = expected_rates_of(by_id[key])
        impression = expected_rates_of([row for row in reporting if row["activation_id"] == key])[3]
        assert cells[0] == [names.get(key, f"notification {key}"), str(key)]
        assert cells[1] == [f"{total(by_id[key], 'activations'):,}"]
        assert [cells[2], *cells[4:7]] == [hit, optout[:1], bounce[:1], impression[:1]]
    for cells in page.tables["days"][1:]:
        of_day = by_day[date.fromisoformat(cells[0][0])]
        assert cells[1:5] == [[f"{total(of_day, 'activations'):,}"], *expected_rates_of(of_day)[:3]]
        assert cells[6] == ["● final" if all(row["status"] == "final" for row in of_day) else "○ provisional"]
    sent = [int(cells[1][0].replace(",", "")) for cells in page.tables["list"][1:]]
    assert sent == sorted(sent, reverse=True)
    applications = page.tables["Rates by application"][1:]
    assert len(applications) == len(by_application)
    for cells in applications:
        [key] = [key for key in by_application if (key or "not given").startswith(cells[0][0])]
        assert cells[2:5] == expected_rates_of(by_application[key])[:3]
        assert cells[5] == expected_rates_of([row for row in reporting if row["application_id"] == key])[3]


def test_the_heat_map_has_the_sends_of_each_hour_of_the_week(whole: Any):
    _, feeds, rows, page, _ = whole
    usable = {
        (row["activation_date"], *(row[name] for name in GRAIN))
        for row in rows
        if row["status"] != "incomplete" and row["activations"]
    }
    sets: dict[Any, dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for asset in ("activations", "bounces", "hits"):
        for day, events in feeds[asset].items():
            for event in events:
                at = event["event_time"] if event["activated_at"] is None else event["activated_at"]
                local = datetime.fromtimestamp(at / 1000, UTC).astimezone(ZoneInfo("Europe/Paris"))
                key = (local.date(), *(event[name] for name in GRAIN))
                is_click = asset != "hits" or event["link_type"] == "redirection"
                if key in usable and is_click and 0 <= (day - local.date()).days <= 1:
                    send = (event["subscription_id"], event["stamp_id"] or event["event_id"])
                    sets[key, local.hour][asset].add(send)
    expected: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    for (key, hour), of_key in sets.items():
        delivered = max(len(of_key["activations"]) - len(of_key["bounces"]), 0)
        expected[key[0].weekday(), hour] += Counter(hits=len(of_key["hits"]) * bool(delivered), delivered=delivered)
    shown = {}
    for label in page.labels:
        if match := re.match(r"(\w{3}) (\d\d):00 to \d\d:59: [\d.]+%: ([\d,]+) of ([\d,]+)", label):
            shown[WEEKDAYS.index(match[1]), int(match[2])] = (
                int(match[3].replace(",", "")),
                int(match[4].replace(",", "")),
            )
    assert shown == {key: (one["hits"], one["delivered"]) for key, one in expected.items() if one["delivered"]}
    assert sum(hits for hits, _ in shown.values()) >= 30


def test_bounces_are_counted_once_for_each_send_with_the_worst_verdict(whole: Any):
    _, _, rows, page, _ = whole
    found: Counter[str] = Counter()
    for _, [verdict], [count], *_ in page.tables["Bounced sends by verdict and reason"][1:]:
        found[verdict if verdict in ("hard", "soft") else "other"] += int(count)
    counted = [row for row in rows if row["status"] != "incomplete" and row["activations"]]
    assert found == {name: total(counted, f"bounces_{name}") for name in ("hard", "soft", "other")}
    # one total: that of the rate
    of = f"{total(counted, 'bounced'):,} of {total(counted, 'activations'):,}"
    assert page.text.count(of) == 2


def test_click_throughs_are_counted_by_the_hour_of_the_clock(whole: Any):
    _, feeds, rows, page, _ = whole
    hours: Counter[int] = Counter()
    for row in {row["event_id"]: row for day in feeds["hits"].values() for row in day}.values():
        sent_at = row["event_time"] if row["activated_at"] is None else row["activated_at"]
        late = day_of(row["event_time"], "Europe/Paris") - day_of(sent_at, "Europe/Paris")
        if (
            row["link_type"] == "redirection"
            and sent_at >= day_bounds(FIRST, "Europe/Paris")[0]
            and 0 <= late.days <= 1
        ):
            at = datetime.fromtimestamp(row["event_time"] / 1000, UTC).astimezone(ZoneInfo("Europe/Paris"))
            hours[at.hour] += 1
    found = [int(cells[1][0]) for cells in page.tables["Click-throughs by hour of the day"][1:]]
    assert found == [hours[hour] for hour in range(24)]
    assert sum(found) == total(rows, "hits") > 50


def test_no_receiver_is_in_the_report(whole: Any):
    _, feeds, _, _, text = whole
    personal = {
        row[column]
        for asset in ASSETS
        for day in feeds[asset].values()
        for row in day
        for column in ("receiver_id", "receiver_unicity", "receiver_hash", "subscription_id", "stamp_id")
        if row[column] and len(row[column]) > 5
    }
    assert len(personal) > 100
    assert not [value for value in personal if value in text]
    assert "@" not in re.sub(r"@(media|page) ", "", text)


def test_the_page_needs_no_network_and_says_how_numbers_are_defined(whole: Any):
    _, _, _, page, text = whole
    assert all(address.startswith("#") for address in page.addresses)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|<link|<img", text)
    for word in ("Send", "Delivered", "Click", "Hit rate", "Optout rate", "Bounce rate", "Impression rate"):
        assert f"<dt>{word}</dt>" in text
    described = {cells[0][0]: cells[1][0] for cells in page.tables["The columns of "][1:]}
    assert described == {name: text.replace("`", "") for name, _, text, _ in COLUMNS}


# --- by hand -------------------------------------------------------------------------------------------------------


def test_days_are_provisional_incomplete_or_never_loaded(tmp_path: Path):
    page = Page(
        report(
            tmp_path,
            [
                sends(D - timedelta(days=1), 9, None, hit_activations=5, status="open"),
                sends(D, 1, 1_000, hit_activations=100),
                sends(D, 2, 40, hit_activations=30, status="incomplete"),
                sends(D, 3, 3, hit_activations=1),
                sends(D + timedelta(days=1), 1, 500, hit_activations=10, status="open"),
                # more reactions than sends are known of: no denominator, no part of a sum
                sends(D + timedelta(days=1), 1, 0, version="w", hit_activations=7, status="open"),
                # its sends are not known, so its hits say nothing of a rate; and of the day after there is no file
                sends(D + timedelta(days=2), 1, None, hit_activations=700, status="open"),
                sends(D + timedelta(days=4), 1, 20, status="open"),
            ],
        )
    )
    found = {cells[0][-1]: cells for cells in page.tables["list"][1:]}
    assert found["1"][1] == ["1,520"]
    assert found["1"][2] == percent(110, 1_520)
    assert found["1"][-1] == ["○ 2 of 3", "provisional"]
    assert found["2"][2:] == [["—"], ["—"], ["—"], ["—"], ["◇ 1 of 1", "incomplete"]]
    assert found["3"][2] == ["33.33%", "6.1 to 79.2%"]
    assert found["3"][-1] == ["● final"]
    assert "9" not in found
    days = {cells[0][0]: cells for cells in page.tables["days"][1:]}
    assert days[f"{D}"][2] == percent(101, 1_003)
    assert [cells[-1] for cells in days.values()] == [["◇ incomplete"], ["○ provisional"], ["○ provisional"]]
    told = " ".join(page.text.split())
    assert "○ Provisional: 21 Mar, 24 Mar." in told
    assert "◇ Incomplete: 20 Mar." in told
    assert "\N{MULTIPLICATION SIGN} Never loaded: 19 Mar, 22 to 23 Mar." in told
    assert "final days alone: 10.07%" in told
    assert "Look first at the data: of the last two weeks, 3 days never loaded" in told


def test_today_is_not_in_the_report_unless_there_is_nothing_else(tmp_path: Path):
    rows = [sends(TODAY - timedelta(days=1), 1, 10, status="open"), sends(TODAY, 1, 500, status="open")]
    report(tmp_path / "both", rows)
    findings = found(tmp_path / "both")
    assert (findings.last, findings.total.sends) == (TODAY - timedelta(days=1), 10)
    report(tmp_path / "today", rows[1:])
    assert found(tmp_path / "today").total.sends == 500


def test_an_application_without_impressions_has_a_dash(tmp_path: Path):
    silent = sends(D, 1, 1_000, application="silent", impression_activations=0)
    reporting = sends(D, 1, 400, application="reporting", impression_activations=300)
    page = Page(report(tmp_path / "some", [silent, reporting]))
    found = {cells[0][0]: cells[5][0] for cells in page.tables["Rates by application"][1:]}
    assert found == {"silent": "—", "reporting": "75.00%"}
    assert page.tables["list"][1][6] == ["75.00%"]
    page = Page(report(tmp_path / "none", [silent]))
    assert "Impression" not in page.text


def test_few_sends_are_grey(tmp_path: Path):
    text = report(tmp_path, [sends(D, 1, 20, hit_activations=2), sends(D, 2, 2_000, hit_activations=200)])
    few = {
        match[2]: "few" in match[1]
        for match in re.finditer(r'class="n([ a-z]*)" data-label="Hit rate"[^>]*: ([^,"]+)', text)
    }
    assert few["2 of 20"]
    assert not few["200 of 2"]


def test_rates_from_before_there_was_a_status_are_reported(tmp_path: Path):
    make(tmp_path, [sends(D, 1, 1_000, hit_activations=100), sends(D + timedelta(days=1), 1, 500, status="open")], {})
    path = tmp_path / "reactivity_rates" / f"activation_date={D + timedelta(days=1)}" / "part-0.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns("status"), path)
    page = Page(rendered(tmp_path))
    assert [cells[-1] for cells in page.tables["days"][1:]] == [["● final"], ["○ provisional"]]


def test_a_version_is_named_only_if_it_wins(tmp_path: Path):
    a, b = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000001"
    day = [
        sends(D, 1, 2_000, version=a, hit_activations=200),
        sends(D, 1, 1_000, version=b, hit_activations=150),
        sends(D, 2, 2_000, version=a, hit_activations=200),
        sends(D, 2, 1_000, version=b, hit_activations=101),
        sends(D, 3, 20, version=a, hit_activations=2),
        sends(D, 3, 10, version=b, hit_activations=3),
        sends(D, 4, 10, version=a),
        sends(D + timedelta(days=1), 4, 10, version=b),
        # would turn the verdict round
        sends(D + timedelta(days=1), 1, 90_000, version=a, hit_activations=80_000, status="open"),
        sends(D + timedelta(days=1), 1, 90_000, version=b, hit_activations=1, status="open"),
    ]
    page = Page(report(tmp_path, day))
    rows = page.tables["Winners among the versions of each notification"][1:]
    # 5 points of the 2,000 sends of a, with the ends of the interval of the difference
    assert [[cells[0][0], " ".join(cells[2])] for cells in rows] == [
        [
            "notification 1",
            "bbbbbbbb wins : about 100 more clicks (49 to 150) on 2 days if it had been sent in place of aaaaaaaa.",
        ],
        ["notification 2", "No winner: the differences are no larger than chance explains."],
        ["notification 3", "Too few clicks to tell."],
        ["notification 4", "Never sent on the same day, so not comparable."],
    ]
    statistics = page.tables["Each two versions, on the days and applications that both were sent on"][1:]
    assert [cells[3][0] for cells in statistics][:2] == ["+5.00", "+0.10"]
    assert statistics[0][1][:2] == ["15.00%", b]


NAMES = ("</td><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }} & <b>", "&lt;kept&gt;")


def test_names_are_what_someone_typed(tmp_path: Path):
    rows = [sends(D, number, 10 - number, version=NAMES[0], application=NAMES[1]) for number in range(4)]
    rows.append(sends(D, 0, 10, version=NAMES[1]))
    text = report(tmp_path, rows, names=dict(enumerate(NAMES)))
    assert [cells[0][0] for cells in Page(text).tables["list"][1:]] == list(NAMES)
    assert text.count("<script") == 1
    assert "<img" not in text


def test_the_report_is_on_the_newest_days(tmp_path: Path):
    rows = [sends(D + timedelta(days=day), 1, 10) for day in range(5)]
    page = Page(report(tmp_path, rows, cohorts=2))
    assert [cells[0][0] for cells in page.tables["days"][1:]] == ["2026-03-23", "2026-03-24"]
    assert page.tables["list"][1][1] == ["20"]


def test_without_rates_the_last_report_stays(tmp_path: Path):
    with RudeServer() as server, dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(tmp_path, server, instance)
        deployment.materialize("notifications")
        (tmp_path / "reactivity_report").mkdir()
        (tmp_path / "reactivity_report" / "report.html").write_text("the last one")
        result = deployment.materialize("reactivity_report", raise_on_error=False)
    assert not result.success
    [failure] = result.get_step_failure_events()
    assert "reactivity_rates has no rows; materialize it for some days first" in str(failure.step_failure_data.error)
    assert [path.name for path in (tmp_path / "reactivity_report").iterdir()] == ["report.html"]
    assert (tmp_path / "reactivity_report" / "report.html").read_text() == "the last one"
