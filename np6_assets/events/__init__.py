"""Events: the event kinds, decoding parts to sorted runs, merging runs to days, and the daily assets."""
