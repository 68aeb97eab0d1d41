"""The report: one HTML file for people who never open Dagster, its numbers, its page and the asset that writes it."""
