"""What the directions that sectors share mean: who uses them, what they read, how far each sector moved.

Loadings, scores and class weights can each be scaled and turned round at no cost to the others. Here a direction's
score has standard deviation 1, and its sign is that of the input feature that it follows most; its class weights have
length 1 and point to the class that a positive product raises. A sector's weight on it is then in logits, and 0.2 on
"volatility, BUY" reads: one standard deviation more of it moves this sector's logits 0.2 towards BUY.

Shapes: N samples, S sectors, D width, C classes, R rank, F input features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from lasps.config.settings import CLASS_NAMES
from lasps.evaluation.focal_calibration import calibrated_log_probabilities

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SharedDirections:
    """As phase2_best.json has them.

    sectors: S ids; loadings (S, R), features (R, D), classes (C, R), biases (S, C), mean (D,).
    `lasps.training.heads.directions` says what they do.
    """

    sectors: tuple[int, ...]
    loadings: Array
    features: Array
    classes: Array
    biases: Array
    mean: Array

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> SharedDirections:
        """Of `history.directions`."""
        names = ("loadings", "features", "classes", "biases", "mean")
        return cls(tuple(saved["sectors"]), *(np.asarray(saved[name], dtype=np.float64) for name in names))

    def scores(self, shared: ArrayLike) -> Array:
        """What the directions read from shared features (N, D): (N, R)."""
        return (np.asarray(shared, dtype=np.float64) - self.mean) @ self.features.T

    def change(self, shared: ArrayLike, sector_ids: ArrayLike) -> Array:
        """What they add to the logits, (N, C); 0 for a sector without loadings."""
        position = {sector: row for row, sector in enumerate(self.sectors)}
        rows = np.array([position.get(int(sector), -1) for sector in np.asarray(sector_ids)], dtype=np.int64)
        change = (self.scores(shared) * self.loadings[rows]) @ self.classes.T + self.biases[rows]
        return np.where((rows >= 0)[:, None], change, 0.0)


def direction_frames(
    directions: SharedDirections,
    shared: ArrayLike,
    inputs: ArrayLike,
    names: Sequence[str],
    refused: Collection[int] = (),
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(weights, readings), directions numbered from 1 by their weights' mean square.

    Args:
        shared: (N, D); inputs: (N, F), what the directions may have read, e.g. the features of the last day, with F
            `names`.
        refused: sectors whose own part val did not accept.

    Returns:
        weights: sector, direction, toward (a class), weight (logits per standard deviation), refused.
        readings: direction, feature, correlation (Pearson) with the direction's score; constant features left out.
    """
    scores = directions.scores(shared)
    correlation = _correlations(scores, np.asarray(inputs, dtype=np.float64))
    contrast = directions.classes - directions.classes.mean(axis=0)
    length = np.linalg.norm(contrast, axis=0)
    toward, class_sign = _toward(contrast)
    strongest = np.take_along_axis(correlation, np.nan_to_num(np.abs(correlation)).argmax(axis=0)[None], axis=0)[0]
    sign = np.where(strongest < 0, -1.0, 1.0)
    weights = directions.loadings * scores.std(axis=0) * length * class_sign * sign
    order = np.argsort(-(weights**2).mean(axis=0), kind="stable")
    weight_rows = [
        (sector, place + 1, toward[r], float(weights[row, r]), sector in refused)
        for row, sector in enumerate(directions.sectors)
        for place, r in enumerate(order)
    ]
    reading_rows = [
        (place + 1, name, float(correlation[f, r] * sign[r]))
        for place, r in enumerate(order)
        for f, name in enumerate(names)
        if np.isfinite(correlation[f, r])
    ]
    return (
        pl.DataFrame(
            weight_rows,
            orient="row",
            schema={
                "sector": pl.Int64,
                "direction": pl.Int64,
                "toward": pl.String,
                "weight": pl.Float64,
                "refused": pl.Boolean,
            },
        ),
        pl.DataFrame(
            reading_rows, orient="row", schema={"direction": pl.Int64, "feature": pl.String, "correlation": pl.Float64}
        ),
    )


def movement_frame(
    initial: ArrayLike,
    change: ArrayLike,
    sector_ids: ArrayLike,
    gamma: ArrayLike,
    class_weights: ArrayLike | None = None,
    refused: Collection[int] = (),
) -> pl.DataFrame:
    """How far each sector's calibrated probabilities moved: sector, n, mean_kl, refused.

    mean_kl is the mean over the sector's samples of KL(initial || new) in nats.

    Args:
        initial, change: logits (N, C) of the initial heads, and what is added to them; gamma: one, or (N,).
    """
    before = calibrated_log_probabilities(initial, gamma, class_weights)
    after = calibrated_log_probabilities(np.asarray(initial) + np.asarray(change), gamma, class_weights)
    divergence = (np.exp(before) * (before - after)).sum(axis=1)
    frame = pl.DataFrame({"sector": np.asarray(sector_ids, dtype=np.int64), "kl": divergence})
    return (
        frame.group_by("sector")
        .agg(n=pl.len().cast(pl.Int64), mean_kl=pl.col("kl").mean())
        .sort("sector")
        .with_columns(refused=pl.col("sector").is_in(list(refused)))
    )


def _toward(contrast: Array) -> tuple[list[str], Array]:
    """Of class weights (C, R) around 0: the class that a direction is about (BUY rather than SELL), and its sign."""
    size = np.abs(contrast)[::-1]
    classes = len(contrast) - 1 - (size > size.max(axis=0) * (1 - 1e-9)).argmax(axis=0)
    classes = np.where(classes == 0, len(contrast) - 1, classes)
    return [CLASS_NAMES[c] for c in classes], np.where(contrast[classes, np.arange(contrast.shape[1])] < 0, -1.0, 1.0)


def _correlations(scores: Array, inputs: Array) -> Array:
    """Pearson correlation of every input with every score: (F, R), NaN where either is constant."""

    def standard(values: Array) -> Array:
        centred = values - values.mean(axis=0)
        size = np.sqrt((centred**2).sum(axis=0))
        constant = size <= 1e-9 * np.abs(values).max(axis=0, initial=0.0) * np.sqrt(len(values))
        return centred / np.where(constant, np.nan, size)

    return standard(inputs).T @ standard(scores)
