"""Programs to compare, each run as a whole process; the docstring of each names its arguments."""
