"""Class-wise accuracy with intervals over days, and which samples changed their class between two models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lasps.config.settings import CLASS_NAMES
from lasps.evaluation.forecast import Forecast, align
from lasps.evaluation.metrics import row_mean
from lasps.evaluation.significance import value_with_interval


@dataclass(frozen=True)
class Share:
    """A share in 0..1 of n samples with its 95 % interval over days; low and high are None where none exists."""

    value: float
    low: float | None
    high: float | None
    n: int


def class_accuracy(*seeds: Forecast) -> dict[str, Share]:
    """Class name -> share of its samples that are predicted as it (recall); NaN for a class without samples.

    Several forecasts of the same rows are one model's seeds: their mean, with an interval over seeds and days.
    """
    found = {}
    for c, name in enumerate(CLASS_NAMES):
        d = value_with_interval(
            "class_accuracy", [row_mean(f, (f.labels == c) & (f.predicted == c), f.labels == c) for f in seeds]
        )
        found[name] = Share(d.difference, d.low, d.high, d.n)
    return found


def confusion(f: Forecast) -> NDArray[np.int64]:
    """Counts (C, C): rows are the true class, columns the predicted one."""
    c = len(CLASS_NAMES)
    return np.bincount(f.labels * c + f.predicted, minlength=c * c).reshape(c, c)


def class_changes(a: Forecast, b: Forecast) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Which samples `b` predicts otherwise than `a`.

    Returns:
        One row per (from, to) pair of classes with n and right (share of them that `b` gets right) and before (share
        that `a` got right); and the changed samples themselves: key, sector, label, from, to, p of both for `to`.
    """
    before, after, _ = align(a, b)
    changed = before.predicted != after.predicted
    names = pl.Series(CLASS_NAMES)
    rows = np.arange(after.n)
    known = before.table
    shown = [c for c in ("code", "date", "row", "sector", "forward_return") if c in known.columns]
    samples = (
        known.select(shown)
        .with_columns(
            label=names[before.labels],
            **{"from": names[before.predicted], "to": names[after.predicted]},
            p_before=before.p[rows, after.predicted],
            p_after=after.p[rows, after.predicted],
        )
        .filter(changed)
    )
    table = samples.group_by("from", "to").agg(
        n=pl.len(), right=(pl.col("label") == pl.col("to")).mean(), before=(pl.col("label") == pl.col("from")).mean()
    )
    return table.sort("n", descending=True), samples
