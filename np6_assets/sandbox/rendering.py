"""Render events as JSON, with the keys, in the order, of the API reference's samples."""

from hashlib import md5

from .behaviour import Event, Sends
from .population import Account

_MARKS = {"activation": "a", "impression": "b", "optout": "c", "bounce": "d", "hit": "e"}  # in the ids of events


def render(account: Account, sends: Sends, type: str, event: Event) -> str:
    """Render one event as a JSON object."""
    # An f-string, and ids that are no hashes, because a request can be for tens of thousands of events.
    timestamp, number, repeat, beside = event
    notification, contact = sends.notification, sends.contacts[number]
    unicity = f"user{contact}@example.com"
    unicity_hash = md5(unicity.encode(), usedforsecurity=False).hexdigest()  # as the API's: without a salt
    send_id, contact_id = f"{number:012x}", f"{contact:012x}"
    return (
        f'{{"type":"{type}","id":"{sends.id}-8{_MARKS[type]}0{repeat}-{send_id}","timestamp":{timestamp},'
        f'"identity":{{"type":"customer","agency":"{account.agency}","customer":"{account.customer}"}},'
        f'"source":{{"type":"notification","detail":{{"activation":{{"id":{notification.id},'
        f'"version":"ecce{notification.id:03x}{sends.versions[number]:x}-1627-4495-90fc-7bbc27d2ae26","kind":"application",'
        f'"receiver":{{"type":"contact","value":'
        f'{{"type":"footprint","id":"{contact_id[4:]}","unicity":"{unicity}","hash":"{unicity_hash}"}}}},'
        f'"application":"076db4f{contact % 2}-4304-4b8e-b232-4820f2639a8a",'
        f'"subscription":"65b51edb-0cc2-4fed-a6d0-{contact_id}",'
        f'"stamp":{{"time":{sends.times[number]},"id":"{sends.id}-8000-{send_id}",'
        f'"thread":"a3078b19-b379-4bc2-b29a-{contact_id}"}},'
        f'"channel":"{notification.channel}","urgent":{"true" if notification.urgent else "false"},'
        f'"expiration":"0001-01-01T00:00:00Z"}}{beside}}}}}}}'
    )
