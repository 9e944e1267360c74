"""What the ranking would have earned: deciles, the long-only top decile, turnover, taxes.

Every day the day's stocks are sorted by score into ten groups of equal size (equal scores stay together), each held
equally weighted for the label's horizon of 5 trading days, so that five portfolios overlap and a fifth of the book is
renewed daily (Jegadeesh & Titman 1993). Returns are per 5-day holding, as fractions, close to close. Long-only comes
first: short selling was banned for long spells, and day-one prices are not always tradable.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lasps.config.dataset_config import HORIZON
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.rank_ic import MIN_DAYS, MIN_STOCKS, grouped_ranks
from lasps.evaluation.significance import Difference, series_mean

Array = NDArray[np.float64]
N_DECILES = 10

TAX_ON_SALES: tuple[tuple[dt.date, float], ...] = (
    (dt.date(1996, 1, 1), 0.0030),
    (dt.date(2019, 6, 3), 0.0025),
    (dt.date(2021, 1, 1), 0.0023),
    (dt.date(2023, 1, 1), 0.0020),
    (dt.date(2024, 1, 1), 0.0018),
    (dt.date(2025, 1, 1), 0.0015),
    (dt.date(2026, 1, 1), 0.0020),
)
"""Korean securities transaction tax on sales, KOSPI (with the agricultural surtax) and KOSDAQ alike: first day of
transfer and rate (Enforcement Decree of the Securities Transaction Tax Act, art. 5, and its amendments)."""

SHORT_SALE_BANS: tuple[tuple[dt.date, dt.date], ...] = (
    (dt.date(2011, 8, 10), dt.date(2011, 11, 9)),
    (dt.date(2020, 3, 16), dt.date(2021, 5, 2)),
    (dt.date(2023, 11, 6), dt.date(2025, 3, 30)),
)
"""Short selling of all listed shares was banned (Financial Services Commission). From 2021-05-03 to 2023-11-05 it was
allowed in KOSPI 200 and KOSDAQ 150 members only; before the bans lending was thin in small stocks."""


@dataclass(frozen=True)
class Costs:
    """Costs as fractions of the traded value. tax None: the year's rate on sales."""

    per_side: float = 0.0010  # commission and half a spread (guess, not tuned; small stocks cost more)
    tax: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.per_side < 0.1 or not 0 <= (self.tax or 0.0) < 0.1:
            raise ValueError(f"costs are fractions of the traded value in 0..0.1, got {self.per_side} and {self.tax}")

    def of_round_trip(self, dates: Sequence[dt.date]) -> Array:
        """(T,) cost of buying and selling everything once, for a sale on each date."""
        taxes = [self.tax if self.tax is not None else sales_tax(d) for d in dates]
        return np.array(taxes) + 2 * self.per_side


def sales_tax(date: dt.date) -> float:
    """The securities transaction tax on a sale transferred on `date`."""
    rate = TAX_ON_SALES[0][1]
    for since, new_rate in TAX_ON_SALES:
        if date >= since:
            rate = new_rate
    return rate


def short_selling_banned(date: dt.date) -> bool:
    """Whether all short selling was banned on `date`."""
    return any(first <= date <= last for first, last in SHORT_SALE_BANS)


def deciles(f: Forecast) -> NDArray[np.int64]:
    """(N,) decile 0..9 of the score within its day; -1 without a score or on days with under MIN_STOCKS scores."""
    if f.day is None:
        raise ValueError("deciles need dates: this table has none")
    out = np.full(f.n, -1, dtype=np.int64)
    score = f.score
    known = np.isfinite(score)
    if known.any():
        count = np.bincount(f.day[known], minlength=len(f.dates))[f.day]
        ranks = grouped_ranks(score[known], f.day[known])
        out[known] = np.minimum(((ranks - 0.5) / count[known] * N_DECILES).astype(np.int64), N_DECILES - 1)
        out[count < MIN_STOCKS] = -1
    return out


def decile_returns(f: Forecast, decile: NDArray[np.int64]) -> tuple[Array, Array]:
    """((T, 10) mean forward return of each decile on each day, (T,) of all stocks with a score); NaN where none."""
    assert f.day is not None and f.forward_return is not None
    n_days = len(f.dates)
    use = (decile >= 0) & np.isfinite(f.forward_return)
    cell, returns = f.day[use] * N_DECILES + decile[use], f.forward_return[use]
    sums = np.bincount(cell, returns, minlength=n_days * N_DECILES).reshape(n_days, N_DECILES)
    counts = np.bincount(cell, minlength=n_days * N_DECILES).reshape(n_days, N_DECILES)
    with np.errstate(invalid="ignore"):
        return sums / counts, sums.sum(1) / counts.sum(1)


def turnover(f: Forecast, member: NDArray[np.bool_], horizon: int = HORIZON) -> Array:
    """(T,) share of a day's portfolio that its predecessor of `horizon` days before did not hold.

    Each of the overlapping portfolios replaces this share when it is renewed, every `horizon` days. NaN at the start
    and where fewer than half of the day's stocks were there `horizon` days before (a split of every sixth sample, say).
    """
    assert f.day is not None and f.codes is not None
    kept, size = _still_there(f, member, horizon)
    present, stocks = _still_there(f, np.ones(f.n, dtype=bool), horizon)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((size > 0) & (present >= 0.5 * stocks) & (present > 0), 1 - kept / size, np.nan)


def _still_there(f: Forecast, member: NDArray[np.bool_], horizon: int) -> tuple[Array, Array]:
    """((T,) members that were members `horizon` days before, (T,) members)."""
    assert f.day is not None and f.codes is not None
    day, n_days = f.day[member], len(f.dates)
    keys = f.codes[member] * (n_days + horizon) + day
    stays = np.isin(keys - horizon, keys) & (day >= horizon)
    kept = np.bincount(day, stays, minlength=n_days).astype(np.float64)
    return kept, np.bincount(day, minlength=n_days).astype(np.float64)


@dataclass(frozen=True)
class Book:
    """What one forecast's deciles earn per day: by_decile (T, 10), universe, turnover and cost (T,); NaN where none."""

    by_decile: Array
    universe: Array
    turnover: Array
    cost: Array


def book_of(f: Forecast, costs: Costs) -> Book | None:
    """None without dates, returns or enough stocks. Where turnover is unknown, its mean is paid for, or all of it."""
    if f.day is None or f.forward_return is None:
        return None
    decile = deciles(f)
    by_decile, universe = decile_returns(f, decile)
    if not np.isfinite(by_decile[:, -1]).any():
        return None
    renewed = turnover(f, decile == N_DECILES - 1)
    known = np.isfinite(renewed)
    paid = np.where(known, renewed, renewed[known].mean() if known.any() else 1.0)
    return Book(by_decile, universe, renewed, paid * costs.of_round_trip(f.dates))  # type: ignore[arg-type]


def portfolio_summary(seeds: Sequence[Forecast], costs: Costs | None = None) -> dict[str, Any] | None:
    """Deciles, long-only and long-short of a model, the mean over its seeds; None where there are no deciles.

    Long-only is the top decile minus the equal-weight universe of the same day, before and after costs: the share
    turned over x (tax + two sides). Long-short is top minus bottom decile before costs and borrowing fees, over all
    days and over the days on which short selling was not banned. `deciles` are each decile minus the universe. Every
    mean is over its own days, which it carries with an interval, and None under MIN_DAYS of them.
    """
    books = [book for f in seeds if (book := book_of(f, costs or Costs())) is not None]
    if len(books) < len(seeds):
        return None
    by_decile, universe, renewed, cost = (
        np.stack([getattr(book, name) for book in books]) for name in ("by_decile", "universe", "turnover", "cost")
    )
    top, bottom = by_decile[:, :, -1], by_decile[:, :, 0]
    banned = np.array([short_selling_banned(d) for d in seeds[0].dates])  # type: ignore[arg-type]
    there = np.isfinite(top)  # universe, top decile and cost stand in one row: means over the same days
    return {
        "horizon": HORIZON,
        "n_days": int(there.all(axis=0).sum()),
        "deciles": [_json(series_mean("decile", by_decile[:, :, k] - universe)) for k in range(N_DECILES)],
        "decile_returns": [_mean(by_decile[:, :, k]) for k in range(N_DECILES)],
        "universe_return": _mean(np.where(there, universe, np.nan)),
        "top_decile_return": _mean(top),
        "top_minus_universe": _json(series_mean("top_minus_universe", top - universe)),
        "turnover": _mean(renewed),
        "cost_per_holding": _mean(np.where(there, cost, np.nan)),
        "net_top_minus_universe": _json(series_mean("net_top_minus_universe", top - universe - cost)),
        "long_short": _json(series_mean("long_short", top - bottom)),
        "long_short_banned_days": int(banned.sum()),
        "long_short_allowed": _json(series_mean("long_short_allowed", np.where(banned, np.nan, top - bottom))),
    }


def _mean(x: Array) -> float | None:
    """Mean of (S, T) daily numbers over the days that every seed has; None under MIN_DAYS of them."""
    days = np.isfinite(x).all(axis=0)
    return float(x[:, days].mean()) if days.sum() >= MIN_DAYS else None


def _json(d: Difference) -> dict[str, Any]:
    row = d.row()
    return {"mean": row["difference"], "interval": d.interval, "p_value": d.p_value, "n_days": d.n_days}
