"""Millions of events as the JSON text that the API sends, and the hashes that their values are.

A chunk of events is one table of bytes, one event a row, put together column by column: a piece of text that is shorter
in some rows is filled up with zero bytes, and these are dropped at the end. That is several times as fast as a text
for each event. Values are 64-bit hashes in integer arithmetic alone: the same everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5

import numpy as np

EVENT = np.dtype(
    [
        ("timestamp", np.int64),  # ms since epoch
        ("stamp_time", np.int64),  # ms since epoch
        ("key", np.uint64),  # everything else about the event is a hash of this
        ("notification", np.uint16),  # index
        ("dismissed", np.bool_),
    ]
)


@dataclass(frozen=True)
class Notification:
    """A notification, with the link of its hits."""

    id: int
    channel: str
    label: str | None
    uri: str


CONTACTS = 30_000
APPLICATIONS = VERSIONS = 2

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: a bijection of the 64-bit numbers whose result looks random."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(_MULTIPLIERS[0])
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(_MULTIPLIERS[1])
    mixed ^= mixed >> np.uint64(31)
    return mixed


def fold(*values: int) -> int:
    """One 64-bit hash of several numbers."""
    state = 0
    for value in values:
        state = (state + value + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _MULTIPLIERS[0]) & _MASK
        state = ((state ^ (state >> 27)) * _MULTIPLIERS[1]) & _MASK
        state ^= state >> 31
    return state


def sequence(base: int, indices: np.ndarray) -> np.ndarray:
    """The hashes number `indices` of the sequence that `base` names."""
    return mix(np.uint64(base) + indices * np.uint64(_GOLDEN))


def _salted(keys: np.ndarray, *salt: int) -> np.ndarray:
    return mix(keys ^ np.uint64(fold(*salt)))


# --- Tables of bytes, one text a row --------------------------------------------------------------

_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)
_DIGITS = np.frombuffer("".join(f"{number:04d}" for number in range(10_000)).encode(), dtype=np.uint32)


def _texts(lines: Sequence[str]) -> np.ndarray:
    rows = np.array([line.encode() for line in lines])
    return rows.view(np.uint8).reshape(len(lines), rows.itemsize)


def uuids(hashes: np.ndarray) -> np.ndarray:
    """A version 4 uuid for each hash."""
    high = (mix(hashes ^ np.uint64(1)) & np.uint64(0xFFFFFFFFFFFF0FFF)) | np.uint64(0x4000)
    low = (mix(hashes ^ np.uint64(2)) & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
    octets = np.stack([high, low], axis=1).astype(">u8").view(np.uint8)
    digits = _HEX[octets].view(np.uint8)
    text = np.full((len(hashes), 36), ord("-"), dtype=np.uint8)
    text[:, 0:8], text[:, 9:13], text[:, 14:18] = digits[:, 0:8], digits[:, 8:12], digits[:, 12:16]
    text[:, 19:23], text[:, 24:36] = digits[:, 16:20], digits[:, 20:32]
    return text


def _milliseconds(times: np.ndarray) -> np.ndarray:
    """The 13 digits of each time, ms since epoch (2001 to 2286)."""
    fours = np.stack([times // 10**12, times // 10**8, times // 10**4, times], axis=1) % 10_000
    return _DIGITS[fours].view(np.uint8)[:, 3:]


# --- Events ---------------------------------------------------------------------------------------


class Renderer:
    """Writes events of one type as JSON."""

    def __init__(self, type: str, notifications: Sequence[Notification]) -> None:
        self._salt = fold(*type.encode())
        self._opening = f',{{"type":"{type}","id":"'
        self._sources = _texts([_source(one, version) for one in notifications for version in range(VERSIONS)])
        self._receivers = _texts([_receiver(number) for number in range(CONTACTS)])
        self._applications = _texts(
            [f'}},"application":"{_uuid(2, one)}","subscription":"' for one in range(APPLICATIONS)]
        )
        self._endings = _texts([_ending(type, one, dismissed) for one in notifications for dismissed in (False, True)])

    def render(self, events: np.ndarray) -> bytes:
        """The JSON objects of the events, each after a comma.

        Takes about three times the memory of the text, at 0.9 kB an event: give it some thousands at a time.
        """
        keys, notification = events["key"], events["notification"].astype(np.int64)
        contacts = (_salted(keys, 3) % np.uint64(CONTACTS)).astype(np.uint64)
        versions = (_salted(keys, 4) % np.uint64(VERSIONS)).astype(np.int64)

        def constant(text: str) -> np.ndarray:
            return np.broadcast_to(np.frombuffer(text.encode(), dtype=np.uint8), (len(events), len(text)))

        table = np.concatenate(
            [
                constant(self._opening),
                uuids(mix(keys ^ np.uint64(self._salt))),
                constant('","timestamp":'),
                _milliseconds(events["timestamp"]),
                self._sources[notification * VERSIONS + versions],
                self._receivers[contacts],
                self._applications[contacts % np.uint64(APPLICATIONS)],
                uuids(_salted(contacts, 5)),
                constant('","stamp":{"time":'),
                _milliseconds(events["stamp_time"]),
                constant(',"id":"'),
                uuids(_salted(keys, 6)),
                constant('","thread":"'),
                uuids(mix(_salted(contacts, 7) ^ notification.astype(np.uint64))),
                self._endings[notification * 2 + events["dismissed"]],
            ],
            axis=1,
        )
        return table.tobytes().translate(None, b"\0")


def _source(notification: Notification, version: int) -> str:
    return (
        ',"identity":{"type":"customer","agency":"DEMO","customer":"028"},"source":{"type":"notification","detail":'
        f'{{"activation":{{"id":{notification.id},"version":"{_uuid(1, notification.id, version)}",'
        '"kind":"application","receiver":{"type":"contact","value":'
    )


def _receiver(contact: int) -> str:
    unicity = f"user{contact}@example.com"
    hashed = md5(unicity.encode(), usedforsecurity=False).hexdigest()
    return f'{{"type":"footprint","id":"{contact:08X}","unicity":"{unicity}","hash":"{hashed}"}}'


def _ending(type: str, notification: Notification, dismissed: bool) -> str:
    link = {"type": "redirection", "label": notification.label, "uri": notification.uri}
    if dismissed:
        link = {"type": "dismissal", "label": None, "uri": None}
    detail = f',"link":{_json(link)}' if type == "hit" else ""
    return (
        f'"}},"channel":{_json(notification.channel)},"urgent":false,'
        f'"expiration":"0001-01-01T00:00:00Z"}}{detail}}}}}}}'
    )


def _uuid(*values: int) -> str:
    return uuids(np.array([fold(*values)], dtype=np.uint64)).tobytes().decode()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
