"""The ledger held to account: its forecasts beside what became of them, as any other forecasts are evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from lasps.config.dataset_config import HORIZON, THRESHOLD
from lasps.data.labels import SELL
from lasps.data.panel import Panel
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.metrics import log_losses
from lasps.live.ledger import P_COLUMNS, Evening, Ledger
from lasps.live.outcomes import Outcomes, is_due, outcomes_at, readjusted


@dataclass(frozen=True)
class TrackRecord:
    """What a ledger is worth so far.

    Attributes:
        forecasts: model -> its forecasts of all days that are due and were not late, on the stocks whose labels have
            ended; a model that joined later has fewer days.
        days: one row per evening: date, late, due, stocks, ended, open, gone, readjusted.
        open: the stocks of due days that have not ended: date, code, status, last_day, last_return.
        with_open_as_sell: model -> (log loss, log loss if every open label were SELL): what the open ones can cost.
    """

    forecasts: dict[str, Forecast]
    days: pl.DataFrame
    open: pl.DataFrame
    with_open_as_sell: dict[str, tuple[float, float]]


def track_record(
    ledger: Ledger, outcomes: Outcomes, panel: Panel, horizon: int = HORIZON, threshold: float = THRESHOLD
) -> TrackRecord:
    """Write down what has ended since the last time, and evaluate everything that has.

    Args:
        panel: the newest pull of the whole market's bars.

    Raises:
        LedgerError: the ledger does not verify, or is of another kind.
    """
    rows, tables, still_open = [], [], []
    for evening in ledger.verified():
        codes = evening.table["code"].unique().sort().to_list()
        found = outcomes_at(panel, evening.day, codes, horizon, threshold)
        due = is_due(evening.day, panel.calendar, horizon)
        if due:
            outcomes.record(evening.day, found)
        known = outcomes.read(evening.day)
        rows.append(_day_row(evening, found, due))
        if not due or evening.late:
            continue
        joined = evening.table.join(known, on="code", how="left", maintain_order="left")
        tables.append(joined.with_columns(date=pl.lit(evening.day)))
        waiting = found.filter(pl.col("status") != "ended").with_columns(date=pl.lit(evening.day))
        still_open.append(waiting.select("date", "code", "status", "last_day", "last_return"))
    everything = pl.concat(tables) if tables else None
    return TrackRecord(
        {} if everything is None else _forecasts(everything),
        pl.DataFrame(rows, schema=_DAYS),
        pl.concat(still_open) if still_open else pl.DataFrame(schema=_OPEN),
        {} if everything is None else _bounds(everything),
    )


def _day_row(evening: Evening, found: pl.DataFrame, due: bool) -> dict[str, date | bool | int]:
    counts = dict(found["status"].value_counts().iter_rows())
    closes = evening.table.unique("code").select("code", then="close").join(found, on="code", how="left")
    moved = readjusted(closes["then"].to_numpy(), closes["close"].to_numpy())
    return {
        "date": evening.day,
        "late": evening.late,
        "due": due,
        "stocks": found.height,
        **{status: int(counts.get(status, 0)) for status in ("ended", "open", "gone")},
        "readjusted": int(moved.sum()),
    }


def _forecasts(everything: pl.DataFrame) -> dict[str, Forecast]:
    ended = everything.filter(pl.col("label").is_not_null())
    found = {}
    for (model,), rows in ended.sort("date", "code").group_by("model", maintain_order=True):
        samples = rows.select("code", "date", "forward_return", "forward_return_skip1")
        p, labels, sectors = rows.select(P_COLUMNS).to_numpy(), rows["label"].to_numpy(), rows["sector"].to_numpy()
        forecast = Forecast.from_probabilities(p, labels.astype(np.int64), sectors.astype(np.int64), samples=samples)
        found[str(model)] = forecast.named(str(model), "test")
    return found


def _bounds(everything: pl.DataFrame) -> dict[str, tuple[float, float]]:
    found = {}
    for (model,), rows in everything.group_by("model", maintain_order=True):
        ended = rows["label"].is_not_null().to_numpy()
        labels = rows["label"].fill_null(SELL).to_numpy().astype(np.int64)
        losses = log_losses(rows.select(P_COLUMNS).to_numpy(), labels)
        if ended.any():
            found[str(model)] = (float(losses[ended].mean()), float(losses.mean()))
    return found


_DAYS = {
    "date": pl.Date,
    "late": pl.Boolean,
    "due": pl.Boolean,
    **dict.fromkeys(("stocks", "ended", "open", "gone", "readjusted"), pl.Int64),
}
_OPEN = {"date": pl.Date, "code": pl.String, "status": pl.String, "last_day": pl.Date, "last_return": pl.Float64}
