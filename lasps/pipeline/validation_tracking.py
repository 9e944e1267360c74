"""What a validation adds to the run that made its checkpoint: metrics, pictures, tables and the predictions."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_NAMES
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.metrics import by_sector, flat_metrics
from lasps.evaluation.models import class_frames
from lasps.evaluation.pairs import sector_differences
from lasps.pipeline.direction_tracking import log_directions
from lasps.pipeline.validation import Validation
from lasps.plots import comparison as plots
from lasps.plots.training import learning_curves
from lasps.tracking import NullTracker, Tracker
from lasps.training.checkpoints import Checkpoint

HEADLINE = ("accuracy", "macro_f1", "log_loss", "rank_ic")
"""What the pipeline's own run shows of each checkpoint, so that pipelines can be compared in the list of runs."""
SECTOR_METRICS = ("n", "accuracy", "log_loss", "macro_f1", "class_accuracy")
"""What is a metric per sector; the table has it all. MLflow draws a chart for each, and 1,000 stop the browser."""


def log_validation(validation: Validation, tracker: Tracker | None, before: Validation | None = None) -> None:
    """Log metrics per split, class and sector, pictures and the prediction table to the run that made the checkpoint.

    The learning curves are drawn here, too (on val), because drawing them would hold up training.
    A checkpoint that no run made, or a validation without the flagged samples, gets a run of its own.

    Args:
        before: of another checkpoint on the same split: the run shows what changed from it, sector by sector.
    """
    if tracker is None or isinstance(tracker, NullTracker):
        return
    of_training = validation.checkpoint.card.mlflow
    name, run_id, parent_id = validation.checkpoint.name, of_training.get("run_id"), of_training.get("parent_run_id")
    if run_id is None or validation.without_flagged:
        name, run_id = f"validate {name}" + (" without flagged" if validation.without_flagged else ""), None
        parent_id = None
    split, sectors = validation.split, by_sector(validation.forecast, validation.prior)
    metrics = flat_metrics(validation.metrics, f"{split}/")
    for sector, m in sectors.items():
        metrics |= flat_metrics({key: m[key] for key in SECTOR_METRICS}, f"{split}/sector_{sector:02d}/")
    with tracker.run(name, resume_id=run_id) as run, tempfile.TemporaryDirectory() as folder:
        run.log_dataset(
            split,
            validation.fingerprint,
            context="selection" if split == "val" else "evaluation",
            profile={"n": validation.forecast.n},
        )
        if isinstance(validation.checkpoint, Checkpoint):
            run.log_checkpoint(validation.checkpoint.path, metrics, step=0, dataset=split)
        else:
            run.log_metrics(metrics)
        if parent_id is not None:
            run.log_metrics_beside(parent_id, {f"{name}/{split}/{key}": validation.metrics[key] for key in HEADLINE})
        if split == "val" and (history := validation.checkpoint.card.history):
            run.log_figure(learning_curves(validation.checkpoint.name, history), "learning_curves")
            log_directions(validation, run)
        for name, figure in validation_plots(validation.forecast).items():
            run.log_figure(figure, name)
        run.log_table(class_table(validation.metrics), f"{split}_classes.json")
        run.log_table(sector_table(sectors), f"{split}_sectors.json")
        if before is not None:
            log_sector_differences(before, validation, run)
        run.log_artifact(validation.forecast.write(Path(folder) / f"{split}.parquet"), "predictions")


def validation_plots(forecast: Forecast) -> dict[str, Figure]:
    """Class-wise accuracy with intervals, confusion and calibration of one forecast."""
    frames, split = class_frames(forecast), forecast.split
    return {
        f"{split}_class_accuracy": plots.class_accuracy(frames["classes"], f"Class-wise accuracy on {split}"),
        f"{split}_confusion": plots.confusion(frames["confusion"]),
        f"{split}_reliability": plots.calibration(frames["calibration"]),
    }


def log_sector_differences(before: Validation, after: Validation, run: Tracker) -> None:
    """Log loss of `after` minus `before` per sector with n and intervals over days, as a plot and as a table."""
    found = sector_differences(before.forecast, after.forecast)
    names = before.checkpoint.name, after.checkpoint.name
    run.log_figure(plots.sector_differences(found, *names), f"{after.split}_sector_differences")
    shown = ("sector", "n", "difference", "low", "high", "adjusted_p")
    table = found.select(*shown, significant=pl.col("better").is_not_null())
    run.log_table(table, f"{after.split}_minus_{names[0]}_by_sector.json")


def class_table(m: Mapping[str, Any]) -> pl.DataFrame:
    """One row per class of M: n, how often it was called, accuracy (recall) and precision; null where undefined."""
    return pl.DataFrame(
        [
            {
                "class": name,
                "n": m["class_counts"][name],
                "called": m["predicted_counts"][name],
                "accuracy": m["class_accuracy"][name],
                "precision": m["class_precision"][name],
            }
            for name in CLASS_NAMES
        ],
        schema_overrides={"accuracy": pl.Float64, "precision": pl.Float64},
    )


def sector_table(sectors: Mapping[int, Mapping[str, Any]]) -> pl.DataFrame:
    """One row per sector: its name, n, and every metric of it in a column (class_accuracy_BUY); null: undefined."""
    names = {sector.id: sector.english for sector in SECTORS}
    rows = [
        {"sector": s, "name": names.get(s, f"sector {s}")}
        | {key.replace("/", "_"): value for key, value in flat_metrics(m).items()}
        for s, m in sorted(sectors.items())
    ]
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("^(n|n_days|.*_counts_.*)$").cast(pl.Int64))
