"""The asset `notifications`: the API's list, and the stored notifications that it no longer names."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow.parquet as pq

from np6_assets.events.kinds import REACTIONS
from np6_assets.events.reject import parse_integer
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import BadResponseError
from np6_assets.partitions import EVENT_DATE, day_at
from np6_assets.settings import Settings
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

REACTION_DAYS = 31
"""Days of stored reactions that are searched for notifications which the API does not list."""


@dataclass(frozen=True)
class Notification:
    """A row of the asset `notifications`.

    `unlisted_since` is None while the API lists it, or if it never did. `first_seen` is None if version 0.1 wrote it.
    """

    activation_id: int
    name: str | None
    type: str | None
    unlisted_since: datetime | None = None
    first_seen: datetime | None = None

    @property
    def was_listed(self) -> bool:
        """Whether the API's list has ever named it; else only a reaction has."""
        return self.name is not None or self.type is not None


def fetch_notifications(client: NP6Client) -> dict[int, Notification]:
    """Fetch the API's list, by id. Raises BadResponseError if an id is not a whole number."""
    found: dict[int, Notification] = {}
    for notification in client.get_list("/notifications"):
        id_ = parse_integer(notification.get("id")) if isinstance(notification, dict) else None
        if id_ is None:
            raise BadResponseError("GET /notifications: a notification has no whole number as its id")
        found[id_] = Notification(id_, _to_text(notification.get("name")), _to_text(notification.get("type")))
    return {id_: found[id_] for id_ in sorted(found)}


def read_notifications(folder: Folder) -> dict[int, Notification]:
    """Read the stored notifications, by id; none if the asset was never materialized."""
    try:
        with folder.open(parquet.build_path("notifications")) as opened:
            return {row["activation_id"]: Notification(**row) for row in pq.read_table(opened).to_pylist()}
    except FileNotFoundError:
        return {}


def merge_notifications(
    listed: Mapping[int, Notification], before: Mapping[int, Notification], named: Collection[int], now: datetime
) -> list[Notification]:
    """Merge the list with the stored rows, by id: no stored row is lost.

    `named` are the ids in stored reactions.
    """
    found = {}
    for id_ in {*listed, *before, *named}:
        old = before.get(id_, Notification(id_, None, None, first_seen=now))
        if id_ in listed:
            found[id_] = replace(listed[id_], first_seen=old.first_seen)
        elif old.was_listed and old.unlisted_since is None:
            found[id_] = replace(old, unlisted_since=now)
        else:
            found[id_] = old
    return [found[id_] for id_ in sorted(found)]


def find_ids_in_reactions(folder: Folder, settings: Settings, now: datetime) -> set[int]:
    """Find the ids that the stored reactions of the last REACTION_DAYS name."""
    today = day_at(now, settings.timezone).date
    days = [(today - timedelta(days=ago)).isoformat() for ago in range(REACTION_DAYS)]
    return read_activation_ids(
        folder, [parquet.build_path(kind.asset, EVENT_DATE, day) for kind in REACTIONS for day in days]
    )


def read_activation_ids(folder: Folder, files: Iterable[str]) -> set[int]:
    """Read the notifications' ids from some event files."""
    found: set[int] = set()
    for file in files:
        with suppress(FileNotFoundError), folder.open(file) as opened:
            found.update(pq.read_table(opened, columns=["activation_id"]).column(0).unique().to_pylist())
    return found


def _to_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
