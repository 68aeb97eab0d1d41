"""Paths of the columns of hits in an event, for contenders that select columns."""

ACTIVATION = ("source", "detail", "activation")
COLUMNS = {
    "event_id": ("id",),
    "event_time": ("timestamp",),
    "activation_id": (*ACTIVATION, "id"),
    "agency": ("identity", "agency"),
    "customer": ("identity", "customer"),
    "activation_version": (*ACTIVATION, "version"),
    "activation_kind": (*ACTIVATION, "kind"),
    "application_id": (*ACTIVATION, "application"),
    "subscription_id": (*ACTIVATION, "subscription"),
    "stamp_id": (*ACTIVATION, "stamp", "id"),
    "stamp_thread": (*ACTIVATION, "stamp", "thread"),
    "activated_at": (*ACTIVATION, "stamp", "time"),
    "channel": (*ACTIVATION, "channel"),
    "urgent": (*ACTIVATION, "urgent"),
    "expires_at": (*ACTIVATION, "expiration"),
    "receiver_type": (*ACTIVATION, "receiver", "type"),
    "receiver_id": (*ACTIVATION, "receiver", "value", "id"),
    "link_type": ("source", "detail", "link", "type"),
    "link_label": ("source", "detail", "link", "label"),
    "link_uri": ("source", "detail", "link", "uri"),
}
