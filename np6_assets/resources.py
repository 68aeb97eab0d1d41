"""The resources of an account, by keys of its own: `Definitions.merge` has one resource of a key, whoever brings it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from np6_assets.np6.resource import NP6Resource
    from np6_assets.settings import Settings
    from np6_assets.storage.io_manager import ParquetStore

NP6, STORE, IO_MANAGER = "np6", "store", "io_manager"


def list_resource_keys(settings: Settings, *names: str) -> set[str]:
    """List the keys of some resources, for `required_resource_keys`."""
    return {settings.named(name) for name in names}


def get_np6(context: Any, settings: Settings) -> NP6Resource:
    """Return the API from the context of a step or tick."""
    found: NP6Resource = getattr(context.resources, settings.named(NP6))
    return found


def get_store(context: Any, settings: Settings) -> ParquetStore:
    """Return the data folder from the context of a step or tick."""
    found: ParquetStore = getattr(context.resources, settings.named(STORE))
    return found
