"""Every setting, typed: its environment variable, its default, and what is wrong with a wrong one.

The environment is read in `definitions.py` alone and handed in here as a mapping.
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
"""Whom to ask about an asset, where nobody else is named."""

RENAMED = {"NP6_REFRESH_OVERLAP_MINUTES": "NP6_LOOKBACK_MINUTES", "NP6_REFRESH_SECONDS": "NP6_PROBE_SECONDS"}
"""Variables of version 0.1, and what they are called now."""

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting is wrong; the text is one line that names the variable."""


@dataclass(frozen=True)
class Settings:
    """The settings of one deployment, checked. The key itself is not among them: the resource reads it."""

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
        """Read the settings. Raises SettingsError for the first that is wrong; empty counts as not set.

        `account` is the prefix of its assets' keys where it has one; `key_variable` names the variable with its key,
        which the resource reads when a run begins.
        """

        def read(name: str, default: str, parse: Callable[[str], T]) -> T:
            text = environment.get(name, "").strip() or default
            try:
                return parse(text)
            except SettingsError:
                raise  # its text does not show the value, as this one would
            except ValueError as error:
                raise SettingsError(f"{name}={text!r} {error}") from None

        for old, new in RENAMED.items():
            if environment.get(old, "").strip():
                raise SettingsError(f"{old} is called {new} now: rename it")
        _check_key(environment.get("NP6_API_KEY", ""))
        window_days = read("NP6_WINDOW_DAYS", "7", _whole_number(0, 365))
        trailing_days = read("NP6_TRAILING_DAYS", "3", _whole_number(0, 60))
        return cls(
            base_url=read("NP6_BASE_URL", "https://api-cm.np6.com", _base_url),
            has_api_key=bool(environment.get("NP6_API_KEY", "").strip()),
            data_dir=read("NP6_DATA_DIR", "data", _data_dir),
            start_date=read("NP6_START_DATE", "2026-01-01", _date),
            timezone=read("NP6_TIMEZONE", "UTC", _timezone),
            window_days=window_days,
            contact=_contact(
                read("NP6_CONTACT_DATA", "drop", _contact_mode),
                environment.get("NP6_PSEUDONYM_KEY", ""),
                read("NP6_URL_PARAMETERS", "all", _url_parameters),
            ),
            max_concurrent_requests=read("NP6_MAX_CONCURRENT_REQUESTS", "4", _whole_number(1, 64)),
            backfill_days_per_run=read("NP6_BACKFILL_DAYS_PER_RUN", "0", _whole_number(0, 3660)) or None,
            lookback=timedelta(minutes=read("NP6_LOOKBACK_MINUTES", "60", _whole_number(0, 7 * 24 * 60))),
            probe_interval=timedelta(seconds=read("NP6_PROBE_SECONDS", "60", _whole_number(30, 24 * 3600))),
            refresh_interval=timedelta(minutes=read("NP6_REFRESH_MINUTES", "15", _whole_number(0, 24 * 60))),
            trailing_days=trailing_days,
            fresh_by_hour=read("NP6_FRESH_BY_HOUR", "8", _whole_number(0, 23)),
            retention_days=read("NP6_RETENTION_DAYS", "0", _retention(max(window_days, trailing_days) + 2)) or None,
            tombstone_key=_tombstone_key(environment.get("NP6_TOMBSTONE_KEY", "").strip()),
            spark_connect=_spark_connect(environment.get("NP6_SPARK_CONNECT", "").strip()),
            account=account,
            key_variable=key_variable,
            owner=read("NP6_OWNER", OWNER, _owner),
        )

    def key(self, asset: str) -> list[str]:
        """The path of an asset's key: below the account's name, where the account has one."""
        return [asset] if self.account is None else [self.account, asset]

    def named(self, name: str) -> str:
        """A name that is the account's own in the whole deployment: of a job, a group of assets, the pool."""
        return "_".join(self.key(name))

    @property
    def pool(self) -> str:
        """The pool of the runs that ask the API, or that change what those write."""
        return self.named("np6_api")

    @property
    def file_mode(self) -> int | None:
        """The mode of local files with events; None: as the umask says."""
        return PRIVATE if self.contact.mode == "keep" else None

    @property
    def is_sandbox(self) -> bool:
        """Whether this is the simulated account."""
        return self.base_url == SANDBOX

    @property
    def missing(self) -> str | None:
        """What a run cannot do without, in one line; None where nothing is missing."""
        if self.is_sandbox or self.has_api_key:
            return None
        return self.no_key

    @property
    def no_key(self) -> str:
        """What to say where there is no key."""
        if self.account is None:
            return NO_KEY
        unset = f"{self.key_variable} is not set" if self.key_variable else "api_key_variable is not given"
        return (
            f"account {self.account}: {unset}: set a variable to the account's API key and name it in "
            f"api_key_variable, or write base_url: {SANDBOX} to try without one"
        )


def _check_key(key: str) -> None:
    if not (key.strip().isascii() and key.strip().isprintable()):
        raise SettingsError("NP6_API_KEY holds characters that an HTTP header cannot carry; copy the key again")


def _base_url(text: str) -> str:
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


def _data_dir(text: str) -> str:
    # it is shown in the UI, in logs and in errors
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


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("is not a date such as 2026-01-01") from None


def _timezone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise ValueError("is not an IANA time zone such as Europe/Paris") from None
    return text


def _owner(text: str) -> str:
    """As Dagster has owners of assets."""
    if not re.fullmatch(r"team:[\w-]+|[^@\s]+@[^@\s]+\.[^@\s]+", text):
        raise ValueError("is neither team:NAME nor an e-mail address")
    return text


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise ValueError(f"is not a whole number from {least} to {most}")
        return int(text)

    return parse


def _retention(least: int) -> Callable[[str], int]:
    """0, or enough days for every cohort to become final and for every day that is fetched again."""

    def parse(text: str) -> int:
        days = _whole_number(0, 36600)(text)
        if 0 < days < least:
            raise ValueError(f"is too short: NP6_WINDOW_DAYS and NP6_TRAILING_DAYS need {least}, and 0 keeps all")
        return days

    return parse


def _contact_mode(text: str) -> ContactMode:
    for mode in get_args(ContactMode):
        if text == mode:
            return mode  # type: ignore[no-any-return]
    raise ValueError(f"is none of {', '.join(get_args(ContactMode))}")


def _url_parameters(text: str) -> frozenset[str] | None:
    """Names between commas; None for all."""
    return None if text == "all" else frozenset(name.strip() for name in text.split(",")) - {""}


def _tombstone_key(key: str) -> str:
    if key and len(key) < LEAST_KEY:
        raise SettingsError(f"NP6_TOMBSTONE_KEY {SHORT_KEY}")
    return key


_SPARK_CONNECT = re.compile(
    r"sc://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(?:/(?:;[\w-]+=[^;=?#\s]+)*)?", re.ASCII
)


def _spark_connect(text: str) -> str | None:
    if not text:
        return None
    address = _SPARK_CONNECT.fullmatch(text)
    if address is None or int(address[1] or 0) > 65535:
        # a parameter may be a token: the value is not shown
        raise SettingsError(
            "NP6_SPARK_CONNECT is not an address such as sc://localhost:15002 or sc://host:443/;use_ssl=true;token=... "
            "(in a value, = is written %3D)"
        )
    if importlib.util.find_spec("pyspark") is None:
        raise SettingsError("NP6_SPARK_CONNECT needs a package that is not installed: pip install 'np6-assets[spark]'")
    return text


def _contact(mode: ContactMode, key: str, parameters: frozenset[str] | None) -> ContactPolicy:
    if mode == "pseudonymize" and not key.strip():
        raise SettingsError("NP6_PSEUDONYM_KEY is not set: NP6_CONTACT_DATA=pseudonymize needs a secret key")
    return ContactPolicy(mode, key if mode == "pseudonymize" else "", parameters)
