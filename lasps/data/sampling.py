"""Which rows of a panel become samples, and of which split. Decided by the past alone: a later bar changes nothing."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from lasps.data.panel import Panel
from lasps.data.spec import DatasetSpec
from lasps.data.splits import SPLITS, Borders, assign_splits, subsample


@dataclass(frozen=True)
class Sampling:
    """The chosen samples as rows (their window's last day), and the rows that the scaler may see."""

    ends: dict[str, np.ndarray]
    """split -> row indices, int64 ascending"""
    train_rows: np.ndarray
    """bool (R,): rows inside any train window, before stride and train_fraction"""
    left_out: dict[str, int]
    """why rows are no samples -> how many"""


def choose_samples(
    panel: Panel | pl.DataFrame,
    labels: pl.DataFrame,
    spec: DatasetSpec,
) -> Sampling:
    """Assign every row with enough history and a known label to its split; thin out if asked to.

    Args:
        panel: sorted by (code, date).
        labels: row-aligned, from `make_labels`.
        spec: a sample needs `window` rows of history, its own included, after `warm_up` others; `stride` takes every
            k-th row of a stock, staggered between stocks; `train_fraction` thins train alone, by a hash of code and
            date.

    Raises:
        ValueError: a stride below 1, or a split without a sample.
    """
    panel, steps, borders = Panel.of(panel), _steps(spec.stride), spec.span()
    codes, dates = panel.frame["code"], panel.frame["date"]
    split = assign_splits(dates, labels["label_end"], borders, spec.embargo_days)
    enough = panel.positions >= spec.window - 1 + spec.warm_up
    left_out = {
        "short_history": int((~enough).sum()),
        "label_not_known_yet": int((enough & labels["label"].is_null().to_numpy()).sum()),
    }
    left_out["outside_splits"] = int((enough & (split == "")).sum()) - left_out["label_not_known_yet"]
    phase = panel.positions + _stagger(panel)
    ends, train_rows = {}, np.zeros(len(dates), dtype=bool)
    for name in SPLITS:
        rows = np.flatnonzero(enough & (split == name))
        if name == "train":
            train_rows = _covered(rows, spec.window, len(dates))
        kept = rows[phase[rows] % steps[name] == 0]
        left_out[f"{name}_stride"] = len(rows) - len(kept)
        if name == "train" and spec.train_fraction < 1:
            chosen = subsample(codes[kept], dates[kept], spec.train_fraction)
            left_out["train_fraction"] = len(kept) - int(chosen.sum())
            kept = kept[chosen]
        ends[name] = kept
    _refuse_empty(ends, dates, borders, spec.window + spec.warm_up)
    return Sampling(ends, train_rows, left_out)


def _steps(stride: int | Mapping[str, int]) -> dict[str, int]:
    steps = dict.fromkeys(SPLITS, stride) if isinstance(stride, int) else dict(stride)
    if set(steps) != set(SPLITS) or any(not isinstance(k, int) or k < 1 for k in steps.values()):
        raise ValueError(f"stride: expected a whole number >= 1, or one for each of {SPLITS}, got {stride}")
    return steps


def _stagger(panel: Panel) -> np.ndarray:
    """A number per row that depends on the code alone, so that stocks do not fall on the same days."""
    hashes = [zlib.crc32(code.encode()) for code in panel.frame["code"].gather(panel.starts[:-1]).to_list()]
    return np.array(hashes, dtype=np.int64)[panel.stock_of_row]


def _covered(ends: np.ndarray, window: int, rows: int) -> np.ndarray:
    """bool (R,): inside at least one window that ends at `ends`."""
    steps = np.zeros(rows + 1, dtype=np.int64)
    np.add.at(steps, ends - window + 1, 1)
    np.add.at(steps, ends + 1, -1)
    return np.cumsum(steps[:-1]) > 0


def _refuse_empty(ends: dict[str, np.ndarray], dates: pl.Series, borders: Borders, history: int) -> None:
    for name, rows in ends.items():
        if len(rows) == 0:
            first, last = borders.span(name)
            raise ValueError(
                f"split {name}: expected samples from {first} to {last}, found none. The panel spans "
                f"{dates.min()!s} to {dates.max()!s}; a sample needs {history} rows of its stock and a "
                "label that ends inside the split. Move the borders, or take more data"
            )
