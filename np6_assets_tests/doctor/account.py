"""Build an account of sixty hits, and run the doctor on it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.doctor.examination import Examination
from np6_assets.doctor.judgements import examine
from np6_assets_tests.support.events import Event, Population, build_event

KEY = "s3cret-key-of-the-account"
NOW = datetime(2026, 4, 12, 15, 0, tzinfo=UTC)
HITS = "/notifications/reactivities/hits"


def to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def build_hit(number: int, at: datetime, **fields) -> Event:
    return build_event("hits", id=f"hit-{number:06d}", timestamp=to_ms(at), **fields)


def build_account(hits=60, every=timedelta(minutes=7), **feeds) -> Population:
    """Build an account whose newest hit is seven minutes old."""
    recent_hits = [build_hit(number, NOW - (number + 1) * every) for number in range(hits)]
    activations = [build_event("activations", id="send", timestamp=to_ms(NOW - timedelta(hours=2)))]
    kinds = {"hits": recent_hits, "activations": activations, **feeds}
    return Population(notifications=[{"id": 156, "name": "Spring sale"}], **kinds)


def build_examination(
    url: str, folder: Path, watch=0, now=lambda: NOW, wait=lambda seconds: None, **settings
) -> Examination:
    environment = {"NP6_API_KEY": KEY, "NP6_BASE_URL": url, "NP6_DATA_DIR": str(folder / "data"), **settings}
    return Examination(environment, watch_seconds=watch, now=now, wait=wait)


def run_doctor(*arguments, **options) -> dict[str, Diagnosis]:
    """Run the doctor; return the diagnoses by subject."""
    return {one.subject: one for one in examine(build_examination(*arguments, **options))}
