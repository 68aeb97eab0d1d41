"""Tests of np6_assets."""
