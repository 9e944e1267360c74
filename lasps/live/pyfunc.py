"""An evening's model written as MLflow loads it, and the table that it reads; `pyfunc_model.py` is what it runs."""

from __future__ import annotations

import warnings
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lasps.data.panel import PRICES
from lasps.live.model import write_without_pickle
from lasps.tracking.location import quiet_mlflow

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

REQUIREMENTS = ("torch", "polars", "lightgbm", "mlflow")


def save_pyfunc(folder: Path, scratch: Path) -> None:
    """Write the model into SCRATCH/model as MLflow loads it, from code: no pickle."""
    quiet_mlflow()
    import mlflow

    write_without_pickle(folder, scratch / "evening")
    with warnings.catch_warnings():  # of MLflow's own type hints; and an example would be a whole market
        warnings.filterwarnings("ignore", message=".*(AnyType|input example)")
        mlflow.pyfunc.save_model(
            scratch / "model",
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"evening": str(scratch / "evening")},
            signature=signature(),
            pip_requirements=[f"{name}=={installed(name)}" for name in REQUIREMENTS],
        )


def signature() -> ModelSignature:
    """Bars joined with the listing in, a table of probabilities out. MLflow wants prices as float and volume as int."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    text, number, day = DataType.string, DataType.double, DataType.datetime
    bars = {"code": text, "date": day, **dict.fromkeys(PRICES, number), "volume": DataType.long}
    inputs: list[Any] = [ColSpec(kind, name) for name, kind in bars.items()]
    inputs += [ColSpec(text, name, required=name != "market") for name in ("name", "market", "industry")]
    outputs = {"code": text, "name": text, "sector": text, "date": day, "p_sell": number, "p_hold": number}
    outputs |= {"p_buy": number, "class": text}
    return ModelSignature(
        Schema(inputs),
        Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
        ParamSchema([ParamSpec("date", text, "latest"), ParamSpec("waive", text, "")]),
    )


def market_table(bars: pl.DataFrame, listing: pl.DataFrame) -> pd.DataFrame:
    """What the model in MLflow reads: every bar with its stock's line of the listing, in the types of `signature`.

    Args:
        bars, listing: as a source reads them, the whole market.
    """
    columns = [name for name in ("code", "name", "market", "industry") if name in listing.columns]
    lines = listing.select(columns).unique("code", keep="first")
    types: dict[str, Any] = {"date": pl.Datetime("ms"), **dict.fromkeys(PRICES, pl.Float64), "volume": pl.Int64}
    table = bars.select("code", *(pl.col(name).cast(kind) for name, kind in types.items()))
    return table.join(lines, on="code", how="left", maintain_order="left").to_pandas()
