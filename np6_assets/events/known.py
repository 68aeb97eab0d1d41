"""Activations of some days: a request for each notification, and what becomes of those that do not answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from np6_assets.events import notifications
from np6_assets.events.belonging import Belonging
from np6_assets.events.fanout import ACTIVE_DAYS, Known, asked, asked_again
from np6_assets.events.kinds import ACTIVATIONS, REACTIONS
from np6_assets.events.plan import Batch
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import NotFoundError, NP6Error
from np6_assets.np6.request import Request
from np6_assets.partitions import EVENT_DATE
from np6_assets.storage import parquet
from np6_assets.storage.files import Folder

MOST_BROKEN = 10
"""If so many notifications do not answer, and none does, the API is taken to be out of order."""


class KnownNotifications:
    """What the API's list and the stored files know. Raises NP6Error where the list is not answered."""

    def __init__(self, client: NP6Client, folder: Folder, belonging: Belonging) -> None:
        self._listed = frozenset(notifications.listed(client))
        self._stored = notifications.stored(folder)
        self._folder = folder
        self._belonging = belonging

    def of(self, batch: Batch) -> Known:
        """What is known for some days."""
        days = [plan.day.date for plan in batch.plans]
        week = [days[0] - timedelta(days=ago) for ago in range(1, ACTIVE_DAYS + 1)]
        before = {plan.day.date: plan.stored for plan in batch.plans if plan.stored is not None}
        is_closed = any(plan.stored is not None and plan.stored.is_closed(plan.day) for plan in batch.plans)
        return Known(
            self._listed,
            self._stored,
            {day: self._ids([ACTIVATIONS.asset], day) for day in (*days, *week)},
            {day: self._ids([kind.asset for kind in REACTIONS], day) for day in days},
            {day: stored.missing for day, stored in before.items()},
            self._belonging.identity.gone,
            self._never_listed if is_closed else (),
        )

    @property
    def _never_listed(self) -> list[int]:
        return [id_ for id_, one in self._stored.items() if not one.was_listed and id_ not in self._listed]

    def _ids(self, assets: Sequence[str], day: date) -> set[int]:
        files = [parquet.file_of(asset, EVENT_DATE, day.isoformat()) for asset in assets]
        return notifications.ids_in(self._folder, files)


class FanOut:
    """The requests for one batch of days, and which notifications have answered them."""

    def __init__(self, batch: Batch, known: Known) -> None:
        self._batch = batch
        self._known = known
        days, asks = [plan.day.date for plan in batch.plans], batch.plans[0].asks
        everyone = asks == "all" or not any(known.sent.values())
        self.ids = asked_again(known, days) if asks == "missing" else asked(known, days, everyone=everyone)
        self._unanswered = iter(self.ids)
        self._failed: list[dict[int, NP6Error]] = [{} for _ in batch.plans]
        self._answered = 0

    def requests(self) -> Iterator[Request]:
        """One a notification; from the first day's start on where its sends are not known until the watermark."""
        first = self._batch.plans[0].day.date
        known = {*self._known.sent.get(first, ())} - {*self._known.missing.get(first, ())}
        for id_ in self.ids:
            edges = self._batch.edges if id_ in known else self._batch.whole_edges
            yield self._batch.request(ACTIVATIONS, ACTIVATIONS.path.format(id=id_), edges)

    def take(self, errors: dict[int, NP6Error]) -> None:
        """What became of the next request: the errors by number of the day. Raises one where all fail."""
        id_ = next(self._unanswered)
        for number, error in errors.items():
            self._failed[number][id_] = error
        self._answered += not errors
        broken = [error for error in self._failed[0].values() if not isinstance(error, NotFoundError)]
        if not self._answered and len(broken) >= MOST_BROKEN:
            raise broken[-1]

    def error(self, number: int) -> NP6Error | None:
        """Why a day cannot be written: none of the notifications asked has answered; or not all, and it is replaced.

        One that was written before without those that are asked again says so in any case.
        """
        failed, plan = self._failed[number], self._batch.plans[number]
        broken = [error for error in failed.values() if not isinstance(error, NotFoundError)]
        if plan.replaces and broken:
            return broken[0]
        if not failed or len(failed) < len(self.ids) or plan.asks == "missing":
            return None
        are_gone = all(isinstance(error, NotFoundError) for error in failed.values())
        if are_gone and not set(failed) & set(self._known.listed):
            return None
        return next(iter([*broken, *failed.values()]))

    def answered(self, number: int) -> frozenset[int]:
        """Those that have answered for a day."""
        return frozenset(set(self.ids) - set(self._failed[number]))

    def gone(self, number: int) -> frozenset[int]:
        """Those that the API did not know when it was asked last."""
        found = {id_ for id_, error in self._failed[number].items() if isinstance(error, NotFoundError)}
        return frozenset(found | (set(self._known.gone) - set(self.ids)))

    def missing(self, number: int) -> frozenset[int]:
        """Those whose sends of a day are not complete."""
        plan, failed = self._batch.plans[number], self._failed[number]
        found = {id_ for id_, error in failed.items() if not isinstance(error, NotFoundError)}
        day, before = plan.day.date, plan.stored
        if before is None:
            return frozenset(found)
        sent = {*self._known.sent.get(day, ())}
        if not before.is_closed(plan.day):
            found |= self.gone(number) & {*sent, *self._known.reacted.get(day, ())}
        elif plan.asks == "missing":
            found.clear()  # they may have been asked for another day of the batch
        else:
            found -= sent  # that were complete when the day was closed
        return frozenset(found | (before.missing - self.answered(number)))
