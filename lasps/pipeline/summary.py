"""The end of the main job: three checkpoints and their baselines in one table, differences with intervals, a file.

A difference is b minus a; its 95 % interval is over days (lasps.evaluation.significance).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lasps.config.settings import CLASS_NAMES
from lasps.data.datasets.loading import load_split, read_description
from lasps.data.datasets.window_dataset import WindowDataset
from lasps.data.labels import classify
from lasps.evaluation.baselines import QUICK_BASELINES, BaselineSplit, fit_baselines
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.metrics import summary
from lasps.evaluation.report import own_days
from lasps.evaluation.significance import day_difference
from lasps.pipeline.common_change import COMMON_CHANGE, common_change_of
from lasps.pipeline.validation import (
    Validation,
    keep_predictions,
    open_checkpoint,
    predictions_path,
    validate_checkpoint,
)
from lasps.pipeline.validation_tracking import log_validation
from lasps.tracking import Tracker

CHECKPOINTS = ("phase1_best", "phase3_final", COMMON_CHANGE, "phase2_best")
SPLITS = ("val", "test")
PAIRS = ((COMMON_CHANGE, "phase2_best"), ("phase3_final", "phase2_best"), ("phase1_best", "phase2_best"))
"""b minus a; the first is the sector effect, where Phase 2 left a common change."""
PREDECESSOR = {"phase2_best": "phase3_final"}
"""A checkpoint -> the one that its run shows it against, sector by sector on test; val is a selection split."""
PAIR_METRICS = ("accuracy", "log_loss")
SUMMARY_BASELINES = tuple(name for name in QUICK_BASELINES if name != "sector_prior")
CLOSE = 3  # column of rows/bars.npy: open, high, low, close, volume
Tables = dict[str, dict[str, Forecast]]


def validate_all(data_dir: Path, output_dir: Path, device: str, tracker: Tracker | None,
                 batch_size: int = 512) -> dict[str, dict[str, Validation]]:
    """Every checkpoint on val and test: logged to its run, its prediction tables under OUTPUT_DIR/predictions/."""
    results: dict[str, dict[str, Validation]] = {}
    for name in checkpoints_of(output_dir):
        checkpoint = open_checkpoint(output_dir / f"{name}.pt", device)
        results[name] = {}
        for split in SPLITS:
            validation = validate_checkpoint(checkpoint, data_dir, split, device, batch_size)
            keep_predictions(validation.forecast, predictions_path(checkpoint.path, name, split))
            before = results[PREDECESSOR[name]][split] if name in PREDECESSOR and split == "test" else None
            log_validation(validation, tracker, before)
            results[name][split] = validation
    return results


def checkpoints_of(output_dir: Path) -> list[str]:
    """The checkpoints of a pipeline, before phase2_best the common change that was made with it, if any."""
    has_common = common_change_of(output_dir / "phase2_best.pt") is not None
    return [name for name in CHECKPOINTS if name != COMMON_CHANGE or has_common]


def baseline_tables(data_dir: Path, names: Iterable[str] = SUMMARY_BASELINES) -> Tables:
    """Forecasts of baselines fitted on train, for val and test."""
    train, val, test = (baseline_split(data_dir, split) for split in ("train", "val", "test"))
    return fit_baselines(train, val, {"val": val, "test": test}, names)


def baseline_split(data_dir: Path, split: str) -> BaselineSplit:
    """A split as the plain arrays that baselines take."""
    dataset, description = load_split(data_dir, split), read_description(data_dir)
    past_return, known_labels = None, None
    if description is not None and isinstance(dataset, WindowDataset):
        past_return, known_labels = past_outcomes(dataset, description["horizon"], description["threshold"])
    return BaselineSplit(dataset.samples, dataset.last_day_features(), dataset.labels, dataset.sector_ids, past_return,
                         known_labels)


def past_outcomes(dataset: WindowDataset, horizon: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """((N,) return over the last `horizon` traded rows up to each window's last, (N,) its class: the label of then)."""
    close = dataset.bars[:, CLOSE]
    now, then = (close[rows].astype(np.float64) for rows in (dataset.ends, dataset.ends - horizon))
    return now / then - 1, classify(then, now, threshold).astype(np.int64)


def summarize(validations: dict[str, dict[str, Validation]], baselines: Tables) -> dict[str, Any]:
    """summary.json: M per model and split, baselines included, and the differences between checkpoints."""
    prior = next(iter(validations.values()))["test"].prior
    models = {name: {split: v.metrics for split, v in by_split.items()} for name, by_split in validations.items()}
    others = {name: {split: summary(forecast, prior) for split, forecast in by_split.items()}
              for name, by_split in baselines.items()}
    return {**others, **models, "differences": differences(validations)}


def differences(validations: dict[str, dict[str, Validation]]) -> list[dict[str, Any]]:
    """phase2_best minus the others of PAIRS, per split and metric, with intervals over days."""
    rows = []
    for a, b in ((a, b) for a, b in PAIRS if a in validations):
        for split in SPLITS:
            for metric in PAIR_METRICS:
                d = day_difference(validations[a][split].forecast, validations[b][split].forecast, metric)
                rows.append({"a": a, "b": b, "split": split, "metric": metric, "difference": d.difference,
                             "interval": [d.low, d.high], "n": d.n, "n_days": d.n_days})
    return rows


# ------------------------------------------------------------------------------------------------ for people


def print_summary(content: dict[str, Any]) -> None:
    """The comparison table on stdout, one block per split, then the differences on test."""
    names = [name for name in (*SUMMARY_BASELINES, *CHECKPOINTS) if name in content]
    names.sort(key=lambda name: name == "oracle")
    for split in SPLITS:
        first = content[CHECKPOINTS[0]][split]
        note = "chosen on: printed, not judged" if split == "val" else "looked at once per result"
        print(f"\n{split}: n = {first['n']:,} on {first['n_days'] or '?'} days ({note})")
        print(header())
        for name in names:
            print(line(name, content[name][split]))
    print("\nDifferences on test, 95 % intervals over days:")
    for row in content["differences"]:
        if row["split"] == "test":
            print("  " + difference_line(row))


def header() -> str:
    """Column titles of `line`."""
    recalls = "".join(f"{name:>8}" for name in CLASS_NAMES)
    return f"  {'':<16}{'accuracy':>9}{recalls}{'macro-F1':>10}{'log loss':>10}{'rank IC':>9}"


def line(name: str, m: dict[str, Any]) -> str:
    """One model of the table; '-' where a number is undefined."""
    recalls = "".join(f"{percent(m['class_accuracy'][c]):>8}" for c in CLASS_NAMES)
    return (f"  {name:<16}{percent(m['accuracy']):>9}{recalls}{number(m['macro_f1'], 3):>10}"
            f"{number(m['log_loss'], 4):>10}{number(m.get('rank_ic'), 3):>9}{own_days(m, 'rank_ic')}")


def difference_line(row: dict[str, Any]) -> str:
    """'phase2_best minus phase3_final: accuracy +1.23 points [+0.80, +1.66] (above 0)'."""
    scale, unit, digits = (100, " points", 2) if row["metric"] == "accuracy" else (1, "", 4)
    low, high = row["interval"]
    metric = row["metric"].replace("_", " ")
    text = f"{row['b']} minus {row['a']}: {metric} {scale * row['difference']:+.{digits}f}{unit}"
    if low is None or high is None:
        return f"{text} (no interval: the data has no dates, or too few days)"
    verdict = "not distinguishable from 0" if low <= 0 <= high else "above 0" if low > 0 else "below 0"
    return f"{text} [{scale * low:+.{digits}f}, {scale * high:+.{digits}f}] ({verdict})"


def percent(value: float | None) -> str:
    """0.5321 -> '53.21%'."""
    return "-" if value is None else f"{100 * value:.2f}%"


def number(value: float | None, digits: int) -> str:
    """A number with `digits` decimals."""
    return "-" if value is None else f"{value:.{digits}f}"
