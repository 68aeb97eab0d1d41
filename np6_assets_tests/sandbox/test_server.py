"""Serve the simulated account on a loopback port."""

import threading
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
import pytest

from np6_assets.sandbox.app import create_app
from np6_assets.sandbox.population import Account
from np6_assets.sandbox.server import serve_in_thread


def build_app():
    return create_app(Account.small(), api_key=None, now=lambda: datetime(2026, 1, 9, tzinfo=UTC))


def test_server_runs_for_the_time_of_its_context():
    with serve_in_thread(build_app()) as url:
        assert urlsplit(url).hostname == "127.0.0.1"
        assert len(httpx.get(f"{url}/notifications").json()) == 6
    assert "np6-sandbox" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/notifications")


def test_server_stops_while_a_client_keeps_its_connection_open():
    with httpx.Client() as client:
        with serve_in_thread(build_app()) as url:
            assert client.get(f"{url}/notifications").status_code == 200
        with pytest.raises(httpx.ConnectError):
            client.get(f"{url}/notifications")
