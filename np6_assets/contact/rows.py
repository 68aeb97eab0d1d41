"""What every row passes, newly fetched and stored alike: tombstones, then the contact policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from np6_assets.contact.policy import ContactPolicy
from np6_assets.contact.receiver import receiver_values
from np6_assets.contact.tombstones import Tombstones

CONTACT_COLUMNS = ("receiver_unicity", "receiver_hash")
TEXT_COLUMNS = ("link_label", "link_uri", "bounce_status", "bounce_subject", "bounce_reason")
"""The columns of free text, those that a kind has."""


@dataclass(frozen=True)
class RowPolicy:
    """Keeps erased receivers out, and treats contact data."""

    contact: ContactPolicy
    tombstones: Tombstones

    def treated(self, table: pa.Table, stored_as: str | None = None) -> tuple[pa.Table, list[str]]:
        """The rows that stay, treated, and the ids of those whose receiver was erased.

        `stored_as` is the fingerprint of the policy that stored rows passed before.
        """
        erased = self._erased(table)
        table = self.tombstones.without(table)
        own = [table.column(name) for name in CONTACT_COLUMNS]
        for name in set(TEXT_COLUMNS).intersection(table.column_names):
            values = self.contact.treated_texts(table.column(name), own, stored_as)
            table = table.set_column(table.schema.get_field_index(name), name, values)
        for name in CONTACT_COLUMNS:
            values = table.column(name)
            if stored_as is None:
                values = self.contact.treated(values)
            else:
                values = self.contact.treated_again(values, stored_as)
            table = table.set_column(table.schema.get_field_index(name), name, values)
        # again: an erased receiver may be known by a pseudonym alone
        return self.tombstones.without(table), [*erased, *self._erased(table)]

    def is_erased(self, event: Any) -> bool:
        """Whether the receiver of an event of any shape was erased."""
        # under its pseudonym as well: that may be all that the tombstone knows
        is_pseudonymized = self.contact.mode == "pseudonymize"
        return self.tombstones.match_event(event) or (
            is_pseudonymized and any(map(self.tombstones.match, map(self.contact.pseudonym, receiver_values(event))))
        )

    def _erased(self, table: pa.Table) -> list[str]:
        ids: list[str] = table.column("event_id").filter(self.tombstones.named(table)).to_pylist()
        return ids
