"""Endurance: rounds of ingestion and rates under all faults at once, compared with a run without faults."""
