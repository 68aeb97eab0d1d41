"""The lock on a local data folder for the length of a run."""

from contextlib import AbstractContextManager

import dagster as dg

from np6_assets.storage.files import Folder


def lock_folder(
    folder: Folder, context: dg.OpExecutionContext | dg.AssetExecutionContext
) -> AbstractContextManager[None]:
    """Lock the data folder against other runs of this machine; a folder in an object store has no lock."""
    run = context.run
    return folder.lock(f"run {run.run_id[:8]} of {run.job_name}", context.log.info)
