"""The stocks of one day beside each other: ranks, and distances from the market's and the sector's mean."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.special import ndtri

NUM_SECTORS_CODED = 64
"""Room for sector numbers in the group key; the sectors are 0..19."""
CHUNK_CELLS = 16_384
"""Places of days x stocks that are ranked at once, so that they stay in a core's cache."""


class DayGroups:
    """Rows laid out by day once, one line per day and one place per stock, for any number of cross-sectional features.

    Args:
        dates: datetime64[D] (R,).
        sectors: sector ids (R,), or None where no sector feature is asked for.
    """

    def __init__(self, dates: np.ndarray, sectors: np.ndarray | None) -> None:
        number = dates.astype("datetime64[D]").astype(np.int64)
        number -= number.min()
        present = np.bincount(number) > 0
        self.day = (np.cumsum(present) - 1)[number]
        self.sectors = sectors

    def prepare(self, by_sector: bool) -> None:
        """Lay out the days (and the sectors in them) now: after this, several threads may rank."""
        _ = self._by_day, self._by_sector if by_sector else None

    @cached_property
    def _by_day(self) -> _Lines:
        return _Lines(self.day)

    @cached_property
    def _by_sector(self) -> _Lines:
        _, group = np.unique(self._sector_group, return_inverse=True)
        return _Lines(group)

    @property
    def _sector_group(self) -> np.ndarray:
        assert self.sectors is not None
        group: np.ndarray = self.day * NUM_SECTORS_CODED + self.sectors
        return group

    def rank(self, x: np.ndarray) -> np.ndarray:
        """Rank of each value within its day, (average position + 1/2) / n - 1/2, ties averaged: float64 (R,).

        NaN stays NaN and does not count.
        """
        return self._by_day.rank(x)

    def score(self, x: np.ndarray) -> np.ndarray:
        """The normal quantile of each value's rank within its day (Gauss or van der Waerden score): float64 (R,)."""
        return np.asarray(ndtri(self._by_day.rank(x) + 0.5))

    def sector_score(self, x: np.ndarray) -> np.ndarray:
        """As `score`, among the day's stocks of the own sector: 0 for a stock that is alone there."""
        return np.asarray(ndtri(self._by_sector.rank(x) + 0.5))

    def minus_market(self, x: np.ndarray) -> np.ndarray:
        """Each value minus the mean of all stocks' values on the day: float64 (R,); NaN does not count."""
        return _minus_mean(x, self.day)

    def minus_sector(self, x: np.ndarray) -> np.ndarray:
        """Each value minus the mean of its sector's values on the day: float64 (R,); NaN does not count."""
        return _minus_mean(x, self._sector_group)


class _Lines:
    """Rows laid out by group, one line per group: what is ranked line by line.

    Args:
        group: 0 .. number of groups - 1, each with a row (R,).
    """

    def __init__(self, group: np.ndarray) -> None:
        sizes = np.bincount(group)
        self.shape = (len(sizes), int(sizes.max()))
        order = np.argsort(group.astype(np.uint16) if len(sizes) < 65536 else group, kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        self.cell = group * self.shape[1] + place

    def rank(self, x: np.ndarray) -> np.ndarray:
        """See `DayGroups.rank`."""
        lines, width = self.shape
        table = np.full(lines * width, np.nan, dtype=x.dtype)
        table[self.cell] = x
        table, ranks = table.reshape(self.shape), np.empty(self.shape)
        step = max(1, CHUNK_CELLS // width)
        for start in range(0, lines, step):
            ranks[start : start + step] = _rank_lines(table[start : start + step])
        out = ranks.reshape(-1)[self.cell]
        out[np.isnan(x)] = np.nan
        return out


def _minus_mean(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """x minus its group's mean; the sums run in row order within a group, so no other group changes a bit of them."""
    known = ~np.isnan(x)
    total = np.bincount(group, weights=np.where(known, x, 0.0))
    count = np.bincount(group, weights=known)
    with np.errstate(invalid="ignore", divide="ignore"):
        return x - (total / count)[group]


def _rank_lines(table: np.ndarray) -> np.ndarray:
    """Ranks within each line of `table` (days, stocks): float64; meaningless where the table is NaN."""
    lines, width = table.shape
    order = np.argsort(table, axis=1)  # NaN last
    order += np.arange(0, lines * width, width)[:, None]
    ordered = table.reshape(-1)[order]
    first = np.ones(table.shape, dtype=bool)  # of a run of equal values
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=first[:, 1:])
    start = np.flatnonzero(first)
    length = np.diff(start, append=first.size)
    line = start // width
    counts = np.maximum(width - np.isnan(table).sum(axis=1), 1)
    rank_of_run = (start - line * width + (length - 1) / 2 + 0.5) / counts[line] - 0.5
    ranks = np.empty(first.size)
    ranks[order.reshape(-1)] = np.repeat(rank_of_run, length)
    return ranks.reshape(table.shape)
