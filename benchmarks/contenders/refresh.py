"""Fetch the day of a time with this project, through Dagster, with its records in memory: NOW [full]."""

import os
import sys
from datetime import datetime

import dagster as dg

from np6_assets.settings import Settings
from np6_assets.wiring import build_definitions

now = datetime.fromisoformat(sys.argv[1])
definitions = build_definitions(Settings.from_environment(os.environ), lambda: now)
dg.materialize(
    list(definitions.assets or ()),
    selection=["hits"],
    resources=definitions.resources,
    partition_key=str(now.date()),
    run_config={"ops": {"hits": {"config": {"full_refresh": sys.argv[2:] == ["full"]}}}},
    instance=dg.DagsterInstance.ephemeral(),
)
