"""What Dagster loads here: the account of the environment's variables, and those of the folder `defs`."""

from __future__ import annotations

import os

import dagster as dg

from np6_assets.loading import load_own_components, quiet, select_accounts

with quiet():
    tree = load_own_components()
    defs = dg.Definitions.merge(
        # of this folder: without it, every package with components is imported too, to describe them in the UI
        tree.build_defs("."),
        *(
            dg.build_defs_for_component(one)
            for one in select_accounts(os.environ, tree)
            if one.asset_key_prefix is None
        ),
        # one process a run: the work is threaded, and a process for each step costs seconds and memory
        dg.Definitions(executor=dg.in_process_executor, component_tree=tree),
    )
