"""Train, val and test by date, purged by the label's last day.

A sample belongs to a split if its window's last day and its label's last day both lie inside it. So every label of an
earlier split ends before the first window day of the next one, across halts too, where a fixed number of days would
leak.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from lasps.config.dataset_config import TRAIN_SHARE, VAL_SHARE

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Borders:
    """First and last day of each split, inclusive; train without a start takes everything up to its end.

    Raises:
        ValueError: the days are not in the order train, val, test.
    """

    train_end: dt.date
    val_start: dt.date
    val_end: dt.date
    test_start: dt.date
    test_end: dt.date
    train_start: dt.date | None = None

    def __post_init__(self) -> None:
        order = [self.train_start or dt.date.min, self.train_end, self.val_start, self.val_end]
        order += [self.test_start, self.test_end]
        steps = list(zip(order, order[1:], strict=False))
        if any(b < a for a, b in steps) or self.train_end == self.val_start or self.val_end == self.test_start:
            raise ValueError(f"splits must follow one another: train, then val, then test; got {self.to_dict()}")

    def span(self, split: str) -> tuple[dt.date, dt.date]:
        """First and last day of "train", "val" or "test"."""
        return {
            "train": (self.train_start or dt.date.min, self.train_end),
            "val": (self.val_start, self.val_end),
            "test": (self.test_start, self.test_end),
        }[split]

    def to_dict(self) -> dict[str, str | None]:
        """ISO days, ready for JSON."""
        return {name: None if day is None else day.isoformat() for name, day in asdict(self).items()}

    @classmethod
    def from_dict(cls, days: Mapping[str, Any]) -> Borders:
        """From ISO strings or dates, as `to_dict` writes them.

        Raises:
            ValueError: a missing or unknown name, or something that is no day.
        """
        names = set(cls.__dataclass_fields__)
        if not names - {"train_start"} <= set(days) <= names:
            raise ValueError(f"borders need {sorted(names)} (train_start may be left out), got {sorted(days)}")
        return cls(**{name: _day(day) for name, day in days.items()})


def _day(day: Any) -> Any:
    return day if day is None or isinstance(day, dt.date) else dt.date.fromisoformat(day)


def _protocol(*days: str) -> Borders:
    return Borders(*(dt.date.fromisoformat(day) for day in days))


PROTOCOLS: Mapping[str, Borders] = MappingProxyType(
    {
        "krx-2010s": _protocol("2013-12-31", "2014-01-01", "2014-12-31", "2015-01-01", "2016-06-30"),
        "krx-2020s": _protocol("2024-12-02", "2024-12-03", "2025-03-07", "2025-03-10", "2025-06-17"),
    }
)
"""The protocols on real data. krx-2020s' test has about 60 days: no verdict there about a tenth of a point."""


def assign_splits(
    date: pl.Series | np.ndarray, label_end: pl.Series | np.ndarray, borders: Borders, embargo_days: int = 0
) -> np.ndarray:
    """The split of each sample: "train", "val", "test" or "" (N,).

    Args:
        date: the window's last day (N,).
        label_end: the label's last day (N,); a sample without one (null, NaT) belongs nowhere.
        borders: the splits' days.
        embargo_days: calendar days that must lie free between the last label day of a split and the start of the next.

    Raises:
        ValueError: different lengths or a negative embargo.
    """
    day, end = _days(date), _days(label_end)
    if day.shape != end.shape or embargo_days < 0:
        raise ValueError(
            f"expected as many days as label ends, embargo_days >= 0; got {day.shape}, {end.shape}, {embargo_days}"
        )
    result = np.full(len(day), "", dtype="<U5")
    next_starts = (borders.val_start, borders.test_start, None)
    for split, next_start in zip(SPLITS, next_starts, strict=True):
        first, last = (np.datetime64(d, "D") for d in borders.span(split))
        if next_start is not None:
            last = min(last, np.datetime64(next_start, "D") - embargo_days - 1)
        result[(day >= first) & (day <= end) & (end <= last)] = split
    return result


def fraction_borders(dates: pl.Series | np.ndarray, train: float = TRAIN_SHARE, val: float = VAL_SHARE) -> Borders:
    """Borders by shares of the distinct days: the first `train`, the next `val`, the rest is test.

    Raises:
        ValueError: a split would have no day.
    """
    days = np.unique(_days(dates))
    first, second = round(train * len(days)), round((train + val) * len(days))
    if not 0 < first < second < len(days):
        raise ValueError(f"train={train}, val={val} of {len(days)} days leaves a split empty (ends {first}, {second})")
    return _borders(days, 0, first, second, len(days))


def walk_forward_borders(
    dates: pl.Series | np.ndarray, folds: int, val_days: int, test_days: int, train_days: int | None = None
) -> list[Borders]:
    """`folds` Borders whose tests lie end to end at the end of the days, the latest fold last.

    Args:
        dates: any days of the data; distinct ones count.
        val_days, test_days: distinct days of each val and test.
        train_days: length of a rolling train; None lets it grow from the first day.

    Raises:
        ValueError: fewer days than the folds need.
    """
    days = np.unique(_days(dates))
    starts = [len(days) - test_days * (folds - i) for i in range(folds)]
    need = (train_days or 1) + val_days
    if min(folds, val_days, test_days) < 1 or starts[0] < need:
        raise ValueError(
            f"{folds} folds of {val_days} val and {test_days} test days need {need + folds * test_days} days "
            f"with a train of at least {train_days or 1}; got {len(days)}"
        )
    firsts = [0 if train_days is None else start - val_days - train_days for start in starts]
    return [_borders(days, a, s - val_days, s, s + test_days) for a, s in zip(firsts, starts, strict=True)]


def subsample(codes: Sequence[str] | pl.Series, dates: pl.Series | np.ndarray, fraction: float) -> np.ndarray:
    """A fixed random choice of about `fraction` of the samples: bool (N,), by a hash of code and day alone.

    The same stock and day is chosen in every build, whatever else is in it; a smaller fraction is a subset of a larger.

    Raises:
        ValueError: a fraction outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"expected a fraction in (0, 1], got {fraction}")
    names, which = np.unique(np.asarray(codes, dtype=np.str_), return_inverse=True)
    seeds = np.array([int.from_bytes(name.encode()[:8].ljust(8, b"\0"), "little") for name in names], dtype=np.uint64)
    mixed = _splitmix64(_splitmix64(seeds)[which] ^ _days(dates).astype(np.int64).astype(np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) < fraction * 2.0**53


def _splitmix64(x: np.ndarray) -> np.ndarray:
    """One step of SplitMix64 (Steele, Lea & Flood 2014) on uint64."""
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _borders(days: np.ndarray, train: int, val: int, test: int, end: int) -> Borders:
    """Borders from places in the sorted distinct days; train starts at `train`, or everywhere before if that is 0."""
    first = days[train].astype(object) if train else None
    train_end, val_start, val_end, test_start, test_end = (
        days[i].astype(object) for i in (val - 1, val, test - 1, test, end - 1)
    )
    return Borders(train_end, val_start, val_end, test_start, test_end, first)


def _days(dates: pl.Series | np.ndarray) -> np.ndarray:
    """As datetime64[D]; null becomes NaT."""
    values = dates.to_numpy() if isinstance(dates, pl.Series) else np.asarray(dates)
    return values.astype("datetime64[D]")
