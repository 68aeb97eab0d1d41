"""This project fetches a day at a moment in it, through Dagster, with records in memory: NOW [full]."""

import os
import sys
from datetime import datetime

import dagster as dg

from np6_assets.settings import Settings
from np6_assets.wiring import build_definitions

moment = datetime.fromisoformat(sys.argv[1])
definitions = build_definitions(Settings.from_environment(os.environ), lambda: moment)
dg.materialize(
    list(definitions.assets or ()),
    selection=["hits"],
    resources=definitions.resources,
    partition_key=str(moment.date()),
    run_config={"ops": {"hits": {"config": {"full_refresh": sys.argv[2:] == ["full"]}}}},
    instance=dg.DagsterInstance.ephemeral(),
)
