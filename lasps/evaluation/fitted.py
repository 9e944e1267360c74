"""What baselines are fitted on, and what a fit gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Unavailable(ValueError):
    """This baseline needs something that the data does not have."""


@dataclass(frozen=True)
class BaselineSplit:
    """One split as plain arrays.

    samples: samples.parquet of the dataset (code, date, forward_return, volatility_20, ...), or None for data without
    dates; features (N, F) float32, the scaled features of each window's last day, no NaN, the last `scores` of them
    scores; labels and sector_ids (N,); past_return (N,) of the label's horizon up to the window's last day, and
    known_labels (N,), the class of that return: the last label that is known on that day (both None where no closes are
    known); means (N, 3 F) float32, the features' means over each window's last 1, 5 and 20 days.
    """

    samples: pl.DataFrame | None
    features: NDArray[np.float32] | None
    labels: NDArray[np.int64]
    sector_ids: NDArray[np.int64]
    past_return: Array | None = None
    known_labels: NDArray[np.int64] | None = None
    means: NDArray[np.float32] | None = None
    scores: int = 0
    cache: dict[str, Any] = field(default_factory=dict, repr=False)
    """What fits with several seeds share."""

    def column(self, name: str) -> Array:
        """(N,) a column of samples, null as NaN; Unavailable where there is none."""
        if self.samples is None or name not in self.samples.columns:
            raise Unavailable(f"samples have no column {name}")
        return self.samples[name].cast(pl.Float64).fill_null(np.nan).to_numpy()

    def own_features(self) -> NDArray[np.float32]:
        """(N, F - scores) the last day's features without the scores; Unavailable where there are none."""
        if self.features is None:
            raise Unavailable("needs the last day's features")
        return self.features[:, : self.features.shape[1] - self.scores]

    def all_means(self) -> NDArray[np.float32]:
        """(N, 3 F) the means; of data that has none, the last day's features alone."""
        return self.own_features() if self.means is None else self.means


@dataclass(frozen=True)
class Fitted:
    """A split -> probabilities (N, 3), and a score (N,) where the ranking is not P(BUY) - P(SELL).

    facts: what early stopping decided.
    """

    predict: Callable[[BaselineSplit], Array | tuple[Array, Array]]
    facts: Mapping[str, int] = field(default_factory=dict)
