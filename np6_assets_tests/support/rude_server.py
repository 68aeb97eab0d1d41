"""Serve a population as the NP6 API does, on a loopback port, and inject faults.

Also without faults, answers vary: in the order of ties and of unsorted events, in the style of JSON, in transport
(with a length, in chunks, until the connection closes) and in compression, as far as the client accepts it.
"""

from __future__ import annotations

import random
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Self

from np6_assets_tests.support.events import KINDS, MISSING, REACTIVITIES, Population, RawEvent, render
from np6_assets_tests.support.oracle import read_activated_at, read_activation_id, read_event_time
from np6_assets_tests.support.rude_acts import END_MODES, TRANSIENT, Act
from np6_assets_tests.support.rude_answers import HttpServer, Refusal, Request

__all__ = ["Act", "Refusal", "Request", "RudeServer", "parse_time"]


@dataclass(frozen=True)
class _Item:
    """An array element."""

    ms: int
    activation_ms: int | None
    notification_id: Any
    body: bytes


class RudeServer:
    """An HTTP server on 127.0.0.1 that serves a population, as a context manager.

    Args:
        population: what it serves, until `serve` replaces it.
        key: the `X-Key` that it accepts.
        seed: of everything random.
        headers: called for each answer, returns more headers.
        tls: the context with which it serves https://localhost.

    Attributes:
        requests: those received.
        transports: of complete bodies: "length", "chunked", "close".
        unlisted: ids of notifications that the list omits, though they answer.
        date: returns the Date header, which is also the server's clock; None: no header. `headers` may override it.
        end_mode: one of END_MODES.
        sorts: whether it obeys `sort`.
        sends_204: whether it answers an empty window with 204.
    """

    def __init__(
        self,
        population: Population | None = None,
        *,
        key: str = "key-of-the-rude-server",
        seed: int = 0,
        headers: Callable[[], Mapping[str, str]] = dict,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.key = key
        self.seed = seed
        self.headers = headers
        self.tls = tls
        self.transports = ["length", "chunked", "close"]
        self.unlisted: set[int] = set()
        self.date: Callable[[], datetime | str | None] = _utc_now
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []
        self.peak_in_flight = self._in_flight = 0
        self.released = threading.Event()
        self.first_request = threading.Event()
        self.lock = threading.Lock()
        self._scripts: list[tuple[str, list[Act | None], bool]] = []
        self._attempts: Counter[str] = Counter()
        self.reset_faults()
        self.serve(population or Population())
        self._server: HttpServer | None = None

    def serve(self, population: Population) -> None:
        """Serve this population from now on."""
        rng = random.Random(f"{self.seed} styles")
        self._items: dict[str, list[_Item]] = {}
        for kind in KINDS:
            items = [_build_item(event, rng) for event in population.feed(kind)]
            items += [
                _Item(
                    bad_event.placed_ms, read_activated_at(bad_event.event), bad_event.notification_id, bad_event.body
                )
                for bad_event in population.bad_events
                if bad_event.kind == kind
            ]
            self._items[kind] = sorted(items, key=lambda item: item.ms)
        self._notifications = [dict(entry) for entry in population.notifications]
        self._notification_texts = [render(entry, rng).encode() for entry in population.notifications]

    # -- faults --

    def script(self, path: str, *acts: Act | str | None) -> None:
        """Apply these acts in turn to requests under `path` (None: a normal answer), then answer normally."""
        self._scripts.append((path, [_to_act(act) for act in acts], False))

    def script_always(self, path: str, act: Act | str) -> None:
        """Apply an act to every request under `path`."""
        self._scripts.append((path, [_to_act(act)], True))

    def reset_faults(self) -> None:
        """Remove all scripts, random faults and modes."""
        self._scripts.clear()
        self.fail_randomly(0)
        self.end_mode, self.sorts, self.sends_204 = "half open", True, False

    def fail_randomly(
        self,
        fraction: float,
        seed: int = 0,
        kinds: Iterable[str] = TRANSIENT,
        *,
        streak: int = 3,
        wait: float = 1,
    ) -> None:
        """Let a fraction of requests fail, at most `streak` in a row for one path and window end.

        Which ones follows from the seed, path, window and number of the attempt, not from the order of arrival.
        """
        self._fraction, self._fail_seed, self._fail_kinds = fraction, seed, tuple(kinds)
        self._streak, self._fail_wait = streak, wait
        self._attempts.clear()

    def release(self) -> None:
        """End all stalled answers."""
        self.released.set()

    def choose_act(self, request: Request) -> Act | None:
        """Return the act for a request; None for a normal answer."""
        with self.lock:
            for path, acts, forever in self._scripts:
                if request.path.startswith(path) and acts:
                    return acts[0] if forever else acts.pop(0)
            if not self._fraction:
                return None
            end = request.query.get("reactivityEnd", request.query.get("end", ""))
            subject = f"{request.path} {end}"
            self._attempts[subject] += 1
            attempt = self._attempts[subject]
        rng = random.Random(f"{self._fail_seed} {subject} {attempt}")
        if attempt % (self._streak + 1) == 0 or rng.random() >= self._fraction:
            return None
        return Act(rng.choice(self._fail_kinds), at=rng.random(), wait=self._fail_wait)

    # -- requests --

    def list_requests(self, path: str = "/") -> list[Request]:
        """Return the requests under `path`, in order of arrival."""
        with self.lock:
            return [request for request in self.requests if request.path.startswith(path)]

    @contextmanager
    def record_request(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Iterator[Request]:
        """Record a request, which is under way for the length of the block."""
        with self.lock:
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
            number = len(self.requests)
            id_ = f"req-{self.seed}-{number:06d}"
            request = Request(number, path, query, headers, time.monotonic(), self._in_flight, id_)
            self.requests.append(request)
        self.first_request.set()
        try:
            yield request
        finally:
            with self.lock:
                self._in_flight -= 1

    def select_items(self, request: Request, *, widened_ms: int = 0, end: str | None = None) -> list[_Item]:
        """Select the array elements for a request; `end` replaces the server's mode. Raises Refusal."""
        kind, notification_id, names = self._parse_path(request.path)
        if unknown := set(request.query) - set(names) - {"sort"}:
            raise Refusal(400, f"unknown parameter {sorted(unknown)}")
        if request.query.get("sort", "asc") not in ("asc", "desc"):
            raise Refusal(400, "sort is asc or desc")
        times = {name: parse_time(request.query[name]) for name in names if name in request.query}
        mode = end or self.end_mode
        assert mode in END_MODES, f"no such mode: {mode}"
        date = self.date()
        now_ms = (date if isinstance(date, datetime) else _utc_now()).timestamp() * 1000
        if mode == "refused in the future" and any(ms > now_ms for name, ms in times.items() if _is_end(name)):
            raise Refusal(400, "the end lies in the future")
        times = {name: ms + (widened_ms if _is_end(name) else -widened_ms) for name, ms in times.items()}
        items = [
            item
            for item in self._items[kind]
            if notification_id in (None, item.notification_id)
            and all(_is_within(item, name, ms, mode) for name, ms in times.items())
        ]
        random.Random(f"{self.seed} order {request.number}").shuffle(items)
        if self.sorts and "sort" in request.query:
            # Stable on the shuffled list: the order of ties varies.
            items.sort(key=lambda item: item.ms, reverse=request.query["sort"] == "desc")
        return items

    def format_date(self) -> str | None:
        """Return the Date header of an answer that is sent now."""
        date = self.date()
        return format_datetime(date.astimezone(UTC), usegmt=True) if isinstance(date, datetime) else date

    def _parse_path(self, path: str) -> tuple[str, int | None, tuple[str, str]]:
        """Return kind, notification id and time parameters of a path. Raises Refusal."""
        feed = re.fullmatch(r"/notifications/reactivities/(\w+)", path)
        if feed and feed[1] in REACTIVITIES:
            return feed[1], None, ("reactivityStart", "reactivityEnd")
        one = re.fullmatch(r"/notifications/(\d+)/events/activations", path)
        if one and any(entry.get("id", MISSING) == int(one[1]) for entry in self._notifications):
            return "activations", int(one[1]), ("start", "end")
        raise Refusal(404, "no such path or notification")

    def list_notifications(self, request: Request) -> list[bytes]:
        """Return the elements of /notifications."""
        if request.query:
            raise Refusal(400, f"unknown parameter {sorted(request.query)}")
        listed = zip(self._notification_texts, self._notifications, strict=True)
        return [text for text, entry in listed if entry.get("id") not in self.unlisted]

    # -- life cycle --

    @property
    def port(self) -> int:
        """Return the port that it listens on."""
        assert self._server is not None, "the server is not running"
        port: int = self._server.server_address[1]
        return port

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server = HttpServer(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        assert self._server is not None
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        if error is None and self.errors:
            raise AssertionError(f"the rude server itself broke: {self.errors[0]!r}") from self.errors[0]


def parse_time(text: str) -> int:
    """Parse an ISO 8601 date or time, or a number, into milliseconds since epoch. Raises Refusal."""
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(400, f"not a time: {text}") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _is_end(name: str) -> bool:
    return name.lower().endswith("end")


def _is_within(item: _Item, name: str, ms: int, mode: str) -> bool:
    """Return whether an item passes one bound of a window."""
    by_activation = mode == "both by activation" or (mode == "by activation" and _is_end(name))
    subject = item.activation_ms if by_activation and item.activation_ms is not None else item.ms
    if not _is_end(name):
        return subject >= ms
    return mode == "ignored" or subject < ms or (mode == "inclusive" and subject == ms)


def _build_item(event: dict[str, Any], rng: random.Random) -> _Item:
    ms = read_event_time(event)
    assert ms is not None, f"an event in a feed needs a time: {event}"
    body = event.raw if isinstance(event, RawEvent) else render(event, rng).encode()
    return _Item(ms, read_activated_at(event), read_activation_id(event), body)


def _to_act(act: Act | str | None) -> Act | None:
    return Act(act) if isinstance(act, str) else act
