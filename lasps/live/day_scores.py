"""Forecasts scored day by day: what schedules are composed of, and what a champion is held against."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lasps.evaluation.forecast import Forecast
from lasps.evaluation.metrics import daily_ic, daily_ic_skip1, log_losses
from lasps.evaluation.significance import Difference, series_mean

SCORES = {
    "date": pl.Date(),
    "model": pl.String(),
    "n": pl.Int64(),
    "log_loss": pl.Float64(),
    "accuracy": pl.Float64(),
    "rank_ic": pl.Float64(),
    "rank_ic_skip1": pl.Float64(),
}
"""A day's scores of one model: means over its n stocks whose labels have ended; null where undefined."""


def day_scores(name: str, forecast: Forecast) -> pl.DataFrame:
    """A forecast's scores by day, a frame of SCORES; its samples have days."""
    assert forecast.day is not None and forecast.dates is not None
    n_days, dates = len(forecast.dates), list(forecast.dates)
    n = np.bincount(forecast.day, minlength=n_days)
    of_samples = (log_losses(forecast.p, forecast.labels), forecast.predicted == forecast.labels)
    by_day = [np.bincount(forecast.day, values, minlength=n_days) / n for values in of_samples]
    columns = [dates, [name] * n_days, n, *by_day, daily_ic(forecast), daily_ic_skip1(forecast)]
    table = pl.DataFrame(dict(zip(SCORES, columns, strict=True)), schema_overrides=SCORES)
    return table.with_columns(pl.col("rank_ic", "rank_ic_skip1").fill_nan(None))


def means(scores: pl.DataFrame) -> dict[str, float | None]:
    """One model's scores over all its days: log loss and accuracy of samples, rank ICs of days."""
    shares = scores["n"] / scores["n"].sum()
    found: dict[str, Any] = {name: (scores[name] * shares).sum() for name in ("log_loss", "accuracy")}
    return found | {name: scores[name].mean() for name in ("rank_ic", "rank_ic_skip1")}


def difference(scores: pl.DataFrame, than: pl.DataFrame, metric: str) -> Difference:
    """One model's `scores` minus another's on their common days, with a 95 % interval over days.

    Log loss and accuracy weigh each day by its stocks, as a mean over samples does. NaN without an interval under
    `rank_ic.MIN_DAYS` days.
    """
    both = scores.join(than, on="date", suffix="_than").sort("date")
    by_day = both[metric] - both[f"{metric}_than"]
    if metric in ("log_loss", "accuracy"):
        by_day = by_day * both["n"] / both["n"].mean()
    return series_mean(metric, by_day.cast(pl.Float64).fill_null(np.nan).to_numpy())
