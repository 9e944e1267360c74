"""Time and memory of one call."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psutil

Result = TypeVar("Result")


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """The call's result and its wall time in seconds."""
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


def peak_anonymous_memory(call: Callable[[], Result], every: float = 0.02) -> tuple[Result, float | None]:
    """The call's result and by how many bytes it raised the process' anonymous memory at most; None if unknown.

    Anonymous memory is what belongs to the process alone: pages of memory-mapped files do not count.
    """
    _return_freed_memory()
    before = anonymous_memory()
    if before is None:
        return call(), None
    peak, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(every):
            peak[0] = max(peak[0], anonymous_memory() or 0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        result = call()
    finally:
        done.set()
        watcher.join()
    return result, float(peak[0] - before)


def _return_freed_memory() -> None:
    """Give freed heap back to the system (glibc), so that reusing it counts."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def anonymous_memory() -> int | None:
    """This process' anonymous resident memory in bytes; None where the system does not tell (not Linux)."""
    memory = psutil.Process().memory_info()
    return memory.rss - memory.shared if hasattr(memory, "shared") else None


def row(
    what: str, ours: float, reference: float | None = None, unit: str = "s", more_is_better: bool = False
) -> dict[str, Any]:
    """One line of a benchmark's table; its ratio is above 1 where ours is the better number."""
    ratio = None if reference is None else ours / reference if more_is_better else reference / ours
    return {"what": what, "ours": ours, "reference": reference, "ratio": ratio, "unit": unit}
