"""What decides a dataset's samples: the options of a build, in memory and in dataset.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lasps.config.dataset_config import CHART_SIZE, HORIZON, THRESHOLD, WINDOW
from lasps.data.features import features_named
from lasps.data.scaling import RobustScaler
from lasps.data.splits import Borders


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset's options; build it again from the same panel with them and it has the same fingerprint.

    Attributes:
        features: names; None: the default ones. The columns are in this order, scores after all others.
        window: traded days per sample.
        warm_up: rows a stock must have before a window; with 60, every look-back inside the window is observed.
        horizon, threshold: of the labels.
        chart_size: (H, W).
        borders: the splits' days; None while nothing is built that has to know them.
        embargo_days: calendar days kept free between the splits (`assign_splits`).
        stride: every k-th row of a stock is a sample; one number, or one per split.
        train_fraction: share of train kept, by a hash of code and date.
        scaler: one fitted before; None: fitted on the rows of train's windows.
        materialize: also write the interchange format's time_series.npy and chart_images.npy.
    """

    features: tuple[str, ...] | None = None
    window: int = WINDOW
    warm_up: int = 0
    horizon: int = HORIZON
    threshold: float = THRESHOLD
    chart_size: tuple[int, int] = CHART_SIZE
    borders: Borders | None = None
    embargo_days: int = 0
    stride: int | Mapping[str, int] = 1
    train_fraction: float = 1.0
    scaler: RobustScaler | None = None
    materialize: bool = False

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the feature columns. Raises ValueError for one that does not exist."""
        return tuple(f.name for f in sorted(features_named(self.features), key=lambda f: f.is_score))

    def span(self) -> Borders:
        """The borders, of a spec that is built with. Raises ValueError where none were chosen."""
        if self.borders is None:
            raise ValueError("expected the first and last day of each split in the dataset's options, got none")
        return self.borders

    def to_dict(self) -> dict[str, Any]:
        """The part of dataset.json that says how samples were chosen and made."""
        return {
            "features": list(self.feature_names),
            "window": self.window,
            "warm_up": self.warm_up,
            "horizon": self.horizon,
            "threshold": self.threshold,
            "chart_size": [int(n) for n in self.chart_size],
            "borders": self.span().to_dict(),
            "embargo_days": self.embargo_days,
            "stride": self.stride if isinstance(self.stride, int) else dict(self.stride),
            "train_fraction": self.train_fraction,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> DatasetSpec:
        """The spec that a dataset.json was built with, its fitted scaler included."""
        return cls(
            features=tuple(description["features"]),
            chart_size=tuple(description["chart_size"]),
            borders=Borders.from_dict(description["borders"]),
            scaler=RobustScaler.from_dict(description["scaler"]),
            materialize=description["materialized"],
            **{
                name: description[name]
                for name in ("window", "warm_up", "horizon", "threshold", "embargo_days", "stride", "train_fraction")
            },
        )
