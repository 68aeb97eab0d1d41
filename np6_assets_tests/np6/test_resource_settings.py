"""Check the settings of the resource and pass them to the client."""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from np6_assets.np6 import client as client_module
from np6_assets.np6 import resource as resource_module
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import CancelledError, GaveUpError, PermanentError
from np6_assets.np6.resource import NP6Resource
from np6_assets.np6.retry import RetryPolicy
from np6_assets_tests.support.rude_server import Act, RudeServer

KEY = "k3y-that-must-stay-secret"


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(key=KEY) as running:
        yield running


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


def test_resource_passes_its_settings_to_the_client(server):
    server.script_always("/", Act("503"))
    lines: list[str] = []
    np6 = NP6Resource(base_url=server.url, api_key=KEY, max_retries=3, backoff=0.001, longest_wait=0.01)
    with pytest.raises(dg.RetryRequested) as caught, np6.open_client(lines.append) as client:
        client.get_list("/notifications")
    assert len(server.requests) == 4
    assert [f"({count} of 3)" in line for count, line in enumerate(lines, 1)] == [True] * 3
    assert (caught.value.max_retries, caught.value.seconds_to_wait) == (np6.step_retries, np6.step_retry_delay)


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


# --- probing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trickle", "trickle headers", "stall before", "503 retry-after seconds"])
def test_probe_client_times_out(monkeypatch, server, name):
    monkeypatch.setattr(resource_module, "PROBE_SECONDS", 0.2)
    server.script_always("/", Act(name, wait=600))
    begun = time.monotonic()
    with (
        pytest.raises(CancelledError),
        NP6Resource(base_url=server.url, api_key=KEY, backoff=0.001).open_probe_client(print) as client,
    ):
        client.get_list("/notifications")
    assert time.monotonic() - begun < 20


def test_probe_client_raises_the_clients_errors(server):
    server.script("/", "404", *["503"] * 4)
    with NP6Resource(base_url=server.url, api_key=KEY, backoff=0.001).open_probe_client(print) as client:
        with pytest.raises(PermanentError, match="404"):
            client.get_list("/notifications")
        with pytest.raises(GaveUpError, match="503"):
            client.get_list("/notifications")
