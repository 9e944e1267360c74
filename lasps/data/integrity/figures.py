"""Small tables that the report's pictures are drawn from, taken while the data is at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

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
    """label_years: label shares by year, or by split where dates are unknown; charts: [(caption, picture)]."""
    table = label_table(data)
    dated = table.filter(pl.col("year").is_not_null())
    by = "year" if dated.height else "split"
    return {
        "label_shares": label_shares(dated if dated.height else table, by).rename({by: "group"}),
        "charts": contact_sheet(data),
    }
