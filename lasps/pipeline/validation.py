"""A checkpoint, or several as one, on a split: from weights to a prediction table and its metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from loguru import logger

from lasps.data.datasets.dataset import Dataset
from lasps.data.datasets.samples import SampleDataset
from lasps.data.labels import FLAGS
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.metrics import focal_losses, summary
from lasps.pipeline.phases import check_fits
from lasps.training.checkpoints import Checkpoint
from lasps.training.ensembles import Ensemble


@dataclass(frozen=True)
class Validation:
    """A checkpoint's predictions on one split and what they are worth."""

    checkpoint: Checkpoint | Ensemble
    split: str
    forecast: Forecast
    prior: tuple[float, ...]
    metrics: dict[str, Any]
    fingerprint: str
    """of the split's data"""
    dataset: SampleDataset
    without_flagged: bool = False


def validate_checkpoint(
    checkpoint: Checkpoint | Ensemble,
    data: Dataset,
    split: str,
    batch_size: int = 512,
    without_flagged: bool = False,
) -> Validation:
    """Predict a split with a checkpoint and measure it.

    Args:
        without_flagged: leave out samples whose label can only be doubted later (it spans a halt or a scale break, or
            the stock stopped trading within the horizon); they are kept by default.

    Returns:
        `metrics` is M (lasps.evaluation.metrics.summary) with `loss`, the training criterion's sample mean on raw
        probabilities.
    """
    dataset = data.split(split)
    check_fits(checkpoint.model, dataset, checkpoint.path)
    warn_if_other_data(checkpoint, data)
    forecast = checkpoint.predict(dataset, split, batch_size)
    if without_flagged:
        forecast = unflagged(forecast, dataset.samples)
    prior = data.prior_for(split)
    assert forecast.raw_p is not None
    gammas, weights = checkpoint.gammas_of(forecast.sectors), checkpoint.card.class_weights
    losses = focal_losses(forecast.raw_p, forecast.labels, gammas, weights)
    metrics = summary(forecast, prior) | {
        "loss": float(losses.mean()),
        "checkpoint": str(checkpoint.path),
        "split": split,
    }
    return Validation(checkpoint, split, forecast, prior, metrics, dataset.fingerprint, dataset, without_flagged)


def predictions_path(checkpoint: Path, name: str, split: str) -> Path:
    """Where a validation keeps its prediction table: predictions/NAME.SPLIT.parquet beside the checkpoint."""
    return checkpoint.parent / "predictions" / f"{name}.{split}.parquet"


def keep_predictions(forecast: Forecast, path: Path) -> None:
    """Write the predictions; a folder that cannot be written to costs the file, not the result."""
    try:
        forecast.write(path)
        logger.info(f"Saved: {path}")
    except OSError as error:
        logger.warning(f"{path}: the predictions could not be written and are not kept: {error}")


def unflagged(forecast: Forecast, samples: pl.DataFrame | None) -> Forecast:
    """The rows of a forecast whose samples carry no flag.

    Raises:
        ValueError: the dataset has no flags (bare arrays).
    """
    flags = [] if samples is None else [name for name in FLAGS if name in samples.columns]
    if samples is None or not flags:
        raise ValueError("--without-flagged: expected a dataset with label flags in samples.parquet, got bare arrays")
    doubtful = samples.filter(pl.any_horizontal(flags)).select("code", "date")
    logger.info(f"Left out: {len(doubtful)} of {len(samples)} samples with flagged labels ({', '.join(flags)})")
    flagged = forecast.keys.join(
        doubtful.with_columns(flagged=True), on=["code", "date"], how="left", maintain_order="left"
    )["flagged"]
    return forecast.only(flagged.is_null().to_numpy())


def warn_if_other_data(checkpoint: Checkpoint | Ensemble, data: Dataset) -> None:
    """Warn when the checkpoint was trained on another dataset; refuse other features in the same number.

    Raises:
        ValueError: the features have other names or scales than the checkpoint was trained on.
    """
    description, trained_on = data.description, checkpoint.card.data
    if not description or not trained_on:
        return
    for key in ("features", "scaler", "horizon", "threshold", "chart_size"):
        if trained_on.get(key) is not None and trained_on[key] != description.get(key):
            raise ValueError(
                f"{checkpoint.path}: expected a dataset with the {key} it was trained on, "
                f"{short(trained_on[key])}, but {data.folder} has {short(description.get(key))}. Validate it "
                f"on its own dataset, or train on this one."
            )
    if trained_on.get("fingerprint") != description.get("fingerprint"):
        logger.warning(
            f"{checkpoint.name} was trained on another dataset ({str(trained_on.get('fingerprint'))[:12]}) "
            f"than {data.folder} ({str(description.get('fingerprint'))[:12]})"
        )


def short(value: object, limit: int = 120) -> str:
    """`value` as text, cut to fit a message."""
    text = str(value)
    return text if len(text) <= limit else text[:limit] + " ..."


def print_block(validation: Validation) -> None:
    """The original specification's VALIDATION RESULTS block on stdout, and below it what to read it beside."""
    m, split = validation.metrics, validation.split
    print("\n" + "=" * 50)
    print("VALIDATION RESULTS")
    print("=" * 50)
    print(f"Checkpoint: {validation.checkpoint.path}")
    print(f"{split.capitalize()} Loss:{' ' * (8 - len(split) - 2)}{m['loss']:.4f}")
    print(f"Accuracy:   {m['accuracy'] * 100:.2f}%")
    print()
    print("Class-wise Accuracy:")
    for name, accuracy in m["class_accuracy"].items():
        share = "-" if accuracy is None else f"{100 * accuracy:.2f}%"
        print(f"  {name}: {share} ({m['class_counts'][name]} samples)")
    print("=" * 50)
    selection = " (a selection split: training chose on it)" if split == "val" else ""
    print(f"Split: {split}{selection}, n = {m['n']}")
    print(f"Majority accuracy:   {m['majority_accuracy'] * 100:.2f}%")
    print(f"Log loss:            {_decimal(m['log_loss'])}   (prior: {_decimal(m['prior_log_loss'])})")
    print(f"Macro-F1:            {m['macro_f1']:.4f}")
    if m["rank_ic_days"]:
        days = "" if m["rank_ic_days"] == m["n_days"] else f" on {m['rank_ic_days']} of {m['n_days']} days"
        print(f"Rank IC (ICIR):      {_decimal(m['rank_ic'])} ({_decimal(m['icir'], 2)}){days}")
    print(f"Calibration error:   {m['expected_calibration_error']:.4f}")


def _decimal(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
