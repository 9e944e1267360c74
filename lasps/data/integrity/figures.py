"""Small tables that the report's pictures are drawn from, taken while the data is at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lasps.config.sectors import SECTORS
from lasps.data.integrity.bars import Bars
from lasps.data.integrity.dataset_folder import Dataset
from lasps.data.integrity.inputs import contact_sheet
from lasps.data.integrity.samples import label_shares, label_table

MOVE_EDGES = np.linspace(-0.35, 0.35, 141)
"""Histogram edges of daily moves, 0.5 points wide: the limits show as walls at 15 and 30 %."""


def bar_figures(bars: Bars) -> dict[str, Any]:
    """coverage: (date, traded, listed); moves: histogram counts of close-to-close moves, the ends collect the rest."""
    moves = (bars.traded["change"].drop_nulls() - 1).clip(MOVE_EDGES[0], MOVE_EDGES[-1]).to_numpy()
    return {
        "coverage": bars.calendar.select("date", "traded", "listed"),
        "moves": np.histogram(moves, MOVE_EDGES)[0],
    }


def dataset_figures(data: Dataset) -> dict[str, Any]:
    """label_shares: group (a split, a year, a sector), n and the share of each class; charts: [(caption, picture)]."""
    table = label_table(data)
    names = {sector.id: sector.english for sector in SECTORS}
    shares = [
        label_shares(table.filter(pl.col(by).is_not_null()), by)
        .rename({by: "group"})
        .with_columns(
            pl.col("group").replace_strict(names, default=pl.col("group").cast(pl.String), return_dtype=pl.String)
            if by == "sector"
            else pl.col("group").cast(pl.String)
        )
        for by in ("split", "year", "sector")
    ]
    return {"label_shares": pl.concat(shares), "charts": contact_sheet(data)}
