"""Declare an account as a Dagster component, `NP6Account`; see docs/embedding.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import dagster as dg
from pydantic import Field

from np6_assets.settings import OWNER, Settings, SettingsError

SECRETS = {
    "api_key_variable": "NP6_API_KEY",
    "pseudonym_key_variable": "NP6_PSEUDONYM_KEY",
    "tombstone_key_variable": "NP6_TOMBSTONE_KEY",
    "spark_connect_variable": "NP6_SPARK_CONNECT",
}
"""Attributes that name the environment variable of a secret, with the variable of the account without a prefix."""

LABELS = ("owners", "tags", "group_name")

_PREFIX = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _resolve_prefix(context: dg.ResolutionContext, prefix: Any) -> str:
    found = str(context.resolve_value(prefix))
    if not _PREFIX.fullmatch(found):
        raise SettingsError(
            f"asset_key_prefix={found!r} is not lower-case letters, digits and single _, such as brand_a"
        )
    return found


class NP6AccountScaffolder(dg.Scaffolder):
    """Writes a `defs.yaml` that loads, with the attributes in which accounts usually differ."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write `defs.yaml`; the prefix is the name of its folder."""
        prefix = re.sub(r"[^a-z0-9]+", "_", request.target_path.name.lower()).strip("_")
        prefix = prefix if _PREFIX.fullmatch(prefix) else f"np6_{prefix}".rstrip("_")
        attributes = {
            "asset_key_prefix": prefix,
            "api_key_variable": f"{prefix.upper()}_NP6_API_KEY",
            "data_dir": f"data/{prefix}",
            "start_date": "2026-01-01",
            "timezone": "UTC",
            "window_days": 7,
            "contact_data": "drop",
        }
        dg.scaffold_component(request, attributes)


@dg.scaffold_with(NP6AccountScaffolder)
class NP6Account(dg.Component, dg.Resolvable, dg.Model):
    """An NP6 account: its push notification events as daily Parquet, reactivity rates, and what keeps them up to date.

    Everything that has a name in a deployment (assets, jobs, sensors, schedules, resources, the pool) begins with the
    prefix, so that it stands beside other accounts and whatever else is there.
    """

    asset_key_prefix: Annotated[str | None, dg.Resolver(_resolve_prefix, model_field_type=str)] = Field(
        description="Prefix of the keys of its assets, and of every other name: lower-case letters, digits, single _.",
        examples=["brand_a"],
    )
    api_key_variable: str | None = Field(
        default=None, description="Name of the environment variable that holds the account's API key."
    )
    base_url: str = Field(
        default="https://api-cm.np6.com",
        description="Address of the API. sandbox:// is a simulated account, in process, and needs no key.",
    )
    data_dir: str | None = Field(
        default=None,
        description="Where Parquet goes: a local folder or a URL such as s3://bucket/prefix; data/<prefix> if not set. "
        "No other account may have the same.",
    )
    start_date: str = Field(default="2026-01-01", description="First event day, such as 2026-01-01.")
    timezone: str = Field(default="UTC", description="IANA name of the zone whose days the partitions are.")
    window_days: int = Field(default=7, description="Days after a send in which reactions count.")
    contact_data: Literal["drop", "pseudonymize", "keep"] = Field(
        default="drop", description="What becomes of contact data in events."
    )
    pseudonym_key_variable: str | None = Field(
        default=None, description="Name of the environment variable with the secret for pseudonyms."
    )
    tombstone_key_variable: str | None = Field(
        default=None, description="Name of the environment variable with the secret for tombstones of erased receivers."
    )
    spark_connect_variable: str | None = Field(
        default=None,
        description="Name of the environment variable with the Spark Connect address that computes the rates; it may "
        "hold a token; DuckDB computes them if not set.",
    )
    url_parameters: Sequence[str] | None = Field(
        default=None, description="Parameters of links that keep their values; all if not set."
    )
    retention_days: int = Field(default=0, description="Days that events are kept; 0: for ever.")
    max_concurrent_requests: int = Field(default=4, description="Requests under way at once.")
    backfill_days_per_run: int = Field(default=0, description="Days of a backfill in one run; 0: all.")
    lookback_minutes: int = Field(
        default=60, description="Minutes behind the watermark at which an incremental fetch starts."
    )
    probe_seconds: int = Field(default=60, description="How often the sensor looks for new events.")
    refresh_minutes: int = Field(default=15, description="Shortest time between two fetches of an open day.")
    trailing_days: int = Field(default=3, description="Days before yesterday that are fetched again each night.")
    fresh_by_hour: int = Field(default=8, description="Hour by which yesterday must be there.")
    owners: Sequence[str] = Field(default=(OWNER,), description="Owners of the assets.")
    tags: Mapping[str, str] = Field(default={}, description="Tags of the assets.")
    group_name: str | None = Field(
        default=None, description="Group of all assets; <prefix>_events and <prefix>_rates if not set."
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> NP6Account:
        """Build the account without a prefix from variables. Raises SettingsError, which names the variable."""
        settings = Settings.from_environment(environment)
        given: dict[str, Any] = {
            name: environment[variable].strip()
            for name in _list_plain_attributes()
            if environment.get(variable := _name_variable(name), "").strip()
        }
        if given.pop("url_parameters", "all") != "all":
            given["url_parameters"] = environment["NP6_URL_PARAMETERS"].split(",")
        return cls(asset_key_prefix=None, owners=[settings.owner], **{"data_dir": "data", **SECRETS, **given})

    def settings(self) -> Settings:
        """Return the checked settings. Raises SettingsError, which names the attribute."""
        for attribute in SECRETS:
            if not _VARIABLE.fullmatch(getattr(self, attribute) or "NONE"):
                text = f"{attribute} is not the name of an environment variable; write the name, not the key"
                raise SettingsError(f"account {self.asset_key_prefix}: {text}")
        values = {_name_variable(name): getattr(self, name) for name in _list_plain_attributes()}
        if self.url_parameters is not None:
            values["NP6_URL_PARAMETERS"] = ",".join(self.url_parameters)
        if self.data_dir is None:
            values["NP6_DATA_DIR"] = f"data/{self.asset_key_prefix}"
        secrets = {
            variable: dg.EnvVar(name).get_value() or ""
            for attribute, variable in SECRETS.items()
            if (name := getattr(self, attribute))
        }
        texts = {name: str(value) for name, value in values.items() if value is not None}
        with self._translate_errors():
            return Settings.from_environment(texts | secrets, self.asset_key_prefix, self.api_key_variable or "")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the definitions of the account. Raises SettingsError if an attribute is wrong."""
        from np6_assets.wiring import build_definitions

        settings = self.settings()
        with self._translate_errors():
            return build_definitions(settings, label=self._label)

    def _label(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        group = self.group_name or spec.group_name
        return spec.replace_attributes(owners=list(self.owners), tags={**spec.tags, **self.tags}, group_name=group)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Reraise a SettingsError with the names of attributes in place of variables."""
        try:
            yield
        except SettingsError as error:
            if self.asset_key_prefix is None:
                raise
            named = {variable: getattr(self, attribute) or attribute for attribute, variable in SECRETS.items()}
            named |= {_name_variable(name): name for name in _list_plain_attributes()}
            text = re.sub(r"NP6_[A-Z_]+", lambda found: named.get(found[0], found[0]), str(error))
            raise SettingsError(f"account {self.asset_key_prefix}: {text}") from None


def _list_plain_attributes() -> list[str]:
    return [name for name in NP6Account.model_fields if name not in (*SECRETS, *LABELS, "asset_key_prefix")]


def list_variables() -> set[str]:
    """Return the environment variables that are settings of the account without a prefix."""
    return {"NP6_OWNER", *SECRETS.values(), *map(_name_variable, _list_plain_attributes())}


def _name_variable(attribute: str) -> str:
    return f"NP6_{attribute.upper()}"
