"""How the assets refresh themselves: a sensor for the events, an automation condition for the rates, a schedule."""
