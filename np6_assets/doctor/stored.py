"""What is stored: whose events, days that are open though they could be closed, notifications that did not answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from np6_assets.doctor.finding import Finding
from np6_assets.events.belonging import identity_of
from np6_assets.events.kinds import KINDS
from np6_assets.events.store import EventStore, Stored
from np6_assets.np6.clock import WITHOUT_DATE
from np6_assets.partitions import EVENT_DATE, Day, day_of
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder
from np6_assets.storage.identity import Identity, IdentityError
from np6_assets.storage.parquet import days_stored

MOST_SHOWN = 5
"""Days that a line names."""


def examine(settings: Settings, now: datetime) -> Iterator[Finding]:
    """The findings about the data folder's files."""
    folder = Folder(settings.data_dir)
    yield _identity(folder, settings)
    late: dict[str, list[str]] = {}
    missing: dict[str, list[int]] = {}
    days = 0
    for kind in KINDS:
        for day, stored in _days(folder, EventStore(folder, kind, settings), kind.asset, settings):
            days += 1
            if not stored.is_closed(day) and now >= day.end + settings.lookback + WITHOUT_DATE:
                late.setdefault(kind.asset, []).append(day.key)
            if stored.missing:
                missing[f"{kind.asset} {day.key}"] = sorted(stored.missing)
    if not late and not missing:
        yield Finding("stored days", "ok", f"{days} days of {len(KINDS)} assets; none waits to be closed", "")
    if late:
        text = "; ".join(f"{asset}: {_listed(keys)}" for asset, keys in late.items())
        advice = "Materialize these days, or turn on the sensor np6_refresh or the schedule daily_ingest."
        yield Finding("stored days", "warning", f"open, though they could be closed: {text}", advice, {"open": late})
    if missing:
        text = f"notifications did not answer for {_listed(sorted(missing))}"
        advice = "Materialize activations for these days once the key may read them; NP6 knows why it may not."
        yield Finding("missing sends", "warning", text, advice, {"missing": missing})


def _identity(folder: Folder, settings: Settings) -> Finding:
    subject = "np6.json"
    try:
        stored = Identity.read(folder)
        if stored is None:
            return Finding(subject, "ok", "not there: the first run writes it", "")
        stored.check(folder, identity_of(settings))
    except IdentityError as error:
        return Finding(subject, "wrong", str(error), "Until then every run is refused.")
    agencies = ", ".join(stored.agencies) or "no agency yet"
    return Finding(subject, "ok", f"days of {stored.timezone}, events of {agencies}", "")


def _days(folder: Folder, store: EventStore, asset: str, settings: Settings) -> Iterator[tuple[Day, Stored]]:
    for date in days_stored(folder, asset, EVENT_DATE):
        day = day_of(str(date), settings.timezone)
        if (stored := store.stored(day)) is not None:
            yield day, stored


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more
