"""Write millions of events as the JSON text that the API sends.

A batch of events is a table of bytes with one row an event, built column by column. Shorter texts are padded with zero
bytes, which are removed at the end: several times as fast as formatting each event. All values are 64-bit hashes, in
integer arithmetic only, so that they are the same on every machine.
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
        ("key", np.uint64),  # all other values are hashes of it
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
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)
_DIGITS = np.frombuffer("".join(f"{number:04d}" for number in range(10_000)).encode(), dtype=np.uint32)


def mix_bits(values: np.ndarray) -> np.ndarray:
    """Apply SplitMix64's finalizer: a bijection of the 64-bit numbers whose result looks random."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(_MULTIPLIERS[0])
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(_MULTIPLIERS[1])
    mixed ^= mixed >> np.uint64(31)
    return mixed


def hash_numbers(*numbers: int) -> int:
    """Combine several numbers into one 64-bit hash."""
    state = 0
    for number in numbers:
        state = (state + number + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _MULTIPLIERS[0]) & _MASK
        state = ((state ^ (state >> 27)) * _MULTIPLIERS[1]) & _MASK
        state ^= state >> 31
    return state


def generate_hashes(base: int, indices: np.ndarray) -> np.ndarray:
    """Generate the hashes at some indices of the sequence that starts from `base`."""
    return mix_bits(np.uint64(base) + indices * np.uint64(_GOLDEN))


def generate_uuids(hashes: np.ndarray) -> np.ndarray:
    """Generate a version 4 uuid for each hash: a table of bytes, 36 a row."""
    high = (mix_bits(hashes ^ np.uint64(1)) & np.uint64(0xFFFFFFFFFFFF0FFF)) | np.uint64(0x4000)
    low = (mix_bits(hashes ^ np.uint64(2)) & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
    octets = np.stack([high, low], axis=1).astype(">u8").view(np.uint8)
    digits = _HEX[octets].view(np.uint8)
    text = np.full((len(hashes), 36), ord("-"), dtype=np.uint8)
    text[:, 0:8], text[:, 9:13], text[:, 14:18] = digits[:, 0:8], digits[:, 8:12], digits[:, 12:16]
    text[:, 19:23], text[:, 24:36] = digits[:, 16:20], digits[:, 20:32]
    return text


class Renderer:
    """Renders events of one type as JSON."""

    def __init__(self, type: str, notifications: Sequence[Notification]) -> None:
        self._salt = hash_numbers(*type.encode())
        self._opening = f',{{"type":"{type}","id":"'
        self._sources = _build_table(
            [_format_source(notification, version) for notification in notifications for version in range(VERSIONS)]
        )
        self._receivers = _build_table([_format_receiver(number) for number in range(CONTACTS)])
        self._applications = _build_table(
            [f'}},"application":"{_format_uuid(2, number)}","subscription":"' for number in range(APPLICATIONS)]
        )
        self._endings = _build_table(
            [
                _format_ending(type, notification, dismissed)
                for notification in notifications
                for dismissed in (False, True)
            ]
        )

    def render(self, events: np.ndarray) -> bytes:
        """Render the JSON objects of the events, with a comma before each.

        Takes about three times the memory of the text, which has 0.9 kB an event: pass some thousands at a time.
        """
        keys, notification = events["key"], events["notification"].astype(np.int64)
        contacts = (_hash_with_salt(keys, 3) % np.uint64(CONTACTS)).astype(np.uint64)
        versions = (_hash_with_salt(keys, 4) % np.uint64(VERSIONS)).astype(np.int64)

        def repeat(text: str) -> np.ndarray:
            return np.broadcast_to(np.frombuffer(text.encode(), dtype=np.uint8), (len(events), len(text)))

        table = np.concatenate(
            [
                repeat(self._opening),
                generate_uuids(mix_bits(keys ^ np.uint64(self._salt))),
                repeat('","timestamp":'),
                _format_times(events["timestamp"]),
                self._sources[notification * VERSIONS + versions],
                self._receivers[contacts],
                self._applications[contacts % np.uint64(APPLICATIONS)],
                generate_uuids(_hash_with_salt(contacts, 5)),
                repeat('","stamp":{"time":'),
                _format_times(events["stamp_time"]),
                repeat(',"id":"'),
                generate_uuids(_hash_with_salt(keys, 6)),
                repeat('","thread":"'),
                generate_uuids(mix_bits(_hash_with_salt(contacts, 7) ^ notification.astype(np.uint64))),
                self._endings[notification * 2 + events["dismissed"]],
            ],
            axis=1,
        )
        return table.tobytes().translate(None, b"\0")


def _hash_with_salt(keys: np.ndarray, *salt: int) -> np.ndarray:
    return mix_bits(keys ^ np.uint64(hash_numbers(*salt)))


def _build_table(lines: Sequence[str]) -> np.ndarray:
    """Build a table of bytes from texts, padded with zero bytes."""
    rows = np.array([line.encode() for line in lines])
    return rows.view(np.uint8).reshape(len(lines), rows.itemsize)


def _format_times(times: np.ndarray) -> np.ndarray:
    """Format times (ms since epoch, 2001 to 2286) as 13 digits each."""
    fours = np.stack([times // 10**12, times // 10**8, times // 10**4, times], axis=1) % 10_000
    return _DIGITS[fours].view(np.uint8)[:, 3:]


def _format_source(notification: Notification, version: int) -> str:
    return (
        ',"identity":{"type":"customer","agency":"DEMO","customer":"028"},"source":{"type":"notification","detail":'
        f'{{"activation":{{"id":{notification.id},"version":"{_format_uuid(1, notification.id, version)}",'
        '"kind":"application","receiver":{"type":"contact","value":'
    )


def _format_receiver(contact: int) -> str:
    unicity = f"user{contact}@example.com"
    hashed = md5(unicity.encode(), usedforsecurity=False).hexdigest()
    return f'{{"type":"footprint","id":"{contact:08X}","unicity":"{unicity}","hash":"{hashed}"}}'


def _format_ending(type: str, notification: Notification, dismissed: bool) -> str:
    link = {"type": "redirection", "label": notification.label, "uri": notification.uri}
    if dismissed:
        link = {"type": "dismissal", "label": None, "uri": None}
    detail = f',"link":{_format_json(link)}' if type == "hit" else ""
    return (
        f'"}},"channel":{_format_json(notification.channel)},"urgent":false,'
        f'"expiration":"0001-01-01T00:00:00Z"}}{detail}}}}}}}'
    )


def _format_uuid(*values: int) -> str:
    return generate_uuids(np.array([hash_numbers(*values)], dtype=np.uint64)).tobytes().decode()


def _format_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
