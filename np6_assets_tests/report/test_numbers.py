"""Compare the report of a deployment with the oracle, and test its metadata and its schedule."""

import re
from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from np6_assets.events.kinds import KINDS
from np6_assets.rates.columns import COLUMNS
from np6_assets_tests.report.rendering import format_rate
from np6_assets_tests.support.deployment import Deployment, list_days
from np6_assets_tests.support.events import build_population
from np6_assets_tests.support.html import Page
from np6_assets_tests.support.oracle import GRAIN, RATES, expect_feeds, expect_rates
from np6_assets_tests.support.rude_server import RudeServer

FIRST, LAST = date(2026, 3, 28), date(2026, 3, 31)  # 2026-03-29 has 23 hours in Paris
ASSETS = [kind.asset for kind in KINDS]
WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """A population, its events and rates by the oracle; the report as a page and as text, and its metadata."""
    timezone, window = "Europe/Paris", 1
    population = build_population(40, FIRST, 3, timezone, window_days=window)
    folder = tmp_path_factory.mktemp("whole")
    with RudeServer(seed=2) as server, dg.DagsterInstance.ephemeral() as instance:
        server.serve(population)
        deployment = Deployment(
            folder / "data",
            server,
            instance,
            now=lambda: datetime(2026, 4, 20, 12, tzinfo=UTC),
            NP6_TIMEZONE=timezone,
            NP6_WINDOW_DAYS=str(window),
            NP6_CONTACT_DATA="keep",
        )
        assets = [*ASSETS, "notifications", "reactivity_rates", "reactivity_report"]
        run = deployment.materialize(assets, FIRST, LAST)
        [materialization] = run.asset_materializations_for_node("reactivity_report")
        text = (deployment.data / "reactivity_report" / "report.html").read_text()
    feeds = expect_feeds(population, list_days(FIRST, LAST), timezone)
    rows = [row for day in list_days(FIRST, LAST) for row in expect_rates(day, timezone, window, feeds)]
    return population, feeds, rows, Page(text), text, materialization.metadata


def sum_counts(rows: list[Any], name: str) -> int:
    return sum(row[name] for row in rows)


def expect_cells(rows: list[Any]) -> list[list[str]]:
    """Compute the cells of the hit, optout, bounce and impression rate."""
    cells = []
    for part, whole in (RATES[rate] for rate in ("hit_rate", "optout_rate", "bounce_rate", "impression_rate")):
        complete = [row for row in rows if row["status"] != "incomplete" and row[whole]]
        cells.append(format_rate(sum_counts(complete, part), sum_counts(complete, whole)))
    return cells


def to_local(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZoneInfo("Europe/Paris"))


def place_events(feeds: Any, asset: str) -> list[tuple[Any, datetime]]:
    """List the events of an asset that count, once each, with the local time of their send."""
    placed = {}
    for row in (row for rows in feeds[asset].values() for row in rows):
        sent = to_local(row["event_time"] if row["activated_at"] is None else row["activated_at"])
        days = (to_local(row["event_time"]).date() - sent.date()).days
        if 0 <= days <= 1 and sent.date() >= FIRST and (asset != "hits" or row["link_type"] == "redirection"):
            placed[row["event_id"]] = row, sent
    return list(placed.values())


@pytest.mark.slow
def test_tables_have_the_rates_of_the_sums(report: Any):
    population, _, rows, page, _, _ = report
    assert all(row["impression_activations"] is not None for row in rows)
    by_id, by_day, by_application = defaultdict(list), defaultdict(list), defaultdict(list)
    for row in rows:
        by_id[row["activation_id"]].append(row)
        by_day[row["activation_date"]].append(row)
        by_application[row["application_id"]].append(row)
    impressions = Counter[Any]()
    for row in rows:
        impressions[row["agency"], row["customer"], row["application_id"]] += row["impression_activations"]
    reporting = [row for row in rows if impressions[row["agency"], row["customer"], row["application_id"]]]
    names = {entry["id"]: entry.get("name") or f"notification {entry['id']}" for entry in population.notifications}
    shown = {int(cells[0][-1]): cells for cells in page.tables["list"][1:]}
    assert shown.keys() == by_id.keys()
    for key, cells in shown.items():
        hit, optout, bounce, _ = expect_cells(by_id[key])
        impression = expect_cells([row for row in reporting if row["activation_id"] == key])[3]
        assert cells[0] == [names.get(key, f"notification {key}"), str(key)]
        assert cells[1] == [f"{sum_counts(by_id[key], 'activations'):,}"]
        assert [cells[2], *cells[4:7]] == [hit, optout[:1], bounce[:1], impression[:1]]
    for cells in page.tables["days"][1:]:
        of_day = by_day[date.fromisoformat(cells[0][0])]
        assert cells[1:5] == [[f"{sum_counts(of_day, 'activations'):,}"], *expect_cells(of_day)[:3]]
        assert cells[6] == ["● final" if all(row["status"] == "final" for row in of_day) else "○ provisional"]
    sent = [int(cells[1][0].replace(",", "")) for cells in page.tables["list"][1:]]
    assert sent == sorted(sent, reverse=True)
    applications = page.tables["Rates by application"][1:]
    assert len(applications) == len(by_application)
    for cells in applications:
        [key] = [key for key in by_application if (key or "not given").startswith(cells[0][0])]
        assert cells[2:5] == expect_cells(by_application[key])[:3]
        assert cells[5] == expect_cells([row for row in reporting if row["application_id"] == key])[3]


def test_heat_map_counts_the_sends_of_each_hour(report: Any):
    _, feeds, rows, page, _, _ = report
    usable = {
        (row["activation_date"], *(row[name] for name in GRAIN))
        for row in rows
        if row["status"] != "incomplete" and row["activations"]
    }
    sets: dict[Any, dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for asset in ("activations", "bounces", "hits"):
        for event, sent in place_events(feeds, asset):
            key = (sent.date(), *(event[name] for name in GRAIN))
            if key in usable:
                sets[key, sent.hour][asset].add((event["subscription_id"], event["stamp_id"] or event["event_id"]))
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


def test_bounces_count_once_by_their_worst_verdict(report: Any):
    _, _, rows, page, _, _ = report
    found: Counter[str] = Counter()
    for _, [verdict], [count], *_ in page.tables["Bounced sends by verdict and reason"][1:]:
        found[verdict if verdict in ("hard", "soft") else "other"] += int(count)
    counted = [row for row in rows if row["status"] != "incomplete" and row["activations"]]
    assert found == {name: sum_counts(counted, f"bounces_{name}") for name in ("hard", "soft", "other")}
    # one total: that of the rate
    of = f"{sum_counts(counted, 'bounced'):,} of {sum_counts(counted, 'activations'):,}"
    assert page.text.count(of) == 2


def test_click_throughs_are_counted_by_local_hour(report: Any):
    _, feeds, rows, page, _, _ = report
    hours = Counter(to_local(row["event_time"]).hour for row, _ in place_events(feeds, "hits"))
    found = [int(cells[1][0]) for cells in page.tables["Click-throughs by hour of the day"][1:]]
    assert found == [hours[hour] for hour in range(24)]
    assert sum(found) == sum_counts(rows, "hits") > 50


def test_page_names_no_receiver_needs_no_network_and_defines_its_numbers(report: Any):
    _, feeds, _, page, text, _ = report
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
    assert all(address.startswith("#") for address in page.addresses)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|<link|<img", text)
    for word in ("Send", "Delivered", "Click", "Hit rate", "Optout rate", "Bounce rate", "Impression rate"):
        assert f"<dt>{word}</dt>" in text
    described = {cells[0][0]: cells[1][0] for cells in page.tables["The columns of "][1:]}
    assert described == {name: text.replace("`", "") for name, _, text, _ in COLUMNS}


def test_metadata_has_the_first_numbers(report: Any):
    _, _, rows, _, text, metadata = report
    complete = [row for row in rows if row["status"] != "incomplete" and row["activations"]]
    delivered = [row for row in complete if row["delivered"]]
    assert metadata["sends"].value == sum_counts(rows, "activations")
    assert metadata["hit_rate_percent"].value == pytest.approx(
        100 * sum_counts(delivered, "hit_activations") / sum_counts(delivered, "delivered"), abs=0.005
    )
    assert metadata["bounce_rate_percent"].value == pytest.approx(
        100 * sum_counts(complete, "bounced") / sum_counts(complete, "activations"), abs=0.005
    )
    assert metadata["what_changed"].value.startswith("- What changed can be told from the second week")
    assert metadata["what_changed"].value.count("\n") == 2
    assert metadata["bytes"].value == len(text.encode())
    assert (metadata["first_cohort"].value, metadata["last_cohort"].value) == (
        f"{FIRST}",
        f"{max(row['activation_date'] for row in rows)}",
    )


NOON = datetime(2026, 4, 20, 12, tzinfo=UTC)


def test_report_is_written_each_morning_once_there_are_rates(tmp_path: Path, kept_instance: dg.DagsterInstance):
    with RudeServer() as server:
        account = Deployment(tmp_path, server, kept_instance, NP6_TIMEZONE="Europe/Paris", NP6_FRESH_BY_HOUR="7")
        repository = account.definitions.get_repository_def()
        schedule = repository.get_schedule_def("morning_report")
        assert (schedule.cron_schedule, schedule.execution_timezone) == ("15 7 * * *", "Europe/Paris")
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
        selected = repository.get_job(schedule.job_name).asset_layer.selected_asset_keys
        assert selected == {dg.AssetKey("reactivity_report")}

        def evaluate() -> tuple[int, str | None]:
            with dg.build_schedule_context(kept_instance, scheduled_execution_time=NOON) as context:
                tick = schedule.evaluate_tick(context)
            return len(tick.run_requests or []), tick.skip_message

        assert evaluate() == (0, "reactivity_rates is not materialized yet: there is nothing to report on.")
        kept_instance.report_runless_asset_event(dg.AssetMaterialization("reactivity_rates", partition="2026-04-19"))
        assert evaluate() == (0, "notifications is not materialized yet: there is nothing to report on.")
        kept_instance.report_runless_asset_event(dg.AssetMaterialization("notifications"))
        assert evaluate() == (1, None)
