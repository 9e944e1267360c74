"""What tracking costs: per epoch and checkpoint, and as a share of a training that tracks as the phases do."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lasps.config.settings import settings
from lasps.tracking import MlflowTracker
from lasps.tracking.store import connect, local_location

EPOCHS = 20
SECTORS = 20
CHECKPOINT_BYTES = 4_000_000
TRAINING_SECONDS = 60.0
"""The three phases of the default dataset on two cores; the share below is of this."""
LIMIT = 0.02  # of training time, issue "Tracking, tuning and notebooks"


def run() -> list[dict[str, Any]]:
    """Seconds of: creating the database, opening it, an epoch's batch, Phase 2's batch, a checkpoint; and the share."""
    with tempfile.TemporaryDirectory() as folder:
        location = local_location(Path(folder))
        created = timed(lambda: connect(location))
        opened = seconds_to_open(Path(folder))
        seconds = measure_run(MlflowTracker(location, system_metrics=False), Path(folder))
    total = opened + seconds["start_and_end"] + 2 * EPOCHS * seconds["epoch"] + 10 * seconds["phase2_epoch"] \
        + 3 * seconds["checkpoint"]
    rows = [row("create the database (once per clone)", created, "s"), row("import MLflow and open it", opened, "s")]
    rows += [row(name.replace("_", " "), value, "s") for name, value in seconds.items()]
    share = total / TRAINING_SECONDS
    rows.append({"what": f"share of a {TRAINING_SECONDS:.0f} s training", "ours": share, "reference": LIMIT,
                 "ratio": share / LIMIT, "unit": "fraction"})
    return rows


def measure_run(tracker: MlflowTracker, folder: Path) -> dict[str, float]:
    """Mean seconds of each call, in a pipeline with one phase."""
    checkpoint = folder / "phase1_best.pt"
    checkpoint.write_bytes(b"\0" * CHECKPOINT_BYTES)
    start = time.perf_counter()
    with tracker.run("pipeline") as pipeline, pipeline.run("phase1_best") as phase:
        begun = time.perf_counter() - start
        epoch = timed(lambda: [phase.log_metrics({f"phase1/{name}": 0.5 for name in (
            "train_loss", "val_loss", "lr", "seconds", "samples_per_second")}, step=i) for i in range(EPOCHS)]) / EPOCHS
        phase2 = timed(lambda: [phase.log_metrics({f"phase2/sector_{s:02d}/{name}": 0.5 for s in range(SECTORS)
                                                   for name in ("train_loss", "val_loss")}, step=i)
                                for i in range(EPOCHS)]) / EPOCHS
        saved = timed(lambda: phase.log_checkpoint(checkpoint, {"phase1/val_loss": 0.5}, step=3))
        ending = time.perf_counter()
    return {"start_and_end": begun + time.perf_counter() - ending, "epoch": epoch, "phase2_epoch": phase2,
            "checkpoint": saved}


def seconds_to_open(folder: Path) -> float:
    """Seconds until a fresh process that trains anyway has imported MLflow and opened an existing store."""
    code = ("import sys, time, torch, polars, loguru, pathlib; start = time.perf_counter(); "
            "from lasps.tracking.store import connect, local_location; "
            "connect(local_location(pathlib.Path(sys.argv[1]))); print(time.perf_counter() - start)")
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=settings.ROOT, capture_output=True, text=True,
                          check=True)
    return float(done.stdout)


def timed(call: Any) -> float:
    """Seconds that `call` takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def row(what: str, seconds: float, unit: str) -> dict[str, Any]:
    """A figure without a reference."""
    return {"what": what, "ours": seconds, "reference": None, "ratio": None, "unit": unit}


if __name__ == "__main__":
    for figure in run():
        print(figure)
