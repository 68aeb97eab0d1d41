"""Run the resource in Dagster: hide the key, retry only transient failures, and pass the settings to the client."""

import os
import sqlite3
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from np6_assets.np6 import client as client_module
from np6_assets.np6 import resource as resource_module
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import CancelledError, GaveUpError, PermanentError
from np6_assets.np6.resource import NP6Resource
from np6_assets.np6.retry import RetryPolicy
from np6_assets.sandbox import simulated_account
from np6_assets_tests.support.events import Population
from np6_assets_tests.support.rude_acts import Act
from np6_assets_tests.support.rude_server import RudeServer

KEY = "k3y-that-must-stay-secret"
LISTING = Population(notifications=[{"id": 156, "name": "é"}, {"id": 157}])


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(LISTING, key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NP6_API_KEY", KEY)


@dg.asset
def listing(context: dg.AssetExecutionContext, np6: NP6Resource) -> dg.MaterializeResult:
    context.log.info(f"the resource is {np6!r}, or {np6}")
    print(f"printed: {np6!r}")
    with np6.open_client(context.log.warning, attempt=context.retry_number) as client:
        return dg.MaterializeResult(metadata={"notifications": len(client.get_list("/notifications"))})


def materialize(url: str, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """Materialize `listing` with short waits."""
    quick = {"max_retries": 1, "backoff": 0.001, "longest_wait": 0.01, "read_timeout": 5.0, "step_retry_delay": 0.0}
    np6 = NP6Resource(base_url=url, api_key=dg.EnvVar("NP6_API_KEY"), **quick)
    return dg.materialize([listing], resources={"np6": np6}, instance=instance, raise_on_error=False)


def read_failure(result: dg.ExecuteInProcessResult) -> str:
    """Return the description of the step's failure."""
    [failed] = result.filter_events(lambda event: event.is_step_failure)
    return failed.step_failure_data.user_failure_data.description


def list_retries(result: dg.ExecuteInProcessResult) -> list[str]:
    retries = result.filter_events(lambda event: event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY)
    return [event.step_retry_data.error.message for event in retries]


def read_storage(home: Path) -> bytes:
    """Read all files of an instance's storage, and decompress the databases' snapshots."""
    found = b""
    for path in sorted(path for path in home.rglob("*") if path.is_file()):
        found += path.read_bytes()
        if path.suffix == ".db":
            with sqlite3.connect(path) as database:
                if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'snapshots'").fetchall():
                    snapshots = database.execute("SELECT snapshot_body FROM snapshots")
                    found += b"".join(zlib.decompress(body) for (body,) in snapshots)
    return found


# --- key ------------------------------------------------------------------------------------------------------


def test_resource_hides_the_key():
    plain = NP6Resource(base_url="sandbox://", api_key=KEY)
    wired = NP6Resource(api_key=dg.EnvVar("NP6_API_KEY"))
    assert KEY not in f"{plain!r} {plain} {wired!r} {wired} {wired.model_dump()} {wired.model_dump_json()}"


def test_failed_run_does_not_store_the_key(home, kept_instance, server, capfd, caplog):
    caplog.set_level("DEBUG")
    server.script("/", Act("429 retry-after seconds", wait=60), "401")
    read_failure(materialize(server.url, kept_instance))
    shown = capfd.readouterr()
    stored = read_storage(home)
    everything = stored + (shown.out + shown.err + caplog.text).encode()
    retry = "retrying GET /notifications in 0.0 s (1 of 1)"
    for text in ("the resource is NP6Resource", "printed: NP6Resource", retry):
        assert text.encode() in everything
    assert b"returned 401" in stored
    assert b"NP6_API_KEY" in stored
    assert KEY.encode() not in everything
    assert [request.headers["x-key"] for request in server.requests] == [KEY, KEY]


def test_resource_strips_the_key(server):
    with NP6Resource(base_url=server.url, api_key=f" {KEY}\n").open_client(print) as client:
        assert client.get_list("/notifications") == LISTING.notifications


@pytest.mark.parametrize("key", ["", " \n"])
def test_missing_key_is_one_line_and_no_request(server, instance, monkeypatch, key):
    monkeypatch.setenv("NP6_API_KEY", key)
    result = materialize(server.url, instance)
    line = read_failure(result)
    assert line.startswith("NP6_API_KEY is not set: ")
    assert "sandbox://" in line
    assert "\n" not in line
    assert (server.requests, list_retries(result)) == ([], [])


def test_simulated_account_needs_no_key(monkeypatch):
    monkeypatch.delenv("NP6_API_KEY")

    np6 = NP6Resource(base_url="sandbox://").with_sandbox(simulated_account)
    with np6.open_client(print) as client:
        found = client.get_list("/notifications")
    assert len(found) > 1
    assert all(isinstance(one["id"], int) and one["name"] for one in found)
    assert "NP6_API_KEY" not in os.environ


# --- retries -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["400", "401", "404"])
def test_step_is_not_retried_after_a_refusal(server, instance, name):
    server.script_always("/", name)
    result = materialize(server.url, instance)
    [request] = server.requests
    line = read_failure(result)
    assert "\n" not in line
    assert f"returned {name} " in line
    assert request.request_id in line
    assert list_retries(result) == []


def test_step_is_retried_after_transient_failures(server, instance):
    server.script_always("/", "503")
    result = materialize(server.url, instance)
    assert len(server.requests) == 6  # three attempts of two requests each
    retries = list_retries(result)
    assert len(retries) == 2
    assert all("RetryRequested: GET /notifications returned 503" in message for message in retries)
    line = read_failure(result)
    assert line.startswith("GET /notifications returned 503 ")
    assert "GET /notifications given up after 2 attempts" in line


def test_step_succeeds_in_a_later_attempt(server, instance):
    server.script("/", "503", "503", "reset before", "empty body")
    result = materialize(server.url, instance)
    assert result.success
    assert len(server.requests) == 5
    [materialization] = result.asset_materializations_for_node("listing")
    assert materialization.metadata["notifications"].value == len(LISTING.notifications)


def test_resource_raises_other_errors_unchanged(server):
    with pytest.raises(KeyError), NP6Resource(base_url=server.url, api_key=KEY).open_client(print):
        raise KeyError


# --- settings ------------------------------------------------------------------------------------------------------


def test_resource_has_the_defaults_of_the_client():
    np6 = NP6Resource(base_url="sandbox://")
    assert RetryPolicy(np6.max_retries, np6.backoff, np6.longest_wait) == RetryPolicy()
    assert (np6.connect_timeout, np6.read_timeout, np6.max_concurrent_requests) == (10.0, 60.0, 4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("connect_timeout", 0), ("read_timeout", -1), ("max_retries", -1), ("backoff", -0.1)),
        *(("longest_wait", -1), ("max_concurrent_requests", 0)),
    ],
)
def test_resource_refuses_a_setting_out_of_range(name, value):
    with pytest.raises(ValueError, match=name):
        NP6Resource(base_url="sandbox://", **{name: value})


@pytest.mark.parametrize(("read_timeout", "stall_seconds"), [(5.0, 120.0), (60.0, 120.0), (90.0, 180.0)])
def test_resource_times_out_answers_without_events_after_two_minutes(monkeypatch, read_timeout, stall_seconds):
    created: list[dict[str, Any]] = []

    class RecordingClient(NP6Client):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            created.append(options)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(client_module, "NP6Client", RecordingClient)
    np6 = NP6Resource(base_url="http://127.0.0.1:1", api_key=KEY, read_timeout=read_timeout, max_concurrent_requests=7)
    with np6.open_client(print):
        pass
    [options] = created
    assert (options["stall_seconds"], options["concurrency"]) == (stall_seconds, 7)
    assert (options["timeout"].read, options["timeout"].connect) == (read_timeout, 10.0)


@pytest.mark.parametrize("name", ["trickle headers", "503 retry-after seconds"])
def test_probe_client_times_out(monkeypatch, server, name):
    monkeypatch.setattr(resource_module, "PROBE_SECONDS", 0.2)
    server.script_always("/", Act(name, wait=600))
    begun = time.monotonic()
    np6 = NP6Resource(base_url=server.url, api_key=KEY, backoff=0.001)
    with pytest.raises(CancelledError), np6.open_probe_client(print) as client:
        client.get_list("/notifications")
    assert time.monotonic() - begun < 20


def test_probe_client_raises_the_clients_errors(server):
    server.script("/", "404", *["503"] * 4)
    with NP6Resource(base_url=server.url, api_key=KEY, backoff=0.001).open_probe_client(print) as client:
        with pytest.raises(PermanentError, match="404"):
            client.get_list("/notifications")
        with pytest.raises(GaveUpError, match="503"):
            client.get_list("/notifications")
