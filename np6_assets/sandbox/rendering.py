"""Events as the JSON text that the API sends, with the keys, in the order, of the reference's samples.

A chunk of events is one table of bytes, one event a row, put together column by column: a piece of text that
is shorter in some rows is filled up with zero bytes, and these are dropped at the end. That is several times
as fast as an f-string per event.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from hashlib import md5

import numpy as np
import numpy.typing as npt

from .population import (
    DISMISSAL,
    I64,
    U64,
    Events,
    Kind,
    Notification,
    Population,
    Trait,
    Verdict,
    choose,
    draw,
    fold,
    mix,
    salted,
)

Text = npt.NDArray[np.uint8]
"""Shape (rows, width): one piece of text a row, filled up with zero bytes."""

_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)
_DIGITS = np.frombuffer("".join(f"{number:04d}" for number in range(10_000)).encode(), dtype=np.uint32)
_BASE36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def texts(lines: Sequence[str]) -> Text:
    """A table with one line a row."""
    rows = np.array([line.encode() for line in lines])
    return rows.view(np.uint8).reshape(len(lines), rows.itemsize)


def uuids(hashes: U64) -> Text:
    """A version 4 uuid for each hash."""
    high = (mix(hashes ^ np.uint64(1)) & np.uint64(0xFFFFFFFFFFFF0FFF)) | np.uint64(0x4000)
    low = (mix(hashes ^ np.uint64(2)) & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
    octets = np.stack([high, low], axis=1).astype(">u8").view(np.uint8)
    digits = _HEX[octets].view(np.uint8)
    text = np.full((len(hashes), 36), ord("-"), dtype=np.uint8)
    text[:, 0:8], text[:, 9:13], text[:, 14:18] = digits[:, 0:8], digits[:, 8:12], digits[:, 12:16]
    text[:, 19:23], text[:, 24:36] = digits[:, 16:20], digits[:, 20:32]
    return text


def milliseconds(times: I64) -> Text:
    """The 13 digits of each time, ms since epoch (2001 to 2286)."""
    fours = np.stack([times // 10**12, times // 10**8, times // 10**4, times], axis=1) % 10_000
    digits: Text = _DIGITS[fours].view(np.uint8)
    return digits[:, 3:]


def _uuid(*values: int) -> str:
    return uuids(np.array([fold(*values)], dtype=np.uint64)).tobytes().decode()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _receiver(contact: int) -> str:
    unicity = f"user{contact}@example.com"
    number, name = contact, ""
    while len(name) < 5:
        number, digit = divmod(number, 36)
        name = _BASE36[digit] + name
    # The API's hash is unsalted: md5 of the unicity, in hex.
    hashed = md5(unicity.encode(), usedforsecurity=False).hexdigest()
    return f'{{"type":"footprint","id":"000{name}","unicity":"{unicity}","hash":"{hashed}"}}'


@lru_cache(maxsize=1)  # every step of a run has a server of its own
def _receivers(contacts: int) -> Text:
    """The receivers of all contacts, by their numbers."""
    found = texts([_receiver(contact) for contact in range(contacts)])
    found.flags.writeable = False
    return found


def _link(notification: Notification, variant: int) -> str:
    if variant == DISMISSAL:
        return _json({"type": "dismissal", "label": None, "uri": None})
    link = notification.links[variant]
    return _json({"type": "redirection", "label": link.label, "uri": link.uri})


_SUBJECTS = {
    Verdict.HARD: {"type": "token", "detail": {"type": "unregistered"}},
    Verdict.SOFT: {"type": "provider", "detail": {"type": "unavailable"}},
}


def _bounce(verdict: Verdict) -> str:
    analysis = {"verdict": verdict.name.lower(), "subject": _SUBJECTS[verdict]}
    return _json({"status": None, "analysis": analysis})


def _details(notification: Notification) -> dict[tuple[Kind, int], str]:
    """What stands beside `activation` in an event, for each kind and variant."""
    optout = _json({"type": "channel", "channel": notification.channel})
    links = [*range(len(notification.links)), DISMISSAL]
    return {
        (Kind.ACTIVATION, 0): "",
        (Kind.IMPRESSION, 0): "",
        (Kind.OPTOUT, 0): f',"optout":{optout}',
        **{(Kind.BOUNCE, verdict): f',"bounce":{_bounce(verdict)}' for verdict in Verdict},
        **{(Kind.HIT, link): f',"link":{_link(notification, link)}' for link in links},
    }


class Renderer:
    """Writes the events of one population as JSON."""

    def __init__(self, population: Population) -> None:
        self._population = population
        account = population.account
        self._openings = texts([f',{{"type":"{kind.name.lower()}","id":"' for kind in Kind])
        self._receivers = _receivers(account.contacts)
        applications = (_uuid(account.seed, Trait.APPLICATION, number) for number in range(account.applications))
        self._applications = texts([f'}},"application":"{one}","subscription":"' for one in applications])
        self._versions = np.array([len(sent.hits) for sent in account.notifications], dtype=np.int64)
        self._first_version = np.cumsum(self._versions) - self._versions
        self._sources = texts(
            [self._source(sent, version) for sent in account.notifications for version in range(len(sent.hits))]
        )
        self._ending_rows = np.zeros((len(account.notifications), len(Kind), 256), dtype=np.int64)
        endings: list[str] = []
        for number, sent in enumerate(account.notifications):
            for (kind, variant), detail in _details(sent).items():
                self._ending_rows[number, kind, variant] = len(endings)
                endings.append(self._ending(sent, detail))
        self._endings = texts(endings)
        self._event_salts = np.array(
            [[fold(Trait.EVENT, kind, repeat) for repeat in range(256)] for kind in Kind], dtype=np.uint64
        )
        self._thread_salts = np.array([fold(Trait.THREAD, sent.id) for sent in account.notifications], dtype=np.uint64)

    def _source(self, sent: Notification, version: int) -> str:
        account = self._population.account
        identity = _json({"type": "customer", "agency": account.agency, "customer": account.customer})
        return (
            f',"identity":{identity},"source":{{"type":"notification","detail":{{"activation":{{"id":{sent.id},'
            f'"version":"{_uuid(account.seed, Trait.VERSION, sent.id, version)}","kind":"application",'
            '"receiver":{"type":"contact","value":'
        )

    def _ending(self, sent: Notification, detail: str) -> str:
        return (
            f'"}},"channel":{_json(sent.channel)},"urgent":{_json(sent.urgent)},'
            f'"expiration":"0001-01-01T00:00:00Z"}}{detail}}}}}}}'
        )

    def render(self, events: Events) -> bytes:
        """The JSON objects of the events, each after a comma.

        Takes about three times the memory of the text, at 0.9 kB an event: give it some thousands at a time.
        """
        keys, sent, kind = events["key"], events["notification"], events["kind"]
        contacts = self._population.contact(keys)
        owners = self._population.contact_keys(contacts)
        versions = choose(draw(keys, Trait.VERSION), self._versions[sent])
        applications = choose(draw(owners, Trait.APPLICATION), len(self._applications))

        def constant(text: str) -> Text:
            return np.broadcast_to(np.frombuffer(text.encode(), dtype=np.uint8), (len(events), len(text)))

        table = np.concatenate(
            [
                self._openings[kind],
                uuids(mix(keys ^ self._event_salts[kind, events["repeat"]])),
                constant('","timestamp":'),
                milliseconds(events["timestamp"]),
                self._sources[self._first_version[sent] + versions],
                self._receivers[contacts],
                self._applications[applications],
                uuids(salted(owners, Trait.SUBSCRIPTION)),
                constant('","stamp":{"time":'),
                milliseconds(events["stamp_time"]),
                constant(',"id":"'),
                uuids(salted(keys, Trait.STAMP)),
                constant('","thread":"'),
                uuids(mix(owners ^ self._thread_salts[sent])),
                self._endings[self._ending_rows[sent, kind, events["variant"]]],
            ],
            axis=1,
        )
        return table.tobytes().translate(None, b"\0")
