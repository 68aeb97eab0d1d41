"""Memory of a run's process: which allocator Arrow uses, and how many arenas glibc keeps."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

_M_ARENA_MAX = -8  # of <malloc.h>


@contextmanager
def reduce_memory() -> Iterator[None]:
    """Let this process take less memory for large days; Arrow's allocator is the one before in the end."""
    # glibc would keep apart what each of a dozen threads has freed: 90 MB at the peak of a large day. It stays so, as
    # there is no telling what it was; a run's process ends with the run.
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 2)
    # Arrow's own allocator hands each large buffer back to the system and asks for it anew: a fifth of the time of
    # writing Parquet, and 80 MB more at the peak.
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)
