"""Accounts from YAML, a folder each: `dg scaffold defs np6_assets.NP6Account brand_a` makes one."""
