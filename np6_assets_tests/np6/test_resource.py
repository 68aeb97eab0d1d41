"""Run the resource in Dagster: hide the key, and retry only transient failures."""

import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from np6_assets.np6.resource import NP6Resource
from np6_assets.sandbox import simulated_account
from np6_assets_tests.support.events import Population
from np6_assets_tests.support.rude_server import PERMANENT, Act, RudeServer

KEY = "k3y-that-must-stay-secret"
LISTING = Population(notifications=[{"id": 156, "name": "é"}, {"id": 157}])


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(LISTING, key=KEY) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NP6_API_KEY", KEY)


def build_resource(url: str, **settings: Any) -> NP6Resource:
    quick = {"max_retries": 1, "backoff": 0.001, "longest_wait": 0.01, "read_timeout": 5.0, "step_retry_delay": 0.0}
    return NP6Resource(base_url=url, api_key=dg.EnvVar("NP6_API_KEY"), **{**quick, **settings})


@dg.asset
def listing(context: dg.AssetExecutionContext, np6: NP6Resource) -> dg.MaterializeResult:
    context.log.info(f"the resource is {np6!r}, or {np6}")
    print(f"printed: {np6!r}")
    with np6.open_client(context.log.warning, attempt=context.retry_number) as client:
        return dg.MaterializeResult(metadata={"notifications": len(client.get_list("/notifications"))})


def materialize(
    np6: NP6Resource, home: Path | None = None, asset: dg.AssetsDefinition = listing
) -> tuple[dg.ExecuteInProcessResult, list[dg.DagsterEvent]]:
    """Materialize an asset, with the records in `home` or in memory; return result and events."""
    with dg.DagsterInstance.local_temp(str(home)) if home else dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(assets=[asset], resources={"np6": np6}).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        entries = instance.all_logs(result.run_id)
    return result, [entry.dagster_event for entry in entries if entry.dagster_event]


def select_events(events: list[dg.DagsterEvent], kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    return [event for event in events if event.event_type == kind]


def read_failure(events: list[dg.DagsterEvent]) -> str:
    """Return the description of the step's failure."""
    [failed] = select_events(events, dg.DagsterEventType.STEP_FAILURE)
    details = failed.step_failure_data.user_failure_data
    assert details is not None
    return details.description


def read_storage(home: Path) -> bytes:
    """Read all files of an instance's storage, and decompress the databases' snapshots."""
    found = b""
    for path in sorted(home.rglob("*")):
        if not path.is_file():
            continue
        found += path.read_bytes()
        if path.suffix == ".db":
            with sqlite3.connect(path) as database:
                tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")}
                if "snapshots" in tables:
                    found += b"".join(
                        zlib.decompress(body) for (body,) in database.execute("SELECT snapshot_body FROM snapshots")
                    )
    return found


# --- key ------------------------------------------------------------------------------------------------------


def test_resource_hides_the_key():
    plain = NP6Resource(base_url="sandbox://", api_key=KEY)
    assert KEY not in f"{plain!r} {plain}"
    wired = build_resource("https://api-cm.np6.com")
    assert KEY not in f"{wired!r} {wired} {wired.model_dump()} {wired.model_dump_json()}"


def test_failed_run_does_not_store_the_key(home, server, capfd, caplog):
    caplog.set_level("DEBUG")
    server.script("/", "503", "401")
    result, events = materialize(build_resource(server.url), home)
    assert not result.success
    shown = capfd.readouterr()
    everything = read_storage(home) + (shown.out + shown.err + caplog.text).encode()
    for text in ("the resource is NP6Resource", "printed: NP6Resource", "returned 401", "retrying GET /notifications"):
        assert text.encode() in everything
    assert b"returned 401" in read_storage(home)
    assert b"NP6_API_KEY" in read_storage(home)
    assert KEY.encode() not in everything
    assert [request.headers["x-key"] for request in server.requests] == [KEY, KEY]
    assert read_failure(events)


def test_resource_strips_the_key(server):
    with NP6Resource(base_url=server.url, api_key=f" {KEY}\n").open_client(print) as client:
        assert client.get_list("/notifications") == LISTING.notifications
    assert server.requests[0].headers["x-key"] == KEY


# --- retries -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PERMANENT)
def test_step_is_not_retried_after_a_refusal(server, name):
    server.script_always("/", name)
    result, events = materialize(build_resource(server.url))
    assert not result.success
    assert len(server.requests) == 1
    assert len(select_events(events, dg.DagsterEventType.STEP_START)) == 1
    assert select_events(events, dg.DagsterEventType.STEP_UP_FOR_RETRY) == []
    line = read_failure(events)
    assert "\n" not in line
    assert f"returned {name} " in line
    assert server.requests[0].request_id in line


def test_step_is_retried_after_transient_failures(server):
    server.script_always("/", "503")
    result, events = materialize(build_resource(server.url))
    assert not result.success
    # three attempts of two requests each
    assert len(server.requests) == 6
    retried = select_events(events, dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert len(retried) == 2
    for event in retried:
        assert "RetryRequested: GET /notifications returned 503" in event.step_retry_data.error.message
    line = read_failure(events)
    assert line.startswith("GET /notifications returned 503 ")
    assert "GET /notifications given up after 2 attempts" in line


@pytest.mark.parametrize("has_answered", [False, True])
def test_step_is_retried_only_at_an_address_that_has_answered(has_answered):
    with RudeServer(key=KEY) as gone:
        url = gone.url

    @dg.asset
    def listing(context: dg.AssetExecutionContext, np6: NP6Resource) -> None:
        with np6.open_client(context.log.warning, attempt=context.retry_number, has_answered=has_answered) as client:
            client.get_list("/notifications")

    result, events = materialize(build_resource(url), asset=listing)
    assert not result.success
    assert len(select_events(events, dg.DagsterEventType.STEP_UP_FOR_RETRY)) == (2 if has_answered else 0)
    [failed] = select_events(events, dg.DagsterEventType.STEP_FAILURE)
    cause = f"connection refused by {url.removeprefix('http://')}; check the host and the port in NP6_BASE_URL"
    assert read_failure(events).startswith(cause)
    assert failed.step_failure_data.error.message.startswith(f"dagster._core.definitions.events.Failure: {cause}")


def test_step_succeeds_in_a_later_attempt(server):
    server.script("/", "503", "503", "reset before", "empty body")
    result, events = materialize(build_resource(server.url))
    assert result.success
    assert len(server.requests) == 5
    [materialization] = select_events(events, dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert materialization.materialization.metadata["notifications"].value == len(LISTING.notifications)


@pytest.mark.parametrize("key", ["", " \n"])
def test_missing_key_is_one_line_and_no_request(server, monkeypatch, key):
    monkeypatch.setenv("NP6_API_KEY", key)
    result, events = materialize(build_resource(server.url))
    assert not result.success
    line = read_failure(events)
    assert line.startswith("NP6_API_KEY is not set: ")
    assert "sandbox://" in line
    assert "\n" not in line
    assert server.requests == []
    assert select_events(events, dg.DagsterEventType.STEP_UP_FOR_RETRY) == []


def test_simulated_account_needs_no_key(monkeypatch):
    monkeypatch.delenv("NP6_API_KEY")
    with NP6Resource(base_url="sandbox://").with_sandbox(simulated_account).open_client(print) as client:
        found = client.get_list("/notifications")
    assert len(found) > 1
    assert all(isinstance(one["id"], int) and one["name"] for one in found)
    assert "NP6_API_KEY" not in os.environ


def test_resource_raises_other_errors_unchanged():
    class OwnError(Exception):
        pass

    with pytest.raises(OwnError), NP6Resource(base_url="sandbox://").with_sandbox(simulated_account).open_client(print):
        raise OwnError


def test_log_has_a_line_for_each_retry(server):
    server.script("/", Act("429 retry-after seconds", wait=60))
    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(
            assets=[listing], resources={"np6": build_resource(server.url)}
        ).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance)
        messages = [entry.user_message for entry in instance.all_logs(result.run_id) if not entry.dagster_event]
    [line] = [message for message in messages if "429" in message]
    assert "retrying GET /notifications in 0.0 s (1 of 1)" in line
    assert json.dumps(line).count("\\n") == 0
