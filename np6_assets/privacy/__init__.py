"""Personal data: for how long events are kept."""
