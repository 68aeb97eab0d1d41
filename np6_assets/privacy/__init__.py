"""Personal data: for how long events are kept, and how receivers are erased."""
