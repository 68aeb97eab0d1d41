"""Runs that have the data folder of a machine for themselves, and what those that wait for them are told."""

from contextlib import AbstractContextManager

import dagster as dg

from np6_assets.storage.files import Folder


def alone(folder: Folder, context: dg.OpExecutionContext | dg.AssetExecutionContext) -> AbstractContextManager[None]:
    """Hold the data folder alone, once no other run of this machine uses it; in an object store nobody waits."""
    run = context.run
    return folder.alone(f"run {run.run_id[:8]} of {run.job_name}", context.log.info)
