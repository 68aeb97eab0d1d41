"""Endurance: whole rounds of ingestion and rates under every fault at once, compared with a run without any."""

import fsspec

# here, as settings are read when the definitions are imported
fsspec.register_implementation("full", "soak.disk.FullDisk", clobber=True)
