"""The stocks of one day beside each other: ranks, and distances from the sector's mean."""

from __future__ import annotations

import numpy as np

NUM_SECTORS_CODED = 64
"""Room for sector numbers in the group key; the sectors are 0..19."""


class DayGroups:
    """Rows grouped by day once, for any number of cross-sectional features.

    Args:
        dates: datetime64[D] (R,).
        sectors: sector ids (R,), or None where no sector feature is asked for.
    """

    def __init__(self, dates: np.ndarray, sectors: np.ndarray | None) -> None:
        number = dates.astype("datetime64[D]").astype(np.int64)
        number -= number.min()
        present = np.bincount(number) > 0
        self.day = (np.cumsum(present) - 1)[number]
        self.order = np.argsort(self.day.astype(np.uint16) if len(present) < 65536 else self.day, kind="stable")
        self.borders = np.concatenate([[0], np.cumsum(np.bincount(self.day))])
        self.sectors = sectors

    def rank(self, x: np.ndarray) -> np.ndarray:
        """Rank of each value within its day, (average position + 1/2) / n - 1/2, ties averaged: float64 (R,).

        NaN stays NaN and does not count.
        """
        by_day = x[self.order]
        place = np.empty(len(x), dtype=np.int64)
        for start, stop in zip(self.borders[:-1], self.borders[1:], strict=True):
            place[start:stop] = start + np.argsort(by_day[start:stop])
        values, row = by_day[place], self.order[place]
        day = np.repeat(np.arange(len(self.borders) - 1), np.diff(self.borders))
        first = np.append(True, (values[1:] != values[:-1]) | (day[1:] != day[:-1]))
        group = np.cumsum(first) - 1
        start = np.flatnonzero(first)
        middle = start + (np.diff(np.append(start, len(x))) - 1) / 2
        counts = np.bincount(self.day, weights=~np.isnan(x), minlength=len(self.borders) - 1)
        with np.errstate(divide="ignore"):
            ranks = (middle[group] - self.borders[day] + 0.5) / counts[day] - 0.5
        out = np.empty(len(x))
        out[row] = np.where(np.isnan(values), np.nan, ranks)
        return out

    def minus_sector(self, x: np.ndarray) -> np.ndarray:
        """Each value minus the mean of its sector's values on the day: float64 (R,); NaN does not count.

        The sums run in row order within the day, so no other day can change a bit of them.
        """
        assert self.sectors is not None
        key = self.day * NUM_SECTORS_CODED + self.sectors
        valid = ~np.isnan(x)
        total = np.bincount(key[valid], weights=x[valid], minlength=int(key.max()) + 1)
        count = np.bincount(key[valid], minlength=len(total))
        with np.errstate(invalid="ignore", divide="ignore"):
            return x - (total / count)[key]
