"""Shared test code: events, expected values, servers, deployments.

The expected values (`oracle`) import nothing of np6_assets, so that both cannot share a mistake.
"""
