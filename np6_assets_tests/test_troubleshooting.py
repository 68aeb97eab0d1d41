"""Every message of docs/troubleshooting.md is one that is really seen: it is provoked, or stands in the source."""

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

from np6_assets.component import NP6Account
from np6_assets.contact.days import check_run_days
from np6_assets.contact.tombstones import FILE, Tombstones
from np6_assets.events.checks import check_metadata
from np6_assets.np6.client import NP6Client
from np6_assets.np6.clock import ApiClock
from np6_assets.np6.resource import NP6Resource
from np6_assets.np6.retry import RetryPolicy
from np6_assets.partition_checks import NOT_THERE
from np6_assets.privacy.files import list_day_files
from np6_assets.rates.examine import check_counts
from np6_assets.settings import Settings
from np6_assets.storage import io_manager
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import Identity
from np6_assets_tests.support.deployment import Deployment, build_resource, read_failure
from np6_assets_tests.support.events import Population, build_event
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.unreachable import open_unreachable

ROOT = Path(__file__).parents[1]
NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
DAY = NOW.date()

Seen = Callable[[Path], str]
"""What is seen once it has been provoked, in a folder of its own."""


def told(act: Callable[[], Any]) -> str:
    """What an act that fails says."""
    try:
        act()
    except dg.Failure as failure:
        return failure.description or ""
    except Exception as error:  # noqa: BLE001 - of whatever class: it is the text that people see
        return str(error)
    raise AssertionError("it did not fail")


def settings(**environment: str) -> Seen:
    return lambda _: told(lambda: Settings.from_environment(environment))


def days(tag: str, **environment: str) -> Seen:
    return lambda _: told(
        lambda: check_run_days({"dagster/partition": tag}, Settings.from_environment(environment), NOW)
    )


def answer(*acts: str) -> Seen:
    """What the client says of an API that acts like this."""

    def seen(_: Path) -> str:
        with RudeServer() as server, closing(NP6Client(server.url, server.key, retry=RetryPolicy(retries=0))) as client:
            server.script("/", *acts)
            return told(lambda: client.get_list("/notifications"))

    return seen


def no_connection(trouble: str) -> Seen:
    def seen(folder: Path) -> str:
        with (
            open_unreachable(trouble, folder) as (url, _),
            closing(NP6Client(url, "key", timeout=0.2, retry=RetryPolicy(retries=0))) as client,
        ):
            return told(lambda: client.get_list("/notifications"))

    return seen


def no_key(_: Path) -> str:
    def act() -> None:
        with NP6Resource(base_url="https://api.example.com").open_client(print):
            pass

    return told(act)


def out_of_order(folder: Path) -> str:
    """What a run of some days says where the API answers to none of them."""
    with RudeServer() as server, dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(folder, server, instance, lambda: NOW)
        deployment.np6 = build_resource(server, max_retries=0, step_retries=0)
        server.script_always("/notifications/reactivities/hits", "503")
        first = DAY - timedelta(days=3)
        return read_failure(deployment.materialize("hits", first, DAY, raise_on_error=False))


def another_agency(folder: Path) -> str:
    """What a run says whose events are all of an agency that the folder does not know."""
    start = round((NOW - timedelta(minutes=1)).timestamp() * 1000)
    with RudeServer() as server, dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(folder, server, instance, lambda: NOW)
        server.serve(Population(hits=[build_event("hits", id="1", timestamp=start)]))
        deployment.materialize("hits", DAY)
        server.serve(
            Population(hits=[build_event("hits", id=f"{n}", timestamp=start + n, agency="OTHER") for n in range(11)])
        )
        return read_failure(deployment.materialize("hits", DAY, raise_on_error=False))


def another_folder(folder: Path) -> str:
    return told(lambda: Identity("api", "UTC").check_run(Folder(str(folder)), Identity("sandbox", "UTC")))


def clock(_: Path) -> str:
    lines: list[str] = []
    ApiClock(lines.append).observe("Fri, 20 Mar 2026 12:10:00 GMT", NOW)
    return "".join(lines)


def check(**facts: Any) -> Seen:
    """What the check of an event day says of these facts."""
    good: Mapping[str, Any] = {
        "unknown_fields": [],
        "unreadable_values": {},
        "dagster/partition_row_count": 100,
        **dict.fromkeys(("quarantined", "events_before_send", "seconds_before_send", "events_kept"), 0),
    }
    return lambda _: "".join(finding.text for finding in check_metadata(good | facts if facts else {}))


def columns(_: Path) -> str:
    return told(lambda: io_manager._to_rows(pa.table({"a": [1]}), pa.schema([("b", pa.int64())])))


def tombstones(folder: Path) -> str:
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text("{")
    return told(lambda: Tombstones.read(Folder(str(folder)), "a secret of an earlier erasure, long"))


def lost_tombstones(folder: Path) -> str:
    place = Folder(str(folder))
    Identity("api", "UTC", has_tombstones=True).write(place)
    return told(lambda: Tombstones.read(place, ""))


def other_tombstones(folder: Path) -> str:
    place = Folder(str(folder))
    Tombstones.read(place, "a secret of an earlier erasure, long").add_values(["person@example.com"]).write(place)
    return told(lambda: Tombstones.read(place, "another secret, which is as long as it"))


def no_tombstone_key(folder: Path) -> str:
    return told(lambda: Tombstones.read(Folder(str(folder)), "").add_values(["person@example.com"]))


def stranger(folder: Path) -> str:
    (folder / "hits" / "event_date=tomorrow").mkdir(parents=True)
    (folder / "hits" / "event_date=tomorrow" / "part-0.parquet").touch()
    lines: list[str] = []
    list(list_day_files(Folder(str(folder)), lines.append))
    return "".join(lines)


def one_folder(folder: Path) -> str:
    accounts = [NP6Account(asset_key_prefix=name, data_dir=str(folder)) for name in ("brand_a", "brand_b")]
    return told(lambda: [dg.build_defs_for_component(account) for account in accounts])


PROVOKED: dict[str, Seen] = {
    "NP6_API_KEY is not set": no_key,
    "is not an IANA time zone": settings(NP6_TIMEZONE="Paris"),
    "is not a whole number from": settings(NP6_WINDOW_DAYS="a week"),
    "is not a date such as": settings(NP6_START_DATE="yesterday"),
    "is none of": settings(NP6_CONTACT_DATA="some"),
    "now: rename it": settings(NP6_REFRESH_SECONDS="30"),
    "would send the key unencrypted": settings(NP6_BASE_URL="http://api.example.com"),
    "NP6_BASE_URL holds a user name": settings(NP6_BASE_URL="https://me@api.example.com"),
    "NP6_DATA_DIR holds a password": settings(NP6_DATA_DIR="s3://me:secret@bucket"),
    "connection refused by": no_connection("refused"),
    "no connection to": no_connection("timeout"),
    "unknown host": no_connection("name"),
    "no trusted connection to": no_connection("certificate"),
    "no TLS connection to": no_connection("tls"),
    "401": answer("401"),
    "403": answer("403"),
    "given up after": answer("503"),
    "not a JSON array": answer("html page"),
    "the body is empty": answer("empty body"),
    "content encoding that was not accepted": answer("unknown encoding"),
    "has not begun": days("2026-03-21"),
    "is before NP6_START_DATE": days("2025-12-31"),
    "is not kept any more": days("2026-02-01", NP6_RETENTION_DAYS="30"),
    "The other days that were fetched are stored": out_of_order,
    "gave up after": out_of_order,
    "set NP6_DATA_DIR to another folder": another_folder,
    "are of an agency that np6.json does not know": another_agency,
    "set it right": clock,
    "notifications that did not answer": check(notifications_missing=[156]),
    "events were rejected": check(quarantined=1),
    "the API did not bring": check(events_kept=50),
    "unknown what its fetch found out": check(),
    "was never materialized": lambda _: NOT_THERE.text,
    "materialize the rates again": lambda _: check_counts({"hits": 1}, {"hits": 2}, list).text,
    "is broken: restore it from a backup": tombstones,
    "is gone, though receivers were erased": lost_tombstones,
    "NP6_TOMBSTONE_KEY is not set: an erasure needs": no_tombstone_key,
    "the tombstones of erased receivers were written with": other_tombstones,
    "is passed over: it is not a day": stranger,
    "give each account its own": one_folder,
    "the columns are not those declared": columns,
}

IN_SOURCE = {
    "the data folder is in use by": "two runs at once",
    "materialize again with full_refresh": "refresh/test_recount.py provokes it",
    "characters, and could be guessed": "a warning of a run, in contact/test_modes.py",
    "nothing was removed:": "privacy/test_retention.py provokes it",
    "may hold contact data (launch treat_contact_data)": "privacy/test_treatment.py provokes it",
}
"""Messages that would take several runs to provoke once more, and why that is not done here."""


def explained() -> list[str]:
    """The messages of the table."""
    rows = re.findall(r"^\| (`.*?) \| ", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


def test_every_message_is_explained_once() -> None:
    assert Counter(explained()) == Counter([*PROVOKED, *IN_SOURCE])


@pytest.mark.parametrize("message", PROVOKED)
def test_message_is_seen(message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NP6_API_KEY", raising=False)
    assert message in PROVOKED[message](tmp_path)


def test_what_is_not_provoked_here_is_in_the_source() -> None:
    source = "".join(re.sub(r'"\n\s+f?"', "", path.read_text()) for path in (ROOT / "np6_assets").rglob("*.py"))
    assert [message for message in IN_SOURCE if message not in source] == []
