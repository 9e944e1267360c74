"""Robust scaling, fitted on training rows only: (x - median) / (IQR / 1.349), clipped, NaN to 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from loguru import logger

from lasps.data.features import FEATURES, FeatureRows, compute_rows
from lasps.data.features.scores import MISSING
from lasps.data.panel import Panel

IQR_OF_A_NORMAL = 1.349
"""Interquartile range of a standard normal, so that a normal feature comes out with standard deviation 1."""

CLIP = 5.0
"""Scaled values are held within +-CLIP: guess, not tuned."""

CHUNK_ROWS = 65_536

_AS_THEY_ARE = {feature.name for feature in FEATURES if not feature.is_scaled}


@dataclass(frozen=True)
class RobustScaler:
    """Centre and scale per feature; ranks and the mask pass through (centre 0, scale 1).

    Scores are not among its features: they are stored apart.

    Attributes:
        names: feature names (F,).
        center: medians float64 (F,).
        scale: IQR / 1.349, float64 (F,), all above 0.
        clip: largest absolute scaled value.
    """

    names: tuple[str, ...]
    center: np.ndarray
    scale: np.ndarray
    clip: float = CLIP

    @classmethod
    def fit(cls, x: np.ndarray, names: Sequence[str], clip: float = CLIP) -> RobustScaler:
        """Fit on the training rows x (R, F); NaN does not count.

        A feature without spread between its quartiles takes its standard deviation; a constant or missing one takes 1,
        with a warning.

        Raises:
            ValueError: no rows, or another number of columns than names.
        """
        if x.ndim != 2 or len(x) == 0 or x.shape[1] != len(names):
            raise ValueError(f"expected training rows (R > 0, {len(names)}) for {list(names)}, got {x.shape}")
        center, scale = np.zeros(len(names)), np.ones(len(names))
        for i, name in enumerate(names):
            if name not in _AS_THEY_ARE:
                center[i], scale[i] = _center_and_scale(x[:, i], name)
        return cls(tuple(names), center, scale, clip)

    def transform(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Scaled features float32 (R, F), clipped to +-clip, NaN -> 0; written into `out` if given (x itself is fine).

        Raises:
            ValueError: another number of columns than the scaler was fitted on.
        """
        if x.ndim != 2 or x.shape[1] != len(self.names):
            raise ValueError(f"the scaler was fitted on {len(self.names)} features {list(self.names)}, got {x.shape}")
        result = np.empty(x.shape, dtype=np.float32) if out is None else out
        center, scale = self.center.astype(np.float32), self.scale.astype(np.float32)
        for start in range(0, len(x), CHUNK_ROWS):
            part = (x[start : start + CHUNK_ROWS] - center) / scale
            np.clip(part, -self.clip, self.clip, out=part)
            result[start : start + CHUNK_ROWS] = np.nan_to_num(part, copy=False, nan=0.0)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON; `from_dict` gives the same scaler to the last bit."""
        return {
            "names": list(self.names),
            "center": self.center.tolist(),
            "scale": self.scale.tolist(),
            "clip": self.clip,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> RobustScaler:
        """Rebuild a scaler from `to_dict`'s numbers.

        Raises:
            ValueError: lengths differ, a number is not finite or a scale not above 0.
        """
        names = tuple(state["names"])
        center, scale = np.array(state["center"], dtype=np.float64), np.array(state["scale"], dtype=np.float64)
        sound = center.shape == scale.shape == (len(names),) and bool(np.isfinite([center, scale]).all())
        if not sound or not (scale > 0).all() or not state["clip"] > 0:
            raise ValueError(f"a scaler needs a finite centre and a scale above 0 per name, got {state}")
        return cls(names, center, scale, float(state["clip"]))


def scaled_rows(panel: Panel | pl.DataFrame, names: Sequence[str], scaler: RobustScaler) -> FeatureRows:
    """A panel's features as a dataset stores them: scaled values, codes of scores, 0 for NaN in both."""
    return scaled(compute_rows(panel, names), scaler)


def scaled(rows: FeatureRows, scaler: RobustScaler) -> FeatureRows:
    """As `scaled_rows`, of features at hand, which are overwritten."""
    values = np.ascontiguousarray(rows.values)
    rows.codes[rows.codes == MISSING] = 0
    return FeatureRows(scaler.transform(values, out=values), rows.codes)


def _center_and_scale(column: np.ndarray, name: str) -> tuple[float, float]:
    values = column[np.isfinite(column)].astype(np.float64)
    if len(values) == 0:
        logger.warning("Feature {} has no value in the training rows: it will be 0 everywhere", name)
        return 0.0, 1.0
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    spread = (high - low) / IQR_OF_A_NORMAL or values.std()
    if not spread > 1e-9 * max(abs(middle), 1e-9):
        logger.warning("Feature {} is constant ({}) in the training rows: scale 1", name, middle)
        return float(middle), 1.0
    return float(middle), float(spread)
