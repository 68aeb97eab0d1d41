"""Activations: which notifications are requested, and what follows from those that do not answer.

The API returns activations for one notification at a time, and its list does not name deleted notifications, whose
sends are still the denominators of their reactions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from np6_assets.events import notifications
from np6_assets.events.folder_identity import FolderIdentity
from np6_assets.events.kinds import ACTIVATIONS, REACTIONS
from np6_assets.events.plan import DayBatch
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import NotFoundError, NP6Error
from np6_assets.np6.request import Request
from np6_assets.partitions import EVENT_DATE
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

ACTIVE_DAYS = 7
"""Every refresh requests the notifications with a send in so many days before; the others when a day closes."""

MOST_BROKEN = 10
"""If so many notifications fail and none answers, the API is out of order: the run ends."""

Ids = Mapping[date, Collection[int]]
"""Ids of notifications by event day."""


@dataclass(frozen=True)
class KnownIds:
    """The notifications of an account, by where their ids are known from.

    Attributes:
        listed: in the API's list now.
        stored: in the stored asset `notifications`.
        sent: with stored sends, by event day; the ACTIVE_DAYS before the days to fetch included.
        reacted: in the stored reactions of a day.
        missing: without an answer when a day was fetched.
        gone: answered with 404 at the last request.
        never_listed: for closed days, those that only reactions have ever named.
    """

    listed: Collection[int]
    stored: Collection[int] = ()
    sent: Ids = field(default_factory=dict)
    reacted: Ids = field(default_factory=dict)
    missing: Ids = field(default_factory=dict)
    gone: Collection[int] = ()
    never_listed: Collection[int] = ()


def select_ids(known: KnownIds, days: Sequence[date], *, ask_all: bool) -> dict[int, str]:
    """Select the notifications to request for some days, sorted, each with the reason.

    With `ask_all` all known ones, as a day that closes needs them; else those that may have sent.
    """
    found: dict[int, str] = {}

    def add(ids: Collection[int], why: str) -> None:
        for id_ in ids:
            found.setdefault(id_, why)

    for day in days:
        add(known.missing.get(day, ()), "did not answer before")
        add(known.sent.get(day, ()), "sent that day")
    add({*_find_named(known, days), *known.never_listed}, "named by a reaction")
    if ask_all:
        add(known.listed, "listed")
        add(known.stored, "known from before")
    else:
        if known.stored:  # without them every listed id would be new in each refresh
            add(set(known.listed) - set(known.stored), "new in the list")
        for ago in range(1, ACTIVE_DAYS + 1):
            add(known.sent.get(min(days) - timedelta(days=ago), ()), "sent in the week before")
    return {id_: found[id_] for id_ in sorted(set(found) - _find_gone(known, days))}


def select_missing_ids(known: KnownIds, days: Sequence[date]) -> dict[int, str]:
    """Select only the notifications that did not answer for some days, sorted, each with the reason."""
    missing = {id_ for day in days for id_ in known.missing.get(day, ())}
    return dict.fromkeys(sorted(missing - _find_gone(known, days)), "did not answer before")


def count_reasons(ids: Mapping[int, str]) -> dict[str, int]:
    """Count the notifications by the reason for which they are requested."""
    return dict(sorted(Counter(ids.values()).items()))


def _find_gone(known: KnownIds, days: Sequence[date]) -> set[int]:
    """Find the ids that are not requested again: they returned 404, and neither the list nor a reaction names them."""
    return set(known.gone) - set(known.listed) - _find_named(known, days)


def _find_named(known: KnownIds, days: Sequence[date]) -> set[int]:
    return {id_ for day in days for id_ in known.reacted.get(day, ())}


class KnownNotifications:
    """Reads KnownIds from the API's list and the stored files. Raises NP6Error if the list is not answered."""

    def __init__(self, client: NP6Client, folder: Folder, identity: FolderIdentity) -> None:
        self._listed = frozenset(notifications.fetch_notifications(client))
        self._stored = notifications.read_notifications(folder)
        self._folder = folder
        self._identity = identity

    def read_ids(self, batch: DayBatch) -> KnownIds:
        """Read what is known for the days of a batch."""
        days = [plan.day.date for plan in batch.plans]
        week = [days[0] - timedelta(days=ago) for ago in range(1, ACTIVE_DAYS + 1)]
        stored = {plan.day: plan.stored for plan in batch.plans if plan.stored is not None}
        has_closed = any(found.is_closed(day) for day, found in stored.items())
        never_listed = [id_ for id_, one in self._stored.items() if not one.was_listed and id_ not in self._listed]
        return KnownIds(
            self._listed,
            self._stored,
            {day: self._read_activation_ids([ACTIVATIONS.asset], day) for day in (*days, *week)},
            {day: self._read_activation_ids([kind.asset for kind in REACTIONS], day) for day in days},
            {day.date: found.missing_ids for day, found in stored.items()},
            self._identity.identity.gone,
            never_listed if has_closed else (),
        )

    def _read_activation_ids(self, assets: Sequence[str], day: date) -> set[int]:
        files = [parquet.build_path(asset, EVENT_DATE, day.isoformat()) for asset in assets]
        return notifications.read_activation_ids(self._folder, files)


class FanOut:
    """The requests for one batch of days, one for each notification, and which of them failed."""

    def __init__(self, batch: DayBatch, known: KnownIds) -> None:
        self._batch = batch
        self._known = known
        days, scope = [plan.day.date for plan in batch.plans], batch.plans[0].scope
        ask_all = scope == "all" or not any(known.sent.values())
        self.ids = select_missing_ids(known, days) if scope == "missing" else select_ids(known, days, ask_all=ask_all)
        self._unanswered = iter(self.ids)
        self._failed: list[dict[int, NP6Error]] = [{} for _ in batch.plans]
        self._has_answer = False

    def build_requests(self) -> Iterator[Request]:
        """Build the requests: from the first day's start if a notification's sends until the watermark are unknown."""
        first = self._batch.plans[0].day.date
        known = {*self._known.sent.get(first, ())} - {*self._known.missing.get(first, ())}
        for id_ in self.ids:
            edges = self._batch.edges if id_ in known else self._batch.full_edges
            yield self._batch.build_request(ACTIVATIONS, ACTIVATIONS.path.format(id=id_), edges)

    def add_result(self, errors: dict[int, NP6Error]) -> None:
        """Add the errors of the next request, by number of the day. Raises one of them if MOST_BROKEN failed."""
        id_ = next(self._unanswered)
        for number, error in errors.items():
            self._failed[number][id_] = error
        self._has_answer = self._has_answer or not errors
        broken = _drop_not_found(self._failed[0])
        if not self._has_answer and len(broken) >= MOST_BROKEN:
            raise list(broken.values())[-1]

    def find_error(self, number: int) -> NP6Error | None:
        """Return why a day cannot be written: no notification answered, or one failed and the day is replaced.

        A fetch of missing notifications alone is written in any case. 404 alone is no error, unless the API lists it.
        """
        failed, plan = self._failed[number], self._batch.plans[number]
        broken = list(_drop_not_found(failed).values())
        if plan.replaces and broken:
            return broken[0]
        if not failed or len(failed) < len(self.ids) or plan.scope == "missing":
            return None
        if not broken and not set(failed) & set(self._known.listed):
            return None
        return next(iter([*broken, *failed.values()]))

    def find_answered(self, number: int) -> frozenset[int]:
        """Find the notifications that answered for a day."""
        return frozenset(set(self.ids) - set(self._failed[number]))

    def find_gone(self, number: int) -> frozenset[int]:
        """Find the notifications that the API did not know (404) at the last request."""
        failed = self._failed[number]
        return frozenset((set(failed) - set(_drop_not_found(failed))) | (set(self._known.gone) - set(self.ids)))

    def find_missing(self, number: int) -> frozenset[int]:
        """Find the notifications whose sends of a day are not complete."""
        plan, found = self._batch.plans[number], set(_drop_not_found(self._failed[number]))
        day, stored = plan.day.date, plan.stored
        if stored is None:
            return frozenset(found)
        sent = {*self._known.sent.get(day, ())}
        if not stored.is_closed(plan.day):
            found |= self.find_gone(number) & {*sent, *self._known.reacted.get(day, ())}
        elif plan.scope == "missing":
            found.clear()  # they may have been requested for another day of the batch
        else:
            found -= sent  # these were complete when the day closed
        return frozenset(found | (stored.missing_ids - self.find_answered(number)))


def _drop_not_found(failed: Mapping[int, NP6Error]) -> dict[int, NP6Error]:
    return {id_: error for id_, error in failed.items() if not isinstance(error, NotFoundError)}
