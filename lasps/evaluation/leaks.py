"""Does a forecast know tomorrow? A rule that tells a leak of the next day's return from an honest signal.

An honest score forecasts days t+1..t+5 about equally; its edge fades over days, and on real prices the first day also
carries the bounce between bid and ask. A leak of the next day's return makes the first day stand out by far. From the
two returns of a prediction table, log(1 + r[t -> t+5]) - log(1 + r[t+1 -> t+6]) = (log return of day t+1) - (that of
day t+6), so the *first-day excess* needs nothing more:

    excess = mean over days of the Spearman correlation of score and that difference.

Rule: flagged if the excess is surely above both limits: the lower end of its 95 % interval over days above
FIRST_DAY_LIMIT, and that of (excess - FIRST_DAY_SHARE x rank IC), taken day by day, above 0. Both ends, because on the
few days of a small test split either limit is passed by chance alone.

A one-day correlation c1 with the next day and c6 with day t+6 give an excess of about (c1 - c6) / sqrt(2). LightGBM's
honest rank ICs on krx-2010s (0.126 over five days, 0.087 with the skip) imply c1 - c6 of 0.09, so an excess of 0.06;
a feature that correlates 0.3 with the next day gives 0.2. The first limit lies between. The second is for markets with
stronger signals than real ones: a signal that fades by a fifth a day has an excess of 0.3 of its rank IC, a pure leak
of 1.6. (The synthetic markets' signals halve in about three days: honest models have 0.15 to 0.24 there, 0.42 to
0.63 of their rank IC, and are not flagged.) A leak too weak for the first limit cannot be told from the bounce, nor a
strong signal that halves within a day from a leak.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lasps.evaluation.forecast import Forecast
from lasps.evaluation.metrics import daily_ic
from lasps.evaluation.rank_ic import daily_rank_ic, mean_and_ratio
from lasps.evaluation.significance import series_mean

FIRST_DAY_LIMIT = 0.10
FIRST_DAY_SHARE = 0.6


@dataclass(frozen=True)
class LeakCheck:
    """The first-day excess with its interval over `n_days`, the rank IC, and the interval of their margin.

    The margin is excess - FIRST_DAY_SHARE x rank IC. None where unknown.
    """

    excess: float | None
    interval: list[float] | None
    n_days: int
    rank_ic: float | None = None
    margin: list[float] | None = None

    @property
    def flagged(self) -> bool:
        if self.interval is None or self.margin is None:
            return False
        return bool(self.interval[0] > FIRST_DAY_LIMIT and self.margin[0] > 0)


def first_day_excess(f: Forecast) -> LeakCheck:
    """Apply the rule of this module to one forecast; no verdict without dates, both returns and 20 days."""
    if f.day is None or f.forward_return is None or f.forward_return_skip1 is None:
        return LeakCheck(None, None, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        first_minus_sixth = np.log1p(f.forward_return) - np.log1p(f.forward_return_skip1)
    daily, ic = daily_rank_ic(f.score, first_minus_sixth, f.day, len(f.dates)), daily_ic(f)
    found = series_mean("first_day_excess", daily)
    margin = series_mean("first_day_margin", daily - FIRST_DAY_SHARE * ic)
    excess = found.difference if np.isfinite(found.difference) else None
    return LeakCheck(excess, found.interval, found.n_days, mean_and_ratio(ic)[0], margin.interval)
