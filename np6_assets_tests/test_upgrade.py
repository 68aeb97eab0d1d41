"""Read, refresh and close a data folder of version 0.1, and compute its rates.

The folders in `version_0_1/` were written by commit d5fe3bf, the last before ingestion was rewritten, under
NP6_CONTACT_DATA=drop and =pseudonymize: at noon of the second day of `support/version_0_1.py` its assets hits, optouts,
bounces, impressions and activations were materialized for both days, then notifications, then the rates of the first.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets_tests.support.deployment import PSEUDONYM_KEY, Deployment, read_files
from np6_assets_tests.support.events import HOUR_MS, KINDS
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.version_0_1 import FIRST, NOON_MS, SECOND, build_account

FOLDERS = Path(__file__).parent / "version_0_1"
NOON = datetime.fromtimestamp(NOON_MS / 1000, UTC)
THIRD = SECOND + timedelta(days=1)
MODES = {"drop": {}, "pseudonymize": {"NP6_PSEUDONYM_KEY": PSEUDONYM_KEY}}

# by hand, from support/version_0_1.py
RATES = {
    (FIRST, 101): {
        "activations": 4,
        "bounces_hard": 1,
        "delivered": 3,
        "hit_activations": 1,
        "hits": 2,
        "other_hits": 1,
        "optout_activations": 1,
        "impression_activations": 2,
        "reacting_activations": 3,
        "orphan_reactions": 0,
        "hit_rate": 1 / 3,
        "bounce_rate": 1 / 4,
    },
    (FIRST, 102): {"activations": 2, "delivered": 2, "hit_activations": 1, "hits": 1, "hit_rate": 1 / 2},
    (SECOND, 101): {"activations": 3, "delivered": 3, "hit_activations": 2, "hits": 2, "hit_rate": 2 / 3},
}


@pytest.mark.parametrize("mode", ["drop", "pseudonymize"])
@pytest.mark.slow
def test_folder_of_version_0_1_is_refreshed_closed_and_rated(
    server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: str
):
    data = tmp_path / "data"
    shutil.unpack_archive(FOLDERS / f"{mode}.tar.xz", data, filter="data")
    written = read_files(data)
    now = NOON
    environment = {"NP6_CONTACT_DATA": mode, "NP6_START_DATE": f"{FIRST}", **MODES[mode]}
    deployment = Deployment(data, server, instance, lambda: now, **environment)

    # the open day is continued from the watermark of version 0.1
    now = NOON + timedelta(hours=5)
    server.serve(build_account(NOON_MS + 5 * HOUR_MS))
    deployment.materialize(list(KINDS), SECOND)
    starts = {
        request.query.get("reactivityStart", request.query.get("start")) for request in server.list_requests()
    } - {None}
    # activations of notification 102, which has not sent that day, are fetched from its start
    assert starts == {f"{NOON_MS - HOUR_MS}", f"{NOON_MS - 12 * HOUR_MS}"}
    sends = {row["stamp_id"]: row for row in deployment.rows("activations", SECOND)}
    assert set(sends) == {"u1", "u2", "u3"}
    for send, row in sends.items():
        name = hmac.digest(PSEUDONYM_KEY.encode(), f"{send}@example.com".encode(), hashlib.sha256).hex()
        assert row["receiver_unicity"] == (name if mode == "pseudonymize" else None)
    identity = json.loads((data / "np6.json").read_text())
    assert (identity["source"], identity["timezone"], identity["agencies"]) == ("api", "UTC", {"DEMO": ["028"]})
    assert "np6.json is new: the files that were there are days of UTC, with events of DEMO" in "".join(
        capfd.readouterr()
    )
    first = f"hits/event_date={FIRST}/part-0.parquet"
    assert read_files(data)[first] == written[first]

    # it is closed, and its rates and those of the day before are final
    now = datetime(THIRD.year, THIRD.month, THIRD.day, tzinfo=UTC) + timedelta(hours=26)
    server.serve(build_account(NOON_MS + 48 * HOUR_MS))
    deployment.materialize(list(KINDS), FIRST, THIRD)
    events = read_files(data)
    for day in (SECOND, FIRST):
        deployment.materialize("reactivity_rates", day)
    rates = {(day, row["activation_id"]): row for day in (FIRST, SECOND) for row in deployment.rates(day)}
    assert rates.keys() == RATES.keys()
    for key, expected in RATES.items():
        assert {name: rates[key][name] for name in expected} == expected
        assert rates[key]["status"] == "final"

    # as if version 0.1 had never been there
    fresh = Deployment(tmp_path / "fresh", server, instance, lambda: now, **environment)
    fresh.materialize(list(KINDS), FIRST, THIRD)
    assert {name: events[name] for name in read_files(fresh.data)} == read_files(fresh.data)
    assert len(deployment.quarantine("hits", FIRST)) == 1
