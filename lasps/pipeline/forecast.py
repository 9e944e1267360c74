"""Forecasts from a checkpoint and bars alone: what the next five days bring, as known at one day's close."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from loguru import logger

from lasps.config import clock
from lasps.config.clock import last_day_over
from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_NAMES
from lasps.data.datasets.panel_samples import PanelRows
from lasps.data.features import FEATURES, features_named
from lasps.data.integrity import IntegrityReport
from lasps.data.panel import Panel, is_empty, is_halted
from lasps.data.universe import stored_markets
from lasps.pipeline.datasets import look_at
from lasps.reproducibility import write_atomically
from lasps.training.checkpoints import Checkpoint
from lasps.training.ensembles import Ensemble

WHOLE_MARKET, RECENT_DAYS = 0.8, 20
"""A day is whole when this share of the codes of the days before has a bar. Guess: real days have 0.99."""
NEEDED = ("features", "scaler", "window", "chart_size", "universe", "horizon")


def forecast(
    checkpoint: Checkpoint | Ensemble,
    bars: pl.DataFrame,
    listing: pl.DataFrame,
    date: str = "latest",
    waive: Sequence[str] = (),
) -> tuple[pl.DataFrame, IntegrityReport]:
    """The class probabilities of every stock that traded on `date` and has a full window of history.

    The integrity gate looks first at every row that the forecast reads.

    Args:
        checkpoint: with its .json; that names features, scaler, window and chart size.
        bars, listing: as a source reads them (lasps.data.sources.files).
        date: "latest" (`latest_day`) or a trading day, "2025-06-17". Later bars are not looked at.
        waive: fatal findings to accept, by name.

    Returns:
        code, name, sector, date, p_sell, p_hold, p_buy, class; sorted by p_buy - p_sell, highest first. And the gate's
        report.

    Raises:
        ValueError: no .json beside the checkpoint, features this version does not know, a day without trading, or no
            stock with enough history.
        IntegrityError: fatal findings in the rows that the forecast reads.
    """
    data = inputs_of(checkpoint)
    day = trading_day(bars, date)
    report, known = gated(bars, listing, data, day, waive)
    samples = PanelRows(Panel(known), data).on(day)
    return forecast_table(known[samples.ends], listing, checkpoint.predict(samples).p), report


def gated(
    bars: pl.DataFrame,
    listing: pl.DataFrame,
    data: Mapping[str, Any],
    day: dt.date,
    waive: Sequence[str] = (),
    whole: bool = False,
) -> tuple[IntegrityReport, pl.DataFrame]:
    """The gate's report on what a forecast of `day` reads, and the universe's panel up to that day.

    A stock's window and what its features look back at are read, by each stock from its own last rows; ranks and market
    means read the same days of all others.

    Args:
        whole: look at every row up to that day, as a training that reads them needs it.

    Raises:
        IntegrityError: a fatal finding that is not waived.
    """
    rows = data["window"] + (data.get("warm_up") or 0) + max(f.lookback for f in features_named(data["features"]))
    seen = look_at(
        bars.filter(pl.col("date").cast(pl.Date) <= day),
        listing,
        data["universe"]["name"],
        waive,
        stored_markets(data["universe"]),
        None if whole else rows,
    )
    seen.report.raise_if_fatal(waive)
    return seen.report, seen.selected()


def inputs_of(checkpoint: Checkpoint | Ensemble) -> dict[str, Any]:
    """What the checkpoint's .json says about its inputs, checked against this version of lasps."""
    data = checkpoint.card.data
    missing = [key for key in NEEDED if data.get(key) is None]
    if missing:
        raise ValueError(
            f"{checkpoint.path}: forecasts need {', '.join(missing)} from the .json beside the "
            "checkpoint, which lasps writes when it trains on its own datasets. Train on one with "
            "experiments/train.py."
        )
    unknown = sorted(set(data["features"]) - {feature.name for feature in FEATURES})
    if unknown:
        raise ValueError(
            f"{checkpoint.path}: trained on features that this version does not have: {unknown}. "
            f"Use the version at git commit {checkpoint.card.git_commit}."
        )
    if len(data["features"]) != checkpoint.model.ts_input_dim:
        raise ValueError(
            f"{checkpoint.path}: the .json names {len(data['features'])} features, the model takes "
            f"{checkpoint.model.ts_input_dim}: they do not belong together."
        )
    return data


def trading_day(bars: pl.DataFrame, date: str, now: dt.datetime | None = None) -> dt.date:
    """The day that `date` names.

    Args:
        bars: raw bars.
        date: "latest" or an ISO date.
        now: the moment, with a time zone; the clock's.

    Raises:
        ValueError: no date, a day that is not over in Seoul, or one on which nothing traded.
    """
    over = last_day_over(now or clock.now())
    days = _days_with_bars(bars)
    if date == "latest":
        return latest_day(days, over)
    try:
        day = dt.date.fromisoformat(date)
    except ValueError:
        raise ValueError(f"--date: expected 'latest' or a day like 2025-06-17, got {date!r}") from None
    if day > over:
        raise ValueError(
            f"--date {date}: expected a day that is over in Seoul ({over} is the last); its bars still change"
        )
    if days.filter((pl.col("date") == day) & pl.col("traded")).is_empty():
        raise ValueError(
            f"--date {date}: expected a trading day of the source ({days['date'].min()!s} .. "
            f"{days['date'].max()!s}), nothing traded then"
        )
    return day


def latest_day(days: pl.DataFrame, over: dt.date) -> dt.date:
    """The last day until `over` on which WHOLE_MARKET of the codes of the RECENT_DAYS days before have a bar.

    So a half-updated source, a stray Sunday or a running day is not taken for today; what is passed over is said.

    Args:
        days: code, date and `traded`, one row per bar.

    Raises:
        ValueError: there is no such day.
    """
    dates = days["date"].unique().sort()
    known = dates.filter(dates <= over)
    passed: list[str] = []
    for i in range(len(known) - 1, -1, -1):
        day, recent = known[i], known[max(0, i - RECENT_DAYS) : i]
        before = days.filter(pl.col("date").is_in(recent.implode()))["code"].unique()
        here = days.filter((pl.col("date") == day) & pl.col("code").is_in(before.implode()))
        if here.height >= WHOLE_MARKET * len(before) and days.filter((pl.col("date") == day) & pl.col("traded")).height:
            break
        passed.append(f"{day} ({here.height:,} of {len(before):,} stocks have a bar)")
    else:
        raise ValueError(
            f"--date latest: expected a day until {over} on which {WHOLE_MARKET:.0%} of the stocks of the "
            f"days before have a bar, found none among {len(known)} days. Name one with --date."
        )
    if len(known) < len(dates):
        passed.insert(0, f"{dates[-1]} (not over in Seoul)")
    if passed:
        logger.warning(
            f"latest: forecasts as of {day}; passed over: {', '.join(passed[:5])}"
            + (f" and {len(passed) - 5} more" if len(passed) > 5 else "")
        )
    return day


def _days_with_bars(bars: pl.DataFrame) -> pl.DataFrame:
    """code, date, traded of every row with a value."""
    return (
        bars.filter(~is_empty() & pl.col("date").is_not_null())
        .select(pl.col("code").cast(pl.String), pl.col("date").cast(pl.Date), traded=~is_halted())
        .unique(["code", "date"])
    )


def forecast_table(rows: pl.DataFrame, listing: pl.DataFrame, probabilities: np.ndarray) -> pl.DataFrame:
    """The forecast as a table a person can read."""
    sector_names = {sector.id: sector.korean for sector in SECTORS}
    columns = {f"p_{name.lower()}": probabilities[:, i] for i, name in enumerate(CLASS_NAMES)}
    classes = [CLASS_NAMES[i] for i in probabilities.argmax(axis=1)]
    table = rows.select("code", "date", "sector").with_columns(
        **{name: pl.Series(values) for name, values in columns.items()}, **{"class": pl.Series(classes)}
    )
    named = table.join(listing.select("code", "name"), on="code", how="left", maintain_order="left")
    order = (pl.col("p_buy") - pl.col("p_sell")).alias("order")
    return (
        named.with_columns(pl.col("sector").cast(pl.Int64).replace_strict(sector_names), order)
        .sort("order", "code", descending=[True, False])
        .select("code", "name", "sector", "date", "p_sell", "p_hold", "p_buy", "class")
    )


def write_forecast(table: pl.DataFrame, path: Path) -> None:
    """Write the forecast in one step as parquet, or as CSV (utf-8 with a BOM: spreadsheets read the Korean names).

    In the CSV a text that a spreadsheet would take for a formula has an apostrophe before it, as spreadsheets do.
    """
    formula = cs.string().str.contains(r"^[=+\-@\t\r\n]")
    safe = table.with_columns(pl.when(formula).then("'" + cs.string()).otherwise(cs.string()).name.keep())
    as_csv = partial(safe.write_csv, include_bom=True)
    write_atomically(path, table.write_parquet if path.suffix == ".parquet" else as_csv)
    logger.info(f"Saved: {path}")
