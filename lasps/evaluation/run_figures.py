"""The pictures that a training or a validation leaves in its run: name -> Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lasps.evaluation import figures
from lasps.evaluation.class_accuracy import class_accuracy, confusion
from lasps.evaluation.comparison import calibration_curve
from lasps.evaluation.predictions import as_forecast


def input_figure(charts: NDArray[np.generic], labels: NDArray[np.int64], captions: Sequence[str],
                 split: str) -> Figure:
    """The contact sheet of charts (N,3,H,W) as the network is given them, framed in the colour of what happened."""
    return figures.chart_sheet(list(charts), labels.tolist(), captions=captions,
                               title=f"{split}: a sample of the charts as the network sees them")


def training_figures(name: str, history: Mapping[str, Any]) -> dict[str, Figure]:
    """Learning curves of a phase.

    Args:
        name: the phase's checkpoint, e.g. "phase1_best".
        history: of Phase 1 or 3 train_loss and val_loss per epoch (E,); of Phase 2 `sectors`: sector -> n, losses (E,),
            val_losses (E + 1,), from the start on, and kept_start (its new head was refused).
    """
    if "sectors" in history:
        curves = {int(sector): head_frame(entry) for sector, entry in history["sectors"].items()}
        sizes = {int(sector): entry["n"] for sector, entry in history["sectors"].items()}
        refused = {int(sector) for sector, entry in history["sectors"].items() if entry.get("kept_start")}
        return {"learning_curves": figures.head_curves(curves, history.get("best_epoch"), sizes, kept_start=refused)}
    epochs = len(history["train_loss"])
    val = history.get("val_loss") or [np.nan] * epochs
    frame = pd.DataFrame({"step": range(1, epochs + 1), "train": history["train_loss"], "val": val})
    return {"learning_curves": figures.phase_curves({name: frame})}


def head_frame(entry: Mapping[str, Any]) -> pd.DataFrame:
    """A head's losses by epoch: step 0 is the start, which has a val loss only."""
    train = [np.nan, *entry["losses"]]
    val = entry["val_losses"] or [np.nan] * len(train)
    return pd.DataFrame({"step": range(len(train)), "train": train, "val": val})


def validation_figures(table: pl.DataFrame, name: str, split: str) -> dict[str, Figure]:
    """Class-wise accuracy with intervals, confusion and calibration of one prediction table."""
    forecast = as_forecast(table)
    title = f"Class-wise accuracy on {split}"
    return {f"{split}_class_accuracy": figures.class_accuracy_bars({name: class_accuracy(forecast)}, title),
            f"{split}_confusion": figures.confusion_matrices({name: confusion(forecast)}),
            f"{split}_reliability": figures.reliability({name: calibration_curve(forecast)})}
