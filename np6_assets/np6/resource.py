"""The Dagster resource of the API: timeouts and retries, described in the UI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import dagster as dg
from pydantic import Field, PrivateAttr

from np6_assets.np6.errors import NP6Error, PermanentError, UnreachableError
from np6_assets.np6.retry import RetryPolicy
from np6_assets.settings import NO_KEY, SANDBOX, Settings

if TYPE_CHECKING:
    from np6_assets.np6.client import NP6Client

PROBE_SECONDS = 15.0
"""How long the probes of one tick may take: Dagster allows a tick one minute."""

_PROBE_TIMEOUT = 8.0
_PROBE_RETRY = RetryPolicy(retries=3, longest_wait=3.0)
_STALL_SECONDS = 120.0

Clock: TypeAlias = Callable[[], datetime]

SandboxStarter: TypeAlias = Callable[[Clock], AbstractContextManager[str]]
"""Starts the sandbox with a clock; the context gives its address, which needs no key."""

_NOT_FOR_RUNS = {"base_url", "api_key", "max_concurrent_requests"}
"""Fields that run config cannot change: who can reach Dagster's UI can launch a run with any config."""


def utc_now() -> datetime:
    """Return the time of this machine's clock."""
    return datetime.now(UTC)


class NP6Resource(dg.ConfigurableResource["NP6Resource"]):
    """Access to one NP6 account."""

    base_url: str = Field(
        default="https://api-cm.np6.com",
        description=f"Address of the API. {SANDBOX} is a simulated account, in process, and needs no key.",
    )
    api_key: str = Field(
        default="",
        repr=False,
        description="The X-Key of the account, from the environment variable NP6_API_KEY; never shown.",
    )
    connect_timeout: float = Field(default=10.0, gt=0, description="Seconds to wait for a connection.")
    read_timeout: float = Field(default=60.0, gt=0, description="Seconds to wait for the next bytes of an answer.")
    max_retries: int = Field(
        default=RetryPolicy.retries,
        ge=0,
        description="Failures in a row, without any progress, before a request fails.",
    )
    backoff: float = Field(
        default=RetryPolicy.backoff,
        ge=0,
        description="Seconds: the first wait for a retry is random up to this, each further one up to twice as much.",
    )
    longest_wait: float = Field(
        default=RetryPolicy.longest_wait,
        ge=0,
        description="Seconds: no wait is longer, whatever Retry-After or X-RateLimit-Reset ask for.",
    )
    step_retries: int = Field(
        default=2, ge=0, description="How often Dagster starts a step again that the client's retries did not save."
    )
    step_retry_delay: float = Field(default=30.0, ge=0, description="Seconds before Dagster starts a step again.")
    max_concurrent_requests: int = Field(default=4, ge=1, description="Requests under way at once, in a run.")

    _start_sandbox: SandboxStarter | None = PrivateAttr(default=None)
    _no_key: str = PrivateAttr(default=NO_KEY)

    def with_sandbox(self, start: SandboxStarter) -> Self:
        """Set the starter of the sandbox."""
        self._start_sandbox = start
        return self

    def build_definition(self, settings: Settings, simulated: SandboxStarter) -> dg.ResourceDefinition:
        """Build the definition for runs: the settings name the key's variable; config may change the rest.

        Each field of the config has a default of its own, so that to override one keeps the others.
        """
        schema = {
            # plain types: those of Dagster's own that take the name of an environment variable are not for runs
            name: dg.Field(type(getattr(self, name)), default_value=getattr(self, name), description=field.description)
            for name, field in type(self).model_fields.items()
            if name not in _NOT_FOR_RUNS
        }
        fixed: dict[str, Any] = self.model_dump(include=_NOT_FOR_RUNS - {"api_key"})

        def configured(context: dg.InitResourceContext) -> NP6Resource:
            key = dg.EnvVar(settings.key_variable).get_value() if settings.has_api_key else None
            made = NP6Resource(**fixed, api_key=key or "", **context.resource_config).with_sandbox(simulated)
            made._no_key = settings.no_key
            return made

        return dg.ResourceDefinition(configured, config_schema=schema, description=type(self).__doc__)

    @contextmanager
    def open_client(
        self, log: Callable[[str], None], now: Clock = utc_now, *, attempt: int = 0, has_answered: bool = False
    ) -> Iterator[NP6Client]:
        """Open a client for a run. `log` takes one line for each retry, `now` is our clock.

        `attempt` counts the retries of the step; `has_answered` says whether the address ever answered, as it is not
        retried for long otherwise. Errors leave the block as what Dagster acts on: permanent ones, and those of the
        last attempt, as a Failure without retries, others as a request to retry the step.
        """
        retry = RetryPolicy(self.max_retries, self.backoff, self.longest_wait)
        try:
            with self._open_client(self.read_timeout, self.connect_timeout, retry, log, now) as client:
                if has_answered:
                    client.answered.set()
                yield client
        except NP6Error as error:
            # for the last attempt Dagster would show only the number of retries, not the error
            if isinstance(error, PermanentError | UnreachableError) or attempt >= self.step_retries:
                raise dg.Failure(str(error), allow_retries=False) from None
            request = dg.RetryRequested(self.step_retries, self.step_retry_delay)
            request.args = (str(error),)  # what Dagster shows of it
            raise request from error

    @contextmanager
    def open_probe_client(self, log: Callable[[str], None], now: Clock = utc_now) -> Iterator[NP6Client]:
        """Open a client for the probes of a tick, closed after PROBE_SECONDS. Raises the client's errors."""
        retry = replace(_PROBE_RETRY, backoff=min(self.backoff, _PROBE_RETRY.backoff))
        seconds = min(self.read_timeout, _PROBE_TIMEOUT)
        with self._open_client(seconds, seconds, retry, log, now) as client, client.close_after(PROBE_SECONDS):
            yield client

    @contextmanager
    def _open_client(
        self, timeout: float, connect_timeout: float, retry: RetryPolicy, log: Callable[[str], None], now: Clock
    ) -> Iterator[NP6Client]:
        import httpx

        from np6_assets.np6.client import NP6Client

        with (
            self._open_account(now) as (address, key),
            closing(
                NP6Client(
                    address,
                    key,
                    timeout=httpx.Timeout(timeout, connect=connect_timeout),
                    stall_seconds=max(_STALL_SECONDS, 2 * timeout),
                    retry=retry,
                    concurrency=self.max_concurrent_requests,
                    now=now,
                    log=log,
                )
            ) as client,
        ):
            yield client

    @contextmanager
    def _open_account(self, now: Clock) -> Iterator[tuple[str, str]]:
        """Open the account: its address and key. The sandbox is never given a key."""
        if self.base_url != SANDBOX:
            if not (key := self.api_key.strip()):
                raise PermanentError(self._no_key)
            yield self.base_url, key
            return
        if self._start_sandbox is None:
            raise PermanentError(f"nothing here starts the simulated account ({SANDBOX}); set another address")
        with self._start_sandbox(now) as address:
            yield address, ""
