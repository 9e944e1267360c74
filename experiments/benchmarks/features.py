"""Feature rows per second and core, against vectorised pandas stock by stock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from experiments.benchmarks.markets import median_seconds, one_thread, random_panel, rate_row
from experiments.benchmarks.reference_features import all_features
from lasps.data.features import DEFAULT_FEATURES, FEATURES, compute_features, score_columns

STOCKS, DAYS = 200, 370
"""As many days as krx_2023_2025 has."""

TOLERANCE = 1e-6
HALF_STEP, LARGEST = 0.0125, 3.175
"""Of scores, which are stored in one byte: rounded to 1/40 and held at +-3.175."""


def run() -> list[dict[str, Any]]:
    """Rows per second of the default set and of all features, and the largest difference from pandas."""
    panel = random_panel(STOCKS, DAYS)
    plain, everything = panel.to_pandas(), [feature.name for feature in FEATURES]
    rows = []
    with one_thread():
        difference = largest_difference(panel, everything)
        for what, names in (("default features", list(DEFAULT_FEATURES)), ("all features", everything)):
            ours = panel.height / median_seconds(lambda n=names: compute_features(panel, n))  # type: ignore[misc]
            reference = panel.height / median_seconds(lambda n=names: all_features(plain, n))  # type: ignore[misc]
            rows.append(rate_row(f"{what} ({len(names)})", ours, reference, "rows/s"))
    rows.append(
        {
            "what": f"largest difference, {STOCKS} stocks",
            "ours": difference,
            "reference": TOLERANCE,
            "ratio": TOLERANCE / max(difference, 1e-12),
            "unit": "absolute or relative",
        }
    )
    return rows


def largest_difference(panel: pl.DataFrame, names: list[str]) -> float:
    """Largest |ours - pandas| / max(1, |pandas|); above 1e-6, or a NaN in one of them alone, is an error.

    A score may differ by its rounding, and only by that.
    """
    ours = compute_features(panel, names).astype(np.float64)
    reference = all_features(panel.to_pandas(), names, ranked=pd.DataFrame(ours, columns=names))
    for i, name in enumerate(names):
        if not np.array_equal(np.isnan(ours[:, i]), np.isnan(reference[:, i])):
            raise AssertionError(f"{name}: NaN in different rows")
    scores = score_columns(names)
    reference[:, scores] = np.clip(reference[:, scores], -LARGEST, LARGEST)
    error = np.abs(ours - reference) / np.maximum(1.0, np.abs(reference))
    error[:, scores] = np.maximum(np.abs(ours - reference)[:, scores] - HALF_STEP, 0)
    worst = np.nanmax(error, axis=0)
    if worst.max() > TOLERANCE:
        raise AssertionError(f"{names[int(worst.argmax())]} differs by {worst.max():.2e}, allowed is {TOLERANCE}")
    return float(worst.max())
