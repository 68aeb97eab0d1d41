"""What every row passes, newly fetched and stored alike: tombstones, then the contact policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from np6_assets.contact.policy import ContactPolicy
from np6_assets.contact.tombstones import Tombstones

CONTACT_COLUMNS = ("receiver_unicity", "receiver_hash")


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
        return self.tombstones.name(event) or self.tombstones.name(self.contact.treated_event(event))

    def _erased(self, table: pa.Table) -> list[str]:
        ids: list[str] = table.column("event_id").filter(self.tombstones.named(table)).to_pylist()
        return ids
