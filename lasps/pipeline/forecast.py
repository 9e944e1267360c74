"""Forecasts from a checkpoint and bars alone: what the next five days bring, as known at one day's close."""

from __future__ import annotations

import datetime as dt
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
import torch
from loguru import logger

from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_NAMES
from lasps.data.charts import render
from lasps.data.features import FEATURES, compute_features
from lasps.data.panel import make_panel
from lasps.data.sampling import row_positions
from lasps.data.scaling import RobustScaler
from lasps.data.universe import select_universe, stored_markets
from lasps.evaluation.calibration import corrected_probabilities
from lasps.pipeline.validation import Checkpoint
from lasps.reproducibility import write_atomically

NEEDED = ("features", "scaler", "window", "chart_size", "universe", "horizon")
BATCH = 512


def forecast(checkpoint: Checkpoint, bars: pl.DataFrame, listing: pl.DataFrame, date: str = "latest",
             device: str = "cpu") -> pl.DataFrame:
    """The class probabilities of every stock that traded on `date` and has a full window of history.

    Args:
        checkpoint: with its .json; that names features, scaler, window and chart size.
        bars, listing: as a source reads them (lasps.data.sources.files).
        date: "latest" or a trading day, "2025-06-17". Later bars are not looked at.

    Returns:
        code, name, sector, date, p_sell, p_hold, p_buy, class; sorted by p_buy - p_sell, highest first.

    Raises:
        ValueError: no .json beside the checkpoint, features this version does not know, a day without trading, or no
            stock with enough history.
    """
    data = inputs_of(checkpoint)
    panel, _ = make_panel(bars)
    day = trading_day(panel, date)
    known, _ = select_universe(panel.filter(pl.col("date") <= day), listing, data["universe"]["name"],
                               stored_markets(data["universe"]))
    ends = rows_at(known, day, data["window"], data.get("warm_up") or 0)
    series, charts, sectors = model_inputs(known, ends, data)
    logits = predict_in_batches(checkpoint, series, charts, sectors, data, device)
    p = corrected_probabilities(logits, checkpoint.gammas_of(sectors), checkpoint.calibration["class_weights"])
    return forecast_table(known[ends], listing, p)


def inputs_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the checkpoint's .json says about its inputs, checked against this version of lasps."""
    data = checkpoint.meta.get("data") or {}
    missing = [key for key in NEEDED if data.get(key) is None]
    if missing:
        raise ValueError(f"{checkpoint.path}: forecasts need {', '.join(missing)} from the .json beside the "
                         "checkpoint, which lasps writes when it trains on its own datasets. Train on one with "
                         "experiments/train.py.")
    unknown = sorted(set(data["features"]) - {feature.name for feature in FEATURES})
    if unknown:
        raise ValueError(f"{checkpoint.path}: trained on features that this version does not have: {unknown}. "
                         f"Use the version at git commit {checkpoint.meta.get('git_commit')}.")
    if len(data["features"]) != checkpoint.model.ts_input_dim:
        raise ValueError(f"{checkpoint.path}: the .json names {len(data['features'])} features, the model takes "
                         f"{checkpoint.model.ts_input_dim}: they do not belong together.")
    return data


def trading_day(panel: pl.DataFrame, date: str) -> dt.date:
    """The day that `date` names; ValueError unless some stock traded on it."""
    first, last = panel["date"].min(), panel["date"].max()
    if date == "latest":
        return last  # type: ignore[return-value]
    try:
        day = dt.date.fromisoformat(date)
    except ValueError:
        raise ValueError(f"--date: expected 'latest' or a day like 2025-06-17, got {date!r}") from None
    if panel.filter(pl.col("date") == day).is_empty():
        raise ValueError(f"--date {date}: expected a trading day of the source ({first!s} .. {last!s}), nothing traded "
                         "then")
    return day


def rows_at(panel: pl.DataFrame, day: dt.date, window: int, warm_up: int = 0) -> np.ndarray:
    """The panel rows of `day` that end a full window; ValueError where there is none."""
    ends = np.flatnonzero((panel["date"] == day).to_numpy() & (row_positions(panel) >= window - 1 + warm_up))
    if not len(ends):
        raise ValueError(f"{day}: expected stocks with at least {window + warm_up} traded days up to it, found none in "
                         "the universe")
    return ends


def model_inputs(panel: pl.DataFrame, ends: np.ndarray,
                 data: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scaled windows (B,T,F) float32, bars (B,T,5) float32 and sector ids (B,) of the windows that end at `ends`."""
    scaler = RobustScaler.from_dict(data["scaler"])
    features = scaler.transform(compute_features(panel, data["features"]))
    window = ends[:, None] + np.arange(1 - data["window"], 1)
    bars = panel.select("open", "high", "low", "close", "volume").to_numpy().astype(np.float32)
    return features[window], bars[window], panel["sector"].to_numpy()[ends].astype(np.int64)


@torch.inference_mode()
def predict_in_batches(checkpoint: Checkpoint, series: np.ndarray, bars: np.ndarray, sectors: np.ndarray,
                       data: dict[str, Any], device: str) -> np.ndarray:
    """Logits (B, 3), each sample through its sector's head."""
    model, logits = checkpoint.model.to(device).eval(), []
    for start in range(0, len(sectors), BATCH):
        part = slice(start, start + BATCH)
        charts = render(torch.from_numpy(np.ascontiguousarray(bars[part])), tuple(data["chart_size"]))
        ts, sid = torch.from_numpy(series[part]).to(device), torch.from_numpy(sectors[part]).to(device)
        logits.append(model(ts, charts.to(device), sid)["logits"].float().cpu().numpy())
    return np.concatenate(logits)


def forecast_table(rows: pl.DataFrame, listing: pl.DataFrame, probabilities: np.ndarray) -> pl.DataFrame:
    """The forecast as a table a person can read."""
    sector_names = {sector.id: sector.korean for sector in SECTORS}
    columns = {f"p_{name.lower()}": probabilities[:, i] for i, name in enumerate(CLASS_NAMES)}
    classes = [CLASS_NAMES[i] for i in probabilities.argmax(axis=1)]
    table = rows.select("code", "date", "sector").with_columns(
        **{name: pl.Series(values) for name, values in columns.items()}, **{"class": pl.Series(classes)})
    named = table.join(listing.select("code", "name"), on="code", how="left", maintain_order="left")
    order = (pl.col("p_buy") - pl.col("p_sell")).alias("order")
    return (named.with_columns(pl.col("sector").cast(pl.Int64).replace_strict(sector_names), order)
            .sort("order", "code", descending=[True, False])
            .select("code", "name", "sector", "date", "p_sell", "p_hold", "p_buy", "class"))


def write_forecast(table: pl.DataFrame, path: Path) -> None:
    """Write the forecast in one step as parquet, or as CSV (utf-8 with a BOM: spreadsheets read the Korean names).

    In the CSV a text that a spreadsheet would take for a formula has an apostrophe before it, as spreadsheets do.
    """
    formula = cs.string().str.contains(r"^[=+\-@\t\r\n]")
    safe = table.with_columns(pl.when(formula).then("'" + cs.string()).otherwise(cs.string()).name.keep())
    as_csv = partial(safe.write_csv, include_bom=True)
    write_atomically(path, table.write_parquet if path.suffix == ".parquet" else as_csv)
    logger.info(f"Saved: {path}")
