"""What tracking costs a training: seconds that it waits, and processor seconds of the thread beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lasps.config.settings import settings
from lasps.tracking import open_tracker
from lasps.tracking.store import connect, local_location

PHASES = ("phase1_best", "phase3_final", "phase2_best")
EPOCHS = 10
EPOCH_SECONDS = 0.3
"""A pretended epoch: it sleeps, so that all processor time is tracking's. The pretended training takes 9 s."""
SECTORS = 20
CHECKPOINT_BYTES = 4_000_000
TRAINING_SECONDS = 60.0
"""The three phases of the default dataset on two cores take at least this; the shares below are of it."""
LIMIT = 0.02  # the project's own: tracking costs less than 2 % of training time


def run() -> list[dict[str, Any]]:
    """Seconds to create a database (once per clone), and what a pipeline in a fresh process waits and computes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        connect(local_location(Path(folder)))
        created = time.perf_counter() - start
        done = subprocess.run([sys.executable, "-m", "experiments.benchmarks.tracking", folder], cwd=settings.ROOT,
                              env=os.environ | {"MLFLOW_TRACKING_URI": ""}, capture_output=True, text=True, check=True)
    waited, computed = json.loads(done.stdout)
    cores = os.cpu_count() or 1
    return [row("create the database (once per clone)", created, None, "s"),
            row("a pipeline's training waits for tracking", waited, LIMIT * TRAINING_SECONDS, "s"),
            row(f"processor seconds beside it, over {cores} cores", computed / cores, LIMIT * TRAINING_SECONDS, "s"),
            row("the larger of both, as a share of training", max(waited, computed / cores) / TRAINING_SECONDS, LIMIT,
                "fraction")]


def pretend_to_train(root: Path) -> tuple[float, float]:
    """Three phases that sleep and track as the real ones do; (seconds waited, processor seconds), imports included."""
    import polars  # noqa: F401  (a training has these)
    import torch  # noqa: F401

    checkpoint = root / "phase1_best.pt"
    checkpoint.write_bytes(os.urandom(CHECKPOINT_BYTES))
    start, processor = time.perf_counter(), time.process_time()
    with open_tracker(root=root).run("pipeline") as pipeline:
        for name in PHASES:
            with pipeline.run(name) as phase:
                for epoch in range(EPOCHS):
                    time.sleep(EPOCH_SECONDS)
                    phase.log_metrics(figures_of(name), step=epoch)
                phase.log_checkpoint(checkpoint, {"val_log_loss": 0.98}, step=EPOCHS)
    slept = len(PHASES) * EPOCHS * EPOCH_SECONDS
    return time.perf_counter() - start - slept, time.process_time() - processor


def figures_of(name: str) -> dict[str, float | None]:
    """As many metrics as the phase logs per epoch."""
    if name != "phase2_best":
        return {f"{name}/{key}": 0.5 for key in ("train_loss", "val_loss", "lr", "seconds", "samples_per_second")}
    return {f"phase2/sector_{s:02d}/{key}": 0.5 for s in range(SECTORS) for key in ("train_loss", "val_loss")}


def row(what: str, ours: float, reference: float | None, unit: str) -> dict[str, Any]:
    """A figure, and its limit where it has one."""
    return {"what": what, "ours": ours, "reference": reference, "ratio": ours / reference if reference else None,
            "unit": unit}


if __name__ == "__main__":
    print(json.dumps(pretend_to_train(Path(sys.argv[1]))))
