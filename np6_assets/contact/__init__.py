"""What every row passes before it is stored: the policy for contact data, tombstones, the first day that is kept."""
