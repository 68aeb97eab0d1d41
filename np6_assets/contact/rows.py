"""What every row passes, fetched or stored: tombstones, then the contact policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from np6_assets.contact.policy import ContactPolicy
from np6_assets.contact.receiver import find_receiver_values
from np6_assets.contact.tombstones import Tombstones

CONTACT_COLUMNS = ("receiver_unicity", "receiver_hash")
TEXT_COLUMNS = ("link_label", "link_uri", "bounce_status", "bounce_subject", "bounce_reason")
"""Columns of free text, as far as a kind has them."""


@dataclass(frozen=True)
class RowPolicy:
    """Drops the rows of erased receivers and treats contact data."""

    contact: ContactPolicy
    tombstones: Tombstones

    def treat_rows(self, table: pa.Table, stored_as: str | None = None) -> tuple[pa.Table, list[str]]:
        """Return the treated rows that stay, and the ids of those whose receiver was erased.

        `stored_as` is the fingerprint of the policy of stored rows.
        """
        erased = self._find_erased(table)
        table = self.tombstones.drop_erased(table)
        own = [table.column(name) for name in CONTACT_COLUMNS]
        names = [name for name in TEXT_COLUMNS if name in table.column_names]
        texts = self.contact.treat_texts([table.column(name) for name in names], own, stored_as)
        receivers = [self.contact.treat_column(column, stored_as) for column in own]
        for name, values in zip((*names, *CONTACT_COLUMNS), (*texts, *receivers), strict=True):
            table = table.set_column(table.schema.get_field_index(name), name, values)
        # again: an erased receiver may be known only by a pseudonym
        return self.tombstones.drop_erased(table), [*erased, *self._find_erased(table)]

    def is_erased(self, event: Any) -> bool:
        """Whether the receiver of an event of any shape was erased."""
        values = list(find_receiver_values(event))
        if self.contact.mode == "pseudonymize":  # the tombstone may know only the pseudonym
            values += [self.contact.compute_pseudonym(value) for value in values]
        return any(map(self.tombstones.match, values))

    def _find_erased(self, table: pa.Table) -> list[str]:
        ids: list[str] = table.column("event_id").filter(self.tombstones.match_rows(table)).to_pylist()
        return ids
