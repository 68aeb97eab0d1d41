"""An account of sixty hits, and the doctor's diagnoses of a server of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from np6_assets.doctor.diagnosis import Diagnosis
from np6_assets.doctor.examination import Examination
from np6_assets.doctor.judgements import examine
from np6_assets.np6.connection import Traffic
from np6_assets_tests.support.events import Event, Population, build_event

KEY = "s3cret-key-of-the-account"
NOW = datetime(2026, 4, 12, 15, 0, tzinfo=UTC)
HITS = "/notifications/reactivities/hits"


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def hit(number: int, at: datetime, **fields) -> Event:
    return build_event("hits", id=f"hit-{number:06d}", timestamp=ms(at), **fields)


def account(hits=60, every=timedelta(minutes=7), **feeds) -> Population:
    """An account whose newest hit is seven minutes old."""
    made = [hit(number, NOW - (number + 1) * every) for number in range(hits)]
    activations = [build_event("activations", id="send", timestamp=ms(NOW - timedelta(hours=2)))]
    kinds = {"hits": made, "activations": activations, **feeds}
    return Population(notifications=[{"id": 156, "name": "Spring sale"}], **kinds)


def diagnosed(
    url: str, folder: Path, watch=0, now=lambda: NOW, wait=lambda seconds: None, traffic=None, **settings
) -> dict[str, Diagnosis]:
    """The diagnoses by their subjects."""
    environment = {"NP6_API_KEY": KEY, "NP6_BASE_URL": url, "NP6_DATA_DIR": str(folder / "data"), **settings}
    examination = Examination(environment, None, watch, traffic or Traffic(), now=now, wait=wait)
    return {one.subject: one for one in examine(examination)}
