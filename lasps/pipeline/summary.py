"""The end of the main job: three checkpoints and their baselines in one table, differences with intervals, a file.

A difference is b minus a; its 95 % interval is over days (lasps.evaluation.significance).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lasps.data.datasets.dataset import Dataset
from lasps.data.datasets.samples import SampleDataset
from lasps.data.datasets.window_dataset import WindowDataset
from lasps.data.features import score_columns
from lasps.data.labels import classify
from lasps.evaluation.baselines import QUICK_BASELINES, fit_baselines
from lasps.evaluation.comparison import Comparison, compare
from lasps.evaluation.fitted import BaselineSplit
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.metrics import summary
from lasps.pipeline.common_change import COMMON_CHANGE, common_change_of
from lasps.pipeline.validation import (
    Validation,
    keep_predictions,
    predictions_path,
    validate_checkpoint,
)
from lasps.pipeline.validation_tracking import log_validation
from lasps.tracking import Tracker
from lasps.training.checkpoints import Checkpoint

CHECKPOINTS = ("phase1_best", "phase3_final", COMMON_CHANGE, "phase2_best")
EVALUATED = ("val", "test")
PAIRS = ((COMMON_CHANGE, "phase2_best"), ("phase3_final", "phase2_best"), ("phase1_best", "phase2_best"))
"""b minus a; the first is the sector effect, where Phase 2 left a common change."""
PREDECESSOR = {"phase2_best": "phase3_final"}
"""A checkpoint -> the one that its run shows it against, sector by sector on test; val is a selection split."""
PAIR_METRICS = ("accuracy", "log_loss")
SUMMARY_BASELINES = tuple(name for name in QUICK_BASELINES if name != "sector_prior")
CLOSE = 3  # column of rows/bars.npy: open, high, low, close, volume
Tables = dict[str, dict[str, Forecast]]


def validate_all(
    data: Dataset, output_dir: Path, device: str, tracker: Tracker | None, batch_size: int = 512
) -> dict[str, dict[str, Validation]]:
    """Every checkpoint on val and test: logged to its run, its prediction tables under OUTPUT_DIR/predictions/."""
    results: dict[str, dict[str, Validation]] = {}
    for name in checkpoints_of(output_dir):
        checkpoint = Checkpoint.open(output_dir / f"{name}.pt", device)
        results[name] = {}
        for split in EVALUATED:
            validation = validate_checkpoint(checkpoint, data, split, batch_size)
            keep_predictions(validation.forecast, predictions_path(checkpoint.path, name, split))
            before = results[PREDECESSOR[name]][split] if name in PREDECESSOR and split == "test" else None
            log_validation(validation, tracker, before)
            results[name][split] = validation
    return results


def checkpoints_of(output_dir: Path) -> list[str]:
    """The checkpoints of a pipeline, before phase2_best the common change that was made with it, if any."""
    has_common = common_change_of(output_dir / "phase2_best.pt") is not None
    return [name for name in CHECKPOINTS if name != COMMON_CHANGE or has_common]


def baseline_tables(data: Dataset, names: Iterable[str] = SUMMARY_BASELINES) -> Tables:
    """Forecasts of baselines fitted on train, for val and test."""
    train, val, test = (baseline_split(data, split) for split in ("train", "val", "test"))
    return fit_baselines(train, val, {"val": val, "test": test}, names)


def baseline_split(data: Dataset, split: str) -> BaselineSplit:
    """A split as the plain arrays that baselines take."""
    return arrays_of(data.split(split), data)


def arrays_of(dataset: SampleDataset, data: Dataset) -> BaselineSplit:
    """Samples of a dataset as the plain arrays that baselines take."""
    past_return, known_labels = None, None
    if data.spec is not None and isinstance(dataset, WindowDataset):
        past_return, known_labels = past_outcomes(dataset, data.spec.horizon, data.spec.threshold)
    plain = plain_arrays(dataset, data.feature_names())
    return replace(plain, past_return=past_return, known_labels=known_labels)


def plain_arrays(dataset: SampleDataset, features: Sequence[str]) -> BaselineSplit:
    """As `arrays_of`, without the past returns that only a dataset's folder tells."""
    means = dataset.last_days_means()
    return BaselineSplit(
        dataset.samples,
        means[:, : dataset.num_features],
        dataset.labels,
        dataset.sector_ids,
        means=means,
        scores=len(score_columns(features)),
    )


def past_outcomes(dataset: WindowDataset, horizon: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """((N,) return over the last `horizon` traded rows up to each window's last, (N,) its class: the label of then)."""
    close = dataset.bars[:, CLOSE]
    now, then = (close[rows].astype(np.float64) for rows in (dataset.ends, dataset.ends - horizon))
    return now / then - 1, classify(then, now, threshold).astype(np.int64)


def compare_all(
    validations: dict[str, dict[str, Validation]], baselines: Tables, sector_names: Sequence[str] | None = None
) -> Comparison:
    """The checkpoints and the baselines as the one Comparison that pages, terminal and summary.json show."""
    models = {name: {split: [v.forecast] for split, v in by_split.items()} for name, by_split in validations.items()}
    others = {name: {split: [forecast] for split, forecast in by_split.items()} for name, by_split in baselines.items()}
    prior = next(iter(validations.values()))["test"].prior
    return compare(
        models, prior=prior, prior_source="training frequencies", baselines=others, sector_names=sector_names
    )


def summarize(
    validations: dict[str, dict[str, Validation]], baselines: Tables, comparison: Comparison
) -> dict[str, Any]:
    """summary.json: M per model and split, baselines included, the differences between checkpoints, the verdict."""
    prior = next(iter(validations.values()))["test"].prior
    models = {name: {split: v.metrics for split, v in by_split.items()} for name, by_split in validations.items()}
    others = {
        name: {split: summary(forecast, prior) for split, forecast in by_split.items()}
        for name, by_split in baselines.items()
    }
    return {**others, **models, "differences": differences(comparison), "verdict": list(comparison.verdict)}


def differences(comparison: Comparison) -> list[dict[str, Any]]:
    """phase2_best minus the others of PAIRS, per split and metric, with intervals over days."""
    found = {(row["a"], row["b"], row["split"], row["metric"]): row for row in comparison.as_json()["pairs"]}
    wanted = [(a, b, split, metric) for a, b in PAIRS for split in EVALUATED for metric in PAIR_METRICS]
    return [
        {key: row[key] for key in ("a", "b", "split", "metric", "difference", "n", "n_days")}
        | {"interval": _interval(row)}
        for row in map(found.get, wanted)
        if row is not None
    ]


def _interval(row: dict[str, Any]) -> list[float | None]:
    """[low, high]; of identical models nothing but zero is possible."""
    identical = row["difference"] == 0 and row["n_days"] > 0
    return row["interval"] or ([0.0, 0.0] if identical else [None, None])
