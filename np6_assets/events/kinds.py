"""The one table of event kinds: asset, endpoint and columns, each with its place in the event's JSON.

Adding an event kind is one entry in `KINDS`. Types and names are the data contract: other programs read them.
Source of the JSON paths: the NP6 API Reference 8.1.0, notifications, reactivities.
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
    """A column of an event asset.

    `path` leads to its value in the event's JSON. `required` ones are never null. The rates depend on `rated` ones: an
    event in which one of these cannot be read is rejected; elsewhere the value is null.
    """

    name: str
    type: pa.DataType
    path: str
    reading: Reading
    description: str
    required: bool = False
    rated: bool = False


@dataclass(frozen=True)
class EventKind:
    """A kind of event: its asset, the feed that it comes from, and the columns that only this kind has."""

    asset: str
    event: str
    path: str
    start_parameter: str
    end_parameter: str
    description: str
    own_columns: tuple[Column, ...] = ()

    @property
    def quarantine(self) -> str:
        """Where rejected events are kept, below the data folder, as if it were an asset."""
        return f"quarantine/{self.asset}"

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in the order in which they are stored."""
        return COMMON_COLUMNS + self.own_columns

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the stored rows."""
        return pa.schema([pa.field(column.name, column.type, not column.required) for column in self.columns])

    @property
    def per_notification(self) -> bool:
        """Whether the API gives this feed for one notification at a time only."""
        return "{id}" in self.path


def _text(name: str, path: str, description: str, *, required: bool = False, rated: bool = False) -> Column:
    return Column(name, pa.string(), path, Reading.TEXT, description, required, rated)


def _time(name: str, path: str, description: str, *, required: bool = False) -> Column:
    return Column(name, TIME, path, Reading.TIME, description, required, rated=True)


_ACTIVATION = "source.detail.activation"
_RECEIVER = f"{_ACTIVATION}.receiver"
_STAMP = f"{_ACTIVATION}.stamp"

COMMON_COLUMNS = (
    _text("event_id", "id", "Unique id of the event, the same however often it is fetched.", required=True, rated=True),
    _time("event_time", "timestamp", "When the event was published.", required=True),
    Column(
        "activation_id",
        pa.int64(),
        f"{_ACTIVATION}.id",
        Reading.INTEGER,
        "Id of the notification: what rates are reported on.",
        required=True,
        rated=True,
    ),
    _text("agency", "identity.agency", "Agency of the account.", rated=True),
    _text("customer", "identity.customer", "Customer of the account.", rated=True),
    _text("activation_version", f"{_ACTIVATION}.version", "Version of the notification that was sent.", rated=True),
    _text("activation_kind", f"{_ACTIVATION}.kind", "Kind of the activation, `application` for push."),
    _text("application_id", f"{_ACTIVATION}.application", "The mobile application.", rated=True),
    _text("subscription_id", f"{_ACTIVATION}.subscription", "The device's subscription to the app.", rated=True),
    _text("stamp_id", f"{_STAMP}.id", "Id of the send; with subscription_id it tells sends apart.", rated=True),
    _text("stamp_thread", f"{_STAMP}.thread", "Conversation that the send belongs to."),
    _time("activated_at", f"{_STAMP}.time", "When the send went out; its day is the cohort."),
    _text("channel", f"{_ACTIVATION}.channel", "Notification channel on the device."),
    Column("urgent", pa.bool_(), f"{_ACTIVATION}.urgent", Reading.BOOLEAN, "Whether the send was urgent."),
    Column("expires_at", TIME, f"{_ACTIVATION}.expiration", Reading.ISO_TIME, "When the send expires; null for never."),
    _text("receiver_type", f"{_RECEIVER}.type", "Type of the receiver, `contact`."),
    Column("receiver_id", pa.string(), f"{_RECEIVER}.value.id", Reading.RECEIVER_ID, "Id of the contact in NP6."),
    Column(
        "receiver_unicity",
        pa.string(),
        f"{_RECEIVER}.value.unicity",
        Reading.RECEIVER_UNICITY,
        "Unique key of the contact, often the e-mail address: null, a pseudonym or as received (NP6_CONTACT_DATA).",
    ),
    _text(
        "receiver_hash",
        f"{_RECEIVER}.value.hash",
        "Hash of the unique key: null, a pseudonym or as received (NP6_CONTACT_DATA).",
    ),
)

_SUBJECT = "source.detail.bounce.analysis.subject"


def _reactivity(asset: str, event: str, description: str, *own_columns: Column) -> EventKind:
    path = f"/notifications/reactivities/{asset}"
    return EventKind(asset, event, path, "reactivityStart", "reactivityEnd", description, own_columns)


KINDS = (
    _reactivity(
        "hits",
        "hit",
        "Receivers who opened a notification, one row a hit. A click-through has the link type `redirection`.",
        _text("link_type", "source.detail.link.type", "`redirection` for a click-through; others occur.", rated=True),
        _text("link_label", "source.detail.link.label", "Label of the link."),
        _text("link_uri", "source.detail.link.uri", "Where the link leads."),
    ),
    _reactivity(
        "optouts",
        "optout",
        "Sends that reached a device whose notifications, or whose channel, are switched off.",
        _text("optout_type", "source.detail.optout.type", "What is switched off, `channel` for one channel."),
        _text("optout_channel", "source.detail.optout.channel", "The channel that is switched off."),
    ),
    _reactivity(
        "bounces",
        "bounce",
        "Sends that could not be delivered, with the verdict (hard, soft) and the reason.",
        _text(
            "bounce_status",
            "source.detail.bounce.status",
            "Status: text, or the JSON text of what is not text; null for push.",
        ),
        _text(
            "bounce_verdict", "source.detail.bounce.analysis.verdict", "`hard`, `soft`; others may occur.", rated=True
        ),
        Column("bounce_subject", pa.string(), f"{_SUBJECT}.type", Reading.SUBJECT, "What bounced: `token`, or a text."),
        _text("bounce_reason", f"{_SUBJECT}.detail.type", "Why it bounced, such as `unregistered`."),
    ),
    _reactivity("impressions", "impression", "Sends that were displayed on the device."),
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

JSON_PARTS = (_RECEIVER, "source.detail.optout", _SUBJECT)
"""Objects without rated columns that come in other shapes as well: read as JSON, so that no shape is refused."""
