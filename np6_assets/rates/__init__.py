"""Reactivity rates: `rates.sql`, the asset that runs it, and what the UI shows of them."""
