"""Events: their kinds, how responses become typed and ordered rows, and the daily assets of them."""
