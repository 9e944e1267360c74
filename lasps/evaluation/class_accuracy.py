"""Class-wise accuracy with intervals over days, and samples whose predicted class differs between two models."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lasps.config.settings import CLASS_NAMES
from lasps.evaluation.forecast import Forecast, align
from lasps.evaluation.metrics import row_mean
from lasps.evaluation.significance import Difference, value_with_interval


def class_accuracy(*seeds: Forecast) -> dict[str, Difference]:
    """Class name -> recall, the share of its samples that are predicted as it; NaN for a class without samples.

    Several forecasts of the same rows are one model's seeds: their mean, with an interval over seeds and days.
    """
    return {
        name: value_with_interval(
            "class_accuracy", [row_mean(f, (f.labels == c) & (f.predicted == c), f.labels == c) for f in seeds]
        )
        for c, name in enumerate(CLASS_NAMES)
    }


def confusion(f: Forecast) -> NDArray[np.int64]:
    """Counts (C, C): rows are the true class, columns the predicted one."""
    c = len(CLASS_NAMES)
    return np.bincount(f.labels * c + f.predicted, minlength=c * c).reshape(c, c)


def class_changes(a: Forecast, b: Forecast) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Samples whose predicted class differs between `a` and `b`.

    Returns:
        One row per (from, to) pair of classes with n and right (share of them that `b` gets right) and before (share
        that `a` got right); and the changed samples themselves: key, sector, label, from, to, p of both for `to`.
    """
    before, after, _ = align(a, b)
    names, rows, known = pl.Series(CLASS_NAMES), np.arange(after.n), before.table
    samples = (
        known.select(c for c in ("code", "date", "row", "sector", "forward_return") if c in known.columns)
        .with_columns(
            label=names[before.labels],
            **{"from": names[before.predicted], "to": names[after.predicted]},
            p_before=before.p[rows, after.predicted],
            p_after=after.p[rows, after.predicted],
        )
        .filter(before.predicted != after.predicted)
    )
    table = samples.group_by("from", "to").agg(
        n=pl.len(), right=(pl.col("label") == pl.col("to")).mean(), before=(pl.col("label") == pl.col("from")).mean()
    )
    return table.sort("n", descending=True), samples
