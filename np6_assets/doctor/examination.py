"""One account and one machine, as the doctor examines them: each fact is found out when a judgement first needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import httpx

from np6_assets.component import NP6Account
from np6_assets.doctor import machine
from np6_assets.doctor.probe import LONGEST_BODY, Now, Reply
from np6_assets.doctor.survey import Survey, survey_account
from np6_assets.np6.client import NP6Client
from np6_assets.np6.connection import Traffic
from np6_assets.np6.resource import SandboxStarter
from np6_assets.settings import Settings

_CONNECT_SECONDS, _READ_SECONDS = 10.0, 15.0


@dataclass
class Examination:
    """What is examined, and with what. Without an account, or with the one without a prefix: the environment's.

    What the API is sent and sends is added to `traffic`. `simulated` starts the account of `sandbox://`.
    """

    environment: Mapping[str, str]
    account: NP6Account | None = None
    watch_seconds: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    now: Now = lambda: datetime.now(UTC)
    wait: Callable[[float], None] = time.sleep
    simulated: SandboxStarter | None = None

    @cached_property
    def read(self) -> machine.SettingsRead:
        """The settings, or what is wrong with them."""
        if self.account is not None and self.account.asset_key_prefix is not None:
            return machine.read_attributes(self.account)
        return machine.read_settings(self.environment)

    @property
    def settings(self) -> Settings:
        """The settings, where they are right."""
        assert self.read.settings is not None
        return self.read.settings

    @cached_property
    def home(self) -> Path:
        """Dagster's home."""
        return machine.find_dagster_home(self.environment)

    @cached_property
    def survey(self) -> Survey:
        """The answers to all requests, which are sent now."""
        with self._open_client() as client:
            found = survey_account(client, self.now, self.wait, self.watch_seconds)
            self.traffic.requests, self.traffic.bytes = client.traffic.requests, client.traffic.bytes
        return found

    @contextmanager
    def _open_client(self) -> Iterator[NP6Client]:
        settings = self.settings
        is_simulated = settings.is_sandbox and self.simulated is not None
        key = "" if settings.is_sandbox else self.environment.get(settings.key_variable, "").strip()
        with self.simulated(self.now) if is_simulated else nullcontext(settings.base_url) as address:  # type: ignore[misc]
            timeout = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
            stall = LONGEST_BODY.total_seconds()
            client = NP6Client(address, key, timeout=timeout, stall_seconds=stall, concurrency=1, now=self.now)
            try:
                yield client
            finally:
                client.close()

    def has_settings(self) -> bool:
        """Whether the settings are right."""
        return self.read.settings is not None

    def has_records(self) -> bool:
        """Whether Dagster has records of the account's runs."""
        return self.has_settings() and machine.has_records(self.home)

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
