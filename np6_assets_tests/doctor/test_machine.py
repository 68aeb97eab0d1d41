"""Run the doctor on certificates, settings and folders."""

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.runs.lock import hold_lock
from np6_assets.storage.files import Folder
from np6_assets_tests.doctor.account import KEY, build_account, run_doctor
from np6_assets_tests.refresh.account import turn_on
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.tls import create_certificate

# --- TLS ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "trusted", "verdict", "text"),
    [
        (90, True, "ok", "valid for 89 more days"),
        (10, True, "warning", "valid for 9 more days"),
        (-1, True, "wrong", "certificate has expired"),
        (90, False, "wrong", "self-signed certificate"),
    ],
)
def test_tls_reports_the_validity_of_the_certificate(tmp_path, monkeypatch, days, trusted, verdict, text):
    file, context = create_certificate(tmp_path, timedelta(days=days))
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with RudeServer(build_account(), key=KEY, tls=context) as server:
        found = run_doctor(server.url, tmp_path, now=lambda: datetime.now(UTC))
    assert found["TLS"].verdict == verdict
    assert text in found["TLS"].text.replace("self signed", "self-signed")
    assert found["reachability"].verdict == ("wrong" if verdict == "wrong" else "ok")


def test_tls_advises_http_for_a_server_without_tls(server, tmp_path):
    found = run_doctor(server.url.replace("http://", "https://"), tmp_path)
    assert found["TLS"].verdict == found["reachability"].verdict == "wrong"
    assert "https" in found["reachability"].advice


# --- This machine ---------------------------------------------------------------------------------


def test_doctor_sends_no_request_with_wrong_settings(server, tmp_path):
    found = run_doctor(server.url, tmp_path, NP6_TIMEZONE="Mars/Base")
    assert found["settings"].verdict == "wrong"
    assert "NP6_TIMEZONE='Mars/Base'" in found["settings"].text
    assert (found["API"].verdict, found["temporary files"].verdict) == ("unknown", "ok")
    assert server.requests == []


def test_missing_key_is_wrong(tmp_path):
    found = run_doctor("https://api-cm.np6.com", tmp_path, NP6_API_KEY="")
    assert found["key"].verdict == "wrong"
    assert "NP6_API_KEY is not set" in found["key"].text
    assert found["API"].verdict == "unknown"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"NP6_TIME_ZONE": "Europe/Paris"}, "nothing reads NP6_TIME_ZONE"),
        ({"NP6_START_DATE": "2027-01-01"}, "NP6_START_DATE=2027-01-01 has not come yet"),
        (
            {"NP6_CONTACT_DATA": "pseudonymize", "NP6_PSEUDONYM_KEY": "pepper"},
            "NP6_PSEUDONYM_KEY has fewer than 32 characters",
        ),
    ],
)
def test_settings_warns_of_what_is_not_meant(server, tmp_path, settings, text):
    server.script_always("/notifications", "401")
    found = run_doctor(server.url, tmp_path, **settings)["settings"]
    assert found.verdict == "warning"
    assert text in found.text
    assert "pepper" not in f"{found}"


def test_unwritable_data_folder_is_wrong(server, tmp_path):
    (tmp_path / "file").write_text("a folder cannot be made in here\n")
    found = run_doctor(server.url, tmp_path, NP6_DATA_DIR=str(tmp_path / "file/data"))["data folder"]
    assert found.verdict == "wrong"
    assert "NP6_DATA_DIR" in found.advice


def test_data_folder_check_leaves_no_object_behind(server, tmp_path):
    found = run_doctor(server.url, tmp_path, NP6_DATA_DIR="memory://doctored/data")["data folder"]
    assert found.verdict == "ok"
    assert Folder("memory://doctored/data").list_files("") == []


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOTSUP])
def test_data_folder_warns_of_a_file_system_without_locks(server, tmp_path, monkeypatch, error):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("fcntl.flock", refuse)
    found = run_doctor(server.url, tmp_path)
    assert found["data folder"].verdict == "warning"
    assert "has no locks" in found["data folder"].text
    assert found["temporary files"].verdict == "ok"


def test_locked_data_folder_is_ok(server, tmp_path):
    folder = Folder(str(tmp_path / "data"))
    with folder.lock("a run", print):
        assert run_doctor(server.url, tmp_path)["data folder"].verdict == "ok"


@pytest.mark.parametrize(("free", "verdict"), [(2**40, "ok"), (2**30, "warning"), (2**20, "wrong")])
def test_folders_warn_of_little_free_space(server, tmp_path, monkeypatch, free, verdict):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free})())
    found = run_doctor(server.url, tmp_path)
    assert found["data folder"].verdict == found["temporary files"].verdict == verdict
    assert found["data folder"].values["free_bytes"] == free


PROJECT_CONFIG = (Path(__file__).parents[2] / "dagster.yaml").read_text()


@pytest.mark.parametrize(
    ("config", "verdict", "text"),
    [
        (PROJECT_CONFIG, "ok", "with a dagster.yaml"),
        (None, "warning", "has no dagster.yaml"),
        ("telemetry:\n  enabled: false\n", "warning", "concurrency.pools"),
        ("storage: [password: hunter2hunter2\n", "wrong", "not YAML"),
        ("- a list\n", "wrong", "not a YAML mapping"),
        ("", "warning", "run_monitoring"),
    ],
)
def test_dagster_home_compares_dagster_yaml(server, tmp_path, config, verdict, text):
    home = tmp_path / "home"
    home.mkdir()
    if config is not None:
        (home / "dagster.yaml").write_text(config)
    found = run_doctor(server.url, tmp_path, DAGSTER_HOME=str(home))["DAGSTER_HOME"]
    assert found.verdict == verdict
    assert text in found.text
    assert "hunter2" not in found.text


@pytest.mark.parametrize(("home", "text"), [("relative", "not an absolute path"), ("/nowhere/home", "does not exist")])
def test_dagster_home_that_is_no_folder_is_wrong(server, tmp_path, home, text):
    found = run_doctor(server.url, tmp_path, DAGSTER_HOME=home)["DAGSTER_HOME"]
    assert (found.verdict, text in found.text) == ("wrong", True)


# --- Late events ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_late_events_names_the_sensor_and_schedule_that_fetch_them(server, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(PROJECT_CONFIG)

    def examine():
        return run_doctor(server.url, tmp_path, DAGSTER_HOME=str(home))["late events"]

    assert (examine().verdict, examine().values) == ("warning", {"on": []})
    assert examine().text == "neither np6_refresh nor daily_ingest is on: nothing fetches late events"
    assert [file.name for file in home.iterdir()] == ["dagster.yaml"]  # nothing was created
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        turn_on(instance, "freshness")
        assert examine().verdict == "warning"
        turn_on(instance, "np6_refresh")
        assert (examine().verdict, examine().values) == ("ok", {"on": ["np6_refresh"]})
        assert "daily_ingest" in examine().advice
        turn_on(instance, "daily_ingest")
        assert (examine().verdict, examine().advice) == ("ok", "")


def test_late_events_is_unknown_without_dagsters_records(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_doctor(server.url, tmp_path)["late events"].verdict == "unknown"
    # the folder of `make dev`, with an unreachable database
    home = tmp_path / ".dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text("storage:\n  sqlite:\n    base_dir: /proc/hunter2hunter2\n")
    found = run_doctor(server.url, tmp_path)["late events"]
    assert found.verdict == "unknown"
    assert "hunter2" not in f"{found}"
    (home / "dagster.yaml").write_text("storage: [\n")
    assert run_doctor(server.url, tmp_path)["late events"].verdict == "unknown"


def test_runs_name_a_dead_run(server, tmp_path):
    locks = tmp_path / "home" / "np6_runs"
    locks.mkdir(parents=True)
    (locks / "5f0c.lock").write_text("4711\n")
    with hold_lock(tmp_path / "home", "works"):
        found = run_doctor(server.url, tmp_path, DAGSTER_HOME=str(tmp_path / "home"))["runs"]
    assert (found.verdict, found.values) == ("warning", {"dead": ["5f0c"]})
    assert "5f0c" in found.text
    (locks / "5f0c.lock").unlink()
    assert run_doctor(server.url, tmp_path, DAGSTER_HOME=str(tmp_path / "home"))["runs"].verdict == "ok"


# --- Text ---------------------------------------------------------------------------------


def test_diagnosis_masks_secrets():
    diagnosis = Diagnosis("x", "wrong", f"says {KEY}", f"not {KEY}", {"seen": [KEY], KEY: 1})
    assert KEY not in str(diagnosis.mask([KEY, ""]))
