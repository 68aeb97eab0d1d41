"""Contact data: the policy and the tombstones that every row passes before it is stored; the days that are kept."""
