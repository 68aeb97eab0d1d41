"""Events: their kinds, how parts become typed rows and runs become days, and the daily assets."""
