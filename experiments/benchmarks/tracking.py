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

import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from experiments.benchmarks.markets import random_windows, rate_row
from lasps.config.dataset_config import WINDOW
from lasps.config.model_config import TRAINING_CONFIG
from lasps.config.settings import settings
from lasps.data.charts import render
from lasps.data.features import score_columns, window_columns
from lasps.data.features.definitions import DEFAULT_FEATURES
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.pipeline.phase_tracking import SHOWN_CHARTS
from lasps.plots.chart_grid import chart_grid
from lasps.tracking import Tracker, open_tracker
from lasps.tracking.location import connect, local_location
from lasps.training.trainer import ThreePhaseTrainer

EPOCHS = {"phase1_best": 5, "phase3_final": 5, "phase2_best": 10}  # the defaults
EPOCH_SECONDS = {"phase1_best": 2.0, "phase3_final": 0.3, "phase2_best": 0.1}
"""A pretended epoch: it sleeps, so that all processor time is tracking's. The first phase's are shorter than the real
ones, but long enough that MLflow is imported before the first checkpoint, as it is beside a real training."""
SECTORS = 20
CHECKPOINT_BYTES = 4_000_000
TRAINED = 10 * 16_970
"""Samples that Phases 1 and 3 see on the default dataset: five epochs each."""
TIMED = 2048  # samples that the speed of this machine is taken from
LIMIT = 0.02  # the project's own: tracking costs less than 2 % of training time


def run() -> list[dict[str, Any]]:
    """Seconds to create a database (once per clone), and what tracking costs a pipeline in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        connect(local_location(Path(folder)))
        created = time.perf_counter() - start
        done = subprocess.run(
            [sys.executable, "-m", "experiments.benchmarks.tracking", folder],
            cwd=settings.ROOT,
            env=os.environ | {"MLFLOW_TRACKING_URI": ""},
            capture_output=True,
            text=True,
            check=True,
        )
    waited, beside = json.loads(done.stdout)
    cores = os.cpu_count() or 1
    cost, training = waited + beside / cores, training_seconds()
    return [
        rate_row("create the database (once per clone)", created, None, "s"),
        rate_row("a pipeline's training waits for tracking, plots included", waited, None, "s"),
        rate_row(f"processor seconds beside it, over {cores} cores", beside / cores, None, "s"),
        rate_row("both together", cost, LIMIT * training, "s"),
        rate_row(
            f"as a share of Phases 1 and 3 on the default dataset, {training:.0f} s at this machine's speed",
            cost / training,
            LIMIT,
            "fraction",
        ),
    ]


def training_seconds() -> float:
    """What Phases 1 and 3 take here at least: from an epoch of samples that lie in memory, validation aside."""
    torch.manual_seed(0)
    charts = render(random_windows(256)).repeat(TIMED // 256, 1, 1, 1)
    samples = TensorDataset(
        torch.randn(TIMED, WINDOW, len(DEFAULT_FEATURES)),
        charts.float() / 255,
        torch.arange(TIMED) % SECTORS,
        torch.arange(TIMED) % 3,
    )
    model = SectorAwareFusionModel(
        SECTORS,
        len(DEFAULT_FEATURES),
        encoder_columns=window_columns(DEFAULT_FEATURES),
        score_columns=score_columns(DEFAULT_FEATURES),
    )
    trainer = ThreePhaseTrainer(model, device="cpu")
    loader = DataLoader(samples, batch_size=TRAINING_CONFIG["batch_size"])
    found = trainer.train_phase1(loader, DataLoader(Subset(samples, range(64)), batch_size=64), epochs=2, lr=1e-3)
    return TRAINED / max(found["samples_per_second"])


def pretend_to_train(root: Path) -> tuple[float, float]:
    """Three phases that sleep and track as the real ones do, MLflow's import included.

    Returns:
        Seconds that the training thread waits or draws, processor seconds of all other threads.
    """
    import lasps.pipeline.phases  # noqa: F401  (a training has these already)

    checkpoint = root / "phase1_best.pt"
    checkpoint.write_bytes(os.urandom(CHECKPOINT_BYTES))
    charts = render(random_windows(SHOWN_CHARTS)).numpy()
    start, processor, own = time.perf_counter(), time.process_time(), time.thread_time()
    with open_tracker(root=root).run("pipeline", params={"phases": [1, 3, 2]}) as pipeline:
        captions = ["005930  2024-01-02"] * SHOWN_CHARTS
        pipeline.log_figure(chart_grid(list(charts), [1] * SHOWN_CHARTS, captions=captions), "train_charts")
        for name in EPOCHS:
            with pipeline.run(name, params={f"param_{i}": i for i in range(12)}) as phase:
                pretend_phase(phase, name, checkpoint)
    waited = time.perf_counter() - start - sum(EPOCHS[name] * EPOCH_SECONDS[name] for name in EPOCHS)
    return waited, (time.process_time() - processor) - (time.thread_time() - own)


def pretend_phase(phase: Tracker, name: str, checkpoint: Path) -> None:
    """One phase: datasets, metrics by epoch, the checkpoint."""
    for split in ("train", "val"):
        phase.log_dataset(split, "0" * 64, profile={"n": 20_000})
    for epoch in range(EPOCHS[name]):
        time.sleep(EPOCH_SECONDS[name])
        phase.log_metrics(metrics_of(name), step=epoch)
    phase.log_checkpoint(checkpoint, {"val_log_loss": 0.98}, step=EPOCHS[name], dataset="val")


def metrics_of(name: str) -> dict[str, float | None]:
    """As many metrics as the phase logs per epoch."""
    if name != "phase2_best":
        keys = ("train_loss", "val_loss", "val_log_loss", "val_accuracy", "lr", "seconds", "samples_per_second")
        return {f"{name}/{key}": 0.5 for key in keys}
    return {f"phase2/sector_{s:02d}/{key}": 0.5 for s in range(SECTORS) for key in ("train_loss", "val_loss")}


if __name__ == "__main__":
    print(json.dumps(pretend_to_train(Path(sys.argv[1]))))
