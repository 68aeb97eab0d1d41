"""Test the defaults of settings, and the error of each wrong one."""

import os
import runpy
from datetime import date, timedelta

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from np6_assets.component import NP6Account, list_variables
from np6_assets.contact.policy import ContactPolicy
from np6_assets.settings import RENAMED, Settings, SettingsError
from np6_assets.wiring import build_definitions

SECRET = "s3cret-of-the-account"
LONG = "a key that nobody finds by trying"


def read(**environment: str) -> Settings:
    return Settings.from_environment(environment)


def test_settings_have_defaults():
    assert read() == Settings(
        base_url="https://api-cm.np6.com",
        has_api_key=False,
        data_dir="data",
        start_date=date(2026, 1, 1),
        timezone="UTC",
        window_days=7,
        contact=ContactPolicy("drop"),
        max_concurrent_requests=4,
        lookback=timedelta(hours=1),
        backfill_days_per_run=None,
        probe_interval=timedelta(minutes=1),
        refresh_interval=timedelta(minutes=15),
        trailing_days=3,
        fresh_by_hour=8,
        retention_days=None,
    )


def test_settings_are_read_from_the_environment():
    assert read(
        NP6_API_KEY=SECRET,
        NP6_BASE_URL="http://127.0.0.1:8001/np6/",
        NP6_DATA_DIR="memory://bucket/prefix",
        NP6_START_DATE="2025-06-30",
        NP6_TIMEZONE="Europe/Paris",
        NP6_WINDOW_DAYS="0",
        NP6_CONTACT_DATA="pseudonymize",
        NP6_PSEUDONYM_KEY="pepper",
        NP6_URL_PARAMETERS=" id, utm_source,",
        NP6_TOMBSTONE_KEY=LONG,
        NP6_MAX_CONCURRENT_REQUESTS="64",
        NP6_LOOKBACK_MINUTES="90",
        NP6_BACKFILL_DAYS_PER_RUN="31",
        NP6_PROBE_SECONDS="300",
        NP6_REFRESH_MINUTES="0",
        NP6_TRAILING_DAYS="0",
        NP6_FRESH_BY_HOUR="0",
        NP6_OWNER="data@example.com",
        NP6_RETENTION_DAYS="2",
    ) == Settings(
        base_url="http://127.0.0.1:8001/np6",
        has_api_key=True,
        data_dir="memory://bucket/prefix",
        start_date=date(2025, 6, 30),
        timezone="Europe/Paris",
        window_days=0,
        contact=ContactPolicy("pseudonymize", "pepper", frozenset({"id", "utm_source"})),
        max_concurrent_requests=64,
        lookback=timedelta(minutes=90),
        backfill_days_per_run=31,
        probe_interval=timedelta(minutes=5),
        refresh_interval=timedelta(),
        trailing_days=0,
        fresh_by_hour=0,
        retention_days=2,
        tombstone_key=LONG,
        owner="data@example.com",
    )


@pytest.mark.parametrize("owner", ["data@example.com", "team:push-crm_1"])
def test_assets_have_the_owner_that_is_set(owner: str):
    account = NP6Account.from_environment({"NP6_OWNER": owner})
    for asset in dg.build_defs_for_component(account).resolve_all_asset_specs():
        assert asset.owners == [owner]


@pytest.mark.parametrize(("window", "trailing", "least"), [("7", "3", 9), ("1", "3", 5), ("0", "0", 2)])
def test_retention_shorter_than_the_reaction_window_is_refused(window: str, trailing: str, least: int):
    others = {"NP6_WINDOW_DAYS": window, "NP6_TRAILING_DAYS": trailing}
    assert read(**others, NP6_RETENTION_DAYS=f"{least}").retention_days == least
    assert read(**others, NP6_RETENTION_DAYS="0").retention_days is None
    with pytest.raises(SettingsError, match=rf"^NP6_RETENTION_DAYS='{least - 1}' is too short: .* need {least}, and 0"):
        read(**others, NP6_RETENTION_DAYS=f"{least - 1}")


def test_setting_is_read_without_the_white_space_around_it():
    plain = [name for name in NP6Account.model_fields if f"NP6_{name.upper()}" in list_variables()]
    assert "timezone" in plain
    for blank in ("", "  ", "\n"):
        assert read(**{f"NP6_{name.upper()}": blank for name in plain}) == read()
    assert read(NP6_TIMEZONE=" Europe/Paris\n", NP6_WINDOW_DAYS=" 3 ") == read(
        NP6_TIMEZONE="Europe/Paris", NP6_WINDOW_DAYS="3"
    )


def test_base_url_may_be_https_loopback_or_the_sandbox():
    for url in (
        *("https://api-cm.np6.com", "https://proxy.example.com:8443/np6"),
        *("http://127.0.0.1", "http://127.0.0.2:80", "http://LOCALHOST:8000", "http://[::1]:8000"),
    ):
        assert read(NP6_BASE_URL=url).base_url == read(NP6_BASE_URL=f"{url}/").base_url == url
    for url in ("sandbox://", "sandbox:", "sandbox:/"):
        assert read(NP6_BASE_URL=url).is_sandbox
        assert read(NP6_BASE_URL=url).missing is None


def test_missing_key_is_named():
    assert (read().missing or "").startswith("NP6_API_KEY is not set: ")
    assert read(NP6_API_KEY=SECRET).missing is None


WRONG = {
    "NP6_DATA_DIR": ("ftp://example.com/np6", "nosuch://np6"),
    "NP6_BASE_URL": (
        *("api-cm.np6.com", "ftp://api-cm.np6.com", "https://", "https:///path", "https://[::1"),
        *(
            "https://api-cm.np6.com:port",
            "https://api-cm.np6.com:99999",
            "https://api cm.np6.com",
            "sandbox://elsewhere",
        ),
        # unencrypted, to other machines
        *("http://api-cm.np6.com", "http://10.0.0.1", "http://0.0.0.0:8000", "http://127.0.0.1.example.com"),
        *("http://localhost.example.com", "http://[2001:db8::1]"),
    ),
    "NP6_START_DATE": ("yesterday", "2026-13-01", "2026-02-29", "01/02/2026", "2026-01-01T00"),
    "NP6_TIMEZONE": ("Mars/Olympus", "CEST", "+02:00", "../etc/passwd", "/etc/passwd", "Europe", "x" * 300),
    "NP6_WINDOW_DAYS": ("-1", "366", "7.0", "seven", "1_0", "\u0667", "²", "+7"),
    "NP6_MAX_CONCURRENT_REQUESTS": ("0", "65"),
    "NP6_LOOKBACK_MINUTES": ("-1", "10081"),
    "NP6_BACKFILL_DAYS_PER_RUN": ("-1", "3661"),
    "NP6_PROBE_SECONDS": ("29", "86401"),
    "NP6_REFRESH_MINUTES": ("-1", "1441"),
    "NP6_TRAILING_DAYS": ("-1", "61"),
    "NP6_FRESH_BY_HOUR": ("-1", "24", "08:00"),
    "NP6_OWNER": ("data", "team:", "team:push crm", "a@b", "data@example.com, x@example.com"),
    "NP6_CONTACT_DATA": ("Drop", "none", "hash", "keep,drop"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_setting_is_refused_in_one_line_that_names_it(name):
    for value in WRONG[name]:
        with pytest.raises(SettingsError) as caught:
            read(**{name: value, "NP6_API_KEY": SECRET, "NP6_PSEUDONYM_KEY": SECRET})
        line = str(caught.value)
        assert line.startswith(f"{name}=")
        assert value in line
        assert "\n" not in line
        assert SECRET not in line


def test_setting_with_an_old_name_is_refused_with_the_new_one():
    for old, new in RENAMED.items():
        for environment in ({old: "60"}, {old: "60", new: "60"}):
            with pytest.raises(SettingsError, match=rf"^{old} is called {new} now: rename it$"):
                read(**environment)
        assert read(**{old: " "}) == read()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("NP6_BASE_URL", f"https://user:{SECRET}@api-cm.np6.com"),
        ("NP6_BASE_URL", f"https://{SECRET}@api-cm.np6.com"),
        ("NP6_BASE_URL", f"https://user:{SECRET}@[::1"),
        ("NP6_BASE_URL", f"user:{SECRET}@api-cm.np6.com"),
        ("NP6_BASE_URL", f"https://api-cm.np6.com?key={SECRET}"),
        ("NP6_BASE_URL", f"https://api-cm.np6.com#{SECRET}"),
        ("NP6_DATA_DIR", f"ftp://user:{SECRET}@example.com/np6"),
        ("NP6_DATA_DIR", f"nosuch://user:{SECRET}@example.com/np6"),
        ("NP6_DATA_DIR", f"memory://user:p/{SECRET}@example.com?sig={SECRET}"),
        ("NP6_DATA_DIR", f"simplecache::ftp://user:{SECRET}@example.com/np6"),
    ],
)
def test_credentials_in_an_address_are_refused_and_not_shown(name, url):
    with pytest.raises(SettingsError, match=f"^{name} holds") as caught:
        read(**{name: url})
    line = str(caught.value)
    assert SECRET not in line
    assert "\n" not in line


def test_address_without_credentials_is_accepted():
    for url in ("a folder: 10@home?", "memory://container@account/prefix"):
        assert read(NP6_DATA_DIR=url).data_dir == url


def test_key_with_control_characters_is_refused_and_not_shown():
    for key in ("two\nlines", "nul\0", "clé", "l\u2028s", "tab\tbed", "del\x7f"):
        with pytest.raises(SettingsError, match=r"^NP6_API_KEY holds characters") as caught:
            read(NP6_API_KEY=key)
        assert not any(part in str(caught.value) for part in (key, repr(key)[1:-1], "\n"))


def test_secret_keys_are_long_enough_and_not_shown():
    with pytest.raises(SettingsError, match=r"^NP6_PSEUDONYM_KEY is not set: [^\n]*$"):
        read(NP6_CONTACT_DATA="pseudonymize")
    # with its white space, as in version 0.1
    assert read(NP6_CONTACT_DATA="pseudonymize", NP6_PSEUDONYM_KEY=f" {LONG} ").contact.key == f" {LONG} "
    with pytest.raises(SettingsError, match=r"^NP6_TOMBSTONE_KEY has fewer than 32 characters") as caught:
        read(NP6_TOMBSTONE_KEY=SECRET)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        f"https://host/;token={SECRET}",
        f"sc://host:15002;token={SECRET}",
        f"sc://host:99999/;token={SECRET}",
        f"sc://host/path/;token={SECRET}",
        f"sc://host/;token={SECRET}=",
        f"sc://host/;{SECRET}",
        f"sc://user:{SECRET}@host",
        f"sc://host/;token={SECRET} ;use_ssl=true",
        f"sc://host/?token={SECRET}",
        f"sc:///;token={SECRET}",
    ],
)
def test_wrong_spark_address_is_refused_and_not_shown(address: str):
    with pytest.raises(
        SettingsError, match=r"^NP6_SPARK_CONNECT is not an address such as sc://localhost:15002"
    ) as caught:
        read(NP6_SPARK_CONNECT=address)
    assert SECRET not in str(caught.value)


def test_settings_do_not_show_secrets():
    settings = read(NP6_API_KEY=SECRET, NP6_CONTACT_DATA="pseudonymize", NP6_PSEUDONYM_KEY=SECRET)
    assert SECRET not in f"{settings!r} {settings}"
    assert LONG not in repr(read(NP6_TOMBSTONE_KEY=LONG))
    assert SECRET not in repr(read(NP6_SPARK_CONNECT=f"sc://host:443/;token={SECRET}"))


# --- the definitions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asset", ["hits", "notifications"])
def test_run_without_a_key_names_the_setting(tmp_path, asset):
    definitions = build_definitions(read(NP6_DATA_DIR=str(tmp_path), NP6_START_DATE="2026-03-20"))
    dg.Definitions.validate_loadable(definitions)
    job = definitions.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(asset)],
            partition_key=None if asset == "notifications" else "2026-03-20",
            raise_on_error=False,
        )
    assert not result.success
    [failed] = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    details = failed.step_failure_data.user_failure_data
    assert details is not None
    assert details.description == read().missing
    assert not any(event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY for event in result.all_events)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def load(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dg.Definitions:
    """Load the definitions as a process with this environment does."""
    for name in list(os.environ):
        if name.startswith("NP6_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return runpy.run_module("np6_assets.definitions")["defs"]


def test_definitions_refuse_a_wrong_setting(monkeypatch):
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, NP6_TIMEZONE="Mars/Olympus", NP6_API_KEY=SECRET)
    assert str(caught.value) == "NP6_TIMEZONE='Mars/Olympus' is not an IANA time zone such as Europe/Paris"


def test_definitions_do_not_hold_the_key(monkeypatch):
    definitions = load(monkeypatch, NP6_API_KEY=SECRET)
    assert SECRET not in serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))
    monkeypatch.setenv("NP6_API_KEY", "another")  # it is read when a run begins
    with dg.build_resources({"np6": definitions.resources["np6"]}) as resources:
        assert resources.np6.api_key == "another"
