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
    """How a JSON value becomes a column's value. What a reading cannot take makes the event a misfit."""

    TEXT = "a string"
    REQUIRED_TEXT = "a string that is not empty"
    INTEGER = "a whole number"
    MILLISECONDS = "a number of milliseconds since 1970 in the years 1 to 9999"
    BOOLEAN = "true or false"
    ISO_TIME = "an ISO 8601 time; 0001-01-01T00:00:00Z is none"
    TEXT_OR_JSON = "a string, or the JSON text of anything else"
    TEXT_OR_TYPE = "a string, or the `type` of an object"
    DETAIL_TYPE = "the `detail.type` of an object; a string has none"


@dataclass(frozen=True)
class Column:
    """A column of an event asset. `path` leads to its value in the event's JSON; `required` ones are never null."""

    name: str
    type: pa.DataType
    path: str
    reading: Reading
    description: str
    required: bool = False


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
        """Where the events that do not fit are kept, below the data folder, as if it were an asset."""
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


def _text(name: str, path: str, description: str) -> Column:
    return Column(name, pa.string(), path, Reading.TEXT, description)


_ACTIVATION = "source.detail.activation"

COMMON_COLUMNS = (
    Column(
        "event_id",
        pa.string(),
        "id",
        Reading.REQUIRED_TEXT,
        "Unique id of the event, the same however often it is fetched.",
        required=True,
    ),
    Column("event_time", TIME, "timestamp", Reading.MILLISECONDS, "When the event was published.", required=True),
    Column(
        "activation_id",
        pa.int64(),
        f"{_ACTIVATION}.id",
        Reading.INTEGER,
        "Id of the notification: what rates are reported on.",
        required=True,
    ),
    _text("agency", "identity.agency", "Agency of the account."),
    _text("customer", "identity.customer", "Customer of the account."),
    _text("activation_version", f"{_ACTIVATION}.version", "Version of the notification that was sent."),
    _text("activation_kind", f"{_ACTIVATION}.kind", "Kind of the activation, `application` for push."),
    _text("application_id", f"{_ACTIVATION}.application", "The mobile application."),
    _text("subscription_id", f"{_ACTIVATION}.subscription", "The device's subscription to the application."),
    _text("stamp_id", f"{_ACTIVATION}.stamp.id", "Id of the send; with subscription_id it tells sends apart."),
    _text("stamp_thread", f"{_ACTIVATION}.stamp.thread", "Conversation that the send belongs to."),
    Column(
        "activated_at",
        TIME,
        f"{_ACTIVATION}.stamp.time",
        Reading.MILLISECONDS,
        "When the send went out; its day is the cohort.",
    ),
    _text("channel", f"{_ACTIVATION}.channel", "Notification channel on the device."),
    Column("urgent", pa.bool_(), f"{_ACTIVATION}.urgent", Reading.BOOLEAN, "Whether the send was urgent."),
    Column(
        "expires_at",
        TIME,
        f"{_ACTIVATION}.expiration",
        Reading.ISO_TIME,
        "When the send expires; null for never.",
    ),
    _text("receiver_type", f"{_ACTIVATION}.receiver.type", "Type of the receiver, `contact`."),
    _text("receiver_id", f"{_ACTIVATION}.receiver.value.id", "Id of the contact in NP6."),
    _text(
        "receiver_unicity",
        f"{_ACTIVATION}.receiver.value.unicity",
        "Unique key of the contact, often the e-mail address: null, a pseudonym or as received (NP6_CONTACT_DATA).",
    ),
    _text(
        "receiver_hash",
        f"{_ACTIVATION}.receiver.value.hash",
        "Hash of the unique key: null, a pseudonym or as received (NP6_CONTACT_DATA).",
    ),
)

CONTACT_COLUMNS = ("receiver_unicity", "receiver_hash")

_SUBJECT = "source.detail.bounce.analysis.subject"


def _reactivity(asset: str, event: str, description: str, *own_columns: Column) -> EventKind:
    path = f"/notifications/reactivities/{asset}"
    return EventKind(asset, event, path, "reactivityStart", "reactivityEnd", description, own_columns)


KINDS = (
    _reactivity(
        "hits",
        "hit",
        "Receivers who opened a notification, one row a hit. A click-through has the link type `redirection`.",
        _text("link_type", "source.detail.link.type", "`redirection` for a click-through; others occur."),
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
        Column(
            "bounce_status",
            pa.string(),
            "source.detail.bounce.status",
            Reading.TEXT_OR_JSON,
            "Status: text, or the JSON text of what is not text; null for push.",
        ),
        _text("bounce_verdict", "source.detail.bounce.analysis.verdict", "`hard`, `soft`; others may occur."),
        Column(
            "bounce_subject",
            pa.string(),
            _SUBJECT,
            Reading.TEXT_OR_TYPE,
            "What bounced: `token`, or a plain text.",
        ),
        Column(
            "bounce_reason",
            pa.string(),
            _SUBJECT,
            Reading.DETAIL_TYPE,
            "Why it bounced, such as `unregistered`.",
        ),
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

KNOWN_UNREAD = (
    "type",
    "identity.type",
    "source.type",
    f"{_ACTIVATION}.receiver.value.type",
    f"{_ACTIVATION}.stamp.set",
    f"{_SUBJECT}.type",
    f"{_SUBJECT}.detail.type",
)
"""Fields that the reference documents and no column reads: not news when they come."""
