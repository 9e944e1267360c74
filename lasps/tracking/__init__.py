"""Experiment tracking: MLflow runs that never block or stop training, and a null tracker with the same methods.

    tracker = open_tracker()
    with tracker.run("pipeline", tags={"seed": 7}) as pipeline, pipeline.run("phase1_best") as phase:
        phase.log_metrics({"phase1/train_loss": 0.85}, step=0)

Nothing here imports MLflow before it is needed: a script that does not track need not load it.
"""

from __future__ import annotations

from pathlib import Path

from loguru import logger

from lasps.tracking.location import Location, default_location, repair_paths
from lasps.tracking.mlflow_tracker import MlflowTracker
from lasps.tracking.null import NullTracker
from lasps.tracking.queries import (
    direction_tables,
    download_artifact,
    download_predictions,
    head_curves,
    latest_pipeline,
    latest_run,
    loss_curves,
    metric_history,
    nested_runs,
    read_table,
    runs,
)
from lasps.tracking.sync import Replay, replay_all, spooled

Tracker = MlflowTracker
"""A NullTracker is one, too."""

__all__ = [
    "Location",
    "MlflowTracker",
    "NullTracker",
    "Replay",
    "Tracker",
    "default_location",
    "direction_tables",
    "download_artifact",
    "download_predictions",
    "head_curves",
    "latest_pipeline",
    "latest_run",
    "loss_curves",
    "metric_history",
    "nested_runs",
    "open_tracker",
    "read_table",
    "repair_paths",
    "replay_all",
    "runs",
    "spooled",
]


def open_tracker(
    enabled: bool = True, experiment: str = "lasps", root: Path | None = None, system_metrics: bool = True
) -> Tracker:
    """The tracker of this repository: `mlflow.db` and `mlruns/` in its root, or the store in MLFLOW_TRACKING_URI.

    Opening never fails: what cannot be written goes to a spool on disk (see `lasps.tracking.spool`).

    Args:
        enabled: False gives the null tracker.
        experiment: the MLflow experiment's name.
        root: another folder in place of the repository root (tests).
        system_metrics: sample processor, memory and GPU every 10 s into the outermost run.
    """
    if not enabled:
        return NullTracker()
    location = default_location(root)
    logger.debug(f"tracking to {location.shown_uri}")
    return MlflowTracker(location, experiment, system_metrics=system_metrics)
