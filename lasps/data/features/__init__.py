"""Features: what the model sees of each row. `definitions.FEATURES` is the one list of them.

`compute_features` runs over blocks of whole stocks with numpy, about as fast as the disk delivers the bars.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import polars as pl

from lasps.data.features.cross_section import DayGroups
from lasps.data.features.definitions import DEFAULT_FEATURES, FEATURES, LONGEST, SCORE_GROUPS, Feature
from lasps.data.features.rolling import RollingBars
from lasps.data.features.scores import decoded, encoded
from lasps.data.panel import PRICES, Panel

__all__ = [
    "DEFAULT_FEATURES",
    "FEATURES",
    "LONGEST",
    "Feature",
    "compute_features",
    "compute_rows",
    "features_named",
    "score_columns",
    "volatility",
    "window_columns",
]

_BY_NAME = {feature.name: feature for feature in FEATURES}
MOST_THREADS = 8
WINDOW_GROUPS = ("relative", "rank", "mask")
CHUNK_ROWS = 8_192
"""Rows worked on at once: the arrays of one chunk stay in a core's cache (8,192 was quickest, measured)."""


def compute_features(panel: Panel | pl.DataFrame, names: Sequence[str] | None = None) -> np.ndarray:
    """Features of every row of a panel.

    Args:
        panel: sorted by (code, date), positive prices; needs `sector` for features of the group "sector". Ranks are
            among the stocks of this panel, so it is the whole universe that is wanted here.
        names: which features, in this order; None for `DEFAULT_FEATURES`.

    Returns:
        float32 (R, F), row by row as the panel; NaN where the look-back reaches before the stock's first row or the
        value is undefined. Scores are as the byte in a dataset has them (`scores`).

    Raises:
        ValueError: an unknown name, an unsorted panel, no rows, or no `sector` where it is needed.
    """
    wanted = features_named(names)
    values, codes = compute_rows(panel, names)
    if not codes.shape[1]:
        return values
    out = np.empty((len(values), len(wanted)), dtype=np.float32)
    scores = np.array([feature.is_score for feature in wanted])
    out[:, ~scores] = values
    out[:, scores] = decoded(codes)
    return out


class FeatureRows(NamedTuple):
    """Features of the rows of a panel, as a dataset stores them before the scaler."""

    values: np.ndarray
    """float32 (R, V), NaN as in `compute_features`"""
    codes: np.ndarray
    """int8 (R, F - V), the scores' (see `scores`)"""


def compute_rows(panel: Panel | pl.DataFrame, names: Sequence[str] | None = None) -> FeatureRows:
    """As `compute_features`, the scores apart and in one byte each."""
    wanted, panel = features_named(names), Panel.of(panel)
    starts, frame = _checked_starts(panel), panel.frame
    scores, own = [f for f in wanted if f.is_score], [f for f in wanted if not f.is_score]
    bases = [_BY_NAME[f.base] for f in wanted if f.base is not None and f.base not in {w.name for w in own}]
    columns = list(dict.fromkeys([*own, *bases]))
    out = np.empty((frame.height, len(columns)), dtype=np.float32)
    arrays = _bar_arrays(frame)
    with np.errstate(invalid="ignore", divide="ignore"):
        for first, last in _chunks(starts):
            rows = slice(starts[first], starts[last])
            bars = RollingBars([a[rows] for a in arrays], starts[first : last + 1] - starts[first])
            _fill(out[rows], bars, columns)
    codes = np.empty((frame.height, len(scores)), dtype=np.int8)
    _fill_cross_section(out, codes, frame, columns, scores)
    return FeatureRows(out[:, : len(own)] if bases else out, codes)


def volatility(panel: Panel | pl.DataFrame, days: int = 20) -> np.ndarray:
    """Standard deviation (ddof 1) of the last `days` daily log returns, unscaled: float64 (R,), NaN where undefined."""
    panel = Panel.of(panel)
    bars = RollingBars(_bar_arrays(panel.frame), _checked_starts(panel))
    return np.where(bars.position >= days, bars.volatility(days), np.nan)


def features_named(names: Sequence[str] | None = None) -> list[Feature]:
    """The features of these names, in this order; None for the default set.

    Raises:
        ValueError: an unknown or repeated name.
    """
    chosen = list(DEFAULT_FEATURES if names is None else names)
    unknown = [name for name in chosen if name not in _BY_NAME]
    if unknown or len(set(chosen)) != len(chosen) or not chosen:
        raise ValueError(f"unknown features {unknown} or repeated ones in {chosen}; known are {list(_BY_NAME)}")
    return [_BY_NAME[name] for name in chosen]


def window_columns(names: Sequence[str]) -> list[int]:
    """Which of the features named are read over a whole window: those that do not tell the market's own path.

    They are the relative features, the ranks and the mask; all columns but the scores where none of the names is a
    relative one (other people's features, or a subset without them).
    """
    groups = [_BY_NAME[name].group if name in _BY_NAME else "" for name in names]
    chosen = [i for i, group in enumerate(groups) if group in WINDOW_GROUPS]
    return chosen if "relative" in groups else [i for i, group in enumerate(groups) if group not in SCORE_GROUPS]


def score_columns(names: Sequence[str]) -> list[int]:
    """Which of the features named are scores."""
    return [i for i, name in enumerate(names) if name in _BY_NAME and _BY_NAME[name].is_score]


def _checked_starts(panel: Panel) -> np.ndarray:
    frame, starts = panel.frame, panel.starts
    if frame.is_empty():
        raise ValueError("the panel has no rows; features need at least one")
    later = np.diff(frame["date"].to_numpy().astype(np.int64)) > 0
    later[starts[1:-1] - 1] = True
    if not later.all() or frame["code"].n_unique() != len(starts) - 1:
        raise ValueError("the panel is not sorted by (code, date) or repeats a key; run make_panel first")
    return starts


def _bar_arrays(panel: pl.DataFrame) -> list[np.ndarray]:
    """Open, high, low, close and volume as float64 (R,)."""
    return [panel[name].to_numpy().astype(np.float64) for name in (*PRICES, "volume")]


def _chunks(starts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of stocks of about `CHUNK_ROWS` rows each."""
    first = 0
    while first < len(starts) - 1:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + CHUNK_ROWS, side="right")) - 1)
        yield first, last
        first = last


def _fill(out: np.ndarray, bars: RollingBars, columns: Sequence[Feature]) -> None:
    """Write the chunk's stock-alone features into out (n, F), NaN where the look-back is not there."""
    by_feature = np.zeros((len(columns), len(out)), dtype=np.float32)
    for values, feature in zip(by_feature, columns, strict=True):
        if feature.of_stock is not None:
            values[:] = feature.of_stock(bars)
            values[bars.first_rows(feature.lookback)] = np.nan
    by_feature[np.isinf(by_feature)] = np.nan
    out[:] = by_feature.T


def _fill_cross_section(
    out: np.ndarray, codes: np.ndarray, panel: pl.DataFrame, columns: Sequence[Feature], scores: Sequence[Feature]
) -> None:
    """Write the features across the stocks of a day into out (R, columns) and codes (R, scores)."""
    place = {feature.name: i for i, feature in enumerate(columns)}
    across = [feature for feature in (*columns, *scores) if feature.of_day is not None]
    if not across:
        return
    sectors = None
    if any(feature.needs_sectors for feature in across):
        if "sector" not in panel.columns or panel["sector"].null_count():
            raise ValueError("features against the sector need a complete column `sector`; run select_universe first")
        sectors = panel["sector"].to_numpy().astype(np.int64)
    days = DayGroups(panel["date"].to_numpy(), sectors)

    def values_of(feature: Feature) -> np.ndarray:
        assert feature.of_day is not None and feature.base is not None
        return feature.of_day(np.ascontiguousarray(out[:, place[feature.base]]), days)

    def write_codes(column: int) -> None:
        codes[:, column] = encoded(values_of(scores[column]))

    for feature in across:
        if not feature.is_score:
            out[:, place[feature.name]] = values_of(feature)
    days.prepare(by_sector=any(feature.group == "sector score" for feature in scores))
    with ThreadPoolExecutor(
        min(os.cpu_count() or 1, MOST_THREADS)
    ) as pool:  # numpy sorts without the interpreter's lock
        list(pool.map(write_codes, range(len(scores))))
