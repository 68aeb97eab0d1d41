"""The one table of event kinds: asset, endpoint and columns, each with its path in the event's JSON.

A new event kind is one entry in `KINDS`. Names and types are the data contract: other programs read them. Source of the
paths: NP6 API Reference 8.1.0, notifications, reactivities.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

TIME = pa.timestamp("ms", tz="UTC")


class Reading(Enum):
    """How a JSON value becomes a column's value; see `json_sql.py`."""

    TEXT = "text"
    INTEGER = "a whole number"
    TIME = "a time in seconds, ms, µs or ns since 1970, told by its size"
    BOOLEAN = "true or false"
    ISO_TIME = "an ISO 8601 time; 0001-01-01T00:00:00Z is none"
    RECEIVER_ID = "text; of a receiver whose value is a string and whose type is `id`, that string"
    RECEIVER_UNICITY = "text; of a receiver whose value is a string and whose type is another, that string"
    SUBJECT = "text; of a subject that is a string, that string"


@dataclass(frozen=True)
class Column:
    """A column of an event asset; `path` leads to its value in the event's JSON.

    A `required` column is never null. An event whose `used_by_rates` column cannot be read is rejected; in other
    columns an unreadable value is null.
    """

    name: str
    type: pa.DataType
    path: str
    reading: Reading
    description: str
    required: bool = False
    used_by_rates: bool = False


@dataclass(frozen=True)
class EventKind:
    """A kind of event: its asset, its feed, and the columns that only this kind has."""

    asset: str
    event: str
    path: str
    start_parameter: str
    end_parameter: str
    description: str
    own_columns: tuple[Column, ...] = ()

    @property
    def quarantine(self) -> str:
        """The folder of the rejected events, like an asset's."""
        return f"quarantine/{self.asset}"

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns in the order stored."""
        return COMMON_COLUMNS + self.own_columns

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the stored rows."""
        return pa.schema([pa.field(column.name, column.type, not column.required) for column in self.columns])

    @property
    def per_notification(self) -> bool:
        """Whether the API returns this feed for one notification at a time only."""
        return "{id}" in self.path


def _text_column(name: str, path: str, description: str, *, required: bool = False, rated: bool = False) -> Column:
    return Column(name, pa.string(), path, Reading.TEXT, description, required, rated)


def _time_column(name: str, path: str, description: str, *, required: bool = False) -> Column:
    return Column(name, TIME, path, Reading.TIME, description, required, used_by_rates=True)


_ACTIVATION = "source.detail.activation"
_RECEIVER = f"{_ACTIVATION}.receiver"
_STAMP = f"{_ACTIVATION}.stamp"

COMMON_COLUMNS = (
    _text_column(
        "event_id", "id", "Unique id of the event, the same however often it is fetched.", required=True, rated=True
    ),
    _time_column("event_time", "timestamp", "When the event was published.", required=True),
    Column(
        "activation_id",
        pa.int64(),
        f"{_ACTIVATION}.id",
        Reading.INTEGER,
        "Id of the notification: what rates are reported on.",
        required=True,
        used_by_rates=True,
    ),
    _text_column("agency", "identity.agency", "Agency of the account.", rated=True),
    _text_column("customer", "identity.customer", "Customer of the account.", rated=True),
    _text_column(
        "activation_version", f"{_ACTIVATION}.version", "Version of the notification that was sent.", rated=True
    ),
    _text_column("activation_kind", f"{_ACTIVATION}.kind", "Kind of the activation, `application` for push."),
    _text_column("application_id", f"{_ACTIVATION}.application", "The mobile application.", rated=True),
    _text_column("subscription_id", f"{_ACTIVATION}.subscription", "The device's subscription to the app.", rated=True),
    _text_column("stamp_id", f"{_STAMP}.id", "Id of the send; with subscription_id it tells sends apart.", rated=True),
    _text_column("stamp_thread", f"{_STAMP}.thread", "Conversation that the send belongs to."),
    _time_column("activated_at", f"{_STAMP}.time", "When the send went out; its day is the cohort."),
    _text_column("channel", f"{_ACTIVATION}.channel", "Notification channel on the device."),
    Column("urgent", pa.bool_(), f"{_ACTIVATION}.urgent", Reading.BOOLEAN, "Whether the send was urgent."),
    Column("expires_at", TIME, f"{_ACTIVATION}.expiration", Reading.ISO_TIME, "When the send expires; null for never."),
    _text_column("receiver_type", f"{_RECEIVER}.type", "Type of the receiver, `contact`."),
    Column("receiver_id", pa.string(), f"{_RECEIVER}.value.id", Reading.RECEIVER_ID, "Id of the contact in NP6."),
    Column(
        "receiver_unicity",
        pa.string(),
        f"{_RECEIVER}.value.unicity",
        Reading.RECEIVER_UNICITY,
        "Unique key of the contact, often the e-mail address: null, a pseudonym or as received (NP6_CONTACT_DATA).",
    ),
    _text_column(
        "receiver_hash",
        f"{_RECEIVER}.value.hash",
        "Hash of the unique key: null, a pseudonym or as received (NP6_CONTACT_DATA).",
    ),
)

_SUBJECT = "source.detail.bounce.analysis.subject"


def _reaction_kind(asset: str, event: str, description: str, *own_columns: Column) -> EventKind:
    path = f"/notifications/reactivities/{asset}"
    return EventKind(asset, event, path, "reactivityStart", "reactivityEnd", description, own_columns)


KINDS = (
    _reaction_kind(
        "hits",
        "hit",
        "Receivers who opened a notification, one row a hit. A click-through has the link type `redirection`.",
        _text_column(
            "link_type", "source.detail.link.type", "`redirection` for a click-through; others occur.", rated=True
        ),
        _text_column("link_label", "source.detail.link.label", "Label of the link."),
        _text_column("link_uri", "source.detail.link.uri", "Where the link leads."),
    ),
    _reaction_kind(
        "optouts",
        "optout",
        "Sends that reached a device whose notifications, or whose channel, are switched off.",
        _text_column("optout_type", "source.detail.optout.type", "What is switched off, `channel` for one channel."),
        _text_column("optout_channel", "source.detail.optout.channel", "The channel that is switched off."),
    ),
    _reaction_kind(
        "bounces",
        "bounce",
        "Sends that could not be delivered, with the verdict (hard, soft) and the reason.",
        _text_column(
            "bounce_status",
            "source.detail.bounce.status",
            "Status: text, or the JSON text of what is not text; null for push.",
        ),
        _text_column(
            "bounce_verdict", "source.detail.bounce.analysis.verdict", "`hard`, `soft`; others may occur.", rated=True
        ),
        Column("bounce_subject", pa.string(), f"{_SUBJECT}.type", Reading.SUBJECT, "What bounced: `token`, or a text."),
        _text_column("bounce_reason", f"{_SUBJECT}.detail.type", "Why it bounced, such as `unregistered`."),
    ),
    _reaction_kind("impressions", "impression", "Sends that were displayed on the device."),
    EventKind(
        "activations",
        "activation",
        "/notifications/{id}/events/activations",
        "start",
        "end",
        "Sends: one row for each notification sent to one receiver. The denominator of the rates.",
    ),
)

REACTIONS = tuple(kind for kind in KINDS if not kind.per_notification)
ACTIVATIONS = next(kind for kind in KINDS if kind.per_notification)

KNOWN_FIELDS = (
    "type",
    "identity.type",
    "source.type",
    f"{_RECEIVER}.value.type",
    f"{_STAMP}.set",
)
"""Fields that the reference documents and no column reads: not unknown."""

JSON_OBJECTS = (_RECEIVER, "source.detail.optout", _SUBJECT)
"""Objects of varying shape without columns that rates use: read as JSON, which accepts every shape."""
