"""Processor, memory and GPU load while a run is open, under the names that MLflow's "System metrics" tab shows."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil

INTERVAL = 10.0  # seconds, as MLflow's own monitor
MB = 1e6


@contextmanager
def sampled(log: Callable[[Mapping[str, float | None]], Any], interval: float = INTERVAL) -> Iterator[None]:
    """Sample every `interval` seconds from a thread, and once at the end, until the block is left."""
    stop = threading.Event()
    thread = threading.Thread(target=_sample_until, args=(stop, log, interval), name="lasps-load", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5.0)


@contextmanager
def repeated(call: Callable[[], Any], interval: float) -> Iterator[None]:
    """Call something every `interval` seconds from a thread until the block is left."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(interval):
            call()

    threading.Thread(target=repeat, name="lasps-heartbeat", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _sample_until(stop: threading.Event, log: Callable[[Mapping[str, float | None]], Any], interval: float) -> None:
    process = psutil.Process()
    psutil.cpu_percent(), process.cpu_percent()  # the first call of each only starts the clock
    ended = False
    while not ended:
        ended = stop.wait(interval)
        log(read_load(process))


def read_load(process: psutil.Process) -> dict[str, float | None]:
    """The load since the last call: percent, and megabytes of 10^6 bytes."""
    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/process_cpu_percentage": process.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / MB,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_megabytes": process.memory_info().rss / MB,
        **_gpu_load(),
    }


def _gpu_load() -> dict[str, float | None]:
    """Load and memory of each CUDA device that this process uses already (asking must not start torch or CUDA)."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    load: dict[str, float | None] = {}
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        load[f"system/gpu_{index}_memory_usage_megabytes"] = (total - free) / MB
        try:
            load[f"system/gpu_{index}_utilization_percentage"] = float(torch.cuda.utilization(index))
        except (ModuleNotFoundError, RuntimeError):
            continue
    return load
