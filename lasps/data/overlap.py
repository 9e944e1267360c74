"""What new bars say about the samples that a dataset has already: the same, the same rescaled, or something else.

A split or bonus issue multiplies every earlier price of its stock by one factor and rounds it to the won, so returns
move by the rounding and no more. Whatever goes beyond that is another history.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from loguru import logger

from lasps.data.labels import make_labels
from lasps.data.splits import SPLITS

HALF_WON = 0.5
"""Adjusted prices are rounded to the won, once in the old bars and once in the new ones."""
FLOAT32 = 1e-6
"""Relative error of closes that a dataset stores as float32, with room."""
SAME_RETURN = 1e-4
"""Returns that differ by less are the same. Guess."""
MAX_REREAD = 0.05
"""Share of the stocks, and always one, whose history may be another one; more is another way of adjusting. Guess."""
_OLD = ["code", "date", "sector", "label", "forward_return", "label_cut_short"]


@dataclass(frozen=True)
class Overlap:
    """How a dataset's samples fare in the new bars.

    rescaled: code -> factor of stocks adjusted since, equal up to rounding; flipped: old samples of stocks that are not
    re-read whose label changed by that rounding; reread: code -> old samples of stocks with another history; moved:
    code -> old samples that are in another sector now.
    """

    rescaled: dict[str, float] = field(default_factory=dict)
    flipped: int = 0
    reread: dict[str, int] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "rescaled": self.rescaled,
            "flipped_labels": self.flipped,
            "reread": self.reread,
            "other_sector": self.moved,
        }

    def warn(self) -> None:
        """Say what changed, if anything did."""
        if self.rescaled:
            logger.warning(
                f"{len(self.rescaled)} stocks were adjusted since (split, bonus issue): their old days are "
                f"read again, equal up to rounding to the won, {self.flipped} labels at the threshold "
                f"changed: {_listed(f'{c} x {r:.4g}' for c, r in self.rescaled.items())}"
            )
        elif self.flipped:
            logger.warning(f"{self.flipped} labels at the threshold changed by rounding to the won")
        if self.reread:
            logger.warning(
                f"{len(self.reread)} stocks have another history than before, it is read again: "
                f"{_listed(f'{c} ({n} old samples)' for c, n in self.reread.items())}. Metrics of the old "
                "dataset do not hold for them"
            )
        if self.moved:
            logger.warning(
                f"{len(self.moved)} stocks are in another sector than before, as the listing names another "
                f"industry: {_listed(self.moved)}"
            )


def compare_overlap(data_dir: Path, panel: pl.DataFrame, horizon: int, threshold: float) -> Overlap:
    """Compare every old sample with the same stock and day of the new panel.

    Raises:
        ValueError: stocks of the dataset are missing altogether, or too many have another history.
    """
    before = pl.concat(_old_samples(data_dir, split) for split in SPLITS)
    _refuse_missing(before, panel)
    labels = make_labels(panel, horizon, threshold).select(now_label="label", now_return="forward_return")
    now = panel.select("code", "date", now_close="close", now_sector="sector").hstack(labels)
    both = before.join(now, on=["code", "date"], how="left", maintain_order="left")
    both = _with_scale(both.join(_ratios(both), on="code", how="left", maintain_order="left"))
    reread = _per_code(both.filter("differs"))
    _refuse_many(both, reread)
    same = both.filter(~pl.col("code").is_in(list(reread)))
    scaled = same.filter((pl.col("ratio") - 1).abs() > FLOAT32).unique("code").sort("code")
    return Overlap(
        rescaled=dict(scaled.select("code", "ratio").iter_rows()),
        flipped=same.filter(~pl.col("label_cut_short") & (pl.col("label") != pl.col("now_label"))).height,
        reread=reread,
        moved=_per_code(both.filter(pl.col("sector") != pl.col("now_sector"))),
    )


def _old_samples(data_dir: Path, split: str) -> pl.DataFrame:
    """Samples of a split with `close`, that of the window's last day."""
    closes = np.load(data_dir / "rows" / "bars.npy", mmap_mode="r")[:, 3]
    ends = np.load(data_dir / split / "ends.npy")
    samples = pl.read_parquet(data_dir / split / "samples.parquet", columns=_OLD)
    return samples.with_columns(close=pl.Series(np.asarray(closes[ends], dtype=np.float64)))


def _ratios(both: pl.DataFrame) -> pl.DataFrame:
    """Each stock's factor between new and old closes, from the day with the highest, where rounding matters least."""
    there = both.filter(pl.col("now_close").is_not_null()).sort("close", descending=True)
    first = there.unique("code", keep="first", maintain_order=True)
    return first.select("code", ratio=pl.col("now_close") / pl.col("close"), highest="close")


def _with_scale(both: pl.DataFrame) -> pl.DataFrame:
    """`differs`: a day is gone, its label unknown, or its return moved by more than its closes' rounding explains."""
    ratio, close = pl.col("ratio"), pl.col("close")
    old_end, new_end = close * (1 + pl.col("forward_return")), pl.col("now_close") * (1 + pl.col("now_return"))

    def off(new: pl.Expr, old: pl.Expr) -> pl.Expr:
        rounding = HALF_WON * (1 + ratio) * (1 + old / pl.col("highest"))
        return (new - ratio * old).abs() > rounding + FLOAT32 * new

    moved = (pl.col("now_return") - pl.col("forward_return")).abs() > SAME_RETURN
    unexplained = moved & (off(pl.col("now_close"), close) | off(new_end, old_end))
    differs = pl.col("now_label").is_null() | (unexplained & ~pl.col("label_cut_short"))
    return both.with_columns(differs=differs.fill_null(True))


def _per_code(samples: pl.DataFrame) -> dict[str, int]:
    return dict(samples.group_by("code").len().sort("code").iter_rows())


def _refuse_missing(before: pl.DataFrame, panel: pl.DataFrame) -> None:
    gone = _per_code(before.join(panel.select("code").unique(), on="code", how="anti"))
    if gone:
        raise ValueError(
            f"{sum(gone.values())} of {before.height} old samples are of {len(gone)} stocks that the new bars do not "
            f"have, or that left the universe: {_listed(gone)}. A stock that left the exchange is extended with "
            "nothing, but its bars of before are needed (ranks and market means of old days count it): take "
            "bars.parquet and listing.csv of a download folder, which keep it, or add its old bars to the new file"
        )


def _refuse_many(both: pl.DataFrame, reread: dict[str, int]) -> None:
    stocks = both["code"].n_unique()
    if len(reread) <= max(1, int(MAX_REREAD * stocks)):
        return
    first = both.filter("differs").select("code", "date", "close", "now_close", "ratio", "forward_return", "now_return")
    raise ValueError(
        f"{sum(reread.values())} of {both.height} old samples in {len(reread)} of {stocks} stocks are gone or have "
        f"another forward return in the new bars, beyond rounding ({_listed(reread)}; first: "
        f"{first.row(0, named=True)}). The bars were adjusted in another way or rows were dropped: build a new "
        "dataset from one pull"
    )


def _listed(names: Any, most: int = 20) -> str:
    """The first names, and how many more."""
    every = list(map(str, names))
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
