"""The account's notifications: the API's list, and what is stored of those that it lists no longer."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow.parquet as pq

from np6_assets.events.kinds import REACTIONS
from np6_assets.events.reject import exact_integer
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

    `unlisted_since` is None while the API lists it, and if it never did. `first_seen` is None where version 0.1 did.
    """

    activation_id: int
    name: str | None
    type: str | None
    unlisted_since: datetime | None = None
    first_seen: datetime | None = None

    @property
    def was_listed(self) -> bool:
        """Whether the API's list has ever named it, rather than a reaction alone."""
        return self.name is not None or self.type is not None


def listed(client: NP6Client) -> dict[int, Notification]:
    """Those that the API lists, by id. Raises BadResponseError where one has no usable id."""
    found: dict[int, Notification] = {}
    for notification in client.get_list("/notifications"):
        id_ = exact_integer(notification.get("id")) if isinstance(notification, dict) else None
        if id_ is None:
            raise BadResponseError("GET /notifications: a notification has no whole number as its id")
        found[id_] = Notification(id_, _text(notification.get("name")), _text(notification.get("type")))
    return {id_: found[id_] for id_ in sorted(found)}


def stored(folder: Folder) -> dict[int, Notification]:
    """Those of the asset `notifications`, by id; none where it was never materialized."""
    try:
        with folder.open(parquet.file_of("notifications")) as opened:
            return {row["activation_id"]: Notification(**row) for row in pq.read_table(opened).to_pylist()}
    except FileNotFoundError:
        return {}


def merged(
    listed: Mapping[int, Notification], before: Mapping[int, Notification], named: Collection[int], now: datetime
) -> list[Notification]:
    """What is to be stored, by id: none that was stored is lost. `named` are the ids that stored reactions name."""
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


def named_by_reactions(folder: Folder, settings: Settings, now: datetime) -> set[int]:
    """The ids that the stored reactions of the last REACTION_DAYS name."""
    today = day_at(now, settings.timezone).date
    days = [(today - timedelta(days=ago)).isoformat() for ago in range(REACTION_DAYS)]
    return ids_in(folder, [parquet.file_of(kind.asset, EVENT_DATE, day) for kind in REACTIONS for day in days])


def ids_in(folder: Folder, files: Iterable[str]) -> set[int]:
    """The notifications that some event files name."""
    found: set[int] = set()
    for file in files:
        with suppress(FileNotFoundError), folder.open(file) as opened:
            found.update(pq.read_table(opened, columns=["activation_id"]).column(0).unique().to_pylist())
    return found


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
