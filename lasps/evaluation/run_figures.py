"""Learning curves from what a checkpoint says of its own training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lasps.evaluation import figures


def learning_curves(name: str, history: Mapping[str, Any]) -> Figure:
    """Learning curves of a phase.

    Args:
        name: the phase's checkpoint, e.g. "phase1_best".
        history: of Phase 1 or 3 train_loss and val_loss per epoch (E,); of Phase 2 `sectors`: sector -> n, losses (E,),
            val_losses (E + 1,), from the start on, and kept_start (its new head was refused); of a common change
            val_log_loss (E + 1,) alone, which is drawn from the start on.
    """
    if "sectors" in history:
        curves = {int(sector): head_frame(entry) for sector, entry in history["sectors"].items()}
        sizes = {int(sector): entry["n"] for sector, entry in history["sectors"].items()}
        refused = {int(sector) for sector, entry in history["sectors"].items() if entry.get("kept_start")}
        return figures.head_curves(curves, history.get("best_epoch"), sizes, kept_start=refused)
    if "train_loss" not in history:
        val = history["val_log_loss"]
        return figures.phase_curves({name: pd.DataFrame({"step": range(len(val)), "train": np.nan, "val": val})})
    epochs = len(history["train_loss"])
    val = history.get("val_loss") or [np.nan] * epochs
    frame = pd.DataFrame({"step": range(1, epochs + 1), "train": history["train_loss"], "val": val})
    return figures.phase_curves({name: frame})


def head_frame(entry: Mapping[str, Any]) -> pd.DataFrame:
    """A head's losses by epoch: step 0 is the start, which has a val loss only."""
    train = [np.nan, *entry["losses"]]
    val = entry["val_losses"] or [np.nan] * len(train)
    return pd.DataFrame({"step": range(len(train)), "train": train, "val": val})
