"""Run the checks of the rates, on right rates and on rates with errors."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from np6_assets.partition_checks import Records
from np6_assets.rates.checks import CHECKS
from np6_assets.rates.examine import check_cohorts, check_range
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets_tests.report.rendering import build_row
from np6_assets_tests.support.deployment import Deployment, list_days
from np6_assets_tests.support.events import KINDS, build_population
from np6_assets_tests.support.oracle import RATE_COLUMNS
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tables import build_table

PARIS = "Europe/Paris"
FIRST, DAY, LAST = list_days(date(2026, 3, 28), date(2026, 3, 30))  # the second has 23 hours
NAMES = {check.name for check in CHECKS}
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


def rewrite_rates(deployment: Deployment, day: date, **first_row: Any) -> None:
    """Set values of the first row of a day's rates, and the rates and orphans of all rows to null and 0."""

    def replace(column: pa.Field, values: list[Any]) -> list[Any]:
        if pa.types.is_floating(column.type):
            values = [None] * len(values)
        if column.name == "orphan_reactions":
            values = [value and 0 for value in values]
        return [first_row.get(column.name, values[0]), *values[1:]]

    path = deployment.path("reactivity_rates", day, "activation_date")
    table = pq.read_table(path, partitioning=None)
    columns = [pa.array(replace(column, table[column.name].to_pylist()), column.type) for column in table.schema]
    pq.write_table(pa.table(columns, table.schema), path)


def test_checks_find_wrong_rates_until_they_are_computed_again(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path
):
    """The activations of the day after the last are missing."""
    server.serve(build_population(51, FIRST, 3, PARIS, window_days=1))
    deployment = Deployment(tmp_path / "data", server, instance, NP6_TIMEZONE=PARIS)
    deployment.materialize([*KINDS, "reactivity_rates"], FIRST, LAST)
    days = [f"{day}" for day in (FIRST, DAY, LAST)]

    def select_failed(name: str) -> dict[str | None, Any]:
        return {day: one.severity for (check, day), one in found.items() if check == name and not one.passed}

    found = deployment.check("reactivity_rates", FIRST, LAST)
    assert {key for key in found if key[0] in NAMES} == {(name, day) for name in NAMES for day in days}
    assert select_failed("counts_reconciled") == {}
    keys = [dg.AssetCheckKey(dg.AssetKey("reactivity_rates"), name) for name in sorted(NAMES)]
    shown = instance.event_log_storage.get_asset_check_partition_info(keys)
    assert len(shown) == len(NAMES) * len(days)
    assert all(info.is_current for info in shown)

    reacting = sum(row["reacting_activations"] for row in deployment.rates(FIRST))
    rewrite_rates(deployment, FIRST, hits=1000, orphan_reactions=reacting // 100)
    for day in (DAY, LAST):
        rewrite_rates(deployment, day, delivered=10**6, hit_rate=1.5, orphan_reactions=reacting)
    found = deployment.check("reactivity_rates", FIRST, LAST)
    assert select_failed("counts_reconciled") == {days[0]: ERROR}
    assert found["counts_reconciled", days[0]].blocking
    assert list(found["counts_reconciled", days[0]].metadata["differences"].value) == ["hits"]
    # the sends of the last day are missing
    assert select_failed("rates_within_0_and_1") == {days[1]: ERROR, days[2]: WARN}
    assert select_failed("orphans_few") == {days[1]: WARN}

    deployment.materialize("hits", FIRST)
    found = deployment.check("reactivity_rates", FIRST, LAST)
    assert select_failed("counts_reconciled") == {days[0]: WARN}
    assert "hits were materialized again" in (found["counts_reconciled", days[0]].description or "")
    deployment.materialize("reactivity_rates", FIRST, DAY)
    found = deployment.check("reactivity_rates", FIRST, DAY)
    assert select_failed("counts_reconciled") == {}


def test_checks_pass_rates_whose_events_are_no_longer_stored(instance: dg.DagsterInstance, tmp_path: Path):
    path = tmp_path / "reactivity_rates" / f"activation_date={DAY}" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(build_table([build_row(DAY, 1, 10)], RATE_COLUMNS), path)
    settings = Settings.from_environment({"NP6_TIMEZONE": PARIS, "NP6_RETENTION_DAYS": "30"})
    [(day, found)] = check_cohorts(settings, Folder(str(tmp_path)), [f"{DAY}"], Records(instance, settings))
    assert day == f"{DAY}"
    assert {name: (one.passed, one.text) for name, one in found.items()} == dict.fromkeys(
        NAMES, (True, "its events are no longer stored: nothing to compare with")
    )


def build_rates(**values: float | None) -> pa.Table:
    return build_table([build_row(DAY, 1, 10, **values), build_row(DAY, 2, 10)], RATE_COLUMNS)  # type: ignore[arg-type]


def test_range_check_accepts_a_rate_within_its_range():
    for name, value, passed in (
        ("hit_rate", 0.0, True),
        ("hit_rate", None, True),
        ("hit_rate", 1.0000001, False),
        ("optout_rate", -0.1, False),
        ("impression_rate", float("nan"), False),
        ("hit_rate_high", 1.5, False),
        ("bounce_share", 1.0, True),
        ("bounce_share", float("inf"), False),
        ("hits_per_hit_activation", 7.0, True),
        ("hits_per_hit_activation", 0.5, False),
        ("hits_per_hit_activation", float("inf"), False),
    ):
        finding = check_range(build_rates(**{name: value}), is_sent=True)
        assert finding.passed == passed, (name, value)
        assert passed or finding.metadata["rows_out_of_range"] == {name: 1}


def test_rate_above_1_is_a_warning_if_more_sends_reacted_than_were_delivered():
    counts: Callable[..., pa.Table] = lambda **more: build_rates(  # noqa: E731
        delivered=1, impression_activations=2, impression_rate=2.0, **more
    )
    finding = check_range(counts(), is_sent=True)
    assert (finding.passed, finding.tolerated) == (False, True)
    assert "bounced" in finding.text
    assert not check_range(counts(bounce_rate=2.0), is_sent=True).tolerated
