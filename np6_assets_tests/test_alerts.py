"""Load the alerts of the documentation from its text, and test what they send of a failed run."""

import base64
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from np6_assets_tests.support.deployment import Deployment
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tls import create_certificate
from np6_assets_tests.test_documentation import FENCED, ROOT

DAY = date(2026, 3, 20)
BLOCKS = FENCED.findall((ROOT / "docs/alerts.md").read_text())
[SLACK] = [text for language, text in BLOCKS if language == "python" and "SLACK_WEBHOOK_URL" in text]
[EMAIL] = [text for language, text in BLOCKS if language == "python" and "make_email" in text]
[WORKSPACE] = [text for language, text in BLOCKS if language == "yaml" and "alerts.py" in text]


def load_sensor(text: str, tmp_path: Path) -> dg.SensorDefinition:
    """Load the sensor of a file that the documentation shows."""
    [entry] = [one["python_file"] for one in yaml.safe_load(WORKSPACE)["load_from"] if "python_file" in one]
    file = tmp_path / entry["relative_path"]
    file.write_text(text)
    names: dict[str, Any] = {"__file__": str(file), "__name__": "alerts"}
    exec(compile(text, file, "exec"), names)
    dg.Definitions.validate_loadable(names["defs"])
    [sensor] = names["defs"].get_repository_def().sensor_defs
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    return sensor


@pytest.fixture
def failed_run(server: RudeServer, instance: dg.DagsterInstance, tmp_path: Path) -> dg.RunStatusSensorContext:
    """The context of a run whose key is refused."""
    server.script_always("/notifications/reactivities/hits", "401")
    deployment = Deployment(tmp_path / "data", server, instance)
    result = deployment.materialize("hits", DAY, raise_on_error=False)
    return dg.build_run_status_sensor_context(
        "alert", result.get_run_failure_event(), instance, result.dagster_run
    ).for_run_failure()


@contextmanager
def run_server(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Webhook(BaseHTTPRequestHandler):
    """The webhook of Slack."""

    received: list[dict[str, str]]

    def do_POST(self) -> None:
        self.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Mail(socketserver.StreamRequestHandler):
    """A mail server that records the lines that it receives."""

    lines: list[str]

    def handle(self) -> None:
        self._answer("220 ready")
        for raw in self.rfile:
            line = raw.decode().rstrip("\r\n")
            self.lines.append(line)
            if line.startswith("ehlo"):
                self._answer("250-localhost", "250 AUTH PLAIN")
            elif line.startswith("AUTH"):
                self._answer("235 welcome")
            elif line == "data":
                self._answer("354 go on")
                while (text := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                    self.lines.append(text)
                self._answer("250 taken")
            elif line == "QUIT":
                return self._answer("221 bye")
            else:
                self._answer("250 fine")
        return None

    def _answer(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


def test_alert_to_slack_has_the_error_and_a_link_to_the_run(
    failed_run: dg.RunStatusSensorContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sensor = load_sensor(SLACK, tmp_path)
    Webhook.received = []
    with run_server(HTTPServer(("127.0.0.1", 0), Webhook)) as port:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", f"http://127.0.0.1:{port}/services/T000")
        sensor(failed_run)
    [message] = Webhook.received
    assert message.keys() == {"text"}
    first, error, link = message["text"].splitlines()
    assert first.startswith(f"{failed_run.dagster_run.job_name} failed: ")
    assert "hits returned 401" in error
    assert "set NP6_API_KEY to a valid key" in error
    assert link == f"http://127.0.0.1:3000/runs/{failed_run.dagster_run.run_id}"


def test_alert_by_email_has_a_link_to_the_run(
    failed_run: dg.RunStatusSensorContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file, context = create_certificate(tmp_path, timedelta(days=30))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    server = socketserver.TCPServer(("127.0.0.1", 0), Mail)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Mail.lines = []
    with run_server(server) as port:
        for name, value in {
            "ALERT_EMAIL_FROM": "dagster@example.com",
            "ALERT_EMAIL_PASSWORD": "a password",
            "ALERT_EMAIL_TO": "one@example.com,two@example.com",
            "ALERT_SMTP_HOST": "localhost",
            "ALERT_SMTP_PORT": f"{port}",
        }.items():
            monkeypatch.setenv(name, value)
        load_sensor(EMAIL, tmp_path)(failed_run)
    login = base64.b64encode(b"\0dagster@example.com\0a password").decode()
    assert f"AUTH PLAIN {login}" in Mail.lines
    assert [line for line in Mail.lines if line.startswith("rcpt")] == [
        "rcpt TO:<one@example.com>",
        "rcpt TO:<two@example.com>",
    ]
    assert f"Subject: {failed_run.dagster_run.job_name} failed" in Mail.lines
    assert any(f"http://127.0.0.1:3000/runs/{failed_run.dagster_run.run_id}" in line for line in Mail.lines)
