"""An evening's model as MLflow loads it: `mlflow.pyfunc.load_model("models:/lasps@champion").predict(bars)`.

MLflow runs this file where a model is loaded ("models from code"): nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import polars as pl
from mlflow.pyfunc.model import PythonModel

from lasps.config import clock
from lasps.data.datasets.panel_samples import PanelRows
from lasps.data.panel import PRICES, Panel
from lasps.live.model import CHAMPION, EveningModel
from lasps.pipeline.forecast import WHOLE_MARKET, forecast_table, gated, trading_day

BARS = ("code", "date", *PRICES, "volume")
LISTING = ("code", "name", "market", "industry")


class EveningPyfunc(PythonModel):
    """The champion's forecast of the last whole day (or of `date`) in the whole market's bars."""

    model: EveningModel

    def load_context(self, context: Any) -> None:
        """Open the model's folder among the artifacts."""
        self.model = EveningModel.open(Path(context.artifacts["evening"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """code, name, sector, date, p_sell, p_hold, p_buy, class of every stock, most bullish first.

        Args:
            model_input: daily bars of the whole market, each with its stock's line of the listing: BARS and LISTING.
            params: date ("latest" or a trading day), waive (fatal findings to accept, by name, with commas).

        Raises:
            ValueError: a part of the market, no whole day, or no stock with enough history.
            IntegrityError: a fatal finding in the bars that the forecast reads.
        """
        options = params or {}
        waive = [name for name in str(options.get("waive", "")).split(",") if name]
        return forecast_market(self.model, model_input, str(options.get("date", "latest")), waive)


def forecast_market(
    model: EveningModel, table: pd.DataFrame, date: str = "latest", waive: Sequence[str] = ()
) -> pd.DataFrame:
    """As `EveningPyfunc.predict`: a day's ranks need every stock, so a part of the market is refused."""
    bars, listing = bars_and_listing(table)
    day = trading_day(bars, date, clock.now())
    _, panel = gated(bars, listing, model.inputs, day, waive)
    samples = PanelRows(Panel(panel), model.inputs).on(day)
    found, known = len(samples), int(model.about["stocks"])
    if found < WHOLE_MARKET * known:
        raise ValueError(
            f"{day}: expected bars of the whole market, {known:,} stocks when the model was trained, found {found:,} "
            "with enough history. Its features rank each stock among all of its day: give every stock's bars"
        )
    shown = forecast_table(panel[samples.ends], listing, model.predict(samples)[CHAMPION])
    return shown.to_pandas()


def bars_and_listing(table: pd.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The two tables that were joined; a stock with nothing but its bars is none of the listing's."""
    rows = pl.from_pandas(table.reset_index(drop=True))
    listing = rows.select(name for name in LISTING if name in rows.columns).unique("code", keep="last")
    listing = listing.filter(~pl.all_horizontal(pl.exclude("code").is_null()))
    return rows.select(BARS).with_columns(pl.col("date").cast(pl.Date)), listing


mlflow.models.set_model(EveningPyfunc())
