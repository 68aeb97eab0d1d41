"""Parse and check every setting: environment variable, default, error.

Only `definitions.py` reads the environment; here it is a mapping.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TypeVar, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from np6_assets.contact.policy import LEAST_KEY, SHORT_KEY, ContactMode, ContactPolicy
from np6_assets.np6.address import is_loopback
from np6_assets.storage.files import PRIVATE, SCHEMES

SANDBOX = "sandbox://"
"""The base URL of the simulated account."""

NO_KEY = f"NP6_API_KEY is not set: set it to the account's API key, or set NP6_BASE_URL={SANDBOX} to try without one"

OWNER = "team:data"
"""The owner of assets if NP6_OWNER is not set."""

RENAMED = {"NP6_REFRESH_OVERLAP_MINUTES": "NP6_LOOKBACK_MINUTES", "NP6_REFRESH_SECONDS": "NP6_PROBE_SECONDS"}
"""Variables of version 0.1 and their present names."""

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting is wrong; the text is one line that names the variable."""


@dataclass(frozen=True)
class Settings:
    """The checked settings of one account. The API key is not among them: the resource reads it."""

    base_url: str
    has_api_key: bool
    data_dir: str
    start_date: date
    timezone: str
    window_days: int
    contact: ContactPolicy
    max_concurrent_requests: int
    lookback: timedelta
    backfill_days_per_run: int | None
    probe_interval: timedelta
    refresh_interval: timedelta
    trailing_days: int
    fresh_by_hour: int
    retention_days: int | None
    tombstone_key: str = field(default="", repr=False)
    spark_connect: str | None = field(default=None, repr=False)
    account: str | None = None
    key_variable: str = "NP6_API_KEY"
    owner: str = OWNER

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], account: str | None = None, key_variable: str = "NP6_API_KEY"
    ) -> Settings:
        """Parse the settings; an empty variable is not set. Raises SettingsError for the first wrong one.

        `account`: the prefix of its asset keys, if it has one; `key_variable`: the variable that holds its API key,
        which the resource reads when a run begins.
        """

        def read(name: str, default: str, parse: Callable[[str], T]) -> T:
            text = environment.get(name, "").strip() or default
            try:
                return parse(text)
            except SettingsError:
                raise  # it hides the value, which the next line would show
            except ValueError as error:
                raise SettingsError(f"{name}={text!r} {error}") from None

        for old, new in RENAMED.items():
            if environment.get(old, "").strip():
                raise SettingsError(f"{old} is called {new} now: rename it")
        _check_api_key(environment.get("NP6_API_KEY", ""))
        window_days = read("NP6_WINDOW_DAYS", "7", _build_number_parser(0, 365))
        trailing_days = read("NP6_TRAILING_DAYS", "3", _build_number_parser(0, 60))
        return cls(
            base_url=read("NP6_BASE_URL", "https://api-cm.np6.com", _parse_base_url),
            has_api_key=bool(environment.get("NP6_API_KEY", "").strip()),
            data_dir=read("NP6_DATA_DIR", "data", _parse_data_dir),
            start_date=read("NP6_START_DATE", "2026-01-01", _parse_date),
            timezone=read("NP6_TIMEZONE", "UTC", _parse_timezone),
            window_days=window_days,
            contact=_build_contact_policy(
                read("NP6_CONTACT_DATA", "drop", _parse_contact_mode),
                environment.get("NP6_PSEUDONYM_KEY", ""),
                read("NP6_URL_PARAMETERS", "all", _parse_url_parameters),
            ),
            max_concurrent_requests=read("NP6_MAX_CONCURRENT_REQUESTS", "4", _build_number_parser(1, 64)),
            backfill_days_per_run=read("NP6_BACKFILL_DAYS_PER_RUN", "0", _build_number_parser(0, 3660)) or None,
            lookback=timedelta(minutes=read("NP6_LOOKBACK_MINUTES", "60", _build_number_parser(0, 7 * 24 * 60))),
            probe_interval=timedelta(seconds=read("NP6_PROBE_SECONDS", "60", _build_number_parser(30, 24 * 3600))),
            refresh_interval=timedelta(minutes=read("NP6_REFRESH_MINUTES", "15", _build_number_parser(0, 24 * 60))),
            trailing_days=trailing_days,
            fresh_by_hour=read("NP6_FRESH_BY_HOUR", "8", _build_number_parser(0, 23)),
            retention_days=read("NP6_RETENTION_DAYS", "0", _build_retention_parser(max(window_days, trailing_days) + 2))
            or None,
            tombstone_key=_check_tombstone_key(environment.get("NP6_TOMBSTONE_KEY", "").strip()),
            spark_connect=_parse_spark_connect(environment.get("NP6_SPARK_CONNECT", "").strip()),
            account=account,
            key_variable=key_variable,
            owner=read("NP6_OWNER", OWNER, _parse_owner),
        )

    def key(self, asset: str) -> list[str]:
        """Return the path of an asset's key: below the account's name, if it has one."""
        return [asset] if self.account is None else [self.account, asset]

    def named(self, name: str) -> str:
        """Return a name (of a job, a group, the pool) with the account's prefix."""
        return "_".join(self.key(name))

    @property
    def pool(self) -> str:
        """Return the pool of the steps that request the API or change its files."""
        return self.named("np6_api")

    @property
    def file_mode(self) -> int | None:
        """Return the mode of local files with events; None for the default of the umask."""
        return PRIVATE if self.contact.mode == "keep" else None

    @property
    def is_sandbox(self) -> bool:
        """Return whether this is the simulated account."""
        return self.base_url == SANDBOX

    @property
    def missing(self) -> str | None:
        """Return why a run cannot start, in one line; None if nothing is missing."""
        if self.is_sandbox or self.has_api_key:
            return None
        return self.no_key

    @property
    def no_key(self) -> str:
        """Return the error for a missing API key."""
        if self.account is None:
            return NO_KEY
        unset = f"{self.key_variable} is not set" if self.key_variable else "api_key_variable is not given"
        return (
            f"account {self.account}: {unset}: set a variable to the account's API key and name it in "
            f"api_key_variable, or write base_url: {SANDBOX} to try without one"
        )


def _check_api_key(key: str) -> None:
    if not (key.strip().isascii() and key.strip().isprintable()):
        raise SettingsError("NP6_API_KEY holds characters that an HTTP header cannot carry; copy the key again")


def _parse_base_url(text: str) -> str:
    if text.rstrip("/") == SANDBOX.rstrip("/"):
        return SANDBOX
    if "@" in text or "?" in text or "#" in text:
        raise SettingsError(
            "NP6_BASE_URL holds a user name, a password or parameters; the key belongs in NP6_API_KEY, and an address "
            "is https://api-cm.np6.com, say"
        )
    if not _is_address(text):
        raise ValueError("is not an address such as https://api-cm.np6.com")
    parts = urlsplit(text)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("would send the key unencrypted; use https (http is for loopback addresses alone)")
    return text.rstrip("/")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    return parts.scheme in ("http", "https") and bool(host) and host.isprintable() and " " not in host


def _parse_data_dir(text: str) -> str:
    # UI, logs and errors show it
    if "://" in text and (re.search(r"//[^/]*:[^/]*@", text) or "?" in text):
        raise SettingsError(
            "NP6_DATA_DIR holds a password or parameters; credentials belong in environment variables, such as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    scheme, separator, _ = text.partition("://")
    if separator and scheme not in ("file", *SCHEMES):
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise ValueError(f"is neither a local folder nor an address that begins with one of {known}")
    return text


def _parse_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("is not a date such as 2026-01-01") from None


def _parse_timezone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise ValueError("is not an IANA time zone such as Europe/Paris") from None
    return text


def _parse_owner(text: str) -> str:
    if not re.fullmatch(r"team:[\w-]+|[^@\s]+@[^@\s]+\.[^@\s]+", text):
        raise ValueError("is neither team:NAME nor an e-mail address")
    return text


def _build_number_parser(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise ValueError(f"is not a whole number from {least} to {most}")
        return int(text)

    return parse


def _build_retention_parser(least: int) -> Callable[[str], int]:
    """Build a parser of 0 or at least `least` days: until cohorts are final and days are no longer fetched."""

    def parse(text: str) -> int:
        days = _build_number_parser(0, 36600)(text)
        if 0 < days < least:
            raise ValueError(f"is too short: NP6_WINDOW_DAYS and NP6_TRAILING_DAYS need {least}, and 0 keeps all")
        return days

    return parse


def _parse_contact_mode(text: str) -> ContactMode:
    for mode in get_args(ContactMode):
        if text == mode:
            return mode  # type: ignore[no-any-return]
    raise ValueError(f"is none of {', '.join(get_args(ContactMode))}")


def _parse_url_parameters(text: str) -> frozenset[str] | None:
    """Parse names separated by commas; None for all."""
    return None if text == "all" else frozenset(name.strip() for name in text.split(",")) - {""}


def _check_tombstone_key(key: str) -> str:
    if key and len(key) < LEAST_KEY:
        raise SettingsError(f"NP6_TOMBSTONE_KEY {SHORT_KEY}")
    return key


_SPARK_CONNECT = re.compile(
    r"sc://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(?:/(?:;[\w-]+=[^;=?#\s]+)*)?", re.ASCII
)


def _parse_spark_connect(text: str) -> str | None:
    if not text:
        return None
    address = _SPARK_CONNECT.fullmatch(text)
    if address is None or int(address[1] or 0) > 65535:
        # not shown, as a parameter may be a token
        raise SettingsError(
            "NP6_SPARK_CONNECT is not an address such as sc://localhost:15002 or sc://host:443/;use_ssl=true;token=... "
            "(in a value, = is written %3D)"
        )
    if importlib.util.find_spec("pyspark") is None:
        raise SettingsError("NP6_SPARK_CONNECT needs a package that is not installed: pip install 'np6-assets[spark]'")
    return text


def _build_contact_policy(mode: ContactMode, key: str, parameters: frozenset[str] | None) -> ContactPolicy:
    if mode == "pseudonymize" and not key.strip():
        raise SettingsError("NP6_PSEUDONYM_KEY is not set: NP6_CONTACT_DATA=pseudonymize needs a secret key")
    return ContactPolicy(mode, key if mode == "pseudonymize" else "", parameters)
