"""Load the accounts as Dagster does here, and judge whether their definitions load together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from np6_assets.component import NP6Account
from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.loading import load_components, quiet, select_accounts
from np6_assets.settings import SettingsError

_ADVICE = "Correct defs.yaml, .env or the environment; what .env says wins. `dg check defs` says the same."
_LONGEST = 500


@dataclass(frozen=True)
class LoadedAccounts:
    """The accounts of the project; `error` says why they could not be read."""

    accounts: Sequence[NP6Account]
    error: str = ""

    def find(self, prefix: str | None) -> NP6Account | None:
        """Find the account with a prefix; without one that of the environment, or else the only one."""
        if prefix is None and len(self.accounts) == 1:
            return self.accounts[0]
        return next((one for one in self.accounts if one.asset_key_prefix == prefix), None)

    def explain_choice(self, prefix: str | None) -> str:
        """Say why no account was found, and which there are."""
        names = ", ".join(one.asset_key_prefix for one in self.accounts if one.asset_key_prefix) or "none"
        unknown = f"there is no account {prefix}" if prefix else "there are several accounts"
        return f"{unknown}: name one with --account; those of this project: {names}"

    def judge_definitions(self) -> Diagnosis:
        """Judge whether the definitions of all accounts load together."""
        subject = "definitions"
        if self.error:
            return Diagnosis(subject, "wrong", self.error, _ADVICE)
        try:
            with quiet():
                made = dg.Definitions.merge(*map(dg.build_defs_for_component, self.accounts))
                dg.Definitions.validate_loadable(made)
        except (SettingsError, dg.DagsterError) as error:
            return Diagnosis(subject, "wrong", _format_error(error), _ADVICE)
        names = ", ".join(one.asset_key_prefix or "that of the environment" for one in self.accounts)
        return Diagnosis(subject, "ok", f"those of {len(self.accounts)} accounts load: {names}")


def load_accounts(environment: Mapping[str, str]) -> LoadedAccounts:
    """Load the accounts of the environment and of the project's folder `defs`."""
    try:
        with quiet():
            return LoadedAccounts(select_accounts(environment, load_components()))
    except Exception as error:  # noqa: BLE001 -- whatever the files of a project raise
        while error.__cause__ is not None and not isinstance(error, SettingsError):
            error = error.__cause__  # type: ignore[assignment]
        return LoadedAccounts((), _format_error(error))


def _format_error(error: BaseException) -> str:
    return " ".join(str(error).split())[:_LONGEST]
