"""The ledger held to account: its forecasts beside what became of them, as any other forecasts are evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

from lasps.config.sectors import SECTORS
from lasps.data.labels import SELL
from lasps.evaluation.comparison import Comparison, compare
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.metrics import log_losses
from lasps.live.alarm import Alarm, AlarmState, state
from lasps.live.day_scores import day_scores
from lasps.live.ledger import P_COLUMNS, Ledger
from lasps.live.model import CHAMPION, PRIOR
from lasps.live.outcomes import STATUS, Outcomes, Pull, readjusted


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

    def as_json(self) -> dict[str, Any]:
        """Evenings and open labels as plain rows, days as text."""
        as_text = cs.date().cast(pl.String)
        return {
            "evenings": self.days.with_columns(as_text).to_dicts(),
            "open": self.open.with_columns(as_text).to_dicts(),
            "log_loss_with_open_as_sell": {name: high for name, (_, high) in self.with_open_as_sell.items()},
        }


def track_record(ledger: Ledger, outcomes: Outcomes, pull: Pull) -> TrackRecord:
    """Write down what has ended since the last time, and evaluate everything that has.

    Args:
        pull: the newest pull of the whole market's bars.

    Raises:
        LedgerError: the ledger does not verify, or is of another kind.
    """
    evenings = list(ledger.verified())
    if not evenings:
        return TrackRecord({}, pl.DataFrame(schema=_DAYS), pl.DataFrame(schema=_OPEN), {})
    about = pl.DataFrame([(e.day, e.late, pull.is_due(e.day)) for e in evenings], schema=_EVENING, orient="row")
    everything = pl.concat(e.table.with_columns(date=pl.lit(e.day)) for e in evenings)
    closes = everything.unique(["date", "code"], keep="first", maintain_order=True).select("date", "code", then="close")
    found = pull.outcomes(closes).with_columns(closes["then"]).join(about, on="date", how="left", maintain_order="left")
    outcomes.record(found.filter("due"))
    scored = everything.join(
        about.filter(pl.col("due") & ~pl.col("late")), on="date", how="semi", maintain_order="left"
    )
    scored = scored.join(outcomes.read(), on=["date", "code"], how="left", maintain_order="left")
    waiting = found.filter(pl.col("due") & ~pl.col("late") & (pl.col("status") != "ended"))
    return TrackRecord(
        _forecasts(scored) if scored.height else {},
        _days(found, about),
        waiting.select(*_OPEN),
        _bounds(scored) if scored.height else {},
    )


def recorded(ledger: Ledger, outcomes: Outcomes) -> dict[str, Forecast]:
    """As `TrackRecord.forecasts`, from what was written down so far: no bars are read, nothing is written."""
    evenings = [evening for evening in ledger.verified() if not evening.late]
    if not evenings:
        return {}
    everything = pl.concat(e.table.with_columns(date=pl.lit(e.day)) for e in evenings)
    known = outcomes.read()
    scored = everything.filter(pl.col("date").is_in(known["date"].unique().implode()))
    return _forecasts(scored.join(known, on=["date", "code"], how="left", maintain_order="left"))


def compared(record: TrackRecord) -> Comparison | None:
    """The champion beside all that was written down with it, as any models are compared; None where nothing is due."""
    return against_others(record.forecasts)


def against_others(of_models: Mapping[str, Forecast]) -> Comparison | None:
    """As `compared`, from forecasts by name."""
    forecasts = {name: {"test": [forecast]} for name, forecast in of_models.items()}
    if CHAMPION not in forecasts:
        return None
    others = {name: by_split for name, by_split in forecasts.items() if name != CHAMPION}
    return compare({CHAMPION: forecasts[CHAMPION]}, baselines=others, sector_names=[s.english for s in SECTORS])


def edge(forecasts: Mapping[str, Forecast]) -> pl.DataFrame:
    """The champion's log loss minus the prior's on each due day that both have: date, difference."""
    if not {CHAMPION, PRIOR} <= forecasts.keys():
        return pl.DataFrame(schema={"date": pl.Date, "difference": pl.Float64})
    own, prior = (day_scores(name, forecasts[name]) for name in (CHAMPION, PRIOR))
    both = own.join(prior, on="date", suffix="_prior").sort("date")
    return both.select("date", difference=pl.col("log_loss") - pl.col("log_loss_prior"))


def alarm_state(forecasts: Mapping[str, Forecast], alarm: Alarm | None) -> AlarmState | None:
    """How the alarm stands; None where none is calibrated."""
    if alarm is None:
        return None
    table = edge(forecasts)
    return state(table["date"].to_list(), table["difference"].to_numpy(), alarm)


def _days(found: pl.DataFrame, about: pl.DataFrame) -> pl.DataFrame:
    moved = readjusted(found["then"].to_numpy(), found["close"].to_numpy())
    counts = (
        found.with_columns(readjusted=pl.Series(moved))
        .group_by("date")
        .agg(
            pl.len().alias("stocks"),
            *((pl.col("status") == status).sum().alias(status) for status in STATUS),
            pl.col("readjusted").sum(),
        )
    )
    return about.join(counts, on="date", how="left", maintain_order="left").select(
        pl.col(name).cast(dtype) for name, dtype in _DAYS.items()
    )


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
_EVENING = {name: _DAYS[name] for name in ("date", "late", "due")}
_OPEN = {"date": pl.Date, "code": pl.String, "status": pl.String, "last_day": pl.Date, "last_return": pl.Float64}
