"""Runs: end those whose process died, limit their time, and remove old records."""
