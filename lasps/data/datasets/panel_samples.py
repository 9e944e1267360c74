"""Samples straight from a panel, without a dataset folder: of an evening's forecast, or of a training up to a day."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from lasps.data.charts import render
from lasps.data.datasets.row_windows import RowWindows
from lasps.data.datasets.samples import ReadTensors, SampleDataset, Tensors, no_charts
from lasps.data.datasets.scan import combine, digest
from lasps.data.features import volatility
from lasps.data.labels import FLAGS, HOLD, make_labels
from lasps.data.panel import Panel, bar_rows
from lasps.data.scaling import RobustScaler, scaled_rows
from lasps.data.splits import subsample
from lasps.window_parts import SKIP_DAYS, Reads

VOLATILITY_DAYS = 20
SAMPLE_COLUMNS = ("label", "forward_return", "forward_return_skip1", "label_end", *FLAGS)


def sample_table(panel: Panel, labels: pl.DataFrame, ends: np.ndarray) -> pl.DataFrame:
    """What samples.parquet says of the windows that end at the rows `ends`: code, date, sector, labels, volatility.

    Args:
        labels: of `make_labels`, row by row of the panel.
    """
    volatile = pl.Series(f"volatility_{VOLATILITY_DAYS}", volatility(panel, VOLATILITY_DAYS))
    rows = panel.frame.select("code", "date", "sector")[ends]
    return rows.hstack(labels.select(SAMPLE_COLUMNS)[ends]).with_columns(volatile[ends].fill_nan(None))


@dataclass(frozen=True)
class PanelRows:
    """A panel's rows as a model reads them, features and bars made once for any samples of it.

    Attributes:
        panel: of the universe, with `sector`.
        inputs: features, scaler, window, warm_up, chart_size, horizon, threshold: what a checkpoint's card or a recipe
            says of its data.
    """

    panel: Panel
    inputs: Mapping[str, Any] = field(repr=False)

    @cached_property
    def windows(self) -> RowWindows:
        """The windows over scaled features and scores."""
        scaler = RobustScaler.from_dict(dict(self.inputs["scaler"]))
        return RowWindows(*scaled_rows(self.panel, self.inputs["features"], scaler), self.inputs["window"])

    @cached_property
    def bars(self) -> RowWindows:
        """The windows over open, high, low, close and volume."""
        return RowWindows(bar_rows(self.panel.frame), self.windows.codes.numpy()[:, :0], self.inputs["window"])

    @cached_property
    def dates(self) -> np.ndarray:
        """Each row's day: datetime64[D] (R,)."""
        return self.panel.frame["date"].to_numpy().astype("datetime64[D]")

    @cached_property
    def whole(self) -> np.ndarray:
        """Which rows end a full window: bool (R,)."""
        return self.panel.positions >= self.inputs["window"] - 1 + (self.inputs.get("warm_up") or 0)

    def on(self, day: dt.date) -> PanelSamples:
        """One sample per stock that traded on `day` with a full window; HOLD stands for labels of days to come.

        Raises:
            ValueError: there is no such stock.
        """
        ends = np.flatnonzero((self.dates == np.datetime64(day, "D")) & self.whole)
        if not len(ends):
            needed = self.inputs["window"] + (self.inputs.get("warm_up") or 0)
            raise ValueError(
                f"{day}: expected stocks with at least {needed} traded days up to it, found none in the universe"
            )
        return PanelSamples(self, ends, np.full(len(ends), HOLD))

    def between(self, first: dt.date, last: dt.date) -> PanelSamples:
        """The samples of some days whose labels have ended by the panel's last day."""
        return self._labelled(self.panel, np.arange(len(self.dates)), first, last, 1.0)

    def ended_by(self, day: dt.date, fraction: float = 1.0) -> PanelSamples:
        """Every sample whose label has ended by `day`, as the bars up to that day alone tell it.

        Args:
            fraction: a part of them, by a hash of code and date.
        """
        rows = np.flatnonzero(self.dates <= np.datetime64(day, "D"))
        panel = self.panel if len(rows) == len(self.dates) else Panel(self.panel.frame[rows])
        return self._labelled(panel, rows, dt.date.min, day, fraction)

    def _labelled(self, panel: Panel, rows: np.ndarray, first: dt.date, last: dt.date, fraction: float) -> PanelSamples:
        """The samples of a part of the panel, `rows` of it, with the labels that this part tells."""
        labels = make_labels(panel, self.inputs["horizon"], self.inputs["threshold"])
        days = self.dates[rows]
        chosen = self.whole[rows] & labels["label"].is_not_null().to_numpy()
        chosen &= (days >= np.datetime64(first, "D")) & (days <= np.datetime64(last, "D"))
        ends = np.flatnonzero(chosen)
        if fraction < 1:
            ends = ends[subsample(panel.frame["code"][ends], panel.frame["date"][ends], fraction)]
        table = sample_table(panel, labels, ends)
        return PanelSamples(self, rows[ends], table["label"].to_numpy().astype(np.int64), table)


class PanelSamples(SampleDataset):
    """The windows of a panel that end at some of its rows.

    Args:
        rows: the panel, as a model reads it.
        ends: rows that end a full window, int64 (N,).
        labels: int64 (N,).
        samples: one row per sample, as `sample_table` gives it; None for days whose labels have not come.
    """

    samples = None

    def __init__(
        self, rows: PanelRows, ends: np.ndarray, labels: np.ndarray, samples: pl.DataFrame | None = None
    ) -> None:
        self.rows, self.ends, self.labels, self.samples = rows, ends.astype(np.int64), labels, samples
        self.window, self.chart_size = rows.inputs["window"], tuple(rows.inputs["chart_size"])
        self.num_features = rows.windows.num_features
        self.sector_ids = rows.panel.frame["sector"].to_numpy().astype(np.int64)[ends]

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """SHA-256 of rows, ends, sectors and labels."""
        arrays = {"values": self.rows.windows.values.numpy(), "codes": self.rows.windows.codes.numpy()}
        arrays |= {"bars": self.rows.bars.values.numpy(), "ends": self.ends}
        arrays |= {"sectors": self.sector_ids, "labels": self.labels}
        return combine({name: digest(array) for name, array in arrays.items()})

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensors:
        """As `SampleDataset.batch`."""
        at = self._positions(indices)
        return (self.rows.windows.whole(self.ends[at]), self._charts(at), *self._known(at))

    def read(self, indices: Sequence[int] | np.ndarray | Tensor, reads: Reads) -> ReadTensors:
        """As `SampleDataset.read`."""
        at = self._positions(indices)
        charts = self._charts(at) if reads.charts else no_charts(len(at))
        return (self.rows.windows.parts(self.ends[at], reads.columns), charts, *self._known(at))

    def last_days_means(self, days: Sequence[int] = SKIP_DAYS) -> np.ndarray:
        """As `SampleDataset.last_days_means`."""
        return self.rows.windows.means(self.ends, days)

    def table(self) -> pl.DataFrame:
        """code, sector, close and volatility_20 of every sample."""
        volatile = pl.Series(f"volatility_{VOLATILITY_DAYS}", volatility(self.rows.panel, VOLATILITY_DAYS)[self.ends])
        return self.rows.panel.frame.select("code", "sector", "close")[self.ends].with_columns(volatile.fill_nan(None))

    def _charts(self, at: np.ndarray) -> Tensor:
        return render(self.rows.bars.whole(self.ends[at]), self.chart_size)

    def _known(self, at: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.sector_ids[at]), torch.from_numpy(self.labels[at])
