"""Does a forecast know tomorrow? A rule that tells a leak of the next day's return from an honest signal.

An honest score forecasts days t+1..t+5 about equally; its edge fades over days, and on real prices the first day also
carries the bounce between bid and ask. A leak of the next day's return makes the first day stand out by far. From the
two returns of a prediction table, log(1 + r[t -> t+5]) - log(1 + r[t+1 -> t+6]) = (log return of day t+1) - (that of
day t+6), so the *first-day excess* needs nothing more:

    excess = mean over days of the Spearman correlation of score and that difference.

Rule: flagged if the lower end of the excess' 95 % interval over days is above FIRST_DAY_LIMIT.

A one-day correlation c1 with the next day and c6 with day t+6 give an excess of about (c1 - c6) / sqrt(2). LightGBM's
honest rank ICs on krx-2010s (0.126 over five days, 0.087 with the skip) imply c1 - c6 of 0.09, so an excess of 0.06;
a feature that correlates 0.3 with the next day gives 0.2. The limit lies between. A leak too weak to pass it cannot be
told from the bounce.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lasps.evaluation.predictions import Forecast
from lasps.evaluation.rank_ic import daily_rank_ic
from lasps.evaluation.significance import series_mean

FIRST_DAY_LIMIT = 0.10


@dataclass(frozen=True)
class LeakCheck:
    """The first-day excess (rank correlation) with its interval over `n_days`; None where it cannot be known."""

    excess: float | None
    interval: list[float] | None
    n_days: int

    @property
    def flagged(self) -> bool:
        return bool(self.interval is not None and self.interval[0] > FIRST_DAY_LIMIT)


def first_day_excess(f: Forecast) -> LeakCheck:
    """Apply the rule of this module to one forecast; no verdict without dates, both returns and 20 days."""
    if f.day is None or f.forward_return is None or f.forward_return_skip1 is None:
        return LeakCheck(None, None, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        first_minus_sixth = np.log1p(f.forward_return) - np.log1p(f.forward_return_skip1)
    daily = daily_rank_ic(f.score, first_minus_sixth, f.day, len(f.dates))
    found = series_mean("first_day_excess", daily)
    excess = found.difference if np.isfinite(found.difference) else None
    return LeakCheck(excess, found.interval, found.n_days)
