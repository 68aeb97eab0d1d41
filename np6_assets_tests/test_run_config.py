"""Test that a run's config may change timeouts and retries, but not the key, address or folder.

Dagster's webserver has no login, and a page that somebody visits can launch a run with any config.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from np6_assets.np6.resource import NP6Resource
from np6_assets.sandbox import app as sandbox_app
from np6_assets.sandbox import simulated_account
from np6_assets.settings import Settings
from np6_assets.wiring import build_definitions
from np6_assets_tests.support.events import Population
from np6_assets_tests.support.rude_server import RudeServer

KEY = "k3y-that-must-stay-secret"
LISTING = Population(notifications=[{"id": 156, "name": "é"}, {"id": 157}])


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(LISTING, key=KEY) as running:
        yield running


@pytest.fixture
def attacker() -> Iterator[RudeServer]:
    with RudeServer(LISTING, key=KEY) as running:
        yield running


@pytest.fixture
def definitions(server: RudeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    monkeypatch.setenv("NP6_API_KEY", KEY)
    settings = {"NP6_API_KEY": KEY, "NP6_BASE_URL": server.url, "NP6_DATA_DIR": str(tmp_path / "data")}
    return build_definitions(Settings.from_environment(settings | {"NP6_MAX_CONCURRENT_REQUESTS": "7"}))


def run(definitions: dg.Definitions, resources: dict[str, Any]) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("notifications")],
            run_config={"resources": {name: {"config": config} for name, config in resources.items()}},
        )


@pytest.mark.parametrize(
    ("resource", "field", "value"),
    [
        ("np6", "base_url", "ATTACKER"),
        ("np6", "api_key", {"env": "AWS_SECRET_ACCESS_KEY"}),
        ("np6", "api_key", "another"),
        ("np6", "max_concurrent_requests", 1000),
        ("np6", "max_retries", {"env": "NP6_API_KEY"}),
        ("np6", "backoff", {"env": "NP6_API_KEY"}),
        ("store", "data_dir", "ELSEWHERE"),
        ("io_manager", "data_dir", "ELSEWHERE"),
        ("io_manager", "store", {"data_dir": "ELSEWHERE"}),
    ],
)
def test_run_config_cannot_change_key_address_or_folder(
    definitions: dg.Definitions,
    server: RudeServer,
    attacker: RudeServer,
    tmp_path: Path,
    resource: str,
    field: str,
    value: Any,
) -> None:
    named = {"ATTACKER": attacker.url, "ELSEWHERE": str(tmp_path / "elsewhere")}
    value = named.get(value, value) if isinstance(value, str) else value
    with pytest.raises(dg.DagsterInvalidConfigError) as caught:
        run(definitions, {resource: {field: value}})
    [error] = caught.value.errors
    assert field in error.message
    assert "\n" not in error.message
    assert KEY not in str(caught.value)
    assert (server.requests, attacker.requests, list(tmp_path.iterdir())) == ([], [], [])


def test_run_config_overrides_retries_alone(definitions: dg.Definitions, server: RudeServer, tmp_path: Path) -> None:
    server.script("/", "503")
    assert run(definitions, {"np6": {"max_retries": 1, "backoff": 0.001}}).success
    assert [request.headers["x-key"] for request in server.requests] == [KEY, KEY]
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]


def test_overridden_field_keeps_the_others(definitions: dg.Definitions, server: RudeServer) -> None:
    resource = NP6Resource(base_url=server.url, api_key=KEY, max_concurrent_requests=7)
    resources = {"np6": (definitions.resources or {})["np6"]}
    changed = {"connect_timeout": 1.5, "read_timeout": 2.5, "max_retries": 3, "backoff": 0.25}
    changed |= {"longest_wait": 4.5, "step_retries": 5, "step_retry_delay": 0.5}
    for config in ({}, *({field: value} for field, value in changed.items())):
        with dg.build_resources(resources, resource_config={"np6": {"config": config}}) as built:
            assert built.np6.model_dump() == resource.model_dump() | config


def test_field_out_of_range_is_refused(definitions: dg.Definitions, server: RudeServer) -> None:
    with pytest.raises(dg.DagsterResourceFunctionError):
        run(definitions, {"np6": {"max_retries": -1}})
    assert server.requests == []


# --- what is sent where -------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, attacker: RudeServer) -> RudeServer:
    """A proxy that the environment names for everything."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, attacker.url)
        monkeypatch.setenv(name.lower(), attacker.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return attacker


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_address_is_requested_without_a_proxy(server: RudeServer, proxy: RudeServer, host: str) -> None:
    url = server.url.replace("127.0.0.1", host)
    with NP6Resource(base_url=url, api_key=KEY).open_client(print) as client:
        assert len(client.get_list("/notifications")) == 2
    assert proxy.requests == []


def test_simulated_account_gets_no_key_and_no_proxy(proxy: RudeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[dict[bytes, bytes]] = []
    create_app = sandbox_app.create_app

    def create_recording_app(*arguments: Any, **options: Any) -> Any:
        app = create_app(*arguments, **options)

        async def record(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                received.append(dict(scope["headers"]))
            await app(scope, receive, send)

        return record

    monkeypatch.setattr(sandbox_app, "create_app", create_recording_app)
    np6 = NP6Resource(base_url="sandbox://", api_key=KEY).with_sandbox(simulated_account)
    with np6.open_client(print) as client:
        assert client.get_list("/notifications")
    assert len(received) == 1
    assert b"x-key" not in received[0]
    assert KEY.encode() not in b"".join(received[0].values())
    assert proxy.requests == []
