"""The directions that Phase 2's sectors share, in the run that found them: one picture and its three tables."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from lasps.data.datasets.samples import SampleDataset, SampleSubset
from lasps.evaluation.directions import SharedDirections, direction_frames, movement_frame
from lasps.pipeline.validation import Validation
from lasps.plots.directions import shared_directions
from lasps.tracking import Tracker
from lasps.training.checkpoints import Checkpoint
from lasps.training.inference import evaluating, shared_features

LARGEST = 4096
"""Samples that the picture looks at, spread evenly over the split: a correlation's standard error is then 0.016, and
the backbone's second pass takes seconds at market scale."""


def log_directions(validation: Validation, run: Tracker) -> None:
    """Log what the shared directions are, if this is a checkpoint that has some."""
    if not isinstance(validation.checkpoint, Checkpoint):
        return
    tables = direction_tables(validation.checkpoint, validation.dataset)
    if tables:
        run.log_figure(
            shared_directions(**{name: frame.to_pandas() for name, frame in tables.items()}), "shared_directions"
        )
        for name, frame in tables.items():
            run.log_table(frame, f"directions_{name}.json")


def direction_tables(checkpoint: Checkpoint, dataset: SampleDataset) -> dict[str, pl.DataFrame]:
    """weights, readings and movement (`lasps.evaluation.directions`) on `dataset`; empty without shared directions."""
    history = checkpoint.card.history
    if not history.get("directions"):
        return {}
    directions = SharedDirections.of(history["directions"])
    refused = {int(sector) for sector, entry in history["sectors"].items() if entry.get("kept_start")}
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), LARGEST)).astype(int))
    seen = SampleSubset(dataset, rows)
    shared = shared_features(checkpoint.model, seen, checkpoint.device, desc="shared directions")
    weights, readings = direction_frames(
        directions, shared, seen.last_day_features(), feature_names(checkpoint, dataset.num_features), refused
    )
    change = directions.change(shared, seen.sector_ids)
    part_of_heads = ~np.isin(seen.sector_ids, list(refused))
    logits = _logits(checkpoint, shared, seen.sector_ids) - change * part_of_heads[:, None]
    movement = movement_frame(
        logits,
        change,
        seen.sector_ids,
        checkpoint.gammas_of(seen.sector_ids),
        checkpoint.card.class_weights,
        refused,
    )
    return {"weights": weights, "readings": readings, "movement": movement}


def feature_names(checkpoint: Checkpoint, number: int) -> list[str]:
    """The names of the input features that the checkpoint was trained on; their numbers where it does not say."""
    names = checkpoint.card.data.get("features") or []
    return list(names) if len(names) == number else [f"feature {i}" for i in range(number)]


def _logits(checkpoint: Checkpoint, shared: np.ndarray, sector_ids: np.ndarray) -> np.ndarray:
    """The heads' logits of shared features (N, D): (N, C)."""
    model, device = checkpoint.model, checkpoint.device
    with evaluating(model), torch.inference_mode():
        return (
            model.classify(torch.from_numpy(shared).to(device), torch.from_numpy(sector_ids).long().to(device))
            .cpu()
            .numpy()
        )
