"""NP6 push notification events as daily Parquet, and exact reactivity rates, with Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from np6_assets.component import NP6Account

__all__ = ["NP6Account"]


def __getattr__(name: str) -> Any:
    """Return the component on first use: importing it imports Dagster, which the command line does without."""
    if name == "NP6Account":
        from np6_assets.component import NP6Account

        return NP6Account
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
