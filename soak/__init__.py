"""Endurance: whole rounds of ingestion and rates under every fault at once, compared with a run without any."""
