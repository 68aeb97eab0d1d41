"""How the assets refresh themselves: a sensor for the events, one for the rates, a schedule."""
