"""Runs as processes and as records: what ends those whose process died, and what removes those that are old."""
