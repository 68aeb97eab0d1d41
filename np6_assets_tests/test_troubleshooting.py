"""Provoke every message of docs/troubleshooting.md, or find it in the source."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from np6_assets.contact.days import check_run_days
from np6_assets.contact.tombstones import Tombstones
from np6_assets.events.checks import check_metadata
from np6_assets.np6.client import NP6Client
from np6_assets.np6.retry import RetryPolicy
from np6_assets.partition_checks import NOT_THERE
from np6_assets.privacy.files import list_day_files
from np6_assets.rates.examine import check_counts
from np6_assets.settings import Settings
from np6_assets.storage import io_manager
from np6_assets.storage.files import Folder
from np6_assets_tests.support.deployment import Deployment, read_failure
from np6_assets_tests.support.events import Population, build_event
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.unreachable import open_unreachable

ROOT = Path(__file__).parents[1]
NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
DAY = NOW.date()

Provoke = Callable[[Path], str]
"""Provokes a message in an empty folder, and returns it."""


def read_error(act: Callable[[], Any]) -> str:
    """Run an action that fails, and return its message."""
    try:
        act()
    except dg.Failure as failure:
        return failure.description or ""
    except Exception as error:  # noqa: BLE001 - of whatever class: it is the text that people see
        return str(error)
    raise AssertionError("it did not fail")


def provoke_by_settings(**environment: str) -> Provoke:
    return lambda _: read_error(lambda: Settings.from_environment(environment))


def provoke_by_day(tag: str, **environment: str) -> Provoke:
    return lambda _: read_error(
        lambda: check_run_days({"dagster/partition": tag}, Settings.from_environment(environment), NOW)
    )


def provoke_by_answer(*acts: str) -> Provoke:
    """Return the client's message for an API that acts like this."""

    def provoke(_: Path) -> str:
        with RudeServer() as server, closing(NP6Client(server.url, server.key, retry=RetryPolicy(retries=0))) as client:
            server.script("/", *acts)
            return read_error(lambda: client.get_list("/notifications"))

    return provoke


def provoke_by_connection(trouble: str) -> Provoke:
    def provoke(folder: Path) -> str:
        with (
            open_unreachable(trouble, folder) as (url, _),
            closing(NP6Client(url, "key", timeout=0.2, retry=RetryPolicy(retries=0))) as client,
        ):
            return read_error(lambda: client.get_list("/notifications"))

    return provoke


def provoke_other_agency(folder: Path) -> str:
    """Run a day whose events are all of an unknown agency."""
    start = round((NOW - timedelta(minutes=1)).timestamp() * 1000)
    with RudeServer() as server, dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(folder, server, instance, lambda: NOW)
        server.serve(Population(hits=[build_event("hits", id="1", timestamp=start)]))
        deployment.materialize("hits", DAY)
        server.serve(
            Population(hits=[build_event("hits", id=f"{n}", timestamp=start + n, agency="OTHER") for n in range(11)])
        )
        return read_failure(deployment.materialize("hits", DAY, raise_on_error=False))


def provoke_by_check(**facts: Any) -> Provoke:
    """Check an event day with these facts."""
    good: Mapping[str, Any] = {
        "unknown_fields": [],
        "unreadable_values": {},
        "dagster/partition_row_count": 100,
        **dict.fromkeys(("quarantined", "events_before_send", "seconds_before_send", "events_kept"), 0),
    }
    return lambda _: "".join(finding.text for finding in check_metadata(good | facts if facts else {}))


def provoke_wrong_columns(_: Path) -> str:
    return read_error(lambda: io_manager._to_rows(pa.table({"a": [1]}), pa.schema([("b", pa.int64())])))


def provoke_other_tombstones(folder: Path) -> str:
    place = Folder(str(folder))
    Tombstones.read(place, "a secret of an earlier erasure, long").add_values(["person@example.com"]).write(place)
    return read_error(lambda: Tombstones.read(place, "another secret, which is as long as it"))


def provoke_unknown_folder(folder: Path) -> str:
    (folder / "hits" / "event_date=tomorrow").mkdir(parents=True)
    (folder / "hits" / "event_date=tomorrow" / "part-0.parquet").touch()
    lines: list[str] = []
    list(list_day_files(Folder(str(folder)), lines.append))
    return "".join(lines)


PROVOKED: dict[str, Provoke] = {
    "is not an IANA time zone": provoke_by_settings(NP6_TIMEZONE="Paris"),
    "is not a whole number from": provoke_by_settings(NP6_WINDOW_DAYS="a week"),
    "is not a date such as": provoke_by_settings(NP6_START_DATE="yesterday"),
    "is none of": provoke_by_settings(NP6_CONTACT_DATA="some"),
    "now: rename it": provoke_by_settings(NP6_REFRESH_SECONDS="30"),
    "would send the key unencrypted": provoke_by_settings(NP6_BASE_URL="http://api.example.com"),
    "NP6_BASE_URL holds a user name": provoke_by_settings(NP6_BASE_URL="https://me@api.example.com"),
    "NP6_DATA_DIR holds a password": provoke_by_settings(NP6_DATA_DIR="s3://me:secret@bucket"),
    "connection refused by": provoke_by_connection("refused"),
    "no connection to": provoke_by_connection("timeout"),
    "unknown host": provoke_by_connection("name"),
    "no trusted connection to": provoke_by_connection("certificate"),
    "no TLS connection to": provoke_by_connection("tls"),
    "401": provoke_by_answer("401"),
    "403": provoke_by_answer("403"),
    "given up after": provoke_by_answer("503"),
    "not a JSON array": provoke_by_answer("html page"),
    "the body is empty": provoke_by_answer("empty body"),
    "content encoding that was not accepted": provoke_by_answer("unknown encoding"),
    "has not begun": provoke_by_day("2026-03-21"),
    "is before NP6_START_DATE": provoke_by_day("2025-12-31"),
    "is not kept any more": provoke_by_day("2026-02-01", NP6_RETENTION_DAYS="30"),
    "are of an agency that np6.json does not know": provoke_other_agency,
    "notifications that did not answer": provoke_by_check(notifications_missing=[156]),
    "events were rejected": provoke_by_check(quarantined=1),
    "the API did not bring": provoke_by_check(events_kept=50),
    "unknown what its fetch found out": provoke_by_check(),
    "was never materialized": lambda _: NOT_THERE.text,
    "materialize the rates again": lambda _: check_counts({"hits": 1}, {"hits": 2}, list).text,
    "the tombstones of erased receivers were written with": provoke_other_tombstones,
    "is passed over: it is not a day": provoke_unknown_folder,
    "the columns are not those declared": provoke_wrong_columns,
}

IN_SOURCE = {
    "NP6_API_KEY is not set": "np6/test_resource.py",
    "The other days that were fetched are stored": "test_end_to_end.py",
    "gave up after": "test_end_to_end.py",
    "set NP6_DATA_DIR to another folder": "test_two_writers.py",
    "set it right": "np6/test_clock.py",
    "is broken: restore it from a backup": "privacy/test_erasure.py",
    "is gone, though receivers were erased": "privacy/test_erasure.py",
    "NP6_TOMBSTONE_KEY is not set: an erasure needs": "contact/test_tombstones.py",
    "give each account its own": "storage/test_places.py",
    "the data folder is in use by": "two runs at once",
    "materialize again with full_refresh": "refresh/test_recount.py",
    "characters, and could be guessed": "a warning of a run, in contact/test_modes.py",
    "nothing was removed:": "privacy/test_retention.py",
    "may hold contact data (launch treat_contact_data)": "privacy/test_treatment.py",
}
"""Messages that another test provokes, mostly by several runs, and that test."""


def list_explained() -> list[str]:
    """List the messages of the table."""
    rows = re.findall(r"^\| (`.*?) \| ", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


def test_every_message_is_explained_once() -> None:
    assert Counter(list_explained()) == Counter([*PROVOKED, *IN_SOURCE])


@pytest.mark.parametrize("message", PROVOKED)
def test_message_is_provoked(message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NP6_API_KEY", raising=False)
    assert message in PROVOKED[message](tmp_path)


def test_other_messages_are_in_the_source() -> None:
    source = "".join(re.sub(r'"\n\s+f?"', "", path.read_text()) for path in (ROOT / "np6_assets").rglob("*.py"))
    assert [message for message in IN_SOURCE if message not in source] == []
