"""One account and one machine, as the doctor examines them: each fact is found out when a judgement first needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import httpx

from np6_assets.component import NP6Account
from np6_assets.doctor import home
from np6_assets.doctor.probe import LONGEST_BODY, Now, Reply
from np6_assets.doctor.survey import Survey, survey_account
from np6_assets.np6.connection import Connection, Traffic
from np6_assets.np6.resource import SandboxStarter
from np6_assets.settings import Settings, SettingsError

_CONNECT_SECONDS, _READ_SECONDS = 10.0, 15.0


@dataclass
class Examination:
    """What is examined, and with what. Without an account, or with the one without a prefix: the environment's.

    `simulated` starts the account of `sandbox://`; `traffic` is what the API was sent and sent.
    """

    environment: Mapping[str, str]
    account: NP6Account | None = None
    watch_seconds: int = 0
    now: Now = lambda: datetime.now(UTC)
    wait: Callable[[float], None] = time.sleep
    simulated: SandboxStarter | None = None
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def is_of_environment(self) -> bool:
        """Whether the account is the one of the environment's variables."""
        return self.account is None or self.account.asset_key_prefix is None

    @cached_property
    def read_settings(self) -> Settings | SettingsError:
        """The settings, or what is wrong with them."""
        try:
            if self.account is None or self.is_of_environment:
                return Settings.from_environment(self.environment)
            return self.account.settings()
        except SettingsError as error:
            return error

    @property
    def settings(self) -> Settings:
        """The settings, where they are right."""
        assert isinstance(self.read_settings, Settings)
        return self.read_settings

    @property
    def home(self) -> Path:
        """Dagster's home."""
        return home.find_home(self.environment)

    @cached_property
    def survey(self) -> Survey:
        """The answers to all requests, which are sent now."""
        settings, start = self.settings, self.simulated
        key = "" if settings.is_sandbox else self.environment.get(settings.key_variable, "").strip()
        timeout = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
        stall = LONGEST_BODY.total_seconds()
        with (
            start(self.now) if settings.is_sandbox and start else nullcontext(settings.base_url) as address,
            closing(Connection(address, key, timeout=timeout, stall_seconds=stall, concurrency=1)) as client,
        ):
            self.traffic = client.traffic
            return survey_account(client, self.now, self.wait, self.watch_seconds)

    def has_settings(self) -> bool:
        """Whether the settings are right."""
        return isinstance(self.read_settings, Settings)

    def has_records(self) -> bool:
        """Whether Dagster has records of the account's runs."""
        return self.has_settings() and home.has_records(self.home)

    def can_request(self) -> bool:
        """Whether the settings are right and have a key, if one is needed."""
        return self.has_settings() and self.settings.missing is None

    def uses_tls(self) -> bool:
        """Whether requests leave this machine."""
        return self.can_request() and not self.settings.is_sandbox

    def has_access(self) -> bool:
        """Whether the API takes the key."""
        return self.can_request() and isinstance(first := self.survey.notifications, Reply) and first.refusal is None

    def has_replies(self) -> bool:
        """Whether the API answered at all."""
        return self.can_request() and bool(self.survey.replies)
